//! Changes of membership on the leader. One at a time; ids come from the replicated state and are never reused.

use std::collections::{BTreeMap, BTreeSet};

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _, Membership};
use tokio::time::Instant;

use super::node::Node;
use crate::command::{Command, Outcome};
use crate::config::{AddOptions, GrantMember, JoinGrant, NewMember, check_address, check_name};
use crate::consensus::TypeConfig;
use crate::network::wire::{AdminError, RemoveMemberMessage, UpdateMemberMessage};
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

/// Why a voter must not go, if that would leave the group without a quorum that answers.
fn loss(standings: &BTreeMap<MemberId, Standing>, id: MemberId) -> Option<String> {
    let name = &standings.get(&id)?.info.name;
    let rest: Vec<&Standing> = standings.iter().filter(|(i, s)| **i != id && s.voter).map(|(_, s)| s).collect();
    if rest.is_empty() {
        return Some(format!("{name} is the only voter; its data would be lost"));
    }
    let healthy = rest.iter().filter(|s| s.healthy).count();
    let needed = rest.len() / 2 + 1;
    let voters = rest.len();
    (healthy < needed).then(|| {
        format!(
            "re-configuration refused due to not enough healthy members: without {name}, {healthy} of {voters} voters would \
             answer, and {needed} are needed"
        )
    })
}

/// Since when members are silent. Knows no clock.
#[derive(Default)]
pub(crate) struct Absences(BTreeMap<MemberId, Instant>);

impl Absences {
    /// Members that have been silent for as long, each look counted from the first at which they were.
    fn due(
        &mut self,
        now: Instant,
        healthy: &BTreeMap<MemberId, bool>,
        patience: std::time::Duration,
    ) -> Vec<MemberId> {
        self.0.retain(|id, _| healthy.get(id) == Some(&false));
        for (id, _) in healthy.iter().filter(|(_, healthy)| !**healthy) {
            self.0.entry(*id).or_insert(now);
        }
        self.0.iter().filter(|(_, since)| now.duration_since(**since) >= patience).map(|(id, _)| *id).collect()
    }
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

