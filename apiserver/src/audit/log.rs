//! The file and the thread that writes it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;

use super::AuditConfig;
use super::record::Record;

/// Records that wait for the thread; upstream's default.
const QUEUE: usize = 10_000;
/// Their bytes: clients that send long ones shall not cost more than this.
const QUEUE_BYTES: usize = 24 << 20;
/// How long the end of a master waits for the log.
const FLUSH: Duration = Duration::from_secs(2);

enum Message {
    /// With its size.
    Record(Box<Record>, usize),
    Flush(oneshot::Sender<()>),
}

/// The way to the thread. It ends when this is dropped.
pub struct Log {
    sender: SyncSender<Message>,
    /// Bytes that wait for the thread.
    queued: Arc<AtomicUsize>,
}

impl Log {
    /// Opens the file and starts the thread.
    pub fn open(config: &AuditConfig, failures: Counter) -> io::Result<Log> {
        let mut file = Rotating::open(config)?;
        let (sender, receiver) = sync_channel(QUEUE);
        let queued = Arc::new(AtomicUsize::new(0));
        let taken = queued.clone();
        let thread = std::thread::Builder::new().name("audit".into());
        thread.spawn(move || write_all(&receiver, &taken, &mut file, &failures))?;
        Ok(Log { sender, queued })
    }

    /// Hands over a record without waiting; whether there was room.
    pub fn send(&self, record: Box<Record>) -> bool {
        let size = record.size();
        let room = self.queued.fetch_add(size, Ordering::Relaxed) + size <= QUEUE_BYTES
            && self.sender.try_send(Message::Record(record, size)).is_ok();
        if !room {
            self.queued.fetch_sub(size, Ordering::Relaxed);
        }
        room
    }

    /// Waits, not for long, until everything handed over is written.
    pub async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.sender.try_send(Message::Flush(done)).is_ok() {
            let _ = tokio::time::timeout(FLUSH, written).await;
        }
    }
}

/// Writes in batches of whatever has come meanwhile, so that a quiet log is up to date and a busy one cheap.
fn write_all(receiver: &Receiver<Message>, queued: &AtomicUsize, file: &mut Rotating, failures: &Counter) {
    let mut batch: Vec<u8> = Vec::new();
    let mut lines = 0;
    let mut waiting = Vec::new();
    let mut next = receiver.recv().ok();
    while let Some(message) = next {
        match message {
            Message::Record(record, size) => {
                queued.fetch_sub(size, Ordering::Relaxed);
                lines += 1;
                batch.extend_from_slice(record.to_json().to_string().as_bytes());
                batch.push(b'\n');
            }
            Message::Flush(done) => waiting.push(done),
        }
        next = match receiver.try_recv() {
            Ok(message) if batch.len() < 256 * 1024 => Some(message),
            Err(TryRecvError::Disconnected) => None,
            more => {
                put(file, &mut batch, &mut lines, failures);
                for done in waiting.drain(..) {
                    let _ = done.send(());
                }
                more.ok().or_else(|| receiver.recv().ok())
            }
        };
    }
    put(file, &mut batch, &mut lines, failures);
}

fn put(file: &mut Rotating, batch: &mut Vec<u8>, lines: &mut u64, failures: &Counter) {
    if let Err(error) = file.write(batch) {
        failures.inc_by(*lines);
        tracing::error!(%error, lines, "audit records are lost");
    }
    batch.clear();
    *lines = 0;
}

/// A file that is put aside under the time of day when it has become large.
struct Rotating {
    config: AuditConfig,
    file: Option<File>,
    size: u64,
    /// Pipes and devices cannot be put aside.
    regular: bool,
}

impl Rotating {
    fn open(config: &AuditConfig) -> io::Result<Rotating> {
        let mut this = Rotating { config: config.clone(), file: None, size: 0, regular: true };
        if !this.stdout() {
            this.begin()?;
        }
        Ok(this)
    }

    fn stdout(&self) -> bool {
        self.config.path == Path::new("-")
    }

    fn begin(&mut self) -> io::Result<()> {
        let file = File::options().create(true).append(true).mode(0o600).open(&self.config.path)?;
        let metadata = file.metadata()?;
        (self.size, self.regular) = (metadata.len(), metadata.is_file());
        self.file = Some(file);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.stdout() {
            return io::stdout().lock().write_all(bytes);
        }
        let limit = self.config.max_size * 1024 * 1024;
        if self.regular && limit > 0 && self.size > 0 && self.size + bytes.len() as u64 > limit {
            self.rotate()?;
        }
        if self.file.is_none() {
            self.begin()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Begins a new file. What goes wrong with the old ones does not keep records from being written.
    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        let (stem, extension) = parts(&self.config.path);
        let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S%.3f").to_string();
        let aside = self.config.path.with_file_name(format!("{stem}-{time}{extension}"));
        let moved = match fs::rename(&self.config.path, aside) {
            Ok(()) => true,
            // Somebody else has put it aside.
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => {
                tracing::warn!(%error, "the audit log cannot be put aside; it grows on");
                false
            }
        };
        self.begin()?;
        if !moved {
            // Tried again when as much has been written once more.
            self.size = 0;
        }
        if let Err(error) = self.remove_old() {
            tracing::warn!(%error, "old audit logs cannot be listed");
        }
        Ok(())
    }

    fn remove_old(&self) -> io::Result<()> {
        let mut old = backups(&self.config.path)?;
        if self.config.max_backups > 0 && old.len() > self.config.max_backups {
            // Names are times: the first are the oldest.
            old.truncate(old.len() - self.config.max_backups);
            for path in old {
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(%error, path = %path.display(), "an old audit log cannot be removed");
                }
            }
        }
        Ok(())
    }
}

/// Name of the file without, and with the dot of, its extension.
fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
    let extension = text(path.extension()).map(|extension| format!(".{extension}"));
    (text(path.file_stem()).unwrap_or_default(), extension.unwrap_or_default())
}

/// The files put aside, oldest first.
fn backups(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (stem, extension) = parts(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let time = name.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&extension));
        if time.is_some_and(|time| time.starts_with(|c: char| c.is_ascii_digit()) && time.contains('T')) {
            found.push(folder.join(name));
        }
    }
    found.sort();
    Ok(found)
}
