//! The clocks of Raft: when the leader says that it lives, and when another member stands for election.
//!
//! A member stands after a silence of random length between `election_min` and `election_max`. It stands sooner when the
//! leader's process is known to be dead: its connections closed, and its host refuses new ones. The lease that the
//! others keep to is over then. Silence alone never ends it early.

use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::node::Node;
use crate::consensus::convert;
use crate::simulation::Environment;
use crate::storage::records::VoteRecord;
use crate::types::MemberId;

/// After the death of a leader the other members stand one after another, so that they do not split the votes.
const TURN: Duration = Duration::from_millis(40);
/// Pauses between attempts after the death of a leader: the others may not know of it yet.
const HURRY: [Duration; 5] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
];

/// When to stand for election. Knows no clock; times are passed in.
struct Silence {
    min: Duration,
    max: Duration,
    /// Where the length comes from.
    chance: Environment,
    /// When a leader, or a candidate that got this member's vote, was last heard of.
    since: Instant,
    /// How long the silence may last from then on.
    patience: Duration,
    /// Set after the death of a leader: when to try next, and how often it was tried.
    hurry: Option<(Instant, usize)>,
}

impl Silence {
    fn new(min: Duration, max: Duration, chance: Environment, now: Instant) -> Self {
        let mut silence = Self { min, max, chance, since: now, patience: max, hurry: None };
        silence.broken(now);
        silence
    }

    fn draw(&self) -> Duration {
        self.chance.draw(self.min..self.max)
    }

    /// A leader or a candidate was heard of.
    fn broken(&mut self, now: Instant) {
        self.since = now;
        self.patience = self.draw();
        self.hurry = None;
    }

    /// A leader was heard of at some time, perhaps before the last look.
    fn heard(&mut self, at: Instant) {
        if at > self.since {
            self.broken(at);
        }
    }

    /// The leader's process is dead; `turn` members stand before this one.
    fn dead(&mut self, now: Instant, turn: usize) {
        // What it said before does not count any more.
        self.since = now;
        self.hurry = Some((now + TURN * turn as u32, 0));
    }

    /// When to stand.
    fn due(&self) -> Instant {
        self.hurry.map_or(self.since + self.patience, |(at, _)| at)
    }

    /// This member stood just now. Whether anything comes of it is seen by what is heard then.
    fn stood(&mut self, now: Instant) {
        let tried = self.hurry.map(|(_, tried)| tried);
        self.broken(now);
        if let Some(tried) = tried
            && let Some(pause) = HURRY.get(tried)
        {
            self.hurry = Some((now + *pause, tried + 1));
        }
    }
}

