//! Many seeds, on as many threads as the machine has.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Result, bail};

use super::plan::Plan;
use super::{Outcome, simulate};
use crate::report::{setting, target};

/// Seeds of `make chaos`.
const COUNT: u64 = 3_000;
/// So many failing seeds are enough to look into.
const ENOUGH: usize = 8;

/// Runs one plan on a thread of its own, which remembers nothing of others.
pub fn alone(plan: Plan) -> Outcome {
    let seed = plan.seed;
    let run = std::thread::Builder::new().name(format!("sim-{seed}")).spawn(move || simulate(plan));
    match run.map(std::thread::JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => panic!("no thread: {error}"),
    }
}

/// Runs seeds from the first on, until all are done, the time is over or enough has failed. Tells how many ran, and what failed.
pub fn many(first: u64, count: u64, until: Option<Instant>, plan: impl Fn(u64) -> Plan + Sync) -> (u64, Vec<Outcome>) {
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed: Mutex<Vec<Outcome>> = Mutex::default();
    let held = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        while held().iter().filter(|outcome| outcome.is_wrong()).count() < ENOUGH
            && until.is_none_or(|until| Instant::now() < until)
        {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return;
            }
            let outcome = alone(plan(first + at));
            done.fetch_add(1, Ordering::Relaxed);
            if !outcome.findings.is_empty() {
                held().push(outcome);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut failed = std::mem::take(&mut *held());
    failed.sort_by_key(|outcome| outcome.history.head.seed);
    (done.into_inner(), failed)
}

/// What was found, and how to have it again.
pub fn tell(outcome: &Outcome) -> String {
    let seed = outcome.history.head.seed;
    let mut text = format!("seed {seed}: {}\n", outcome.line());
    for line in outcome.findings.lines().iter().take(12) {
        text.push_str(&format!("  {line}\n"));
    }
    text.push_str(&format!("  again: make sim SEED={seed}\n"));
    text
}

/// Keeps the history of a simulation; where.
fn keep(outcome: &Outcome) -> Result<std::path::PathBuf> {
    let folder = target()?.join("chaos").join(format!("sim-{}", outcome.history.head.seed));
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("history.jsonl");
    outcome.history.save(&path)?;
    Ok(path)
}

/// The whole program: one seed if one is given and no count, else many.
///
/// # Errors
/// When something was found.
pub fn program() -> Result<()> {
    if std::env::var_os("SEED").is_some() && std::env::var_os("COUNT").is_none() {
        let outcome = alone(Plan::new(setting("SEED", 0)?));
        for mark in &outcome.history.marks {
            println!("{:8.3} s  {}", mark.at as f64 / 1e6, mark.what);
        }
        print!("{}", tell(&outcome));
        println!("  history: {}", keep(&outcome)?.display());
        return if outcome.findings.is_empty() { Ok(()) } else { bail!("{} findings", outcome.findings.count) };
    }
    let (count, first) = (setting("COUNT", COUNT)?, setting("SEED", rand::random::<u32>().into())?);
    println!("{count} simulations, first seed {first}");
    let begun = Instant::now();
    let (ran, failed) = many(first, count, None, Plan::new);
    for outcome in &failed {
        print!("{}", tell(outcome));
        println!("  history: {}", keep(outcome)?.display());
    }
    let seconds = begun.elapsed().as_secs_f64();
    let wrong = failed.iter().filter(|outcome| outcome.is_wrong()).count();
    let (rate, slow) = (ran as f64 / seconds, failed.len() - wrong);
    println!(
        "{ran} simulations in {seconds:.0} s, {rate:.1} a second; {wrong} failed, {slow} did not all work again in time"
    );
    if wrong == 0 { Ok(()) } else { bail!("something was found") }
}
