//! The one thread that writes the log. It takes whatever has gathered, writes it as one batch with one fsync, and then
//! tells everybody who waited: a group commit. Votes, appends, truncations and purges keep their order.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rocksdb::{WriteBatch, WriteOptions};
use tokio::sync::{mpsc, oneshot, watch};

use super::StorageError;
use super::log::{COMMITTED, LOG_CF, Log, LogEntry, META_CF, PURGED, VOTE};
use super::records::{LogPosition, VoteRecord};
use super::room::Space;
use crate::codec;
use crate::faults::{self, Faults};

/// Jobs that may wait for the writer. A full queue holds up the Raft core, which bounds everything behind it.
const QUEUE: usize = 4_096;
/// Bytes of one batch.
const BATCH_BYTES: usize = 16 << 20;

/// Bytes of entries from other members that may wait for the disk. When nothing is written any more, the leader opens one
/// stream after the other, and each would bring as much as it may.
const BACKLOG_BYTES: u64 = 64 << 20;
/// How often a full disk is looked at again.
const FULL_PAUSE: Duration = Duration::from_millis(50);

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
    pulse: Arc<Pulse>,
}

/// How the thread gets on.
struct Pulse {
    begin: Instant,
    /// Microseconds after `begin` at which it took up what it is at; 0 if it waits for work.
    busy_since: AtomicU64,
    /// Bytes of entries that came from other members since something was last written.
    backlog: AtomicU64,
    /// Counts what was written.
    written: watch::Sender<u64>,
}

impl Pulse {
    fn busy(&self) {
        self.busy_since.store((self.begin.elapsed().as_micros() as u64).max(1), Ordering::Release);
    }

    fn idle(&self) {
        self.busy_since.store(0, Ordering::Release);
        self.backlog.store(0, Ordering::Release);
        self.written.send_modify(|count| *count += 1);
    }
}

fn stopped<T>(_: T) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the log writer has stopped")
}