/// Keeps the clocks; runs until the member stops.
pub(crate) async fn run(node: Arc<Node>, mut lost: mpsc::Receiver<VoteRecord>) {
    let timing = &node.config.timing;
    let mut silence =
        Silence::new(timing.election_min, timing.election_max, node.config.environment.clone(), Instant::now());
    let mut server = node.raft.server_metrics();
    let mut beats = tokio::time::interval(timing.heartbeat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut vote, mut asked) = (None, false);
    let mut asking = std::pin::pin!(node.ask_whether_to_stand());
    loop {
        let (leads, now_vote) = {
            let m = server.borrow_and_update();
            (m.state == ServerState::Leader, convert::vote_record(&m.vote))
        };
        if vote != Some(now_vote) {
            vote = Some(now_vote);
            silence.broken(Instant::now());
            // The first beat of a new leader is not late.
            beats.reset_immediately();
        }
        tokio::select! {
            () = node.removed.cancelled() => return,
            changed = server.changed() => if changed.is_err() { return },
            () = &mut asking, if !asked => asked = true,
            _ = beats.tick(), if leads => {
                if node.raft.trigger().heartbeat().await.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep_until(silence.due()), if !leads && asked => {
                silence.heard(node.heard.at());
                let now = Instant::now();
                if silence.due() <= now {
                    // How late this clock is tells whether it was the leader that was slow, or this machine.
                    let (silent, late) = (now - silence.since, now - silence.due());
                    tracing::info!(?silent, ?late, proven = silence.hurry.is_some(), "standing for election");
                    silence.stood(now);
                    if node.raft.trigger().elect(true).await.is_err() {
                        return;
                    }
                }
            }
            Some(dead) = lost.recv(), if !leads => {
                if let Some(turn) = node.turn_after(dead).await {
                    silence.dead(Instant::now(), turn);
                }
            }
        }
    }
}

impl Node {
    /// Looks into the end of a leader's stream of heartbeats. If that leader still counts as one here but its process
    /// is dead, its lease ends, and this member's turn among those that may follow it is returned.
    async fn turn_after(&self, dead: VoteRecord) -> Option<usize> {
        let followed = || {
            let metrics = self.raft.server_metrics();
            let m = metrics.borrow_watched();
            let own = self.identity.id;
            let follows =
                m.current_leader == Some(dead.node) && convert::vote_record(&m.vote) == dead && dead.node != own;
            let mut voters: Vec<MemberId> = m.membership_config.voter_ids().filter(|id| *id != dead.node).collect();
            voters.sort_unstable();
            voters.iter().position(|id| *id == own).filter(|_| follows)
        };
        followed()?;
        let target = self.target(dead.node)?;
        if !self.peers.refuses(&target).await {
            return None;
        }
        let turn = followed()?;
        tracing::info!(leader = dead.node, term = dead.term, turn, "the leader's process is dead");
        // What a leader says that hands over: whoever may follow need not wait for the lease. Named is one who cannot.
        let over = TransferLeaderRequest::new(convert::vote(dead), dead.node, None);
        self.raft.handle_transfer_leader(over).await.ok()?.ok()?;
        Some(turn)
    }
}

/// When a leader was last heard of; written where its messages arrive.
pub(crate) struct Heard {
    begin: Instant,
    micros: std::sync::atomic::AtomicU64,
}

impl Heard {
    pub(crate) fn new() -> Self {
        Self { begin: Instant::now(), micros: 0.into() }
    }

    pub(crate) fn now(&self) {
        self.micros.store(self.begin.elapsed().as_micros() as u64, std::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) fn at(&self) -> Instant {
        self.begin + Duration::from_micros(self.micros.load(std::sync::atomic::Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn silence() -> (Silence, Instant) {
        let begin = Instant::now();
        (Silence::new(500 * MS, 900 * MS, Environment::default(), begin), begin)
    }

    #[test]
    fn stands_after_a_silence_of_random_length() {
        let (mut silence, begin) = silence();
        let mut drawn = std::collections::BTreeSet::new();
        for _ in 0..50 {
            silence.broken(begin);
            let wait = silence.due() - begin;
            assert!((500 * MS..900 * MS).contains(&wait), "{wait:?}");
            drawn.insert(wait);
        }
        assert!(drawn.len() > 10, "members that draw alike split the votes for ever");
        silence.heard(begin - MS);
        assert!(silence.due() < begin + 900 * MS, "what was heard before does not count again");
        silence.heard(begin + 1000 * MS);
        assert!(silence.due() >= begin + 1500 * MS);
    }

    #[test]
    fn an_attempt_in_vain_is_repeated_after_another_silence() {
        let (mut silence, begin) = silence();
        silence.stood(begin + 600 * MS);
        assert!((1100 * MS..1500 * MS).contains(&(silence.due() - begin)));
    }

    #[test]
    fn after_a_death_members_stand_in_turn_and_soon_again() {
        let (mut first, started) = silence();
        let (mut second, _) = silence();
        let begin = started + 2 * MS;
        first.dead(begin, 0);
        second.dead(begin, 1);
        first.heard(begin - MS);
        assert_eq!(first.due(), begin);
        assert_eq!(second.due(), begin + TURN);
        let (mut at, mut attempts) = (begin, 0);
        while first.due() - at < 200 * MS {
            at = first.due();
            first.stood(at);
            attempts += 1;
        }
        assert_eq!(attempts, 1 + HURRY.len(), "then as after any other silence");
        assert!(first.due() - at >= 500 * MS);
        second.heard(begin + MS);
        assert!(second.due() >= begin + 500 * MS, "a leader was heard of meanwhile");
    }
}
