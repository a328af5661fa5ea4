//! The one thread that writes the log. It takes whatever has gathered, writes it as one batch with one fsync, and then
//! tells everybody who waited: a group commit. Votes, appends, truncations and purges keep their order.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use rocksdb::{WriteBatch, WriteOptions};
use tokio::sync::{mpsc, oneshot};

use super::StorageError;
use super::log::{COMMITTED, LOG_CF, Log, LogEntry, META_CF, PURGED, VOTE};
use super::records::{LogPosition, VoteRecord};
use crate::codec;
use crate::faults::{self, Faults};

/// Jobs that may wait for the writer. A full queue holds up the Raft core, which bounds everything behind it.
const QUEUE: usize = 4_096;
/// Bytes of one batch.
const BATCH_BYTES: usize = 16 << 20;

/// Told once an append is on disk, or has failed.
pub(crate) type Appended = Box<dyn FnOnce(io::Result<()>) + Send>;
/// Told how long an fsync took, in seconds.
pub(crate) type ObserveSync = Box<dyn Fn(f64) + Send>;
/// Makes the applied state durable up to a log index, before the log is shortened to it.
pub(crate) type EnsureDurable = Box<dyn Fn(u64) -> Result<(), StorageError> + Send>;

enum Job {
    Append { number: u64, entries: Vec<LogEntry>, appended: Appended },
    Truncate { from: u64 },
    Purge { upto: LogPosition },
    Vote { vote: VoteRecord, saved: oneshot::Sender<io::Result<()>> },
    Committed(LogPosition),
    Stop,
}

/// Access to the log for the one who writes to it.
pub(crate) struct LogWriter {
    log: Arc<Log>,
    jobs: mpsc::Sender<Job>,
    numbers: AtomicU64,
    thread: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

fn stopped<T>(_: T) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the log writer has stopped")
}

