//! Writes: to the Raft core where this member leads, else forwarded to the leader, all that wait in one message.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::node::Node;
use super::timeline::Parts;
use crate::command::{Command, Outcome, Proposal};
use crate::network::peers::{Lane, PeerError, Target};
use crate::network::wire::{ForwardMessage, ForwardReply, path};
use crate::types::{MemberId, StoreError};

/// How long to wait at most before looking again who leads.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// From when on a write is worth a line in the log.
const SLOW: Duration = Duration::from_millis(500);

/// What became of one attempt.
pub(crate) enum Attempt {
    /// It is committed and applied on the leader.
    Done(Outcome),
    /// It was surely not taken.
    NotTaken,
    /// It failed for good.
    Failed(StoreError),
}

/// An answer that no command of that kind has.
pub(crate) fn unexpected(outcome: &Outcome) -> StoreError {
    StoreError::Unavailable { reason: format!("unexpected outcome {outcome}"), maybe_applied: true }
}

impl Node {
    /// Commits a command, wherever the leader is.
    pub(crate) async fn propose(&self, command: Command) -> Result<Outcome, StoreError> {
        self.check_running()?;
        let proposal = Proposal::new(&command);
        let _permits = self.admit(std::slice::from_ref(&proposal)).map_err(|reason| {
            self.metrics.failed.inc();
            StoreError::Unavailable { reason, maybe_applied: false }
        })?;
        self.metrics.pending.inc();
        let begun = Instant::now();
        let result = self.propose_until(proposal).await.and_then(|outcome| match self.has_left() {
            Some(reason) => Err(StoreError::Unavailable { reason, maybe_applied: true }),
            None => Ok(outcome),
        });
        self.metrics.pending.dec();
        self.metrics.write_duration.observe(begun.elapsed().as_secs_f64());
        if result.is_err() {
            self.metrics.failed.inc();
        }
        result
    }

    /// Room for writes that wait for their commit, or why there is none.
    fn admit(&self, proposals: &[Proposal]) -> Result<[SemaphorePermit<'_>; 2], String> {
        let limits = &self.config.limits;
        let count = self.pending.try_acquire_many(proposals.len() as u32);
        let count = count.map_err(|_| format!("too many pending writes ({})", limits.max_pending_writes))?;
        // Alone, also the longest one fits.
        let bytes = proposals.iter().map(|p| p.0.len()).sum::<usize>().min(limits.max_pending_bytes);
        let bytes = self.pending_bytes.try_acquire_many(bytes as u32);
        let bytes = bytes.map_err(|_| format!("too many bytes in pending writes ({})", limits.max_pending_bytes))?;
        Ok([count, bytes])
    }

    async fn propose_until(&self, proposal: Proposal) -> Result<Outcome, StoreError> {
        let deadline = Instant::now() + self.config.timing.write_timeout;
        // The Raft core keeps an accepted proposal pending for as long as there is no quorum, so the caller's wait
        // has an end of its own, and what is said then depends on whether anything is under way.
        let under_way = AtomicBool::new(false);
        let attempts = async {
            loop {
                under_way.store(true, Ordering::Relaxed);
                match self.attempt(&proposal).await {
                    Attempt::Done(outcome) => return Ok(outcome),
                    Attempt::Failed(error) => return Err(error),
                    Attempt::NotTaken => under_way.store(false, Ordering::Relaxed),
                }
                self.leader_may_have_changed().await;
            }
        };
        tokio::select! {
            result = timeout_at(deadline, attempts) => match result {
                Ok(result) => result,
                Err(_) => {
                    let reason = "no quorum confirmed the write in time".to_owned();
                    Err(StoreError::Unavailable { reason, maybe_applied: under_way.load(Ordering::Relaxed) })
                }
            },
            () = self.stop.cancelled() => Err(StoreError::ShuttingDown),
        }
    }

    /// Waits until it is worth trying again.
    pub(crate) async fn leader_may_have_changed(&self) {
        let mut metrics = self.raft.server_metrics();
        // What is known now has led to nothing; a fresh receiver would take it for news.
        drop(metrics.borrow_and_update());
        let changed = async {
            if metrics.changed().await.is_err() {
                // The engine has ended, and whoever asks again and again should not do so without a pause.
                std::future::pending::<()>().await;
            }
        };
        let _ = tokio::time::timeout(LOOK_AGAIN, changed).await;
    }