    /// As they are now, by asking: who died a moment ago still counts as healthy by its heartbeats, and a new leader has
    /// not heard of anybody yet. A change that cannot be committed would be in the way of all others.
    async fn asked(&self) -> BTreeMap<MemberId, Standing> {
        let mut standings = self.standings();
        let others: Vec<MemberId> = standings.keys().copied().filter(|id| *id != self.identity.id).collect();
        let answers = others.into_iter().map(|id| async move { (id, self.ask_level(id).await.is_some()) });
        for (id, answers) in futures::future::join_all(answers).await {
            if let Some(standing) = standings.get_mut(&id) {
                standing.healthy = answers;
            }
        }
        standings
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

    pub(crate) async fn add_member_here(
        &self,
        member: NewMember,
        options: AddOptions,
    ) -> Result<JoinGrant, AdminError> {
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
        self.make_room(&member, options).await?;
        let id = match self.propose(Command::AllocateMember).await? {
            Outcome::Member(id) => id,
            other => return Err(super::propose::unexpected(&other).into()),
        };
        let info = MemberInfo {
            name: member.name,
            peer_address: member.peer_address,
            client_address: member.client_address,
            held: options.held,
        };
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

    /// Refuses a name or address that is taken. Learners that never came up make room for one of the same name, and so
    /// do dead members if that is asked for.
    async fn make_room(&self, member: &NewMember, options: AddOptions) -> Result<(), AdminError> {
        let standings = if options.replace { self.asked().await } else { self.standings() };
        let mut replaced = None;
        for (id, standing) in &standings {
            let same_name = standing.info.name == member.name;
            if !same_name && standing.info.peer_address != member.peer_address {
                continue;
            }
            let what = if same_name { format!("name {:?}", member.name) } else { member.peer_address.clone() };
            let never_came = !standing.voter && !standing.came_up;
            if same_name && options.replace && standing.healthy {
                return refused(format!("{what} is taken by member {id}, which answers; only a dead one is replaced"));
            }
            if !same_name || !never_came && !options.replace {
                let hint = if same_name && !standing.healthy { "; it does not answer: it can be replaced" } else { "" };
                return refused(format!("{what} is taken by member {id}{hint}"));
            }
            replaced = Some(*id);
        }
        match replaced {
            Some(id) => {
                tracing::info!(id, name = member.name, "a member makes room for a new one of its name");
                self.take_out(&standings, id).await
            }
            None => Ok(()),
        }
    }

    pub(crate) async fn remove_member_here(&self, m: RemoveMemberMessage) -> Result<(), AdminError> {
        let _one = self.membership.lock().await;
        if !self.leads() {
            return Err(AdminError::NotLeader);
        }
        let standings = self.asked().await;
        if m.only_dead
            && let Some(alive) = standings.get(&m.id).filter(|s| s.healthy)
        {
            return refused(format!("{} answers; only a dead one is replaced", alive.info.name));
        }
        if m.id == self.identity.id && loss(&standings, m.id).is_none() {
            // Another one leads first, and removes this one then: so nobody waits for an election.
            if let Err(error) = self.transfer_leadership().await {
                return Err(AdminError::Unavailable { reason: error.to_string(), maybe_applied: false });
            }
            return Err(AdminError::NotLeader);
        }
        self.take_out(&standings, m.id).await
    }

    /// Removes a member unless that would cost the quorum.
    async fn take_out(&self, standings: &BTreeMap<MemberId, Standing>, id: MemberId) -> Result<(), AdminError> {
        let Some(standing) = standings.get(&id) else {
            return refused(format!("member not found: there is no member {id}"));
        };
        if !standing.voter {
            return self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id])), false).await.map(drop);
        }
        if let Some(why) = loss(standings, id) {
            return refused(why);
        }
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id])), false).await.map(drop)
    }

    /// Gives a learner a vote.
    pub(crate) async fn promote_member_here(&self, id: MemberId) -> Result<(), AdminError> {
        let _one = self.membership.lock().await;
        if !self.leads() {
            return Err(AdminError::NotLeader);
        }
        let standings = self.standings();
        let Some(standing) = standings.get(&id) else {
            return refused(format!("member not found: there is no member {id}"));
        };
        let name = &standing.info.name;
        if standing.voter {
            return refused(format!("can only promote a learner member: {name} is a voter already"));
        }
        if !standing.came_up || !standing.healthy {
            return refused(format!(
                "can only promote a learner member which is in sync with leader: {name} does not answer"
            ));
        }
        if standing.lag > CAUGHT_UP {
            let lag = standing.lag;
            return refused(format!(
                "can only promote a learner member which is in sync with leader: {name} is {lag} entries behind"
            ));
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await.map(drop)
    }

    /// Removes the members that have been silent for so long that nobody expects them back, if that is asked for.
    pub(crate) async fn remove_dead(&self, absences: &mut Absences) {
        let Some(patience) = self.config.limits.remove_dead_after else { return };
        let healthy = self.standings().into_iter().map(|(id, standing)| (id, standing.healthy)).collect();
        for id in absences.due(Instant::now(), &healthy, patience) {
            match self.remove_member_here(RemoveMemberMessage { id, only_dead: true }).await {
                Ok(()) => {
                    tracing::warn!(id, ?patience, "a member that was silent for too long is removed from the group")
                }
                Err(error) => tracing::debug!(id, ?error, "removing a dead member"),
            }
        }
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
            held: standing.info.held,
        };
        self.change(ChangeMembers::SetNodes(BTreeMap::from([(m.id, info)])), true).await.map(drop)
    }

    /// Whether a member waits to become a voter.
    pub(crate) fn has_learners(&self) -> bool {
        let metrics = self.raft.server_metrics();
        let m = metrics.borrow_watched();
        let voters: BTreeSet<u64> = m.membership_config.voter_ids().collect();
        m.membership_config.nodes().any(|(id, info)| !info.held && !voters.contains(id))
    }

    /// Makes a learner that has caught up a voter.
    pub(crate) async fn promote(&self) -> Result<(), AdminError> {
        let ready = |s: &Standing| !s.voter && !s.info.held && s.came_up && s.healthy && s.lag <= CAUGHT_UP;
        if !self.standings().values().any(ready) {
            return Ok(());
        }
        let _one = self.membership.lock().await;
        let Some((id, _)) = self.standings().into_iter().find(|(_, s)| ready(s)) else { return Ok(()) };
        tracing::info!(id, "a learner has caught up and becomes a voter");
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])), true).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn standing(name: &str, voter: bool, healthy: bool) -> Standing {
        let info = MemberInfo { name: name.into(), ..MemberInfo::default() };
        Standing { info, voter, came_up: true, healthy, lag: 0 }
    }

    #[test]
    fn no_step_costs_the_quorum() {
        let group = |states: &[(bool, bool)]| -> BTreeMap<MemberId, Standing> {
            (1..)
                .zip(states)
                .map(|(id, (voter, healthy))| (id, standing(&format!("m{id}"), *voter, *healthy)))
                .collect()
        };
        let (up, down, learner) = ((true, true), (true, false), (false, true));
        assert!(loss(&group(&[up]), 1).is_some_and(|why| why.contains("the only voter")));
        assert!(loss(&group(&[up, learner]), 1).is_some(), "a learner is no quorum");
        assert_eq!(loss(&group(&[up, up]), 2), None);
        assert_eq!(loss(&group(&[up, up, down]), 3), None, "the dead one");
        let why = loss(&group(&[up, up, down]), 2).unwrap_or_default();
        assert!(why.contains("without m2, 1 of 2 voters would answer, and 2 are needed"), "{why}");
        assert_eq!(loss(&group(&[up, up, up, down, down]), 4), None);
        assert!(loss(&group(&[up, up, up, down, down]), 1).is_some());
        assert_eq!(loss(&group(&[up, up, up, up, down]), 1), None);
    }

    #[test]
    fn only_a_silence_without_a_break_counts() {
        let (begin, patience) = (Instant::now(), Duration::from_secs(60));
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let seen = |second: bool, third: bool| BTreeMap::from([(1, true), (2, second), (3, third)]);
        let mut absences = Absences::default();
        assert!(absences.due(at(0), &seen(false, true), patience).is_empty());
        assert!(absences.due(at(59), &seen(false, false), patience).is_empty());
        assert_eq!(absences.due(at(60), &seen(false, false), patience), [2]);
        assert!(absences.due(at(70), &seen(true, false), patience).is_empty());
        assert_eq!(absences.due(at(125), &seen(false, false), patience), [3], "the second was heard of in between");
        // Who is no member any more is forgotten.
        assert!(absences.due(at(500), &BTreeMap::from([(1, true)]), patience).is_empty() && absences.0.is_empty());
    }
}
