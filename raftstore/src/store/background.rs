//! What runs beside the requests: expiry, promotion and the feature level on the leader, removal of compacted history
//! everywhere.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::levels::Agreed;
use super::membership::Absences;
use super::node::Node;
use crate::command::Command;
use crate::metrics::Peer;
use crate::simulation::blocking_on;
use crate::storage::space::Removed;
use crate::types::{AlarmKind, Leadership, Op, Revision, Role, StoreError, Txn};

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
    let mut agreed = Agreed::default();
    let (mut ages, mut sizes, mut absences) = (Ages::default(), Sizes::default(), Absences::default());
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
        let (now, limits) = (Instant::now(), &node.config.limits);
        let meta = node.machine.applied().meta;
        // Every member notes how old history is: reigns may be shorter than it is to be kept.
        let (mut by_age, mut by_size) = (None, None);
        if all {
            let written = node.machine.counts().history_bytes.load(Ordering::Relaxed);
            by_age = ages.due(now, meta.revision, limits.keep_history);
            by_size = sizes.due(written, meta.revision, meta.compacted, limits.max_history_bytes);
        }
        if !matches!(*node.leadership.borrow(), Leadership::Leader { .. }) {
            (absences, agreed) = (Absences::default(), Agreed::default());
            node.set_alarm(AlarmKind::Version, None);
            continue;
        }
        if let Err(error) = node.promote().await {
            tracing::debug!(?error, "promoting a learner");
        }
        if !all {
            continue;
        }
        node.remove_dead(&mut absences).await;
        if let Some(revision) = by_age.max(by_size)
            && revision > meta.compacted
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

/// Revisions and how much history had been written by then, so that history can be forgotten by size.
#[derive(Default)]
struct Sizes(VecDeque<(u64, Revision)>);

impl Sizes {
    /// Notes how much was written up to the present revision, and tells what to forget once what is kept is more than `most`
    /// bytes: so much that a quarter of the room is free again. What was written before the first look is not counted.
    fn due(&mut self, written: u64, revision: Revision, compacted: Revision, most: u64) -> Option<Revision> {
        // The first is where what is kept begins.
        while self.0.get(1).is_some_and(|(_, at)| *at <= compacted) {
            self.0.pop_front();
        }
        // Precise enough, and bounds how much is remembered.
        if self.0.back().is_none_or(|(before, _)| written.saturating_sub(*before) >= most / 64) {
            self.0.push_back((written, revision));
        }
        let kept = |from: u64| written.saturating_sub(from);
        if kept(self.0.front()?.0) <= most {
            return None;
        }
        self.0.iter().find(|(from, _)| kept(*from) <= most / 4 * 3).map(|(_, at)| *at)
    }
}

/// Bytes that became history from which on what is to be forgotten is worth a flush of its own.
const WORTH_A_FLUSH: u64 = 128 << 20;

/// History that is to be forgotten, and goes with the next flush. Checkpoints flush after so many entries; large values take
/// much room until then.
#[derive(Default)]
struct Forgotten {
    waiting: bool,
    /// Bytes that had become history at the last flush for this.
    flushed: u64,
}

impl Forgotten {
    /// Notes what is to be forgotten, and whether that is worth a flush now.
    fn due(&mut self, collected: u64, written: u64) -> bool {
        self.waiting |= collected > 0;
        let due = self.waiting && written - self.flushed >= WORTH_A_FLUSH;
        if due {
            *self = Self { waiting: false, flushed: written };
        }
        due
    }
}

/// Chores of every member; runs until the member stops.
pub(crate) async fn tend(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut removed, mut deletions, mut forgotten) = (Removed::default(), 0, Forgotten::default());
    loop {
        ticks.tick().await;
        node.measure();
        node.refresh_members().await;
        let collected = node.collect();
        removed.revisions += collected;
        let written = node.machine.counts().history_bytes.load(Ordering::Relaxed);
        if forgotten.due(collected, written) {
            node.flush_history().await;
        }
        let deleted = node.machine.counts().deletions.load(Ordering::Relaxed);
        removed.keys += deleted - std::mem::replace(&mut deletions, deleted);
        node.reclaim(&mut removed).await;
        if let Ok(mut incoming) = node.incoming.try_lock() {
            incoming.forget_old();
        }
    }
}

