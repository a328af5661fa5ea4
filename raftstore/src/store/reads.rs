//! Linearizable reads: ask the leader how far it has committed, then wait until that much is applied here. All reads
//! that wait at the same time share one question.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{ReadPolicy, ServerState};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::node::Node;
use crate::consensus::convert;
use crate::network::peers::Lane;
use crate::network::wire::{ReadIndexReply, path};
use crate::simulation::blocking_on;
use crate::storage::read::{Read, Wanted};
use crate::types::{Consistency, KeyRange, RangeResponse, Revision, StoreError};

/// Someone who waits for a read index; told why if there is none.
pub(crate) type ReadWaiter = oneshot::Sender<Result<u64, String>>;

/// Reads that may wait for the next question.
pub(crate) const QUEUE: usize = 16_384;
/// Questions under way at one time: while one is, those who come later share the next.
const CONCURRENT: usize = 2;
const NOT_CONFIRMED: &str = "no quorum confirmed the read in time";
/// From when on a read is worth a line in the log.
const SLOW: Duration = Duration::from_millis(500);

/// Answers the reads of this member; runs until the member stops.
pub(crate) async fn run(node: Arc<Node>, mut waiting: mpsc::Receiver<ReadWaiter>) {
    let slots = Arc::new(Semaphore::new(CONCURRENT));
    while let Some(first) = waiting.recv().await {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        // Those who came while a slot was awaited are in time: the question is asked only now.
        let mut readers = vec![first];
        while let Ok(reader) = waiting.try_recv() {
            readers.push(reader);
        }
        let asker = node.clone();
        node.spawn(async move {
            let answer = asker.read_index().await;
            drop(slot);
            for reader in readers {
                let _ = reader.send(answer.clone());
            }
        });
    }
}

impl Node {
    /// Reads a key or a range.
    pub(super) async fn range(
        &self,
        range: KeyRange,
        requested: Option<Revision>,
        consistency: Consistency,
        wanted: Wanted,
    ) -> Result<RangeResponse, StoreError> {
        // What holds at an old revision never changes, so only reads of newer ones have to ask the leader.
        let known = requested.is_some_and(|r| r <= self.machine.progress().revision);
        if consistency == Consistency::Linearizable && !known {
            self.linearizable_revision().await?;
        }
        self.check_running()?;
        let state = self.machine.state();
        let read = match range {
            KeyRange::Key(_) => state.range(&range, requested, wanted),
            _ => {
                let read = move || state.range(&range, requested, wanted);
                blocking_on(&self.runtime, read).await.map_err(|_| StoreError::ShuttingDown)?
            }
        };
        match read.inspect_err(|e| self.machine.note(e))? {
            Read::Found(response) => Ok(response),
            Read::Compacted(compacted) => {
                Err(StoreError::Compacted { requested: requested.unwrap_or_default(), compacted })
            }
            Read::Future(current) => {
                Err(StoreError::FutureRevision { requested: requested.unwrap_or_default(), current })
            }
        }
    }

    /// A revision at least as new as everything acknowledged before the call; it is applied here.
    pub(crate) async fn linearizable_revision(&self) -> Result<Revision, StoreError> {
        self.check_running()?;
        self.metrics.reads.inc();
        let called = Instant::now();
        let deadline = called + self.config.timing.read_timeout;
        let needed = OnceLock::new();
        let read = async {
            let (waiter, answer) = oneshot::channel();
            self.reads.send(waiter).await.map_err(|_| StoreError::ShuttingDown)?;
            let answer = answer.await.map_err(|_| StoreError::ShuttingDown)?;
            let index = answer.map_err(|reason| StoreError::Unavailable { reason, maybe_applied: false })?;
            let confirmed = called.elapsed();
            needed.get_or_init(|| index);
            let mut progress = self.machine.watch_progress();
            let applied = progress.wait_for(|p| p.next_index > index).await;
            let revision = applied.map(|p| p.revision).map_err(|_| StoreError::ShuttingDown)?;
            let took = called.elapsed();
            if took >= SLOW {
                self.metrics.slow_reads.inc();
                tracing::warn!(?took, quorum = ?confirmed, apply = ?(took - confirmed), "a linearizable read was slow");
            }
            Ok(revision)
        };
        let result = tokio::select! {
            result = timeout_at(deadline, read) => result.unwrap_or_else(|_| {
                Err(StoreError::Unavailable { reason: self.why_too_late(needed.get().copied()), maybe_applied: false })
            }),
            () = self.stop.cancelled() => Err(StoreError::ShuttingDown),
        };
        let result = result.and_then(|revision| self.check_running().map(|()| revision));
        match &result {
            Ok(_) => self.metrics.read_duration.observe(called.elapsed().as_secs_f64()),
            Err(_) => drop(self.metrics.failed_reads.inc()),
        }
        result
    }

