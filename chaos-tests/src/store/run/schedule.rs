//! Which fault comes when, and whom it hits: drawn from a seed. Pure, so that a seed means the same everywhere.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `kill -9` of one member.
    Kill,
    /// `kill -9` of all of them.
    KillAll,
    /// SIGSTOP for longer than an election, then SIGCONT.
    Pause,
    /// One member hears nobody and nobody hears it.
    Cut,
    /// One member is heard but hears nobody, or the other way round.
    OneWay,
    /// Two members do not hear each other; both hear the third.
    Bridge,
    /// 10 % of all packets between members are lost.
    Loss10,
    /// 30 % of them.
    Loss30,
    /// One member comes back with a disk that takes long to fsync.
    SlowDisk,
    /// One member is of a newer version for a while, and goes back.
    Versions,
    /// One member is removed, and another joins in its place.
    Replace,
    /// History is compacted.
    Compact,
    /// One member is away until it needs a snapshot; sometimes it is killed while it gets one.
    Away,
    /// All members are ended and started again in the friendly way, one after the other.
    Rolling,
    /// Leadership is handed over.
    Transfer,
    /// One member, or all, lose what was not fsynced.
    Power,
    /// The same while they come back from `kill -9`, when what they find may not be on the disk.
    PowerAgain,
    /// The disk of one member is full, or nearly; sometimes those of all.
    FullDisk,
    /// All members are exchanged for newer ones, one after the other, and the feature level is raised at the end.
    Upgrade,
}

/// All kinds.
pub const ALL: [Kind; 19] = [
    Kind::Kill,
    Kind::KillAll,
    Kind::Pause,
    Kind::Cut,
    Kind::OneWay,
    Kind::Bridge,
    Kind::Loss10,
    Kind::Loss30,
    Kind::SlowDisk,
    Kind::Versions,
    Kind::Replace,
    Kind::Compact,
    Kind::Away,
    Kind::Rolling,
    Kind::Transfer,
    Kind::Power,
    Kind::PowerAgain,
    Kind::FullDisk,
    Kind::Upgrade,
];

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Before it begins, in milliseconds.
    pub quiet_ms: u64,
    /// What.
    pub kind: Kind,
    /// Whether it hits the leader rather than the member that is named.
    pub leader: bool,
    /// Whom.
    pub victim: u32,
    /// Whom else, never the same.
    pub other: u32,
    /// For how long, in milliseconds.
    pub ms: u64,
    /// A coin, for faults that have two forms.
    pub coin: bool,
}

/// Faults without end.
#[derive(Debug)]
pub struct Schedule {
    random: StdRng,
    kinds: Vec<Kind>,
    deck: Vec<Kind>,
    members: u32,
}

impl Schedule {
    /// Draws from these kinds; each comes once before any comes again.
    pub fn new(seed: u64, kinds: &[Kind], members: u32) -> Schedule {
        Schedule { random: StdRng::seed_from_u64(seed ^ 0xfa17), kinds: kinds.to_vec(), deck: vec![], members }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.deck.is_empty() {
            self.deck = self.kinds.clone();
            self.deck.shuffle(&mut self.random);
        }
        let kind = self.deck.pop()?;
        let victim = self.random.random_range(1..=self.members);
        let other = (victim + self.random.random_range(0..self.members - 1)) % self.members + 1;
        let ms = match kind {
            // Longer than the longest silence that an election takes.
            Kind::Pause | Kind::Cut | Kind::OneWay | Kind::Bridge => self.random.random_range(700..2500),
            Kind::Loss10 | Kind::Loss30 | Kind::SlowDisk | Kind::Versions | Kind::FullDisk => {
                self.random.random_range(1500..3500)
            }
            Kind::Away => self.random.random_range(2500..5000),
            _ => self.random.random_range(0..1200),
        };
        Some(Step {
            quiet_ms: self.random.random_range(300..1500),
            kind,
            leader: self.random.random_bool(0.5),
            victim,
            other,
            ms,
            coin: self.random.random_bool(0.5),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_and_every_kind_comes() {
        let take = |seed| Schedule::new(seed, &ALL, 3).take(50).collect::<Vec<_>>();
        assert_eq!(take(5), take(5));
        assert_ne!(take(5), take(6));
        let mut kinds: Vec<Kind> = take(7)[..ALL.len()].iter().map(|step| step.kind).collect();
        kinds.sort();
        assert_eq!(kinds, ALL);
        for step in take(8) {
            assert!(step.victim != step.other && (1..=3).contains(&step.victim) && (1..=3).contains(&step.other));
        }
    }
}
