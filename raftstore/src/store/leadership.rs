//! Whether this member leads, as far as it may act on it.

use std::sync::Arc;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver as _;
use openraft::{RaftMetrics, ServerState};

use super::node::Node;
use crate::consensus::TypeConfig;
use crate::types::{Leadership, StoreError};

/// Follows Raft's state; runs until the member stops.
pub(crate) async fn run(node: Arc<Node>) {
    let mut metrics = node.raft.metrics();
    // Silence changes no metric, so contact to a quorum is checked by time as well.
    let mut ticks = tokio::time::interval(node.config.timing.heartbeat);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut leader, mut membership) = (None, None);
    loop {
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() { break },
            _ = ticks.tick() => {}
        }
        let (now, current, committed, members_at) = {
            let m = metrics.borrow_and_update();
            let members_at = *m.committed_membership_config.log_id();
            (judge(&node, &m), m.current_leader, m.local_committed.map_or(0, |id| id.index), members_at)
        };
        if members_at != membership {
            membership = members_at;
            node.members_changed.send_modify(|count| *count += 1);
        }
        node.metrics.committed.set(committed as i64);
        if current != leader {
            leader = current;
            node.metrics.has_leader.set(i64::from(leader.is_some()));
            if leader.is_some() {
                node.metrics.leader_changes.inc();
            }
        }
        node.metrics.is_leader.set(i64::from(matches!(now, Leadership::Leader { .. })));
        node.leadership.send_if_modified(|held| {
            let changed = *held != now;
            if changed {
                tracing::info!(from = ?held, to = ?now, "leadership");
                *held = now;
            }
            changed
        });
    }
    node.leadership.send_replace(Leadership::NotLeader { leader: None });
}

fn judge(node: &Node, metrics: &RaftMetrics<TypeConfig>) -> Leadership {
    if metrics.running_state.is_err() {
        return Leadership::NotLeader { leader: None };
    }
    let deposed = Leadership::NotLeader { leader: metrics.current_leader.filter(|id| *id != node.identity.id) };
    if metrics.state != ServerState::Leader {
        return deposed;
    }
    // An applied entry of this very leadership means that everything from earlier ones is applied too.
    let own = metrics.vote.leader_id;
    let caught_up = metrics.last_applied.as_ref().is_some_and(|id| id.leader_id == own);
    if caught_up && has_quorum(node, metrics) { Leadership::Leader { term: own.term } } else { deposed }
}

/// Whether a quorum was heard of recently.
pub(super) fn has_quorum(node: &Node, metrics: &RaftMetrics<TypeConfig>) -> bool {
    let alone = metrics.membership_config.voter_ids().all(|id| id == node.identity.id);
    alone || metrics.last_quorum_acked.is_some_and(|at| at.elapsed() < node.config.timing.election_max)
}

impl Node {
    /// Hands leadership to the voter that is furthest, and waits until this member does not lead any more.
    pub(crate) async fn transfer_leadership(&self) -> Result<(), StoreError> {
        let mut metrics = self.raft.metrics();
        let target = {
            let m = metrics.borrow_watched();
            if m.state != ServerState::Leader {
                return Ok(());
            }
            let voters: Vec<u64> = m.membership_config.voter_ids().filter(|id| *id != self.identity.id).collect();
            let heard = |id: &u64| m.heartbeat.as_ref().and_then(|h| h.get(id).copied().flatten());
            let recent =
                voters.iter().filter(|id| heard(id).is_some_and(|at| at.elapsed() < self.config.timing.election_max));
            let matched = |id: &&u64| m.replication.as_ref().and_then(|r| r.get(*id).copied().flatten());
            match recent.max_by_key(matched) {
                Some(id) => *id,
                None if voters.is_empty() => return Ok(()),
                None => {
                    let reason = "no other voter is in contact".to_owned();
                    return Err(StoreError::Unavailable { reason, maybe_applied: false });
                }
            }
        };
        self.raft.trigger().transfer_leader(target).await.map_err(|e| self.fatal(e, false))?;
        let gone = metrics.wait_until(|m| m.state != ServerState::Leader || m.running_state.is_err());
        match tokio::time::timeout(self.config.timing.election_max * 4, gone).await {
            Ok(_) => Ok(()),
            Err(_) => {
                let reason = format!("member {target} did not take over in time");
                Err(StoreError::Unavailable { reason, maybe_applied: false })
            }
        }
    }
}
