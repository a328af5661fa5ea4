//! `make chaos`: run after run on groups of their own until the time is over.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::round::{self, Outcome, Plan};
use crate::report::setting;

/// How long one run is. Each has a seed of its own, so that what fails can be had again without the rest.
const ROUND: u64 = 60;

fn tell(outcome: &Outcome, took: Duration) {
    let seed = outcome.verdict.history.head.seed;
    println!("seed {seed}, {:.0} s: {}", took.as_secs_f64(), outcome.line());
    outcome.verdict.findings.lines().iter().for_each(|line| println!("  {line}"));
    println!("  report: {}", outcome.folder.join("report.html").display());
    if !outcome.verdict.findings.is_empty() {
        println!("  history: {}", outcome.folder.join("history.jsonl").display());
        println!("  again: {}", outcome.again);
    }
}

/// Returns when the program is asked to end.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup())) else {
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// The whole program. With a file it judges a history that was kept; `proofs [word]` shows that known bugs are seen.
///
/// # Errors
/// When something was found, or the group cannot be run.
pub async fn program(arguments: &[String]) -> Result<()> {
    let first = arguments.first().map(String::as_str);
    if first == Some("proofs") {
        return tokio::select! {
            done = super::proofs::program(arguments.get(1).map_or("", String::as_str)) => done,
            () = interrupted() => bail!("interrupted"),
        };
    }
    if let Some(path) = first {
        let outcome = round::again(Path::new(path))?;
        tell(&outcome, Duration::ZERO);
        return if outcome.verdict.findings.is_empty() {
            Ok(())
        } else {
            bail!("{} findings", outcome.verdict.findings.count)
        };
    }
    let (time, first) = (setting("SECONDS", 600)?.max(1), setting("SEED", rand::random::<u32>().into())?);
    println!("{time} s of chaos, first seed {first}");
    let (begun, mut failed, mut rounds) = (Instant::now(), Vec::new(), 0);
    while begun.elapsed().as_secs() < time {
        let seed = first + rounds;
        let rest = time - begun.elapsed().as_secs();
        let plan = Plan::new("chaos", seed, Duration::from_secs(rest.min(ROUND)));
        println!("\nround {}, seed {seed}", rounds + 1);
        let start = Instant::now();
        let outcome = tokio::select! {
            outcome = round::round(plan) => outcome,
            () = interrupted() => bail!("interrupted"),
        };
        match outcome {
            Ok(outcome) => {
                tell(&outcome, start.elapsed());
                if !outcome.verdict.findings.is_empty() {
                    failed.push(seed);
                }
            }
            Err(error) => {
                println!("seed {seed} could not be run: {error:#}");
                failed.push(seed);
            }
        }
        rounds += 1;
    }
    println!("\n{rounds} rounds, {} failed", failed.len());
    if failed.is_empty() { Ok(()) } else { bail!("failed seeds: {failed:?}") }
}
