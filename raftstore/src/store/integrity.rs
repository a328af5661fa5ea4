//! Members compare the hashes of their states at equal log indexes, and each reads its own from disk now and then. One
//! whose state is found to be wrong takes itself out and builds the state anew at its next start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use openraft::async_runtime::WatchReceiver as _;
use tokio::time::{Instant, MissedTickBehavior};

use super::node::Node;
use crate::consensus::machine::Mark;
use crate::network::peers::Lane;
use crate::network::wire::{DiffersMessage, HashesReply, path};
use crate::simulation::blocking_on;
use crate::storage::rebuild;
use crate::types::{Alarm, AlarmKind, Leadership, MemberId};

/// Bytes of the state read without a pause, and the pause: the disk is there for others.
const STEP: usize = 1 << 20;
const PAUSE: Duration = Duration::from_millis(20);
/// A member that leaves should have handed over by then.
const HAND_OVER: Duration = Duration::from_secs(2);

/// What a comparison found.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// Nobody differs, as far as anything can be compared.
    Same,
    /// These differ from what most have at an index.
    Wrong { index: u64, hash: u128, members: BTreeSet<MemberId> },
    /// They differ, and nothing says who is right.
    Undecided { index: u64 },
}

/// Compares what members have at equal indexes.
fn compare(reports: &BTreeMap<MemberId, Vec<Mark>>) -> Finding {
    let mut at: BTreeMap<u64, BTreeMap<u128, BTreeSet<MemberId>>> = BTreeMap::new();
    for (member, marks) in reports {
        for (index, hash) in marks {
            at.entry(*index).or_default().entry(*hash).or_default().insert(*member);
        }
    }
    let reporters = |hashes: &BTreeMap<u128, BTreeSet<MemberId>>| hashes.values().map(BTreeSet::len).sum::<usize>();
    let differing = at.iter().filter(|(_, hashes)| hashes.len() > 1);
    let Some((index, hashes)) = differing.max_by_key(|(index, hashes)| (reporters(hashes), **index)) else {
        return Finding::Same;
    };
    let right = hashes.iter().find(|(_, members)| members.len() * 2 > reporters(hashes));
    match right {
        Some((hash, _)) => {
            let others = hashes.iter().filter(|(other, _)| *other != hash);
            let members = others.flat_map(|(_, members)| members.iter().copied()).collect();
            Finding::Wrong { index: *index, hash: *hash, members }
        }
        None => Finding::Undecided { index: *index },
    }
}

/// Compares members while this one leads; runs until the member stops.
pub(crate) async fn run(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(node.config.limits.compare_states);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if matches!(*node.leadership.borrow(), Leadership::Leader { .. }) {
            node.compare_states().await;
        } else {
            node.set_alarm(AlarmKind::StatesDiffer, None);
        }
    }
}

/// Reads the state from disk now and then, and at once when something is suspected; runs until the member stops.
pub(crate) async fn scrub(node: Arc<Node>) {
    let every = node.config.limits.verify_state;
    let mut damage = node.machine.damage();
    let mut next = Instant::now() + every.min(Duration::from_secs(60));
    loop {
        let found = async { damage.wait_for(Option::is_some).await.ok().and_then(|why| why.clone()) };
        let found = tokio::select! {
            () = tokio::time::sleep_until(next) => None,
            () = node.suspect.notified() => None,
            found = found => found,
        };
        if let Some(why) = found {
            return node.retire(why).await;
        }
        node.verify_here().await;
        next = Instant::now() + every;
    }
}

impl Node {
    /// Reads the state of this member from disk.
    async fn verify_here(&self) {
        let (machine, stop, begin) = (self.machine.clone(), self.stop.clone(), Instant::now());
        let verified = blocking_on(&self.runtime, move || {
            let mut read = 0;
            machine.verify(&mut |bytes| {
                read += bytes;
                if read >= STEP {
                    read = 0;
                    std::thread::sleep(PAUSE);
                }
                !stop.is_cancelled()
            })
        });
        match verified.await {
            Ok(Ok(Some(applied))) => {
                self.metrics.verified.inc();
                tracing::debug!(index = applied.index(), took = ?begin.elapsed(), "the state on disk is as it should be");
            }
            Ok(Ok(None)) | Err(_) => {}
            Ok(Err(error)) => tracing::error!(%error, "verifying the state"),
        }
    }

    /// The hashes that this member tells.
    pub(crate) fn hashes_here(&self) -> HashesReply {
        HashesReply { marks: self.machine.marks() }
    }