impl LogWriter {
    /// Starts the thread.
    pub(crate) fn start(
        log: Arc<Log>,
        observe: ObserveSync,
        durable: EnsureDurable,
        faults: Faults,
    ) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let mut writer = Writer { log: log.clone(), observe, durable, faults, failed: None };
        let run = move || writer.run(queue);
        let thread = std::thread::Builder::new().name("raft-log".into()).spawn(run)?;
        Ok(Self { log, jobs, numbers: AtomicU64::new(1), thread: parking_lot::Mutex::new(Some(thread)) })
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Appends entries, which can be read at once; `appended` is called when they are on disk.
    pub(crate) async fn append(&self, entries: Vec<LogEntry>, appended: Appended) -> io::Result<()> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        {
            let mut index = self.log.index.lock();
            for entry in &entries {
                index.push(number, entry.clone());
            }
        }
        self.jobs.send(Job::Append { number, entries, appended }).await.map_err(stopped)
    }

    /// Removes everything after a position.
    pub(crate) async fn truncate_after(&self, after: Option<LogPosition>) -> io::Result<()> {
        self.log.index.lock().truncate(after);
        self.jobs.send(Job::Truncate { from: after.map_or(0, |p| p.index + 1) }).await.map_err(stopped)
    }

    /// Removes everything up to and including a position.
    pub(crate) async fn purge(&self, upto: LogPosition) -> io::Result<()> {
        self.log.index.lock().purge(upto);
        self.jobs.send(Job::Purge { upto }).await.map_err(stopped)
    }

    /// Saves a vote; it is on disk when this returns.
    pub(crate) async fn save_vote(&self, vote: VoteRecord) -> io::Result<()> {
        self.log.index.lock().vote = Some(vote);
        let (saved, on_disk) = oneshot::channel();
        self.jobs.send(Job::Vote { vote, saved }).await.map_err(stopped)?;
        on_disk.await.map_err(stopped)?
    }

    /// Notes what is committed. It reaches the disk with the next fsync: being behind only costs applying again.
    pub(crate) async fn save_committed(&self, committed: LogPosition) -> io::Result<()> {
        self.log.index.lock().committed = Some(committed);
        self.jobs.send(Job::Committed(committed)).await.map_err(stopped)
    }

    /// Writes what is queued and ends the thread.
    pub(crate) async fn stop(&self) {
        let _ = self.jobs.send(Job::Stop).await;
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

struct Writer {
    log: Arc<Log>,
    observe: ObserveSync,
    durable: EnsureDurable,
    faults: Faults,
    /// The first failure. After a failed fsync nobody knows what is on disk, so nothing is written any more.
    failed: Option<String>,
}

/// Who is told after a batch.
#[derive(Default)]
struct Waiting {
    appended: Vec<Appended>,
    saved: Vec<oneshot::Sender<io::Result<()>>>,
    number: u64,
    stop: bool,
}

impl Writer {
    fn run(&mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.blocking_recv() {
            let mut batch = WriteBatch::default();
            let mut waiting = Waiting::default();
            self.add(&mut batch, &mut waiting, job);
            while batch.size_in_bytes() < BATCH_BYTES && !waiting.stop {
                match queue.try_recv() {
                    Ok(job) => self.add(&mut batch, &mut waiting, job),
                    Err(_) => break,
                }
            }
            if self.faults.ack_before_fsync.is_some() {
                waiting.appended.drain(..).for_each(|appended| appended(Ok(())));
                faults::pause(self.faults.ack_before_fsync);
            }
            self.write(batch, &waiting);
            self.tell(waiting);
            if self.stopped(&mut queue) {
                return;
            }
        }
    }

    /// Whether the last batch asked to stop.
    fn stopped(&mut self, queue: &mut mpsc::Receiver<Job>) -> bool {
        if self.failed.as_deref() == Some(STOPPED) {
            queue.close();
            return true;
        }
        false
    }

    fn add(&mut self, batch: &mut WriteBatch, waiting: &mut Waiting, job: Job) {
        let (log, meta) = (self.log.cf(LOG_CF), self.log.cf(META_CF));
        match job {
            Job::Append { number, entries, appended } => {
                for entry in entries {
                    batch.put_cf(log, entry.at.index.to_be_bytes(), entry.encode());
                }
                waiting.number = number;
                waiting.appended.push(appended);
            }
            Job::Truncate { from } => batch.delete_range_cf(log, from.to_be_bytes(), u64::MAX.to_be_bytes()),
            Job::Purge { upto } => match (self.durable)(upto.index) {
                Ok(()) => {
                    batch.delete_range_cf(log, 0u64.to_be_bytes(), (upto.index + 1).to_be_bytes());
                    batch.put_cf(meta, PURGED, codec::encode(&upto));
                }
                // The log only stays longer than it needs to.
                Err(error) => tracing::warn!(%error, "not shortening the log: the state is not durable"),
            },
            Job::Vote { vote, saved } => {
                batch.put_cf(meta, VOTE, codec::encode(&vote));
                waiting.saved.push(saved);
            }
            Job::Committed(committed) => batch.put_cf(meta, COMMITTED, codec::encode(&committed)),
            Job::Stop => waiting.stop = true,
        }
    }

    fn write(&mut self, batch: WriteBatch, waiting: &Waiting) {
        if self.failed.is_some() || batch.is_empty() {
            return;
        }
        let sync = !waiting.appended.is_empty() || !waiting.saved.is_empty() || waiting.stop;
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        let begin = Instant::now();
        if sync {
            faults::pause(self.faults.slow_fsync);
        }
        match self.log.db.write_opt(batch, &options) {
            Ok(()) if sync => (self.observe)(begin.elapsed().as_secs_f64()),
            Ok(()) => {}
            Err(error) => {
                tracing::error!(%error, "writing the log failed; this member stops");
                self.failed = Some(error.to_string());
            }
        }
    }

    fn tell(&mut self, waiting: Waiting) {
        let result = || match &self.failed {
            None => Ok(()),
            Some(why) => Err(io::Error::other(format!("writing the log failed: {why}"))),
        };
        if self.failed.is_none() {
            self.log.index.lock().evict(waiting.number);
        }
        for appended in waiting.appended {
            appended(result());
        }
        for saved in waiting.saved {
            let _ = saved.send(result());
        }
        if waiting.stop {
            self.failed = Some(STOPPED.into());
        }
    }
}

const STOPPED: &str = "stopped";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::log::Payload;
    use super::*;

    fn entry(term: u64, index: u64) -> LogEntry {
        let payload = Payload::Command(format!("{term}/{index}").into_bytes().into());
        LogEntry { at: LogPosition { term, node: 1, index }, payload }
    }

    fn start(dir: &std::path::Path) -> LogWriter {
        let log = Log::open(dir).unwrap();
        LogWriter::start(log, Box::new(|_| {}), Box::new(|_| Ok(())), Faults::default()).unwrap()
    }

    async fn append(writer: &LogWriter, entries: Vec<LogEntry>) {
        let (done, wait) = oneshot::channel();
        let appended = Box::new(move |r: io::Result<()>| done.send(r).unwrap());
        writer.append(entries, appended).await.unwrap();
        wait.await.unwrap().unwrap();
    }

    fn positions(writer: &LogWriter, from: u64, to: u64) -> Vec<(u64, u64)> {
        let entries = writer.log().read(from..to, usize::MAX).unwrap();
        entries.iter().map(|e| (e.at.term, e.at.index)).collect()
    }

    #[tokio::test]
    async fn survives_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let writer = start(dir.path());
        append(&writer, (0..10).map(|i| entry(1, i)).collect()).await;
        writer.truncate_after(Some(entry(1, 6).at)).await.unwrap();
        append(&writer, vec![entry(2, 7), entry(2, 8)]).await;
        writer.purge(entry(1, 2).at).await.unwrap();
        writer.save_vote(VoteRecord { term: 2, node: 3, committed: true }).await.unwrap();
        writer.save_committed(entry(2, 7).at).await.unwrap();
        let expected = vec![(1, 3), (1, 4), (1, 5), (1, 6), (2, 7), (2, 8)];
        assert_eq!(positions(&writer, 0, 100), expected, "from memory");
        writer.stop().await;
        drop(writer);

        let writer = start(dir.path());
        assert_eq!(positions(&writer, 0, 100), expected, "from disk");
        assert_eq!(positions(&writer, 4, 6), [(1, 4), (1, 5)]);
        assert_eq!(writer.log().ends(), (Some(entry(1, 2).at), Some(entry(2, 8).at)));
        assert_eq!(writer.log().vote(), Some(VoteRecord { term: 2, node: 3, committed: true }));
        assert_eq!(writer.log().committed(), Some(entry(2, 7).at));
        append(&writer, vec![entry(3, 9)]).await;
        assert_eq!(positions(&writer, 7, 100), [(2, 7), (2, 8), (3, 9)], "part on disk, part in memory");
        assert_eq!(writer.log().read(3..100, 1).unwrap().len(), 1, "at least one entry, whatever the limit");
        writer.stop().await;
    }

    #[tokio::test]
    async fn purge_beyond_the_end_leaves_an_empty_log() {
        let dir = tempfile::tempdir().unwrap();
        let writer = start(dir.path());
        append(&writer, (0..3).map(|i| entry(1, i)).collect()).await;
        writer.purge(entry(4, 100).at).await.unwrap();
        assert_eq!(writer.log().ends(), (Some(entry(4, 100).at), Some(entry(4, 100).at)));
        append(&writer, vec![entry(4, 101)]).await;
        assert_eq!(positions(&writer, 0, 200), [(4, 101)]);
        writer.stop().await;
    }

    #[test]
    fn an_entry_of_another_version_is_an_error() {
        let mut bytes = entry(1, 1).encode();
        assert_eq!(LogEntry::decode(&bytes.clone().into()).unwrap(), entry(1, 1));
        bytes[0] = 9;
        assert!(matches!(LogEntry::decode(&bytes.into()), Err(codec::CodecError::UnknownVersion(9))));
        assert!(LogEntry::decode(&vec![codec::VERSION, 1, 0].into()).is_err());
    }
}
