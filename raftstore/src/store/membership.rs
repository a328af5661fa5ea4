//! Changes of membership on the leader. One at a time; ids come from the replicated state and are never reused.

use std::collections::{BTreeMap, BTreeSet};

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _, Membership};

use super::node::Node;
use crate::command::{Command, Outcome};
use crate::config::{GrantMember, JoinGrant, NewMember, check_address, check_name};
use crate::consensus::TypeConfig;
use crate::network::wire::{AdminError, UpdateMemberMessage};
use crate::storage::records::MemberInfo;
use crate::types::MemberId;

/// Entries that a learner may be behind and still be made a voter.
const CAUGHT_UP: u64 = 64;

type Changes = ChangeMembers<u64, MemberInfo>;

fn refused<T>(why: String) -> Result<T, AdminError> {
    Err(AdminError::Refused(why))
}

fn raft_error(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> AdminError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => AdminError::NotLeader,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            AdminError::Unavailable { reason: error.to_string(), maybe_applied: false }
        }
        other => AdminError::Unavailable { reason: other.to_string(), maybe_applied: true },
    }
}

/// What is known of a member on the leader.
struct Standing {
    info: MemberInfo,
    voter: bool,
    /// Whether it has ever acknowledged an entry to this leader.
    came_up: bool,
    healthy: bool,
    lag: u64,
}

impl Node {
    fn standings(&self) -> BTreeMap<MemberId, Standing> {
        let metrics = self.raft.metrics();
        let m = metrics.borrow_watched();
        let voters: BTreeSet<u64> = m.membership_config.voter_ids().collect();
        let recent = self.config.timing.election_max * 2;
        let next = m.last_log_index.map_or(0, |i| i + 1);
        let standing = |id: &u64, info: &MemberInfo| {
            let own = *id == self.identity.id;
            let matched = m.replication.as_ref().and_then(|r| r.get(id).copied().flatten());
            let heard = m.heartbeat.as_ref().and_then(|h| h.get(id).copied().flatten());
            Standing {
                info: info.clone(),
                voter: voters.contains(id),
                came_up: own || matched.is_some(),
                healthy: own || heard.is_some_and(|at| at.elapsed() < recent),
                lag: if own { 0 } else { next.saturating_sub(matched.map_or(0, |at| at.index + 1)) },
            }
        };
        m.membership_config.nodes().map(|(id, info)| (*id, standing(id, info))).collect()
    }

    async fn change(&self, changes: Changes, retain: bool) -> Result<Option<Membership<u64, MemberInfo>>, AdminError> {
        let changing = self.raft.change_membership(changes, retain);
        match tokio::time::timeout(self.config.timing.write_timeout, changing).await {
            Ok(result) => result.map(|response| response.membership).map_err(raft_error),
            Err(_) => {
                let reason = "no quorum confirmed the change of membership in time".to_owned();
                Err(AdminError::Unavailable { reason, maybe_applied: true })
            }
        }
    }

    pub(crate) async fn add_member_here(&self, member: NewMember) -> Result<JoinGrant, AdminError> {
        check_name(&member.name)?;
        check_address("peer address", &member.peer_address)?;
        let _one = self.membership.lock().await;
        if !self.leads() {
            return Err(AdminError::NotLeader);
        }
        let (feature_level, knows) = (self.machine.applied().meta.feature_level, member.feature_level);
        if knows < feature_level {
            return refused(format!(
                "{:?} is too old: it knows feature level {knows}, the group uses {feature_level}; install this version there",
                member.name
            ));
        }
        let mut replaced = None;
        for (id, standing) in self.standings() {
            let same_name = standing.info.name == member.name;
            if !same_name && standing.info.peer_address != member.peer_address {
                continue;
            }
            let what = if same_name { format!("name {:?}", member.name) } else { member.peer_address.clone() };
            if standing.voter || standing.came_up || !same_name {
                return refused(format!("{what} is taken by member {id}"));
            }
            replaced = Some(id);
        }
        if let Some(id) = replaced {
            tracing::info!(id, name = member.name, "replacing a learner that never came up");
            self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id])), false).await?;
        }
        let id = match self.propose(Command::AllocateMember).await? {
            Outcome::Member(id) => id,
            other => return Err(super::propose::unexpected(&other).into()),
        };
        let info =
            MemberInfo { name: member.name, peer_address: member.peer_address, client_address: member.client_address };
        let added = self.change(ChangeMembers::AddNodes(BTreeMap::from([(id, info)])), true).await?;
        let Some(membership) = added else {
            return Err(AdminError::Unavailable { reason: "no membership in the answer".into(), maybe_applied: true });
        };
        let grant = |(id, info): (&u64, &MemberInfo)| GrantMember {
            id: *id,
            name: info.name.clone(),
            peer_address: info.peer_address.clone(),
            client_address: info.client_address.clone(),
        };
        let members = membership.nodes().map(grant).collect();
        Ok(JoinGrant { id, lineage: self.identity.lineage.clone(), feature_level, members })
    }

    pub(crate) async fn remove_member_here(&self, id: MemberId) -> Result<(), AdminError> {
        let _one = self.membership.lock().await;
        if !self.leads() {
            return Err(AdminError::NotLeader);
        }
        let standings = self.standings();
        let Some(standing) = standings.get(&id) else {
            return refused(format!("there is no member {id}"));
        };
        if !standing.voter {
            return self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id])), false).await.map(drop);
        }
        let rest: Vec<bool> = standings.iter().filter(|(i, s)| **i != id && s.voter).map(|(_, s)| s.healthy).collect();
        let healthy = rest.iter().filter(|healthy| **healthy).count();
        if healthy <= rest.len() / 2 {
            let voters = rest.len();
            return refused(format!("without member {id} only {healthy} of {voters} voters would be healthy"));
        }
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id])), false).await.map(drop)
    }

    /// Notes the new addresses of a member.
    pub(crate) async fn update_member_here(&self, m: UpdateMemberMessage) -> Result<(), AdminError> {
        check_address("peer address", &m.peer_address)?;
        let _one = self.membership.lock().await;
        if !self.leads() {
            return Err(AdminError::NotLeader);
        }
        let standings = self.standings();
        let Some(standing) = standings.get(&m.id) else {
            return refused(format!("there is no member {}", m.id));
        };
        let info = MemberInfo {
            name: standing.info.name.clone(),
            peer_address: m.peer_address,
            client_address: m.client_address,
        };
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(m.id, info)])), true).await.map(drop)
    }

    /// Whether a member waits to become a voter.
    pub(crate) fn has_learners(&self) -> bool {
        let metrics = self.raft.server_metrics();
        let m = metrics.borrow_watched();
        let voters: BTreeSet<u64> = m.membership_config.voter_ids().collect();
        m.membership_config.nodes().any(|(id, _)| !voters.contains(id))
    }

    /// Makes a learner that has caught up a voter.
    pub(crate) async fn promote(&self) -> Result<(), AdminError> {
        let ready = |s: &Standing| !s.voter && s.came_up && s.healthy && s.lag <= CAUGHT_UP;
        if !self.standings().values().any(ready) {
            return Ok(());
        }
        let _one = self.membership.lock().await;
        let Some((id, _)) = self.standings().into_iter().find(|(_, s)| ready(s)) else { return Ok(()) };
        tracing::info!(id, "a learner has caught up and becomes a voter");
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await.map(drop)
    }
}