    /// Why a read has found no end in time: nobody confirmed it, or this member has yet to apply what it has to see.
    fn why_too_late(&self, needed: Option<u64>) -> String {
        match needed {
            None => NOT_CONFIRMED.to_owned(),
            Some(needed) => {
                let behind = (needed + 1).saturating_sub(self.machine.progress().next_index);
                format!("{} catches up and is {behind} log entries behind what the read has to see", self.identity.name)
            }
        }
    }

    /// Asks until there is an answer or the time is over.
    async fn read_index(&self) -> Result<u64, String> {
        let deadline = Instant::now() + self.config.timing.read_timeout;
        loop {
            let error = match timeout_at(deadline, self.ask_read_index()).await {
                Ok(Ok(index)) => return Ok(index),
                Ok(Err(error)) => error,
                Err(_) => NOT_CONFIRMED.to_owned(),
            };
            if Instant::now() >= deadline || self.stop.is_cancelled() {
                return Err(error);
            }
            self.leader_may_have_changed().await;
        }
    }

    async fn ask_read_index(&self) -> Result<u64, String> {
        let Some(leader) = self.leader() else { return Err("no quorum: no leader is known".into()) };
        if leader == self.identity.id {
            return self.read_index_here().await;
        }
        let target = self.target(leader).ok_or_else(|| format!("leader {leader} is not a known member"))?;
        let timeout = self.config.timing.election_max * 4;
        let asked = self.peers.call::<_, ReadIndexReply>(&target, Lane::Forward, path::READ_INDEX, &(), timeout);
        asked.await.map_err(|e| e.to_string())?
    }

    /// The index up to which a read on this leader has to see everything.
    pub(crate) async fn read_index_here(&self) -> Result<u64, String> {
        if self.config.faults.read_without_quorum && self.leads() {
            return Ok(self.machine.progress().next_index.saturating_sub(1));
        }
        let begun = Instant::now();
        let index = match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => linearizer.read_log_id().index(),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(_))) => {
                return Err("no quorum: no leader is known".into());
            }
            Err(error) => return Err(error.to_string()),
        };
        let confirmed = timeout_at(begun + self.config.timing.election_max, self.confirmed_since(begun)).await;
        confirmed.map_err(|_| "no quorum confirmed that this member leads".to_owned())??;
        Ok(index)
    }

    /// Waits until a quorum has confirmed a heartbeat that was sent after a time, which openraft has seen to.
    async fn confirmed_since(&self, since: Instant) -> Result<(), String> {
        let mut changes = self.confirmed.subscribe();
        loop {
            changes.borrow_and_update();
            let (vote, voters) = {
                let metrics = self.raft.server_metrics();
                let m = metrics.borrow_watched();
                if m.state != ServerState::Leader {
                    return Err("this member does not lead any more".into());
                }
                (convert::vote_record(&m.vote), m.membership_config.membership().get_joint_config().clone())
            };
            if self.confirmed.by_quorum(self.identity.id, vote, since, &voters) {
                return Ok(());
            }
            changes.changed().await.map_err(|e| e.to_string())?;
        }
    }
}