    async fn attempt(&self, proposal: &Proposal) -> Attempt {
        match self.leader() {
            Some(id) if id == self.identity.id => self.attempt_here(proposal.clone()).await,
            Some(_) => {
                let (reply, answer) = oneshot::channel();
                let forward = Forward { proposal: proposal.clone(), reply };
                match self.forwards.send(forward).await {
                    Ok(()) => answer.await.unwrap_or(Attempt::Failed(StoreError::ShuttingDown)),
                    Err(_) => Attempt::Failed(StoreError::ShuttingDown),
                }
            }
            None => Attempt::NotTaken,
        }
    }

    /// Proposes to this member's own Raft core.
    pub(crate) async fn attempt_here(&self, proposal: Proposal) -> Attempt {
        if let Err(error) = self.check_level(&proposal).and_then(|()| self.has_room_for(&proposal)) {
            return Attempt::Failed(error);
        }
        let called = Instant::now();
        match self.raft.client_write(proposal).await {
            Ok(response) => {
                self.note_write(response.log_id.index, called);
                Attempt::Done(response.data)
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Attempt::NotTaken,
            Err(RaftError::APIError(error)) => {
                Attempt::Failed(StoreError::Unavailable { reason: error.to_string(), maybe_applied: true })
            }
            Err(RaftError::Fatal(error)) => Attempt::Failed(self.fatal(error, true)),
        }
    }

    /// Says where the time of a slow write went.
    fn note_write(&self, index: u64, called: Instant) {
        let took = called.elapsed();
        if took < SLOW {
            return;
        }
        self.metrics.slow_writes.inc();
        let Parts { queue, fsync, replicate, apply } = self.timeline.parts(index, called.into_std());
        tracing::warn!(?took, index, ?queue, ?fsync, ?replicate, ?apply, "a write was slow");
    }

    async fn forward(&self, batch: Vec<Forward>) {
        let (proposals, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|f| (f.proposal, f.reply)).unzip();
        let leader = self.leader().filter(|id| *id != self.identity.id);
        let Some(target) = leader.and_then(|id| self.target(id)) else {
            for reply in replies {
                let _ = reply.send(Attempt::NotTaken);
            }
            return;
        };
        self.metrics.forwarded.inc_by(proposals.len() as u64);
        let message = ForwardMessage { proposals };
        let (timeout, called) = (self.config.timing.write_timeout, Instant::now());
        let call = self.peers.call::<_, Vec<ForwardReply>>(&target, Lane::Forward, path::FORWARD, &message, timeout);
        let answered = tokio::select! {
            answered = call => answered,
            () = self.replaced(target.id) => {
                Err(PeerError::Lost { address: target.address.clone(), reason: "it does not lead any more".into() })
            }
        };
        let took = called.elapsed();
        if took >= SLOW {
            self.metrics.slow_writes.inc_by(replies.len() as u64);
            tracing::warn!(?took, leader = target.id, writes = replies.len(), "forwarded writes were slow");
        }
        deliver(answered, &target, replies);
    }

    /// Returns some time after another member has become the leader: long enough for an answer that is on its way.
    async fn replaced(&self, leader: MemberId) {
        let mut metrics = self.raft.server_metrics();
        let _ = metrics.wait_until(|m| m.current_leader.is_some_and(|id| id != leader)).await;
        tokio::time::sleep(self.config.timing.election_max * 2).await;
    }

    /// Proposes what another member forwarded.
    pub(crate) async fn propose_for_others(&self, proposals: Vec<Proposal>) -> Vec<ForwardReply> {
        let count = proposals.len();
        let failed = |reason: &str, maybe_applied| ForwardReply::Failed { reason: reason.to_owned(), maybe_applied };
        if let Some(error) = proposals.iter().find_map(|p| Proposal::check(&p.0).err()) {
            // In this member's log it would end this member.
            return (0..count).map(|_| failed(&format!("what arrived cannot be taken: {error}"), false)).collect();
        }
        let _permits = match self.admit(&proposals) {
            Ok(permits) => permits,
            Err(reason) => return (0..count).map(|_| failed(&format!("the leader has {reason}"), false)).collect(),
        };
        let called = Instant::now();
        let (deadline, mut newest) = (called + self.config.timing.write_timeout, None);
        let refused: Vec<Option<ForwardReply>> = proposals.iter().map(|p| self.refusal(p)).collect();
        let taken = proposals.into_iter().zip(&refused).filter(|(_, refusal)| refusal.is_none());
        let taken: Vec<Proposal> = taken.map(|(proposal, _)| proposal).collect();
        let mut replies = Vec::with_capacity(count);
        let mut results = match self.raft.client_write_many(taken).await {
            Ok(results) => results,
            Err(error) => return (0..count).map(|_| failed(&error.to_string(), true)).collect(),
        };
        for refusal in refused {
            if let Some(refusal) = refusal {
                replies.push(refusal);
                continue;
            }
            let result = timeout_at(deadline, results.next()).await;
            replies.push(match result {
                Ok(Some(Ok(Ok(response)))) => {
                    newest = Some(response.log_id.index);
                    ForwardReply::Done(response.response)
                }
                Ok(Some(Ok(Err(ClientWriteError::ForwardToLeader(_))))) => ForwardReply::NotTaken,
                Ok(Some(Ok(Err(error)))) => failed(&error.to_string(), true),
                Ok(Some(Err(error))) => failed(&error.to_string(), true),
                Ok(None) => failed("the leader stopped", true),
                Err(_) => failed("no quorum confirmed the write in time", true),
            });
        }
        if let Some(index) = newest {
            self.note_write(index, called);
        }
        replies
    }
}

impl Node {
    /// Why the leader does not take a proposal of another member, if it does not.
    fn refusal(&self, proposal: &Proposal) -> Option<ForwardReply> {
        match self.check_level(proposal).and_then(|()| self.has_room_for(proposal)) {
            Ok(()) => None,
            Err(StoreError::NoSpace(why)) => Some(ForwardReply::NoSpace(why)),
            Err(error) => Some(ForwardReply::Failed { reason: error.to_string(), maybe_applied: false }),
        }
    }
}

/// Tells those whose writes were forwarded what became of them.
fn deliver(answered: Result<Vec<ForwardReply>, PeerError>, target: &Target, waiting: Vec<oneshot::Sender<Attempt>>) {
    let lost = |reason: String| Attempt::Failed(StoreError::Unavailable { reason, maybe_applied: true });
    match answered {
        Ok(replies) => {
            let mut replies = replies.into_iter();
            for reply in waiting {
                let _ = reply.send(match replies.next() {
                    Some(ForwardReply::Done(outcome)) => Attempt::Done(outcome),
                    Some(ForwardReply::NotTaken) => Attempt::NotTaken,
                    Some(ForwardReply::Failed { reason, maybe_applied }) => {
                        Attempt::Failed(StoreError::Unavailable { reason, maybe_applied })
                    }
                    Some(ForwardReply::NoSpace(why)) => Attempt::Failed(StoreError::NoSpace(why)),
                    None => lost(format!("member {} answered for fewer writes", target.id)),
                });
            }
        }
        Err(PeerError::NotSent { .. } | PeerError::Refused { .. }) => {
            for reply in waiting {
                let _ = reply.send(Attempt::NotTaken);
            }
        }
        Err(error) => {
            for reply in waiting {
                let _ = reply.send(lost(error.to_string()));
            }
        }
    }
}

/// A write on its way to the leader.
pub(crate) struct Forward {
    proposal: Proposal,
    reply: oneshot::Sender<Attempt>,
}

/// Messages with writes under way at one time.
const FORWARDS: usize = 4;
/// Writes and bytes in one message.
const FORWARD_COUNT: usize = 256;
const FORWARD_BYTES: usize = 8 << 20;

/// Forwards this member's writes; runs until the member stops.
pub(crate) async fn run_forwards(node: Arc<Node>, mut queue: mpsc::Receiver<Forward>) {
    let slots = Arc::new(Semaphore::new(FORWARDS));
    while let Some(first) = queue.recv().await {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let mut bytes = first.proposal.0.len();
        let mut batch = vec![first];
        while batch.len() < FORWARD_COUNT && bytes < FORWARD_BYTES {
            let Ok(next) = queue.try_recv() else { break };
            bytes += next.proposal.0.len();
            batch.push(next);
        }
        let forwarder = node.clone();
        node.spawn(async move {
            forwarder.forward(batch).await;
            drop(slot);
        });
    }
}
