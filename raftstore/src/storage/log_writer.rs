//! The one who writes the log: a thread of its own, or a task where the disk is in memory. It takes whatever has gathered,
//! writes it as one batch with one fsync, and then tells everybody who waited: a group commit. Votes, appends, truncations
//! and purges keep their order.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::StorageError;
use super::disk::Disk;
use super::log::{Log, LogEntry};
use super::log_file::Appender;
use super::log_queue::{Job, Next, Queue};
use super::records::{LogPosition, VoteRecord};
use super::room::Space;
use crate::faults::{self, Faults};

/// Bytes of entries that are written at once.
const BATCH_BYTES: usize = 16 << 20;
/// Bytes of entries from other members that may wait for the disk. When nothing is written any more, the leader opens one
/// stream after the other, and each would bring as much as it may.
const BACKLOG_BYTES: u64 = 64 << 20;
/// How often a full disk is looked at again.
const FULL_PAUSE: Duration = Duration::from_millis(50);
/// After so long without anything to write, what nobody waits for is written.
const IDLE: Duration = Duration::from_secs(1);

/// Told once an append is on disk, or has failed.
pub(crate) type Appended = Box<dyn FnOnce(io::Result<()>) + Send>;
/// Told how long an fsync took, in seconds.
pub(crate) type ObserveSync = Box<dyn Fn(f64) + Send>;
/// Makes the applied state durable up to a log index, before the log is shortened to it.
pub(crate) type EnsureDurable = Box<dyn Fn(u64) -> Result<(), StorageError> + Send>;

/// Access to the log for the one who writes to it.
pub(crate) struct LogWriter {
    log: Arc<Log>,
    queue: Arc<Queue>,
    numbers: AtomicU64,
    worker: parking_lot::Mutex<Option<Worker>>,
    pulse: Arc<Pulse>,
}

enum Worker {
    Thread(JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
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
    }

    fn written(&self) {
        self.backlog.store(0, Ordering::Release);
        self.written.send_modify(|count| *count += 1);
    }
}

pub(super) fn stopped<T>(_: T) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the log writer has stopped")
}

impl LogWriter {
    /// Starts the thread, or the task.
    pub(crate) fn start(
        log: Arc<Log>,
        observe: ObserveSync,
        space: Arc<Space>,
        durable: EnsureDurable,
        faults: Faults,
    ) -> Result<Self, StorageError> {
        let queue = Arc::new(Queue::default());
        let pulse = Arc::new(Pulse {
            begin: Instant::now(),
            busy_since: 0.into(),
            backlog: 0.into(),
            written: watch::Sender::new(0),
        });
        let writer = Writer {
            appender: Appender::open(log.clone())?,
            log: log.clone(),
            queue: queue.clone(),
            observe,
            durable,
            space,
            pulse: pulse.clone(),
            held: VecDeque::new(),
            full: None,
            faults,
            failed: None,
        };
        let worker = match &log.disk {
            Disk::Real => {
                let thread = std::thread::Builder::new().name("raft-log".into()).spawn(move || writer.run());
                Worker::Thread(thread.map_err(|e| StorageError::io("log writer", e))?)
            }
            Disk::Memory(_) => Worker::Task(tokio::spawn(writer.run_here())),
        };
        let worker = parking_lot::Mutex::new(Some(worker));
        Ok(Self { log, queue, numbers: AtomicU64::new(1), worker, pulse })
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
        self.queue.push(Job::Append { number, entries, appended }).await
    }

    /// Removes everything after a position.
    pub(crate) async fn truncate_after(&self, after: Option<LogPosition>) -> io::Result<()> {
        self.log.index.lock().truncate(after);
        self.queue.push(Job::Truncate { after }).await
    }

    /// Removes everything up to and including a position.
    pub(crate) async fn purge(&self, upto: LogPosition) -> io::Result<()> {
        self.log.index.lock().purge(upto);
        self.queue.push(Job::Purge { upto }).await
    }

    /// Saves a vote; it is on disk when this returns.
    pub(crate) async fn save_vote(&self, vote: VoteRecord) -> io::Result<()> {
        self.log.index.lock().state.vote = Some(vote);
        let (saved, on_disk) = oneshot::channel();
        self.queue.push(Job::Vote { vote, saved }).await?;
        on_disk.await.map_err(stopped)?
    }

    /// Notes what is committed. It is written with whatever comes next, or after a second: being behind only costs applying
    /// again.
    pub(crate) async fn save_committed(&self, committed: LogPosition) -> io::Result<()> {
        self.log.index.lock().state.committed = Some(committed);
        self.queue.push(Job::Committed(committed)).await
    }

