//! Watches. Apply puts its events into one ring that all watchers of the member share; each watcher takes from it at
//! its own pace. One whose next revision has left the ring is fed from history until it has caught up.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::consensus::machine::{Machine, Progress};
use crate::faults::Faults;
use crate::machine::Change;
use crate::metrics::Metrics;
use crate::simulation::blocking_on;
use crate::storage::StorageError;
use crate::storage::history::Replay;
use crate::storage::keys;
use crate::types::{Event, KeyRange, Revision, StoreError, WatchBatch, WatchRequest};

/// What one batch of entries changed.
struct Batch {
    first: Revision,
    last: Revision,
    bytes: usize,
    events: Vec<Event>,
}

#[derive(Default)]
struct Ring {
    batches: VecDeque<Arc<Batch>>,
    events: usize,
    bytes: usize,
    /// Newest revision that was published.
    revision: Revision,
}

/// The events that are still in memory.
pub(crate) struct Hub {
    ring: Mutex<Ring>,
    max_events: usize,
    max_bytes: usize,
    faults: Faults,
}

/// What the ring has for a watcher.
enum Fresh {
    /// Batches from the wanted revision on.
    Batches(Vec<Arc<Batch>>),
    /// Nothing is newer.
    Nothing,
    /// The revision is not in the ring any more.
    Gone,
}

impl Hub {
    pub(crate) fn new(max_events: usize, max_bytes: usize, faults: Faults) -> Self {
        Self { ring: Mutex::default(), max_events, max_bytes, faults }
    }

    /// Publishes the changes of a batch of entries, after which the store is at `revision`.
    pub(crate) fn publish(&self, changes: &[Change], revision: Revision) {
        let (Some(first), Some(last)) = (changes.first(), changes.last()) else { return };
        let shown = changes.iter().filter(|change| !self.faults.drops(change.revision));
        let events: Vec<Event> = shown.map(Change::event).collect();
        let size = |e: &Event| e.kv.key.len() + e.kv.value.len() + e.previous.as_ref().map_or(0, |p| p.value.len());
        let bytes = events.iter().map(size).sum();
        let batch = Arc::new(Batch { first: first.revision, last: last.revision, bytes, events });
        let mut ring = self.ring.lock();
        ring.events += batch.events.len();
        ring.bytes += bytes;
        ring.revision = revision;
        ring.batches.push_back(batch);
        while ring.events > self.max_events || ring.bytes > self.max_bytes {
            let Some(old) = ring.batches.pop_front() else { break };
            ring.events -= old.events.len();
            ring.bytes -= old.bytes;
        }
    }

    /// Forgets everything, since the state was replaced by a newer one.
    pub(crate) fn reset(&self, revision: Revision) {
        if self.faults.keep_ring {
            return;
        }
        *self.ring.lock() = Ring { revision, ..Ring::default() };
    }

    fn from(&self, next: Revision, limit: usize) -> Fresh {
        let ring = self.ring.lock();
        let Some(oldest) = ring.batches.front() else { return Fresh::Gone };
        if next > ring.revision {
            return Fresh::Nothing;
        }
        if next < oldest.first && !self.faults.no_replay {
            return Fresh::Gone;
        }
        let begin = ring.batches.partition_point(|b| b.last < next);
        Fresh::Batches(ring.batches.iter().skip(begin).take(limit).cloned().collect())
    }
}

/// Batches of entries that are handed out as one.
const TAKE: usize = 64;

/// A stream of changes. Dropping it ends the watch.
pub struct Watch {
    machine: Arc<Machine>,
    runtime: tokio::runtime::Handle,
    progress: watch::Receiver<Progress>,
    metrics: Metrics,
    stop: CancellationToken,
    range: KeyRange,
    next: Revision,
    /// How far it may be behind: what it was at the beginning, and what is allowed on top.
    max_lag: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    Replaying,
    Ended,
}

impl Watch {
    pub(crate) fn new(
        machine: Arc<Machine>,
        runtime: tokio::runtime::Handle,
        metrics: Metrics,
        stop: CancellationToken,
        request: WatchRequest,
        max_lag: u64,
    ) -> Self {
        let mut progress = machine.watch_progress();
        let revision = progress.borrow_and_update().revision;
        let next = request.start_revision.map_or(revision + 1, |r| r.max(1));
        let max_lag = max_lag.saturating_add((revision + 1).saturating_sub(next));
        metrics.watchers.inc();
        Self { machine, runtime, progress, metrics, stop, range: request.range, next, max_lag, state: State::Live }
    }

    /// The next batch; `None` after the watch has ended. An error is the last thing that a watch delivers.
    ///
    /// A batch without events says that nothing in the range happened up to its revision. The future may be dropped
    /// and `next` called again without losing anything.
    pub async fn next(&mut self) -> Option<Result<WatchBatch, StoreError>> {
        loop {
            if self.state == State::Ended {
                return None;
            }
            let now = self.progress.borrow_and_update().revision;
            if (now + 1).saturating_sub(self.next) > self.max_lag {
                self.metrics.slow_watchers.inc();
                return Some(self.end(StoreError::SlowWatcher(self.next - 1)));
            }
            if self.next <= now {
                match self.machine.hub().from(self.next, TAKE) {
                    Fresh::Batches(batches) => return Some(Ok(self.take(&batches))),
                    Fresh::Gone => match self.replay().await {
                        Ok(batch) => return Some(Ok(batch)),
                        Err(error) => return Some(self.end(error)),
                    },
                    // Applied by now, but not published yet: that comes within the same call of apply.
                    Fresh::Nothing => {}
                }
            }
            tokio::select! {
                changed = self.progress.changed() => if changed.is_ok() { continue },
                () = self.stop.cancelled() => {}
            }
            return Some(self.end(StoreError::ShuttingDown));
        }
    }

    fn end(&mut self, error: StoreError) -> Result<WatchBatch, StoreError> {
        self.state = State::Ended;
        Err(error)
    }

    fn take(&mut self, batches: &[Arc<Batch>]) -> WatchBatch {
        self.state = State::Live;
        let wanted = |e: &&Event| e.kv.mod_revision >= self.next && keys::contains(&self.range, &e.kv.key);
        let events: Vec<Event> = batches.iter().flat_map(|b| &b.events).filter(wanted).cloned().collect();
        let revision = batches.last().map_or(self.next - 1, |b| b.last);
        self.next = revision + 1;
        WatchBatch { revision, events }
    }

    async fn replay(&mut self) -> Result<WatchBatch, StoreError> {
        if self.state == State::Live {
            self.state = State::Replaying;
            self.metrics.replaying_watches.inc();
        }
        let (machine, range, from) = (self.machine.clone(), self.range.clone(), self.next);
        let read = blocking_on(&self.runtime, move || machine.state().replay(&range, from));
        match read.await.map_err(|_| StoreError::ShuttingDown)?.inspect_err(|e| self.machine.note(e))? {
            Replay::Compacted(compacted) => Err(StoreError::Compacted { requested: from, compacted }),
            // What is told as applied is in the state: asking again would not help.
            Replay::Events { through, .. } if through < from => {
                let why = format!("the state ends at revision {through}, but {from} was applied");
                let error = StorageError::Damaged(why);
                self.machine.note(&error);
                Err(error.into())
            }
            Replay::Events { through, events } => {
                self.next = through + 1;
                Ok(WatchBatch { revision: through, events })
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.metrics.watchers.dec();
    }
}
