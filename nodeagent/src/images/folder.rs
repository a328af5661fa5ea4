//! A folder of archives: imported at start, and again when something in it changes.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use super::blobs::replace_file;
use super::error::IoContext;
use super::store::blocking;
use super::{FolderReport, ImageError, Store};

/// Tells whether an archive is the one that was imported: size, time of change in nanoseconds, inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Stamp(u64, i64, i64, u64);

/// What was imported, by archive. Kept across restarts, since large archives take their time to read.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Seen(BTreeMap<PathBuf, (Stamp, Vec<String>)>);

impl Seen {
    /// A file that cannot be read costs another import, no more.
    pub fn load(store: &Path) -> Self {
        let bytes = fs::read(store.join(SEEN)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }
}

const SEEN: &str = "archives.json";

/// A copy of several archives should be one import.
const SETTLE: Duration = Duration::from_millis(300);
/// Where the kernel cannot tell, look this often.
const POLL: Duration = Duration::from_secs(30);

impl Store {
    /// Imports every archive (`*.tar`, `*.tar.gz`, `*.tgz`) of a folder, in the order of their names; those that
    /// were imported before and have not changed are skipped. One that cannot be imported does not keep the others out.
    pub async fn import_folder(&self, dir: &Path) -> Result<FolderReport, ImageError> {
        let dir = dir.to_owned();
        let archives = blocking(move || archives(&dir)).await?;
        let mut report = FolderReport::default();
        for (path, stamp) in archives {
            if self.is_imported(&path, stamp) {
                continue;
            }
            match self.import_archive(&path).await {
                Ok(names) => {
                    self.remember(&path, stamp, &names).await?;
                    report.imported.push((path, names));
                }
                Err(error) => report.failed.push((path, error)),
            }
        }
        Ok(report)
    }

    /// Whether that very archive was imported and all that it brought is still there.
    fn is_imported(&self, path: &Path, stamp: Stamp) -> bool {
        match self.inner.seen.lock().0.get(path) {
            Some((seen, names)) => *seen == stamp && names.iter().all(|name| matches!(self.resolve(name), Ok(Some(_)))),
            None => false,
        }
    }

    /// Names that archives brought which are still there.
    pub(super) fn archived(&self) -> Vec<String> {
        let seen = self.inner.seen.lock();
        let there = seen.0.iter().filter(|(path, _)| path.exists());
        there.flat_map(|(_, (_, names))| names.clone()).collect()
    }

    async fn remember(&self, path: &Path, stamp: Stamp, names: &[String]) -> Result<(), ImageError> {
        let (inner, path, names) = (self.inner.clone(), path.to_owned(), names.to_vec());
        blocking(move || {
            let mut seen = inner.seen.lock();
            seen.0.insert(path, (stamp, names));
            seen.0.retain(|path, _| path.exists());
            let bytes = serde_json::to_vec(&*seen).map_err(|error| ImageError::malformed(error.to_string()))?;
            replace_file(&inner.blobs.scratch(), &inner.config.dir.join(SEEN), &bytes)
        })
        .await
    }

    /// Imports the folder whenever it changes, until `shutdown`. Meant to run as a task after
    /// [`Store::import_folder`].
    pub async fn watch_folder(&self, dir: PathBuf, shutdown: CancellationToken) {
        let watch = match watch(&dir) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(?dir, %error, "cannot watch the folder of images; looking every 30 s");
                None
            }
        };
        loop {
            let changed = async {
                match &watch {
                    Some(watch) => changed(watch).await,
                    None => tokio::time::sleep(POLL).await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = changed => {}
            }
            match self.import_folder(&dir).await {
                Ok(report) => report.log(),
                Err(error) => tracing::warn!(?dir, %error, "cannot read the folder of images"),
            }
        }
    }
}

impl FolderReport {
    /// Writes the outcome to the log.
    pub fn log(&self) {
        for (path, names) in &self.imported {
            tracing::info!(archive = %path.display(), images = names.join(", "), "imported");
        }
        for (path, error) in &self.failed {
            tracing::warn!(archive = %path.display(), %error, "cannot import");
        }
    }
}

fn archives(dir: &Path) -> Result<Vec<(PathBuf, Stamp)>, ImageError> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        other => other.context(|| format!("cannot read {dir:?}"))?,
    };
    for entry in entries {
        let path = entry.context(|| format!("cannot read {dir:?}"))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let wanted = [".tar", ".tar.gz", ".tgz"].iter().any(|end| name.ends_with(end)) && !name.starts_with('.');
        match fs::metadata(&path) {
            Ok(meta) if wanted && meta.is_file() => {
                found.push((path, Stamp(meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ino())));
            }
            _ => {}
        }
    }
    found.sort();
    Ok(found)
}

fn watch(dir: &Path) -> std::io::Result<AsyncFd<OwnedFd>> {
    fs::create_dir_all(dir)?;
    let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    inotify::add_watch(&fd, dir, WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO)?;
    // SAFETY: the AsyncFd owns the descriptor, which is therefore open and the same for as long as it lives.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// Waits for a change, then until nothing changes for a moment.
async fn changed(watch: &AsyncFd<OwnedFd>) {
    drain(watch).await;
    while tokio::time::timeout(SETTLE, drain(watch)).await.is_ok() {}
}

async fn drain(watch: &AsyncFd<OwnedFd>) {
    match watch.readable().await {
        Ok(mut ready) => {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(watch.get_ref(), &mut buffer);
            while events.next().is_ok() {}
            ready.clear_ready();
        }
        Err(_) => tokio::time::sleep(POLL).await,
    }
}
