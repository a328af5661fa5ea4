//! What runs beside the requests: expiry, promotion and the feature level on the leader, removal of compacted history
//! everywhere.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time::MissedTickBehavior;

use super::levels::Agreed;
use super::node::Node;
use crate::command::Command;
use crate::storage::records::MembersRecord;
use crate::types::{AlarmKind, Leadership, Op, Revision, StoreError, Txn};

/// How often every member looks.
const TICK: Duration = Duration::from_secs(1);
/// How often the leader looks whether a learner has caught up, while there is one.
const LEARNER_TICK: Duration = Duration::from_millis(50);
/// Expired keys removed by one entry.
const EXPIRY_BATCH: usize = 256;

/// Chores of the leader; runs until the member stops.
pub(crate) async fn lead(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut ages, mut agreed) = (Ages::default(), Agreed::default());
    let (mut leadership, mut members) = (node.leadership.subscribe(), node.members_changed.subscribe());
    loop {
        let learners = matches!(*leadership.borrow_and_update(), Leadership::Leader { .. }) && node.has_learners();
        members.mark_unchanged();
        let all = tokio::select! {
            _ = ticks.tick() => true,
            _ = leadership.changed() => true,
            _ = members.changed() => true,
            () = tokio::time::sleep(LEARNER_TICK), if learners => false,
        };
        if !matches!(*node.leadership.borrow(), Leadership::Leader { .. }) {
            // Another leader may have compacted; a new reign counts anew.
            (ages, agreed) = (Ages::default(), Agreed::default());
            node.set_alarm(AlarmKind::Version, None);
            continue;
        }
        if let Err(error) = node.promote().await {
            tracing::debug!(?error, "promoting a learner");
        }
        if !all {
            continue;
        }
        let (now, keep) = (Instant::now(), node.config.limits.keep_history);
        if let Some(revision) = ages.due(now, node.machine.progress().revision, keep)
            && let Err(error) = node.propose(Command::Compact(revision)).await
        {
            tracing::debug!(%error, revision, "compacting");
        }
        if let Err(error) = node.expire().await {
            tracing::debug!(%error, "removing expired keys");
        }
        node.watch_levels();
        if let Err(error) = node.raise_feature_level(&mut agreed).await {
            tracing::debug!(%error, "raising the feature level");
        }
    }
}

/// Revisions and when they were the newest, so that history can be forgotten by age.
#[derive(Default)]
struct Ages(VecDeque<(Instant, Revision)>);

impl Ages {
    /// Notes the present revision, and tells up to which one history is older than `keep`; each at most once.
    fn due(&mut self, now: Instant, revision: Revision, keep: Duration) -> Option<Revision> {
        // A tenth of the age is precise enough, and bounds how much is remembered.
        if self.0.back().is_none_or(|(at, _)| now.duration_since(*at) >= keep / 10) {
            self.0.push_back((now, revision));
        }
        let mut due = None;
        while let Some((at, revision)) = self.0.front().copied()
            && now.duration_since(at) >= keep
        {
            self.0.pop_front();
            due = Some(revision);
        }
        due
    }
}

/// Chores of every member; runs until the member stops.
pub(crate) async fn tend(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut remembered = None;
    loop {
        ticks.tick().await;
        node.remember_peers(&mut remembered).await;
        let meta = node.machine.applied().meta;
        node.metrics.revision.set(meta.revision as i64);
        node.metrics.compacted.set(meta.compacted as i64);
        let size = node.machine.state().size_bytes() + node.writer.log().size_bytes();
        node.metrics.db_size.set(size as i64);
        node.refresh_members().await;
        loop {
            let machine = node.machine.clone();
            let collected = node.runtime.spawn_blocking(move || machine.state().collect()).await;
            match collected {
                Ok(Ok(true)) => tokio::time::sleep(Duration::from_millis(5)).await,
                Ok(Err(error)) => {
                    node.machine.note(&error);
                    tracing::warn!(%error, "removing compacted history");
                    break;
                }
                _ => break,
            }
        }
    }
}

impl Node {
    /// Keeps the addresses of the members beside the state, for the day when that is damaged.
    async fn remember_peers(&self, remembered: &mut Option<MembersRecord>) {
        let members = self.machine.members();
        if remembered.as_ref() == Some(&members) {
            return;
        }
        let (dir, record) = (self.config.data_dir.clone(), members.clone());
        let written = self.runtime.spawn_blocking(move || super::rebuild::remember(&dir, &record)).await;
        match written {
            Ok(Ok(())) => *remembered = Some(members),
            Ok(Err(error)) => tracing::warn!(%error, "keeping the addresses of the members"),
            Err(_) => {}
        }
    }

    async fn expire(&self) -> Result<(), StoreError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        loop {
            let machine = self.machine.clone();
            let found = self.runtime.spawn_blocking(move || machine.state().expired(now_ms, EXPIRY_BATCH)).await;
            let found = found.map_err(|_| StoreError::ShuttingDown)?.inspect_err(|e| self.machine.note(e))?;
            let count = found.len();
            if count == 0 {
                return Ok(());
            }
            if let Some(pause) = self.config.faults.expiry_pause {
                tokio::time::sleep(pause).await;
            }
            let command = match self.config.faults.blind_expiry {
                true => Command::Txn(Txn {
                    then: found.into_iter().map(|(key, _)| Op::Delete { key }).collect(),
                    ..Txn::default()
                }),
                false => Command::Expire(found),
            };
            self.propose(command).await?;
            self.metrics.expired.inc_by(count as u64);
            if count < EXPIRY_BATCH {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_forgotten_by_age() {
        let (begin, keep) = (Instant::now(), Duration::from_secs(100));
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut ages = Ages::default();
        assert_eq!(ages.due(at(0), 5, keep), None);
        assert_eq!(ages.due(at(1), 7, keep), None, "too soon to be noted");
        assert_eq!(ages.due(at(50), 9, keep), None);
        assert_eq!(ages.due(at(99), 11, keep), None);
        assert_eq!(ages.due(at(100), 12, keep), Some(5));
        assert_eq!(ages.due(at(101), 12, keep), None, "each once");
        assert_eq!(ages.due(at(300), 12, keep), Some(11), "only the newest of those that are old enough");
        for second in 0..10_000 {
            ages.due(at(300 + second), 12, keep);
            assert!(ages.0.len() <= 12);
        }
    }
}
