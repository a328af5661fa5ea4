//! What a member does when its disk fills up or does not answer: it says so, hands over leadership to one that is well,
//! and as the leader takes only what makes room or keeps the cluster alive, until a quorum has room again.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use tokio::time::{Instant, MissedTickBehavior};

use super::node::Node;
use crate::command::{Command, Proposal};
use crate::machine::Base as _;
use crate::network::wire::Report;
use crate::simulation::blocking;
use crate::storage::room::Room;
use crate::types::{AlarmKind, MemberId, Op, StoreError};

/// How often the disk is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// What a member reported counts for so long.
const FRESH: Duration = Duration::from_secs(4);
/// From one handing over to the next.
const COOL_DOWN: Duration = Duration::from_secs(10);
/// Bytes by which a value may grow when there is little room: marking an object as about to be deleted.
const GROWTH: usize = 256;
/// Longest value that is still taken when there is hardly any room.
const SMALL: usize = 4 << 10;

/// Looks at the disk; runs until the member stops.
pub(crate) async fn run(node: Arc<Node>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut looking, mut handed_over): (Option<tokio::task::JoinHandle<_>>, Option<Instant>) = (None, None);
    let (mut before, mut said) = (Report::default(), None);
    let (mut logged, mut led): (_, Option<Instant>) = (0, None);
    loop {
        ticks.tick().await;
        led = if node.leads() { led.or(Some(Instant::now())) } else { None };
        let seen = std::mem::replace(&mut logged, node.last_log_index());
        // A disk that hangs must not hang this task.
        if looking.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
            let space = node.space.clone();
            let look = blocking(move || {
                if let Err(error) = space.look() {
                    tracing::warn!(%error, "looking at the disk");
                }
            });
            looking = Some(tokio::spawn(async move { drop(look.await) }));
        }
        let now = node.report();
        let all_reported = led.is_some_and(|since| since.elapsed() > FRESH);
        node.space.set_quorum(node.room_of_quorum(all_reported));
        if now != before {
            node.tell(&before, &now);
            before = now;
        }
        // How little room there is goes on changing.
        let little = (now.room != Room::Enough).then(|| format!("the disk is nearly full: {}", node.space.describe()));
        if little != said {
            node.set_alarm(AlarmKind::DiskFull, little.clone());
            said = little;
        }
        let due = handed_over.is_none_or(|at| at.elapsed() > COOL_DOWN);
        // Disks that stall together are one disk, or share what stalls them: nothing is gained by another leader then. That a
        // member goes on writing is known by what it has of the log, before it says that it does not.
        let written = if now.stalled { seen } else { 0 };
        if !now.is_well()
            && due
            && node.leads()
            && let Some(target) = node.well_voter(written)
        {
            handed_over = Some(Instant::now());
            tracing::warn!(room = ?now.room, stalled = now.stalled, "handing over to a member whose disk is well");
            let stepping_down = node.clone();
            node.spawn(async move {
                if let Err(error) = stepping_down.transfer_to(target).await {
                    tracing::warn!(%error, "leadership is not handed over");
                }
            });
        }
    }
}

/// What the better half has. Without answers of a quorum it is not room that is missing.
fn quorum_of(mut rooms: Vec<Option<Room>>, all_reported: bool) -> Room {
    if !all_reported {
        rooms.iter_mut().for_each(|room| *room = Some(room.unwrap_or_default()));
    }
    rooms.sort_unstable_by_key(|room| (room.is_none(), *room));
    rooms.get(rooms.len() / 2).copied().flatten().unwrap_or_default()
}

impl Node {
    /// What this member reports to the leader.
    pub(crate) fn report(&self) -> Report {
        let stalled = self.writer.busy_for() > self.config.limits.disk_stall;
        Report { room: self.space.room(), stalled, feature_level: self.config.feature_level }
    }

    /// Says what has changed, in log, metrics and alarms.
    fn tell(&self, before: &Report, now: &Report) {
        self.metrics.disk_room.set(i64::from(now.room != Room::Enough));
        self.metrics.disk_stalled.set(i64::from(now.stalled));
        if before.room != now.room {
            let what = self.space.describe();
            match now.room {
                Room::Enough => tracing::info!(what, "there is room on the disk again"),
                room => tracing::error!(?room, what, "the disk is nearly full"),
            }
        }
        if before.stalled != now.stalled {
            let limit = self.config.limits.disk_stall;
            match now.stalled {
                true => tracing::error!(?limit, "the disk does not answer in time"),
                false => tracing::info!("the disk answers again"),
            }
            let stalled = now.stalled.then(|| format!("a write of the log takes longer than {limit:?}"));
            self.set_alarm(AlarmKind::DiskStalled, stalled);
        }
    }