    /// Compares the states of all members that answer.
    async fn compare_states(&self) {
        let others: Vec<MemberId> = {
            let metrics = self.raft.server_metrics();
            let m = metrics.borrow_watched();
            m.membership_config.nodes().map(|(id, _)| *id).filter(|id| *id != self.identity.id).collect()
        };
        let timeout = self.config.timing.election_max;
        let asked = others.into_iter().map(|id| async move {
            let target = self.target(id)?;
            let call = self.peers.call::<_, HashesReply>(&target, Lane::Forward, path::HASHES, &(), timeout);
            call.await.ok().map(|reply| (id, reply.marks))
        });
        let mut reports: BTreeMap<MemberId, Vec<Mark>> = join_all(asked).await.into_iter().flatten().collect();
        reports.insert(self.identity.id, self.machine.marks());
        match compare(&reports) {
            Finding::Same => self.set_alarm(AlarmKind::StatesDiffer, None),
            Finding::Wrong { index, hash, members } => {
                tracing::error!(?members, index, "the states of these members differ from most others'");
                let what = format!("the state of member {members:?} differs from most others' at log index {index}");
                self.set_alarm(AlarmKind::StatesDiffer, Some(what));
                for id in members {
                    self.tell_differs(id, DiffersMessage { index, hash: Some(hash) }).await;
                }
            }
            Finding::Undecided { index } => {
                let members: Vec<MemberId> = reports.keys().copied().collect();
                tracing::error!(
                    ?members,
                    index,
                    "states differ, and no majority says which is right; each is verified"
                );
                let what = format!(
                    "the states of members {members:?} differ at log index {index} and no majority says which is right: \
                     compare their data, remove the wrong member and join it anew"
                );
                self.set_alarm(AlarmKind::StatesDiffer, Some(what));
                // One that does not even agree with its own disk is the wrong one.
                for id in members {
                    self.tell_differs(id, DiffersMessage { index, hash: None }).await;
                }
            }
        }
    }

    async fn tell_differs(&self, id: MemberId, message: DiffersMessage) {
        if id == self.identity.id {
            return self.differs_here(message);
        }
        let Some(target) = self.target(id) else { return };
        let timeout = self.config.timing.election_max;
        let told = self.peers.call::<_, ()>(&target, Lane::Forward, path::DIFFERS, &message, timeout).await;
        if let Err(error) = told {
            tracing::warn!(%error, id, "telling a member that its state differs");
        }
    }

    /// The leader says that this member's state is not the others', or may not be.
    pub(crate) fn differs_here(&self, message: DiffersMessage) {
        let own = self.machine.marks().into_iter().find(|(index, _)| *index == message.index);
        match (message.hash, own) {
            (None, _) => self.suspect.notify_one(),
            // Only what this member can see for itself counts.
            (Some(hash), Some((index, own))) if own != hash => {
                let why = format!("its hash at log index {index} is {own:032x}, most other members have {hash:032x}");
                self.machine.set_damaged(why);
            }
            (Some(_), _) => {}
        }
    }

    /// Stops serving for good, durably: the next start builds the state anew.
    async fn retire(&self, why: String) {
        self.metrics.damaged.set(1);
        self.set_alarm(AlarmKind::StateDamaged, Some(format!("the state of this member is damaged: {why}")));
        if self.machine.members().nodes.len() < 2 {
            tracing::error!(why, "the state is damaged and no other member has one: restore a backup");
            return;
        }
        tracing::error!(
            why,
            "the state of this member is damaged: it serves no more, and builds it anew at its next start"
        );
        let (disk, dir, marked) = (self.machine.disk().clone(), self.machine.data_dir().to_owned(), why.clone());
        let written = blocking_on(&self.runtime, move || rebuild::mark(&disk, &dir, &marked)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "noting that the state is damaged");
        }
        self.serving.cancel();
        self.leadership.send_replace(Leadership::NotLeader { leader: None });
        if let Ok(Err(error)) = tokio::time::timeout(HAND_OVER, self.transfer_leadership()).await {
            tracing::warn!(%error, "leadership is not handed over");
        }
        self.taken_out.send_replace(Some(why));
    }

    /// Raises or ends an alarm of this member.
    pub(crate) fn set_alarm(&self, kind: AlarmKind, message: Option<String>) {
        let mut alarms = self.alarms.lock();
        alarms.retain(|alarm| alarm.kind != kind);
        alarms.extend(message.map(|message| Alarm { kind, message }));
        self.metrics.alarms.set(alarms.len() as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reports(of: &[&[Mark]]) -> BTreeMap<MemberId, Vec<Mark>> {
        (1..).zip(of.iter().map(|marks| marks.to_vec())).collect()
    }

    #[test]
    fn only_equal_indexes_are_compared_and_the_majority_is_right() {
        assert_eq!(compare(&reports(&[&[(1, 7)]])), Finding::Same);
        assert_eq!(compare(&reports(&[&[(1, 7), (2, 8)], &[(2, 8), (3, 9)], &[(4, 4)]])), Finding::Same);
        let wrong = |index, hash, members: &[MemberId]| Finding::Wrong {
            index,
            hash,
            members: members.iter().copied().collect(),
        };
        assert_eq!(compare(&reports(&[&[(5, 1)], &[(5, 2)], &[(5, 1)]])), wrong(5, 1, &[2]));
        assert_eq!(compare(&reports(&[&[(5, 3)], &[(5, 1)], &[(5, 1)], &[(5, 2)], &[(5, 1)]])), wrong(5, 1, &[1, 4]));
        // Where all three can be compared counts, not where only two can.
        let three = reports(&[&[(5, 1), (6, 2)], &[(5, 9), (6, 8)], &[(5, 1)]]);
        assert_eq!(compare(&three), wrong(5, 1, &[2]));
    }

    #[test]
    fn without_a_majority_nobody_is_taken_for_wrong() {
        assert_eq!(compare(&reports(&[&[(5, 1)], &[(5, 2)]])), Finding::Undecided { index: 5 });
        assert_eq!(compare(&reports(&[&[(5, 1)], &[(5, 2)], &[(5, 3)]])), Finding::Undecided { index: 5 });
        assert_eq!(compare(&reports(&[&[(5, 1)], &[(5, 1)], &[(5, 3)], &[(5, 3)]])), Finding::Undecided { index: 5 });
    }
}