impl Node {
    fn measure(&self) {
        let (meta, state) = (self.machine.applied().meta, self.machine.state());
        let (size, log) = (state.size_bytes(), self.writer.log().size_bytes());
        let m = &self.metrics;
        m.revision.set(meta.revision as i64);
        m.compacted.set(meta.compacted as i64);
        m.db_size.set((size + log) as i64);
        m.log_size.set(log as i64);
        m.db_in_use.set(state.in_use_bytes() as i64);
        m.in_contact.set(i64::from(self.in_contact()));
        let members = self.members_here();
        m.is_learner.set(i64::from(members.iter().any(|p| p.id == self.identity.id && p.role == Role::Learner)));
        // Who does not lead cannot know, and who is gone is not told of any more.
        m.peer_lag.clear();
        m.peer_healthy.clear();
        for member in members.iter().filter(|p| p.id != self.identity.id && self.leads()) {
            let peer = Peer { peer: member.name.clone() };
            m.peer_healthy.get_or_create(&peer).set(i64::from(member.healthy));
            m.peer_lag.get_or_create(&peer).set(member.lag.map_or(-1, |lag| lag as i64));
        }
    }

    /// Notes what is compacted as to be forgotten; tells how many revisions that were.
    fn collect(&self) -> u64 {
        self.machine.state().collect().unwrap_or_else(|error| {
            self.machine.note(&error);
            tracing::warn!(%error, "forgetting compacted history");
            0
        })
    }

    /// Makes durable what is to be forgotten, which lets it go.
    async fn flush_history(&self) {
        let machine = self.machine.clone();
        if let Ok(Err(error)) = blocking_on(&self.runtime, move || machine.flush()).await {
            self.machine.note(&error);
            tracing::warn!(%error, "forgetting compacted history");
        }
    }

    /// Gives space back to the file system once enough was removed.
    async fn reclaim(&self, removed: &mut Removed) {
        let meta = self.machine.applied().meta;
        let (history, live) = removed.due(meta.revision - meta.compacted, self.machine.state().keys());
        if !history && !live {
            return;
        }
        let (machine, begun) = (self.machine.clone(), Instant::now());
        let done = blocking_on(&self.runtime, move || {
            let state = machine.state();
            let before = state.size_bytes();
            state.reclaim(history, live).map(|()| (before, state.size_bytes()))
        });
        match done.await {
            Ok(Ok((before, after))) => {
                let took = begun.elapsed();
                self.metrics.reclaim.observe(took.as_secs_f64());
                tracing::info!(before, after, ?took, history, live, "space of what was removed is given back");
            }
            Ok(Err(error)) => tracing::warn!(%error, "giving space back"),
            Err(_) => return,
        }
        *removed = Removed {
            revisions: if history { 0 } else { removed.revisions },
            keys: if live { 0 } else { removed.keys },
        };
        // The last checkpoint still holds the files that are not needed any more; a new one takes its place.
        if let Err(error) = self.raft.trigger().snapshot().await {
            tracing::debug!(%error, "a checkpoint after giving space back");
        }
    }

    async fn expire(&self) -> Result<(), StoreError> {
        let now_ms = self.config.environment.wall_ms();
        loop {
            let machine = self.machine.clone();
            let found = blocking_on(&self.runtime, move || machine.state().expired(now_ms, EXPIRY_BATCH)).await;
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
    fn history_is_forgotten_by_size() {
        let mut sizes = Sizes::default();
        let (mut compacted, mut most_kept) = (0, 0);
        // A hundred bytes each.
        for revision in 1..20_000u64 {
            let due = sizes.due(revision * 100, revision, compacted, 64_000);
            if let Some(due) = due {
                assert!(due > compacted && due <= revision, "{due} of {revision}");
                assert!(revision - due >= 400, "more than half of what may be kept is");
                compacted = due;
            }
            most_kept = most_kept.max(revision - compacted);
            assert!(sizes.0.len() <= 130);
        }
        assert!((640..=660).contains(&most_kept), "{most_kept}");
        // What compaction by age has removed does not count.
        assert_eq!(sizes.due(19_999 * 100 + 60_000, 20_599, 20_590, 64_000), None);
    }

    #[test]
    fn much_history_that_is_to_be_forgotten_is_flushed_for_it() {
        let mut forgotten = Forgotten::default();
        assert!(!forgotten.due(0, 2 * WORTH_A_FLUSH), "nothing is to be forgotten");
        assert!(forgotten.due(1, 2 * WORTH_A_FLUSH));
        assert!(!forgotten.due(1, 3 * WORTH_A_FLUSH - 1), "not much");
        assert!(forgotten.due(0, 3 * WORTH_A_FLUSH), "what was noted before still waits");
        assert!(!forgotten.due(0, 9 * WORTH_A_FLUSH));
    }

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
