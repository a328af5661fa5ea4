//! The one clock of a run, and where everybody writes down what they were told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::store::history::*;

/// Shared by all who take part in a run.
#[derive(Debug)]
pub struct Recorder {
    begun: Instant,
    epoch_ms: u64,
    history: Mutex<History>,
    ids: AtomicU64,
    /// Set when clients are to end.
    done: AtomicBool,
    /// Once known: up to where watchers have to be told of everything.
    last: AtomicU64,
    /// How long watchers may take until then, in milliseconds.
    patience: AtomicU64,
    /// How far watchers of all keys have been told.
    told: Mutex<Vec<Revision>>,
    /// Writes that were acknowledged.
    acknowledged: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// An empty history that begins now, on an empty store at this revision.
    pub fn new(name: &str, seed: u64, base: Revision) -> Recorder {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let head = Head { seed, name: name.to_owned(), epoch_ms, base, last: base };
        Recorder {
            begun: Instant::now(),
            epoch_ms,
            history: Mutex::new(History { head, ..History::default() }),
            ids: AtomicU64::new(1),
            done: AtomicBool::new(false),
            last: AtomicU64::new(0),
            patience: AtomicU64::new(0),
            told: Mutex::default(),
            acknowledged: AtomicU64::new(0),
        }
    }

    /// Microseconds since the run began.
    pub fn now(&self) -> Micros {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The wall clock now, in milliseconds since the Unix epoch.
    pub fn wall_ms(&self) -> u64 {
        self.epoch_ms + self.now() / 1000
    }

    /// A number for an operation.
    pub fn id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes down an operation.
    pub fn operation(&self, operation: Operation) {
        if let (Call::Txn(_), Answer::Txn(_)) = (&operation.call, &operation.answer) {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        lock(&self.history).operations.push(operation);
    }

    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Writes down a watch that has ended.
    pub fn session(&self, session: Session) {
        lock(&self.history).sessions.push(session);
    }

    /// How many watches have ended so far.
    pub fn sessions(&self) -> usize {
        lock(&self.history).sessions.len()
    }

    /// Writes down that something began at a time and is over now.
    pub fn mark(&self, at: Micros, what: String) {
        let until = self.now();
        lock(&self.history).marks.push(Mark { at, until, what });
    }

    /// Writes down who leads, if that is new.
    pub fn reign(&self, leader: Option<u32>, term: u64) {
        let at = self.now();
        let mut history = lock(&self.history);
        if history.reigns.last().is_none_or(|last| (last.leader, last.term) != (leader, term)) {
            history.reigns.push(Reign { at, leader, term });
        }
    }

    /// Notes how far a watcher of all keys has been told.
    pub fn told(&self, watcher: usize, revision: Revision) {
        let mut told = lock(&self.told);
        if told.len() <= watcher {
            told.resize(watcher + 1, 0);
        }
        told[watcher] = told[watcher].max(revision);
    }

    /// How far the slowest and the fastest watcher of all keys have been told.
    pub fn told_range(&self) -> (Revision, Revision) {
        let told = lock(&self.told);
        (told.iter().min().copied().unwrap_or(0), told.iter().max().copied().unwrap_or(0))
    }

    /// Has the clients end.
    pub fn end_clients(&self) {
        self.done.store(true, Ordering::SeqCst);
    }

    /// Whether the clients are to end.
    pub fn is_over(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    /// Has the watchers end once they have been told of this revision, or the time is over.
    pub fn end_watchers(&self, last: Revision, patience: Duration) {
        self.patience.store(patience.as_millis() as u64, Ordering::SeqCst);
        lock(&self.history).head.last = last;
        self.last.store(last, Ordering::SeqCst);
    }

    /// Up to where watchers have to be told, once that is known.
    pub fn last(&self) -> Option<Revision> {
        Some(self.last.load(Ordering::SeqCst)).filter(|last| *last > 0)
    }

    /// How long watchers may take to be told of everything.
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.patience.load(Ordering::SeqCst))
    }

    /// The history as it is now, in the order of its times.
    pub fn take(&self) -> History {
        let mut history = std::mem::take(&mut *lock(&self.history));
        history.operations.sort_by_key(|operation| operation.begun);
        history.sessions.sort_by_key(|session| (session.watcher, session.asked));
        history.marks.sort_by_key(|mark| mark.at);
        history
    }
}
