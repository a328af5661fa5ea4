//! Versions side by side. What a newer build can do that an older one does not understand has a feature level, and is
//! used only once the group has committed that level. It is raised when all members have known it for a while, so that an
//! upgrade can be taken back until then; or at once, when somebody asks for it.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use tokio::time::Instant;

use super::node::Node;
use crate::command::{Command, Proposal};
use crate::network::peers::Lane;
use crate::network::wire::{AdminError, HelloReply, path};
use crate::types::{AlarmKind, MemberId, StoreError};

/// Since when all members know a level that is not committed yet.
#[derive(Default)]
pub(crate) struct Agreed(Option<(u32, Instant)>);

impl Agreed {
    /// The level that is to be raised now, if any.
    fn due(&mut self, committed: u32, known_by_all: Option<u32>, now: Instant, wait: Duration) -> Option<u32> {
        let Some(level) = known_by_all.filter(|level| *level > committed) else {
            self.0 = None;
            return None;
        };
        // A group that has no level yet is new: there is nothing to go back to.
        if committed == 0 {
            return Some(level);
        }
        match self.0 {
            Some((agreed, since)) if agreed == level => (now.duration_since(since) >= wait).then_some(level),
            _ => {
                self.0 = Some((level, now));
                None
            }
        }
    }
}

impl Node {
    /// The newest level that every member knows; none while one of them does not answer.
    fn known_by_all(&self) -> Result<u32, Vec<MemberId>> {
        let metrics = self.raft.server_metrics();
        let m = metrics.borrow_watched();
        let (mut lowest, mut silent) = (u32::MAX, Vec::new());
        for (id, _) in m.membership_config.nodes() {
            match self.reported(*id) {
                Some(report) => lowest = lowest.min(report.feature_level),
                None => silent.push(*id),
            }
        }
        if silent.is_empty() { Ok(lowest) } else { Err(silent) }
    }

    /// Raises the committed level once every member has known the next one for long enough. Called on the leader.
    pub(crate) async fn raise_feature_level(&self, agreed: &mut Agreed) -> Result<(), StoreError> {
        let committed = self.machine.applied().meta.feature_level;
        let wait = self.config.limits.raise_after;
        match agreed.due(committed, self.known_by_all().ok(), Instant::now(), wait) {
            Some(level) => self.propose(Command::RaiseFeatureLevel(level)).await.map(drop),
            None => Ok(()),
        }
    }

    /// Raises the level now, on the leader.
    pub(crate) async fn upgrade_here(&self) -> Result<u32, AdminError> {
        if !self.leads() {
            return Err(AdminError::NotLeader);
        }
        let committed = self.machine.applied().meta.feature_level;
        let members: Vec<(MemberId, String)> = {
            let metrics = self.raft.server_metrics();
            let m = metrics.borrow_watched();
            m.membership_config.nodes().map(|(id, info)| (*id, info.name.clone())).collect()
        };
        let mut level = self.config.feature_level;
        for (id, name) in members {
            let known = match self.reported(id) {
                Some(report) => Some(report.feature_level),
                None => self.ask_level(id).await,
            };
            let known = known.ok_or_else(|| {
                AdminError::Refused(format!("{name} does not answer, and what it knows has to be known first"))
            })?;
            level = level.min(known);
        }
        if level > committed {
            self.propose(Command::RaiseFeatureLevel(level)).await?;
        }
        Ok(level.max(committed))
    }

    /// What a member says that it knows; nothing if it does not answer soon.
    pub(super) async fn ask_level(&self, id: MemberId) -> Option<u32> {
        // A busy machine is no dead one.
        let (target, timeout) = (self.target(id)?, self.config.timing.election_max * 3);
        let asked = self.peers.call::<_, HelloReply>(&target, Lane::Forward, path::HELLO, &(), timeout);
        asked.await.ok().filter(|reply| reply.id == id).map(|reply| reply.feature_level)
    }

    /// Raises the level now, wherever the leader is.
    pub(crate) async fn upgrade(&self) -> Result<u32, StoreError> {
        self.on_leader(path::UPGRADE, &(), || self.upgrade_here()).await
    }

    /// Whether a command may be proposed: older members would stop at one that they do not understand.
    pub(crate) fn check_level(&self, proposal: &Proposal) -> Result<(), StoreError> {
        let needed = proposal.level();
        // What every version understands, which is nearly all, costs no look at the state.
        if needed == 0 {
            return Ok(());
        }
        let committed = self.machine.applied().meta.feature_level;
        match needed > committed {
            true => Err(StoreError::Invalid(format!(
                "this needs feature level {needed}, the group is at {committed}: finish the upgrade of all masters first"
            ))),
            false => Ok(()),
        }
    }

    /// Says whether members cannot be told what they have to know.
    pub(crate) fn watch_levels(&self) {
        let committed = self.machine.applied().meta.feature_level;
        let metrics = self.raft.server_metrics();
        let m = metrics.borrow_watched();
        let ids = m.membership_config.nodes().map(|(id, _)| *id);
        let old: Vec<MemberId> =
            ids.filter(|id| self.reported(*id).is_some_and(|r| r.feature_level < committed)).collect();
        let what = format!("members {old:?} do not know feature level {committed}: install the newer version there");
        self.set_alarm(AlarmKind::Version, (!old.is_empty()).then_some(what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_raised_when_all_have_known_it_for_long_enough() {
        let (begin, wait) = (Instant::now(), Duration::from_secs(60));
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut agreed = Agreed::default();
        assert_eq!(agreed.due(0, Some(1), at(0), wait), Some(1), "a new group");
        assert_eq!(agreed.due(1, Some(1), at(0), wait), None);
        assert_eq!(agreed.due(1, Some(2), at(1), wait), None);
        assert_eq!(agreed.due(1, Some(2), at(60), wait), None);
        assert_eq!(agreed.due(1, None, at(61), wait), None, "one does not answer: it begins anew");
        assert_eq!(agreed.due(1, Some(2), at(62), wait), None);
        assert_eq!(agreed.due(1, Some(1), at(63), wait), None, "one went back");
        assert_eq!(agreed.due(1, Some(2), at(64), wait), None);
        assert_eq!(agreed.due(1, Some(3), at(65), wait), None, "another level");
        assert_eq!(agreed.due(1, Some(3), at(125), wait), Some(3));
    }
}