    /// Keeps what a member reported.
    pub(crate) fn note_report(&self, from: MemberId, report: Report) {
        self.reports.lock().insert(from, (Instant::now(), report));
    }

    /// What a member reported recently.
    pub(crate) fn reported(&self, id: MemberId) -> Option<Report> {
        if id == self.identity.id {
            return Some(self.report());
        }
        let reports = self.reports.lock();
        reports.get(&id).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, report)| *report)
    }

    /// Index of the newest entry here, written or not.
    fn last_log_index(&self) -> u64 {
        self.raft.metrics().borrow_watched().last_log_index.unwrap_or(0)
    }

    /// Another voter whose disk is well, that has the log up to an index, and is not far behind.
    pub(crate) fn well_voter(&self, written: u64) -> Option<MemberId> {
        let metrics = self.raft.metrics();
        let m = metrics.borrow_watched();
        let last = m.last_log_index.unwrap_or(0);
        let near = |id: &MemberId| {
            let matched = m.replication.as_ref().and_then(|r| r.get(id).copied().flatten());
            matched.is_some_and(|at| at.index + 1_000 >= last && at.index >= written)
        };
        let own = self.identity.id;
        let well = |id: &MemberId| *id != own && self.reported(*id).is_some_and(|r| r.is_well());
        m.membership_config.voter_ids().find(|id| well(id) && near(id))
    }

    /// Room that a quorum has. Who reports nothing has none, once everybody has had the time to report.
    fn room_of_quorum(&self, all_reported: bool) -> Room {
        let rooms: Vec<Option<Room>> = {
            let metrics = self.raft.server_metrics();
            let m = metrics.borrow_watched();
            m.membership_config.voter_ids().map(|id| self.reported(id).map(|report| report.room)).collect()
        };
        let quorum = quorum_of(rooms, all_reported);
        // This member's own disk counts as well: it will hand over if there is anybody to take over.
        quorum.max(self.space.room())
    }

    /// Who said so, in words.
    fn without_room(&self) -> String {
        let members = self.machine.members();
        let full = |id: &MemberId| self.reported(*id).is_some_and(|report| report.room != Room::Enough);
        let mut names: Vec<&str> =
            members.nodes.iter().filter(|(id, _)| full(id)).map(|(_, info)| info.name.as_str()).collect();
        names.sort_unstable();
        if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) }
    }

    /// Whether the leader takes a proposal although there may be little room.
    pub(crate) fn has_room_for(&self, proposal: &Proposal) -> Result<(), StoreError> {
        // Every write comes by here: only what was found at the last look is looked at.
        let room = self.space.quorum();
        if room == Room::Enough {
            return Ok(());
        }
        let Ok(command) = proposal.decode(self.config.feature_level) else { return Ok(()) };
        if self.passes(&command, room)? {
            return Ok(());
        }
        self.metrics.refused_full.inc();
        Err(StoreError::NoSpace(match self.space.room() {
            Room::Enough => format!("the disks of too many members are nearly full{}", self.without_room()),
            _ => format!("the disk of {} is nearly full: {}", self.identity.name, self.space.describe()),
        }))
    }

    /// Deletes, compaction, expiry and membership make room, or are needed to get at more. Small replacements keep the
    /// cluster alive: leases, the fence, marks of deletion.
    fn passes(&self, command: &Command, room: Room) -> Result<bool, StoreError> {
        let Command::Txn(txn) = command else { return Ok(true) };
        let state = self.machine.state();
        for op in txn.then.iter().chain(&txn.otherwise) {
            let Op::Put { key, value, .. } = op else { continue };
            let Some(record) = state.record(key).inspect_err(|e| self.machine.note(e))? else { return Ok(false) };
            let grows = value.len() > record.value.len() + GROWTH;
            if grows || (room == Room::Hardly && value.len() > SMALL) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_of_those_who_answer_has_the_room_of_its_worst() {
        use Room::{Enough, Hardly, Little};
        let of = |rooms: &[Option<Room>]| quorum_of(rooms.to_vec(), true);
        assert_eq!(of(&[Some(Enough)]), Enough);
        assert_eq!(of(&[Some(Enough), Some(Hardly), Some(Enough)]), Enough);
        assert_eq!(of(&[Some(Little), Some(Hardly), Some(Enough)]), Little);
        assert_eq!(of(&[None, Some(Little), Some(Enough)]), Little, "the one that is silent cannot help");
        assert_eq!(of(&[None, Some(Hardly), Some(Enough), Some(Enough), Some(Enough)]), Enough);
        assert_eq!(of(&[None, Some(Hardly), None, Some(Enough), Some(Enough)]), Hardly);
        assert_eq!(of(&[None, None, Some(Enough)]), Enough, "a quorum is missing, and not room");
        assert_eq!(quorum_of(vec![None, Some(Little), Some(Enough)], false), Enough, "it may not have reported yet");
    }
}
