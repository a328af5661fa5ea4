//! What happens in a simulation: drawn from its seed, all of it, before it begins.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Whom something happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Whoever leads then.
    Leader,
    /// This one.
    Member(u32),
}

/// What happens to the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Power fails at one member: what was not fsynced is lost, in part or in whole.
    Crash(Whom),
    /// Power fails at all of them.
    CrashAll,
    /// Power fails at one member after so many more changes of its disk.
    CrashWithin(Whom, u64),
    /// One process is killed: what it wrote stays.
    Kill(Whom),
    /// One process ends in the friendly way, and comes back.
    Restart(Whom),
    /// Between one member and all others nothing arrives.
    Cut(Whom),
    /// What one member sends does not arrive.
    Mute(Whom),
    /// What is sent to one member does not arrive.
    Deaf(Whom),
    /// Between two members nothing arrives; others hear both.
    Bridge(u32, u32),
    /// What one member and the others send each other arrives afterwards.
    Hold(Whom),
    /// Between two members messages take long.
    Slow(u32, u32),
    /// Of a thousand messages so many break the link that they are sent on.
    Loss(u32),
    /// Each fsync of one member takes so many milliseconds longer.
    SlowDisk(Whom, u64),
    /// The time of day is another one at a member.
    Skew(Whom, i64),
    /// Leadership is handed over.
    Transfer,
    /// History is forgotten.
    Compact,
    /// A member is removed, and another one joins in its place.
    Replace(u32),
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, in milliseconds after the group was founded.
    pub at: u64,
    /// What.
    pub act: Act,
    /// For how long, in milliseconds.
    pub ms: u64,
}

/// A whole simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where everything comes from.
    pub seed: u64,
    /// How many members.
    pub members: u32,
    /// How many clients.
    pub clients: u32,
    /// Longest pause between two requests of a client, in milliseconds.
    pub think_ms: u64,
    /// Longest way of a message, in milliseconds.
    pub latency_ms: u64,
    /// Longest wait for a disk, in milliseconds.
    pub fsync_ms: u64,
    /// Entries between two snapshots, and those that stay in the log.
    pub entries: (u64, u64),
    /// Events that stay in memory.
    pub events: usize,
    /// When everything heals, in milliseconds.
    pub until: u64,
    /// What happens before.
    pub steps: Vec<Step>,
    /// Known faults that all members have.
    pub faults: Vec<String>,
}

/// The farthest that a wall clock is off, in milliseconds.
pub const SKEW_MS: i64 = 3_000;

fn whom(random: &mut StdRng, members: u32) -> Whom {
    match random.random_bool(0.4) {
        true => Whom::Leader,
        false => Whom::Member(random.random_range(1..=members)),
    }
}

fn act(random: &mut StdRng, members: u32) -> Act {
    let victim = whom(random, members);
    let a = random.random_range(1..=members);
    let b = (a + random.random_range(0..members - 1)) % members + 1;
    match random.random_range(0..34) {
        0..5 => Act::Crash(victim),
        5..7 => Act::CrashAll,
        7..9 => Act::CrashWithin(victim, random.random_range(0..40)),
        9..11 => Act::Kill(victim),
        11..13 => Act::Restart(victim),
        13..16 => Act::Cut(victim),
        16 => Act::Mute(victim),
        17 => Act::Deaf(victim),
        18 => Act::Bridge(a, b),
        19..21 => Act::Hold(victim),
        21 => Act::Slow(a, b),
        22..24 => Act::Loss(random.random_range(2..30)),
        24 => Act::SlowDisk(victim, random.random_range(10..1500)),
        25..27 => Act::Skew(victim, random.random_range(-SKEW_MS..=SKEW_MS)),
        27..29 => Act::Transfer,
        29..31 => Act::Compact,
        31 => Act::Replace(a),
        _ => Act::Crash(Whom::Leader),
    }
}

impl Plan {
    /// What follows from a seed.
    pub fn new(seed: u64) -> Plan {
        let mut random = StdRng::seed_from_u64(seed ^ 0x51b0_1a7e);
        let members = [3, 3, 3, 3, 3, 3, 4, 5][random.random_range(0..8)];
        let until = random.random_range(6_000..14_000);
        let (mut steps, mut at) = (Vec::new(), random.random_range(0..800));
        while at < until {
            let ms = match random.random_range(0..4) {
                0 => random.random_range(1..300),
                3 => random.random_range(1500..5000),
                _ => random.random_range(300..1800),
            };
            steps.push(Step { at, act: act(&mut random, members), ms });
            at += random.random_range(50..1700);
        }
        Plan {
            seed,
            members,
            clients: random.random_range(3..7),
            think_ms: random.random_range(60..240),
            latency_ms: [1, 3, 8, 20][random.random_range(0..4)],
            fsync_ms: [0, 2, 10][random.random_range(0..3)],
            entries: (random.random_range(30..250), random.random_range(4..60)),
            events: random.random_range(4..200),
            until,
            steps,
            faults: Vec::new(),
        }
    }

    /// The same, with a known fault in every member.
    pub fn with_fault(seed: u64, fault: &str) -> Plan {
        Plan { faults: vec![fault.to_owned()], ..Plan::new(seed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_and_everything_comes() {
        assert_eq!(Plan::new(3), Plan::new(3));
        assert_ne!(Plan::new(3).steps, Plan::new(4).steps);
        let mut names = std::collections::BTreeSet::new();
        for step in (0..60).flat_map(|seed| Plan::new(seed).steps) {
            let name = format!("{:?}", step.act);
            names.insert(name.split('(').next().unwrap_or_default().to_owned());
            if let Act::Bridge(a, b) | Act::Slow(a, b) = step.act {
                assert_ne!(a, b);
            }
        }
        assert_eq!(names.len(), 17, "{names:?}");
    }
}
