//! A snapshot on its way in. Files that have come whole stay if the transfer breaks off, also over a restart, and need not
//! be sent again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Body;
use tokio::io::AsyncWriteExt;

use super::frames::FrameReader;
use super::wire::{SnapshotHave, SnapshotHead};
use crate::storage::snapshot::{self, SnapshotDir};

/// What is not whole yet ends in this.
const PART: &str = ".part";
/// After so long without a message what has come is given up.
const FORGET: Duration = Duration::from_secs(600);
const BUFFER: usize = 1 << 20;

/// What has come so far. One snapshot comes at a time.
pub(crate) struct Incoming {
    data_dir: PathBuf,
    /// Size and CRC-32 of each whole file; none before the first look at the disk.
    whole: Option<HashMap<String, (u64, u32)>>,
    used: Instant,
}

/// CRC-32 of the content of a file.
pub(crate) fn checksum(path: &Path) -> io::Result<u32> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; BUFFER]);
    let mut hasher = crc32fast::Hasher::new();
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Names that may be those of files in a snapshot.
fn check_name(name: &str) -> io::Result<()> {
    let odd = name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') || name.ends_with(PART);
    if odd { Err(io::Error::other(format!("file name {name:?} in a snapshot"))) } else { Ok(()) }
}

impl Incoming {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), whole: None, used: Instant::now() }
    }

    fn dir(&self) -> PathBuf {
        snapshot::incoming(&self.data_dir)
    }

    /// Looks what an earlier run has left.
    async fn look(&mut self) -> io::Result<&mut HashMap<String, (u64, u32)>> {
        if self.whole.is_none() {
            let dir = self.dir();
            let found = blocking(move || {
                fs::create_dir_all(&dir)?;
                let mut found = HashMap::new();
                for entry in fs::read_dir(&dir)? {
                    let entry = entry?;
                    match entry.file_name().into_string() {
                        Ok(name) if check_name(&name).is_ok() => {
                            found.insert(name, (entry.metadata()?.len(), checksum(&entry.path())?));
                        }
                        _ => fs::remove_file(entry.path())?,
                    }
                }
                Ok(found)
            });
            self.whole = Some(found.await?);
        }
        Ok(self.whole.get_or_insert_default())
    }

    /// Which of the offered files are here.
    pub(crate) async fn have(&mut self, offered: &[(String, u64)]) -> io::Result<SnapshotHave> {
        self.used = Instant::now();
        let whole = self.look().await?;
        let here = |(name, size): &(String, u64)| {
            let (found, sum) = whole.get(name)?;
            (found == size).then(|| (name.clone(), *size, *sum))
        };
        Ok(SnapshotHave { files: offered.iter().filter_map(here).collect() })
    }

    /// Takes the files that follow a head, and hands them over once all are here.
    pub(crate) async fn receive<B>(
        &mut self,
        reader: &mut FrameReader<B>,
        head: &SnapshotHead,
    ) -> io::Result<Arc<SnapshotDir>>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let dir = self.dir();
        self.look().await?;
        for file in &head.files {
            check_name(&file.name)?;
            let whole = self.look().await?;
            if file.kept {
                match whole.get(&file.name) {
                    Some((size, _)) if *size == file.size => continue,
                    _ => return Err(io::Error::other(format!("{} is not here", file.name))),
                }
            }
            whole.remove(&file.name);
            let sum = receive_file(reader, &dir, &file.name, file.size).await?;
            self.look().await?.insert(file.name.clone(), (file.size, sum));
            self.used = Instant::now();
        }
        let (wanted, target) = (head.files.clone(), snapshot::fresh_dir(&self.data_dir));
        self.whole = None;
        let place = target.clone();
        blocking(move || {
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                if !wanted.iter().any(|file| entry.file_name() == *file.name) {
                    fs::remove_file(entry.path())?;
                }
            }
            fs::rename(&dir, place.path())
        })
        .await?;
        Ok(target)
    }

    /// Gives up what nobody has gone on with.
    pub(crate) fn forget_old(&mut self) {
        if self.whole.as_ref().is_some_and(|whole| !whole.is_empty()) && self.used.elapsed() >= FORGET {
            tracing::info!("a snapshot that broke off is given up");
            self.whole = None;
            let _ = fs::remove_dir_all(self.dir());
        }
    }
}

/// Writes all files that a head lists into a directory, which must not exist yet.
pub(crate) async fn receive_files<B>(
    reader: &mut FrameReader<B>,
    head: &SnapshotHead,
    dir: &SnapshotDir,
) -> io::Result<()>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    tokio::fs::create_dir(dir.path()).await?;
    for file in &head.files {
        check_name(&file.name)?;
        receive_file(reader, dir.path(), &file.name, file.size).await?;
    }
    Ok(())
}

async fn receive_file<B>(reader: &mut FrameReader<B>, dir: &Path, name: &str, size: u64) -> io::Result<u32>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let part = dir.join(format!("{name}{PART}"));
    let mut file = tokio::io::BufWriter::with_capacity(BUFFER, tokio::fs::File::create(&part).await?);
    let (mut left, mut hasher) = (size, crc32fast::Hasher::new());
    while left > 0 {
        let piece = reader.piece(left).await?;
        left -= piece.len() as u64;
        hasher.update(&piece);
        file.write_all(&piece).await?;
    }
    file.flush().await?;
    drop(file);
    let mut sum = [0; 4];
    for byte in &mut sum {
        *byte = reader.piece(1).await?[0];
    }
    let found = hasher.finalize();
    if found != u32::from_be_bytes(sum) {
        return Err(io::Error::other(format!("{name} came damaged")));
    }
    tokio::fs::rename(&part, dir.join(name)).await?;
    Ok(found)
}
