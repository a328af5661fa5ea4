//! Whether this member leads, as far as it may act on it.

use std::sync::Arc;
use std::time::Duration;

use openraft::Instant as _;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::metrics::{RaftDataMetrics, RaftServerMetrics};
use tokio::time::MissedTickBehavior;

use super::node::Node;
use crate::consensus::TypeConfig;
use crate::types::{Leadership, StoreError};

/// How often a member that does not lead looks although nothing has happened.
const LOOK: Duration = Duration::from_secs(1);

/// Follows Raft's state; runs until the member stops.
pub(crate) async fn run(node: Arc<Node>) {
    let (mut server, mut data) = (node.raft.server_metrics(), node.raft.data_metrics());
    // Silence changes no metric, so contact to a quorum is checked by time as well.
    let mut ticks = tokio::time::interval(node.config.timing.heartbeat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut leader, mut membership) = (None, None);
    loop {
        let (now, current, committed, members_at, leads) = {
            // These two and not the union of both, which openraft publishes after them.
            let (s, d) = (server.borrow_and_update(), data.borrow_and_update());
            let members_at = *s.committed_membership_config.log_id();
            let committed = d.local_committed.map_or(0, |id| id.index);
            (judge(&node, &s, &d), s.current_leader, committed, members_at, s.state == ServerState::Leader)
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
        let acts = matches!(now, Leadership::Leader { .. });
        node.metrics.is_leader.set(i64::from(acts));
        node.leadership.send_if_modified(|held| {
            let changed = *held != now;
            if changed {
                tracing::info!(from = ?held, to = ?now, "leadership");
                *held = now;
            }
            changed
        });
        tokio::select! {
            changed = server.changed() => if changed.is_err() { break },
            // A new leader acts as soon as its first entry is applied, or a quorum answers again.
            changed = data.changed(), if leads && !acts => if changed.is_err() { break },
            _ = ticks.tick(), if leads => {}
            // The metric of what is committed is looked at by people.
            () = tokio::time::sleep(LOOK), if !leads => {}
        }
    }
    node.leadership.send_replace(Leadership::NotLeader { leader: None });
}

fn judge(node: &Node, server: &RaftServerMetrics<TypeConfig>, data: &RaftDataMetrics<TypeConfig>) -> Leadership {
    let deposed = Leadership::NotLeader { leader: server.current_leader.filter(|id| *id != node.identity.id) };
    if server.state != ServerState::Leader || node.serving.is_cancelled() {
        return deposed;
    }
    // An applied entry of this very leadership means that everything from earlier ones is applied too.
    let own = server.vote.leader_id;
    let caught_up = data.last_applied.as_ref().is_some_and(|id| id.leader_id == own);
    if caught_up && has_quorum(node, server, data) { Leadership::Leader { term: own.term } } else { deposed }
}

/// Whether a quorum was heard of recently.
fn has_quorum(node: &Node, server: &RaftServerMetrics<TypeConfig>, data: &RaftDataMetrics<TypeConfig>) -> bool {
    let alone = server.membership_config.voter_ids().all(|id| id == node.identity.id);
    alone || data.last_quorum_acked.is_some_and(|at| at.elapsed() < node.config.timing.election_min)
}

impl Node {
    /// Hands leadership to the voter that is furthest, if possible one whose disk is well, and waits until this member
    /// does not lead any more.
    pub(crate) async fn transfer_leadership(&self) -> Result<(), StoreError> {
        let metrics = self.raft.metrics();
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
            let well = |id: &u64| self.reported(*id).is_none_or(|report| report.is_well());
            match recent.max_by_key(|id| (well(id), matched(id))) {
                Some(id) => *id,
                None if voters.is_empty() => return Ok(()),
                None => {
                    let reason = "no other voter is in contact".to_owned();
                    return Err(StoreError::Unavailable { reason, maybe_applied: false });
                }
            }
        };
        drop(metrics);
        self.transfer_to(target).await
    }

    pub(super) async fn transfer_to(&self, target: u64) -> Result<(), StoreError> {
        let mut metrics = self.raft.metrics();
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
