//! Many seeds; a seed that replays; and faults that simulations have to see.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use super::plan::Plan;
use super::program::{Many, alone, many, tell, twice};

/// Always the same: what fails here fails for everybody. `make chaos` draws others.
const FIRST: u64 = 1;
const SEEDS: u64 = 200;
/// On a machine that is slow or busy so much time has to do.
const TIME: Duration = Duration::from_secs(60);
/// Fewer would show little; a machine on which a minute is not enough for them takes longer.
const LEAST: u64 = 20;

#[test]
fn the_store_keeps_its_promises_in_simulations() {
    let until = Instant::now() + TIME;
    let run = |seed| alone(Plan::new(seed));
    let (least, more) = (many(FIRST, LEAST, None, run), many(FIRST + LEAST, SEEDS - LEAST, Some(until), run));
    let ran = least.ran + more.ran;
    println!("{ran} simulations");
    let failed: Vec<_> = least.failed.iter().chain(&more.failed).collect();
    let told: String = failed.iter().map(|outcome| tell(outcome)).collect();
    assert!(failed.is_empty(), "of {ran} simulations {} failed\n{told}", failed.len());
    assert!(ran >= LEAST, "only {ran} simulations ran");
}

#[test]
fn a_seed_does_the_same_again_to_the_byte() {
    for seed in [3, 11, 42] {
        let outcome = twice(Plan::new(seed));
        assert!(outcome.verdict.findings.is_empty(), "{}", tell(&outcome));
        assert!(outcome.verdict.counts.answers > 50, "{}", tell(&outcome));
        assert_ne!(outcome.bytes(), alone(Plan::new(seed + 1)).bytes());
    }
}

/// It knows no leader when it comes back, and nobody talks to it.
#[test]
fn a_member_that_was_removed_while_it_was_away_is_told() {
    let outcome = alone(Plan::new(667));
    assert!(outcome.verdict.findings.is_empty(), "{}", tell(&outcome));
}

/// How many seeds it may take until a known fault is seen.
const SOON: u64 = 60;

fn is_seen(fault: &str) {
    let Many { ran, failed, .. } = many(FIRST, SOON, None, |seed| alone(Plan::with_fault(seed, fault)));
    println!("{fault}: {ran} simulations\n{}", failed.iter().map(tell).collect::<String>());
    assert!(failed.iter().any(super::Outcome::is_untrue), "{fault} was not seen in {ran} simulations");
}

#[test]
fn an_acknowledgement_before_the_fsync_is_seen() {
    is_seen("ack-before-fsync=30");
}

#[test]
fn a_read_without_a_quorum_is_seen() {
    is_seen("read-without-quorum");
}