    /// Writes what is queued and ends the thread.
    pub(crate) async fn stop(&self) {
        let _ = self.queue.push(Job::Stop).await;
        let worker = self.worker.lock().take();
        match worker {
            Some(Worker::Thread(thread)) => drop(tokio::task::spawn_blocking(move || thread.join()).await),
            Some(Worker::Task(task)) => drop(task.await),
            None => {}
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.queue.close();
    }
}

struct Writer {
    log: Arc<Log>,
    queue: Arc<Queue>,
    appender: Appender,
    observe: ObserveSync,
    durable: EnsureDurable,
    faults: Faults,
    space: Arc<Space>,
    pulse: Arc<Pulse>,
    /// What was taken from the queue and waits: for more, or for room on the disk.
    held: VecDeque<Job>,
    /// When the disk was found to be full.
    full: Option<Instant>,
    /// The first failure. After a failed fsync nobody knows what is on disk, so nothing is written any more.
    failed: Option<String>,
}

/// What is written together, and who waits for it.
struct Together {
    jobs: Vec<Job>,
    /// Somebody waits, so it has to be fsynced.
    sync: bool,
    stop: bool,
    begun: Instant,
}

async fn pause_here(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// Keeps a job for later. The leader goes on committing meanwhile: only the newest of such notes counts.
fn hold(held: &mut VecDeque<Job>, job: Job) {
    if matches!((held.back(), &job), (Some(Job::Committed(_)), Job::Committed(_))) {
        held.pop_back();
    }
    held.push_back(job);
}

impl Drop for Writer {
    /// However it ended: nobody waits for it any more.
    fn drop(&mut self) {
        self.queue.end();
    }
}

impl Writer {
    fn run(mut self) {
        let queue = self.queue.clone();
        while let Some(jobs) = queue.wait(|waiting, idle| self.next(waiting, idle)) {
            let mut together = self.form(jobs);
            if self.faults.ack_before_fsync.is_some() {
                together.acknowledge();
                faults::pause(self.faults.ack_before_fsync);
            }
            let written = self.write(&together);
            if together.sync && self.failed.is_none() {
                faults::pause(self.faults.slow_fsync);
            }
            if self.finish(together, written) {
                break;
            }
        }
    }

    /// The same without a thread: what takes time is waited for, and between write and fsync the power may fail.
    async fn run_here(mut self) {
        let queue = self.queue.clone();
        while let Some(jobs) = queue.wait_here(|waiting, idle| self.next(waiting, idle)).await {
            let mut together = self.form(jobs);
            if self.faults.ack_before_fsync.is_some() {
                together.acknowledge();
                pause_here(self.faults.ack_before_fsync.unwrap_or_default()).await;
            }
            let written = self.write(&together);
            if together.sync && self.failed.is_none() {
                let latency = if let Disk::Memory(disk) = &self.log.disk { disk.latency() } else { Duration::ZERO };
                pause_here(latency + self.faults.slow_fsync.unwrap_or_default()).await;
            }
            if self.finish(together, written) {
                break;
            }
        }
    }

    /// What to do now that something is queued, nothing came for as long as was waited, or the queue is closed. On a full
    /// disk only votes are written, which is what the reserve was kept for: what is not written is not acknowledged, and
    /// nobody waits for it but those who would have to wait anyway.
    fn next(&mut self, waiting: &mut VecDeque<Job>, idle: bool) -> Next {
        waiting.drain(..).for_each(|job| hold(&mut self.held, job));
        let rest = self.full.map(|at| FULL_PAUSE.saturating_sub(at.elapsed())).filter(|rest| !rest.is_zero());
        if let Some(rest) = rest
            && !self.held.iter().any(|job| matches!(job, Job::Stop))
        {
            return Next::Wait(Some(rest));
        }
        if self.full.is_some() || self.space.exhausted() {
            let (few, held): (Vec<Job>, Vec<Job>) =
                std::mem::take(&mut self.held).into_iter().partition(|job| matches!(job, Job::Vote { .. } | Job::Stop));
            self.held = held.into();
            match few.is_empty() {
                false => return Next::Do(few),
                true if self.space.exhausted() => return Next::Wait(Some(FULL_PAUSE)),
                true => {}
            }
        }
        if self.held.is_empty() {
            // What is committed is noted soon after it was written, and should wake nobody.
            return Next::Wait(if idle { None } else { Some(IDLE) });
        }
        match idle || self.held.iter().any(Job::is_waited_for) {
            true => Next::Do(self.draw()),
            false => Next::Wait(Some(IDLE)),
        }
    }

    /// As much as is written at once.
    fn draw(&mut self) -> Vec<Job> {
        let (mut bytes, mut count) = (0, 0);
        for job in &self.held {
            count += 1;
            if let Job::Append { entries, .. } = job {
                bytes += entries.iter().map(LogEntry::weight).sum::<usize>();
            }
            if bytes >= BATCH_BYTES || matches!(job, Job::Stop) {
                break;
            }
        }
        self.held.drain(..count).collect()
    }

    fn form(&mut self, jobs: Vec<Job>) -> Together {
        self.pulse.busy();
        let mut together = Together { jobs, sync: false, stop: false, begun: Instant::now() };
        together.sync = together.jobs.iter().any(Job::is_waited_for);
        together.stop = together.jobs.iter().any(|job| matches!(job, Job::Stop));
        let more = together.jobs.iter().any(|job| !matches!(job, Job::Stop));
        if self.failed.is_none()
            && let Err(error) = self.appender.begin(more)
        {
            self.fail("another segment of the log", &error);
        }
        // After a failure nothing is written any more.
        let jobs = if self.failed.is_none() { together.jobs.as_slice() } else { &[] };
        for job in jobs {
            match job {
                Job::Append { entries, .. } => entries.iter().for_each(|entry| self.put(entry)),
                Job::Truncate { after } => self.appender.truncate(*after),
                Job::Purge { upto } => match (self.durable)(upto.index) {
                    Ok(()) => self.appender.purge(*upto),
                    // The log only stays longer than it needs to.
                    Err(error) => tracing::warn!(%error, "not shortening the log: the state is not durable"),
                },
                Job::Vote { vote, .. } => self.appender.vote(*vote),
                Job::Committed(committed) => self.appender.committed(*committed),
                Job::Stop => {}
            }
        }
        together
    }

    fn put(&mut self, entry: &LogEntry) {
        if let Err(error) = entry.check() {
            // Written and sent on it would be taken for what was proposed.
            let why = format!("entry {} was damaged in memory: {error}", entry.at.index);
            tracing::error!(why, "this member stops");
            self.failed.get_or_insert(why);
        }
        self.appender.put(entry);
    }

    fn fail(&mut self, what: &str, error: &StorageError) {
        tracing::error!(%error, what, "writing the log failed; this member stops");
        self.failed.get_or_insert(error.to_string());
    }

    /// Writes what was formed; not, if the disk is full.
    fn write(&mut self, together: &Together) -> bool {
        if self.failed.is_some() || self.appender.pending() == 0 {
            return true;
        }
        match self.appender.write() {
            Ok(()) => {}
            Err(error) if error.is_full() && !together.stop => match self.appender.cut_back() {
                Ok(()) => {
                    if self.full.is_none() {
                        tracing::warn!(%error, "the disk is full: the log waits for room");
                    }
                    return false;
                }
                Err(error) => self.fail("cutting back what did not fit", &error),
            },
            Err(error) => self.fail("write", &error),
        }
        true
    }

    /// Fsyncs what was written and tells those who waited, or keeps it for later; whether to stop.
    fn finish(&mut self, together: Together, written: bool) -> bool {
        if !written {
            self.full = Some(Instant::now());
            together.jobs.into_iter().rev().for_each(|job| self.held.push_front(job));
            self.pulse.idle();
            return false;
        }
        self.full = None;
        if together.sync && self.failed.is_none() && self.appender.unsynced() && !self.faults.no_fsync {
            match self.appender.sync() {
                Ok(()) => (self.observe)(together.begun.elapsed().as_secs_f64()),
                Err(error) => self.fail("fsync", &error),
            }
        }
        let stop = together.stop;
        self.tell(together);
        self.pulse.idle();
        self.pulse.written();
        stop
    }

    fn tell(&mut self, together: Together) {
        let result = || match &self.failed {
            None => Ok(()),
            Some(why) => Err(io::Error::other(format!("writing the log failed: {why}"))),
        };
        let newest = together.jobs.iter().rev().find_map(|job| match job {
            Job::Append { number, .. } => Some(*number),
            _ => None,
        });
        if let (None, Some(number)) = (&self.failed, newest) {
            self.log.index.lock().evict(number);
        }
        for job in together.jobs {
            match job {
                Job::Append { appended, .. } => appended(result()),
                Job::Vote { saved, .. } => drop(saved.send(result())),
                _ => {}
            }
        }
    }
}

impl Together {
    /// Tells before it is true; on purpose.
    fn acknowledge(&mut self) {
        for job in &mut self.jobs {
            if let Job::Append { appended, .. } = job {
                std::mem::replace(appended, Box::new(|_| {}))(Ok(()));
            }
        }
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
