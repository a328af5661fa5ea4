//! What waits for the log's writer. Jobs that nobody waits for wake nobody.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, oneshot};

use super::log_entry::LogEntry;
use super::log_writer::{Appended, stopped};
use super::records::{LogPosition, VoteRecord};

/// Jobs that may wait for the writer. A full queue holds up the Raft core, which bounds everything behind it.
const QUEUE: usize = 4_096;

pub(super) enum Job {
    Append { number: u64, entries: Vec<LogEntry>, appended: Appended },
    Truncate { after: Option<LogPosition> },
    Purge { upto: LogPosition },
    Vote { vote: VoteRecord, saved: oneshot::Sender<io::Result<()>> },
    Committed(LogPosition),
    Stop,
}

impl Job {
    /// Whether it has to be done now; what need not is done with whatever comes next.
    pub(super) fn is_waited_for(&self) -> bool {
        !matches!(self, Self::Committed(_) | Self::Truncate { .. })
    }
}

/// What the writer does next.
pub(super) enum Next {
    Do(Vec<Job>),
    /// Wait for a job, at most for so long.
    Wait(Option<Duration>),
}

#[derive(Default)]
struct Queued {
    jobs: VecDeque<Job>,
    closed: bool,
    writer: Writer,
}

/// What the writer is at.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Writer {
    #[default]
    Awake,
    /// It waits, and will look by itself.
    Dozing,
    /// It waits until it is woken.
    Asleep,
}

/// A queue with one reader.
#[derive(Default)]
pub(super) struct Queue {
    queued: Mutex<Queued>,
    ready: Condvar,
    ready_here: Notify,
    room: Notify,
}

impl Queue {
    /// Adds a job once there is room.
    pub(super) async fn push(&self, job: Job) -> io::Result<()> {
        let Some(mut job) = self.offer(job)? else { return Ok(()) };
        loop {
            let room = self.room.notified();
            match self.offer(job)? {
                None => return Ok(()),
                Some(back) => job = back,
            }
            room.await;
        }
    }

    /// Adds a job, or gives it back if there is no room.
    fn offer(&self, job: Job) -> io::Result<Option<Job>> {
        let mut queued = self.queued.lock();
        if queued.closed {
            return Err(stopped(()));
        }
        if queued.jobs.len() >= QUEUE && !matches!(job, Job::Stop) {
            return Ok(Some(job));
        }
        let wake = match queued.writer {
            Writer::Awake => false,
            Writer::Dozing => job.is_waited_for() || queued.jobs.len() + 1 == QUEUE,
            Writer::Asleep => true,
        };
        queued.jobs.push_back(job);
        if wake {
            queued.wake(self);
        }
        Ok(None)
    }

    /// Nothing more is taken.
    pub(super) fn close(&self) {
        let mut queued = self.queued.lock();
        queued.closed = true;
        queued.wake(self);
        self.room.notify_waiters();
    }

    /// Nothing is taken any more and nothing is done: who waits for what is there is told so.
    pub(super) fn end(&self) {
        self.close();
        let left = std::mem::take(&mut self.queued.lock().jobs);
        drop(left);
    }

    fn step(
        &self,
        queued: &mut Queued,
        idle: bool,
        next: &mut impl FnMut(&mut VecDeque<Job>, bool) -> Next,
    ) -> Option<Next> {
        let before = queued.jobs.len();
        let what = next(&mut queued.jobs, idle || queued.closed);
        if before >= QUEUE {
            self.room.notify_waiters();
        }
        // Nobody is left who could bring more, and what is there cannot be written.
        if matches!(what, Next::Wait(_)) && queued.closed {
            return None;
        }
        queued.writer = match what {
            Next::Do(_) => Writer::Awake,
            Next::Wait(Some(_)) => Writer::Dozing,
            Next::Wait(None) => Writer::Asleep,
        };
        Some(what)
    }

    /// Waits for what `next` finds to do in the queue. It is told whether nothing came for as long as it wanted to wait.
    pub(super) fn wait(&self, mut next: impl FnMut(&mut VecDeque<Job>, bool) -> Next) -> Option<Vec<Job>> {
        let mut queued = self.queued.lock();
        let mut idle = false;
        loop {
            match self.step(&mut queued, idle, &mut next)? {
                Next::Do(jobs) => return Some(jobs),
                Next::Wait(None) => {
                    self.ready.wait(&mut queued);
                    idle = false;
                }
                Next::Wait(Some(time)) => idle = self.ready.wait_for(&mut queued, time).timed_out(),
            }
        }
    }

    /// The same without a thread.
    pub(super) async fn wait_here(&self, mut next: impl FnMut(&mut VecDeque<Job>, bool) -> Next) -> Option<Vec<Job>> {
        let mut idle = false;
        loop {
            let what = self.step(&mut self.queued.lock(), idle, &mut next)?;
            match what {
                Next::Do(jobs) => return Some(jobs),
                Next::Wait(None) => {
                    self.ready_here.notified().await;
                    idle = false;
                }
                Next::Wait(Some(time)) => idle = tokio::time::timeout(time, self.ready_here.notified()).await.is_err(),
            }
        }
    }
}

impl Queued {
    fn wake(&mut self, queue: &Queue) {
        self.writer = Writer::Awake;
        queue.ready.notify_one();
        queue.ready_here.notify_one();
    }
}
