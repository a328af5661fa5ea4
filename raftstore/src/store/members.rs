//! Who belongs to the group, as asked on any member.

use http::StatusCode;
use openraft::async_runtime::WatchReceiver as _;
use openraft::{Instant as _, RaftMetrics, ServerState};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::node::Node;
use crate::config::JoinGrant;
use crate::consensus::TypeConfig;
use crate::network::peers::{Lane, PeerError, Target};
use crate::network::wire::{
    AddMemberMessage, AdminError, MembersReply, RemoveMemberMessage, UpdateMemberMessage, path,
};
use crate::storage::records::MemberInfo;
use crate::types::{Member, MemberId, Role, Status, StoreError};

impl Node {
    /// All members as this member sees them; complete on the leader.
    pub(crate) fn members_here(&self) -> Vec<Member> {
        let metrics = self.raft.metrics();
        let m = metrics.borrow_watched();
        let voters: Vec<u64> = m.membership_config.voter_ids().collect();
        let nodes = m.membership_config.nodes();
        let describe = |id: &u64, info: &MemberInfo| {
            let role = match m.current_leader {
                Some(leader) if leader == *id => Role::Leader,
                _ if voters.contains(id) => Role::Follower,
                _ => Role::Learner,
            };
            let (healthy, lag) = self.health(&m, *id);
            Member {
                id: *id,
                name: info.name.clone(),
                peer_address: info.peer_address.clone(),
                client_address: info.client_address.clone(),
                role,
                healthy,
                lag,
            }
        };
        nodes.map(|(id, info)| describe(id, info)).collect()
    }

    fn members_seen(&self) -> Vec<Member> {
        const FRESH: std::time::Duration = std::time::Duration::from_secs(3);
        match &*self.seen_members.lock() {
            Some((at, members)) if at.elapsed() < FRESH && !self.leads() => members.clone(),
            _ => self.members_here(),
        }
    }

    fn health(&self, m: &RaftMetrics<TypeConfig>, id: MemberId) -> (bool, Option<u64>) {
        if id == self.identity.id {
            let behind = (m.state == ServerState::Leader).then_some(0);
            return (m.running_state.is_ok() && self.in_contact(), behind);
        }
        let recent = self.config.timing.election_max * 2;
        let heard = m.heartbeat.as_ref().and_then(|h| h.get(&id).copied().flatten());
        let healthy = heard.is_some_and(|at| at.elapsed() < recent);
        let last = m.last_log_index.map_or(0, |i| i + 1);
        // What a member has, the leader knows once it has answered.
        let matched = m.replication.as_ref().and_then(|r| r.get(&id).copied().flatten()).map(|id| id.index + 1);
        (healthy, matched.map(|matched| last.saturating_sub(matched)))
    }

    /// All members as the leader sees them.
    pub(crate) async fn members(&self) -> Result<Vec<Member>, StoreError> {
        self.on_leader(path::MEMBERS, &self.report(), || std::future::ready(Ok(self.members_here()))).await
    }

    pub(crate) async fn add_member(&self, m: AddMemberMessage) -> Result<JoinGrant, StoreError> {
        self.on_leader(path::ADD_MEMBER, &m, || self.add_member_here(m.member.clone(), m.options)).await
    }

    pub(crate) async fn remove_member(&self, m: RemoveMemberMessage) -> Result<(), StoreError> {
        self.on_leader(path::REMOVE_MEMBER, &m, || self.remove_member_here(m)).await
    }

    pub(crate) async fn promote_member(&self, id: MemberId) -> Result<(), StoreError> {
        self.on_leader(path::PROMOTE_MEMBER, &id, || self.promote_member_here(id)).await
    }