impl LogWriter {
    /// Starts the thread.
    pub(crate) fn start(
        log: Arc<Log>,
        observe: ObserveSync,
        space: Arc<Space>,
        durable: EnsureDurable,
        faults: Faults,
    ) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let pulse = Arc::new(Pulse {
            begin: Instant::now(),
            busy_since: 0.into(),
            backlog: 0.into(),
            written: watch::Sender::new(0),
        });
        let held = VecDeque::new();
        let mut writer =
            Writer { log: log.clone(), observe, durable, space, pulse: pulse.clone(), held, faults, failed: None };
        let run = move || writer.run(queue);
        let thread = std::thread::Builder::new().name("raft-log".into()).spawn(run)?;
        let thread = parking_lot::Mutex::new(Some(thread));
        Ok(Self { log, jobs, numbers: AtomicU64::new(1), thread, pulse })
    }

    /// For how long the thread has been at one batch: how long the disk has not answered.
    pub(crate) fn busy_for(&self) -> Duration {
        match self.pulse.busy_since.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => self.pulse.begin.elapsed().saturating_sub(Duration::from_micros(since)),
        }
    }

    /// Waits until more entries from other members may be taken in.
    pub(crate) async fn take_in(&self, bytes: usize) {
        let mut written = self.pulse.written.subscribe();
        while self.pulse.backlog.load(Ordering::Acquire) > BACKLOG_BYTES {
            if written.changed().await.is_err() {
                break;
            }
        }
        self.pulse.backlog.fetch_add(bytes as u64, Ordering::AcqRel);
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
    space: Arc<Space>,
    pulse: Arc<Pulse>,
    /// What waits for room on the disk, in order.
    held: VecDeque<Job>,
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

/// Keeps a job for later. The leader goes on committing meanwhile: only the newest of such notes counts.
fn hold(held: &mut VecDeque<Job>, job: Job) {
    if matches!((held.back(), &job), (Some(Job::Committed(_)), Job::Committed(_))) {
        held.pop_back();
    }
    held.push_back(job);
}

impl Writer {
    fn run(&mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = self.next(&mut queue) {
            self.pulse.busy();
            let mut batch = WriteBatch::default();
            let mut waiting = Waiting::default();
            self.add(&mut batch, &mut waiting, job);
            while batch.size_in_bytes() < BATCH_BYTES && !waiting.stop {
                if self.space.exhausted() {
                    break;
                }
                match self.held.pop_front().or_else(|| queue.try_recv().ok()) {
                    Some(job) => self.add(&mut batch, &mut waiting, job),
                    None => break,
                }
            }
            if self.faults.ack_before_fsync.is_some() {
                waiting.appended.drain(..).for_each(|appended| appended(Ok(())));
                faults::pause(self.faults.ack_before_fsync);
            }
            self.write(batch, &waiting);
            self.tell(waiting);
            self.pulse.idle();
            if self.stopped(&mut queue) {
                return;
            }
        }
    }

    /// The next job. On a full disk only votes are written, which is what the reserve was kept for: what is not written
    /// is not acknowledged, and nobody waits for it but those who would have to wait anyway.
    fn next(&mut self, queue: &mut mpsc::Receiver<Job>) -> Option<Job> {
        loop {
            if !self.space.exhausted() {
                return self.held.pop_front().or_else(|| queue.blocking_recv());
            }
            match queue.try_recv() {
                Ok(job @ (Job::Vote { .. } | Job::Stop)) => return Some(job),
                Ok(job) => hold(&mut self.held, job),
                Err(mpsc::error::TryRecvError::Empty) => std::thread::sleep(FULL_PAUSE),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
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
                    if let Err(error) = entry.check() {
                        // Written and sent on it would be taken for what was proposed.
                        let why = format!("entry {} was damaged in memory: {error}", entry.at.index);
                        tracing::error!(why, "this member stops");
                        self.failed.get_or_insert(why);
                    }
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
    use crate::command::{Command, Proposal};

    fn entry(term: u64, index: u64) -> LogEntry {
        let payload = Payload::Command(Proposal::new(&Command::Compact(index)).0);
        LogEntry { at: LogPosition { term, node: 1, index }, payload }
    }

    fn start(dir: &std::path::Path) -> LogWriter {
        let log = Log::open(dir, false).unwrap();
        let space = Space::open(&super::super::disk::Disk::Real, dir, &Default::default()).unwrap();
        LogWriter::start(log, Box::new(|_| {}), space.into(), Box::new(|_| Ok(())), Faults::default()).unwrap()
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

    #[test]
    fn notes_of_what_is_committed_do_not_pile_up_behind_a_full_disk() {
        let mut held = VecDeque::new();
        for index in 0..100 {
            hold(&mut held, Job::Committed(entry(1, index).at));
        }
        hold(&mut held, Job::Purge { upto: entry(1, 9).at });
        hold(&mut held, Job::Committed(entry(1, 100).at));
        assert!(matches!(held.front(), Some(Job::Committed(at)) if at.index == 99));
        assert_eq!(held.len(), 3);
    }

    #[tokio::test]
    async fn a_crash_after_cutting_off_leaves_one_log_without_gaps() {
        let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let writer = start(dir.path());
        append(&writer, (0..10).map(|i| entry(1, i)).collect()).await;
        writer.truncate_after(Some(entry(1, 5).at)).await.unwrap();
        append(&writer, vec![entry(2, 6), entry(2, 7)]).await;
        writer.save_committed(entry(2, 7).at).await.unwrap();
        writer.truncate_after(None).await.unwrap();
        // What was acknowledged is on disk; whether the last truncation is does not matter, but it is all or nothing.
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let path = file.unwrap().path();
            std::fs::copy(&path, crashed.path().join(path.file_name().unwrap())).unwrap();
        }
        let expected = (0..6).map(|i| (1, i)).chain([(2, 6), (2, 7)]).collect::<Vec<_>>();
        match Log::open(crashed.path(), true) {
            Ok(log) => {
                let found: Vec<_> =
                    log.read(0..100, usize::MAX).unwrap().iter().map(|e| (e.at.term, e.at.index)).collect();
                assert_eq!(found, expected);
            }
            // That what is committed was cut off is noticed: no leader does that.
            Err(error) => assert!(error.to_string().contains("is committed"), "{error}"),
        }
        writer.stop().await;
    }

    #[tokio::test]
    async fn an_entry_that_changed_in_memory_is_neither_read_nor_written() {
        let dir = tempfile::tempdir().unwrap();
        let writer = start(dir.path());
        append(&writer, vec![entry(1, 0), entry(1, 1)]).await;
        let mut wrong = Proposal::new(&Command::Compact(7)).0.to_vec();
        wrong[12 - 2] ^= 1;
        let wrong = LogEntry { at: entry(1, 1).at, payload: Payload::Command(wrong.into()) };
        writer.log().damage_in_memory(wrong.clone());
        assert_eq!(writer.log().read(0..9, usize::MAX).unwrap(), [entry(1, 0), entry(1, 1)], "it is read from disk");
        let (done, wait) = oneshot::channel();
        let next = LogEntry { at: entry(1, 2).at, ..wrong };
        writer.append(vec![next], Box::new(move |r| done.send(r).unwrap())).await.unwrap();
        assert!(wait.await.unwrap().unwrap_err().to_string().contains("damaged in memory"));
        assert!(writer.log().read(2..9, usize::MAX).is_err(), "nowhere is it as it was");
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
        let sum = codec::checksum(&[&bytes[..2], &bytes[6..30 + crate::command::PROPOSAL_HEAD]]);
        bytes[2..6].copy_from_slice(&sum.to_be_bytes());
        assert!(matches!(LogEntry::decode(&bytes.into()), Err(codec::CodecError::UnknownVersion(9))));
        assert!(LogEntry::decode(&vec![codec::VERSION, 1, 0].into()).is_err());
    }
}