    /// Keeps what the leader tells of the members, and tells it when this member's addresses have changed.
    pub(crate) async fn refresh_members(&self) {
        let (timeout, report) = (self.config.timing.election_max * 2, self.report());
        let own = self.identity.id;
        let asked = match self.leader() {
            Some(leader) => vec![leader],
            // Whoever was removed while it was away is not talked to, and hears of no leader any more.
            None => self.machine.members().nodes.into_keys().collect(),
        };
        for target in asked.into_iter().filter(|id| *id != own).filter_map(|id| self.target(id)) {
            let asked = self.peers.call::<_, MembersReply>(&target, Lane::Forward, path::MEMBERS, &report, timeout);
            match asked.await {
                Ok(Ok(members)) => *self.seen_members.lock() = Some((Instant::now(), members)),
                Err(PeerError::Refused { status: StatusCode::GONE, reason, .. }) => {
                    self.leave(format!("this member was removed from the group: {reason}"));
                }
                _ => {}
            }
        }
        let known = self.machine.members().nodes.get(&self.identity.id).cloned();
        let (peer_address, client_address) = (&self.config.advertise, &self.config.client_address);
        let differs = |i: &MemberInfo| i.peer_address != *peer_address || i.client_address != *client_address;
        if known.is_some_and(|info| differs(&info)) && self.leader().is_some() {
            let message = || UpdateMemberMessage {
                id: self.identity.id,
                peer_address: peer_address.clone(),
                client_address: client_address.clone(),
            };
            let told = message();
            let here = || self.update_member_here(message());
            if let Err(error) = self.on_leader(path::UPDATE_MEMBER, &told, here).await {
                tracing::warn!(%error, "telling the leader of changed addresses");
            }
        }
    }

    /// Does something on the leader, wherever that is.
    pub(super) async fn on_leader<M, R, F>(
        &self,
        path: &str,
        message: &M,
        here: impl Fn() -> F,
    ) -> Result<R, StoreError>
    where
        M: Serialize,
        R: DeserializeOwned,
        F: Future<Output = Result<R, AdminError>>,
    {
        self.check_running()?;
        let deadline = Instant::now() + self.config.timing.write_timeout;
        loop {
            let result = match self.leader() {
                Some(id) if id == self.identity.id => here().await,
                Some(id) => match self.target(id) {
                    Some(target) => self.ask_leader(&target, path, message).await,
                    None => Err(AdminError::NotLeader),
                },
                None => Err(AdminError::NotLeader),
            };
            match result {
                Ok(reply) => return Ok(reply),
                Err(AdminError::Refused(why)) => return Err(StoreError::Membership(why)),
                Err(AdminError::Unavailable { reason, maybe_applied }) => {
                    return Err(StoreError::Unavailable { reason, maybe_applied });
                }
                Err(AdminError::NotLeader) if Instant::now() < deadline => {
                    self.check_running()?;
                    self.leader_may_have_changed().await;
                }
                Err(AdminError::NotLeader) => {
                    let reason = "no leader was found in time".to_owned();
                    return Err(StoreError::Unavailable { reason, maybe_applied: false });
                }
            }
        }
    }

    async fn ask_leader<M: Serialize, R: DeserializeOwned>(
        &self,
        target: &Target,
        path: &str,
        message: &M,
    ) -> Result<R, AdminError> {
        let timeout = self.config.timing.write_timeout * 2;
        let asked = self.peers.call::<_, Result<R, AdminError>>(target, Lane::Forward, path, message, timeout);
        match asked.await {
            Ok(reply) => reply,
            Err(PeerError::NotSent { .. } | PeerError::Refused { .. }) => Err(AdminError::NotLeader),
            Err(error) => Err(AdminError::Unavailable { reason: error.to_string(), maybe_applied: true }),
        }
    }

    pub(crate) fn status(&self) -> Status {
        let applied = self.machine.applied();
        let members = self.members_seen();
        let metrics = self.raft.metrics();
        let m = metrics.borrow_watched();
        Status {
            id: self.identity.id,
            name: self.identity.name.clone(),
            lineage: self.identity.lineage.clone(),
            term: m.current_term,
            leader: m.current_leader,
            revision: applied.meta.revision,
            compacted: applied.meta.compacted,
            last_log_index: m.last_log_index.unwrap_or(0),
            applied_index: applied.index(),
            db_size_bytes: self.machine.state().size_bytes() + self.writer.log().size_bytes(),
            state_bytes: self.machine.state().size_bytes(),
            in_use_bytes: self.machine.state().in_use_bytes(),
            log_bytes: self.writer.log().size_bytes(),
            fsync: self.metrics.recent_fsyncs.summary(),
            backup_at: u64::try_from(self.metrics.backup_at.get()).ok().filter(|at| *at > 0),
            in_contact: self.in_contact(),
            members,
            feature_level: applied.meta.feature_level,
            known_feature_level: self.config.feature_level,
            alarms: self.alarms.lock().clone(),
        }
    }
}
