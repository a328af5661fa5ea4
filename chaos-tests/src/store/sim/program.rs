//! Many seeds, on as many threads as the machine has.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

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

/// Runs one plan twice: what differs is a finding too.
pub fn twice(plan: Plan) -> Outcome {
    let (mut one, other) = (alone(plan.clone()), alone(plan));
    let (one_bytes, other_bytes) = (one.bytes(), other.bytes());
    if one_bytes != other_bytes {
        let at = one_bytes.iter().zip(&other_bytes).position(|(a, b)| a != b);
        one.verdict
            .findings
            .add("replay", || format!("the same seed did something else at byte {at:?} of its history"));
    }
    one
}

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Many {
    /// How many ran.
    pub ran: u64,
    /// Those in which something was found.
    pub failed: Vec<Outcome>,
    /// The longest that a group took to work again, and the seed.
    pub slowest: (Duration, u64),
}

/// Runs seeds from the first on, until all are done, the time is over or enough has failed.
pub fn many(first: u64, count: u64, until: Option<Instant>, run: impl Fn(u64) -> Outcome + Sync) -> Many {
    let next = AtomicU64::new(0);
    let many: Mutex<Many> = Mutex::default();
    let held = || many.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        while held().failed.len() < ENOUGH && until.is_none_or(|until| Instant::now() < until) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return;
            }
            let outcome = run(first + at);
            let mut many = held();
            many.ran += 1;
            many.slowest = many.slowest.max((outcome.healed, first + at));
            if !outcome.verdict.findings.is_empty() {
                many.failed.push(outcome);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut many = std::mem::take(&mut *held());
    many.failed.sort_by_key(|outcome| outcome.verdict.history.head.seed);
    many
}

/// What was found, and how to have it again.
pub fn tell(outcome: &Outcome) -> String {
    let seed = outcome.verdict.history.head.seed;
    let mut text = format!("seed {seed}: {}\n", outcome.line());
    for line in outcome.verdict.findings.lines().iter().take(12) {
        text.push_str(&format!("  {line}\n"));
    }
    text.push_str(&format!("  again: make sim SEED={seed}\n"));
    text
}

/// Keeps the history of a simulation; where.
fn keep(outcome: &Outcome) -> Result<std::path::PathBuf> {
    let folder = target()?.join("chaos").join(format!("sim-{}", outcome.verdict.history.head.seed));
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("history.jsonl");
    outcome.verdict.history.save(&path)?;
    Ok(path)
}

/// Tells the time of a simulation in its log.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        write!(w, "{:10.3}", turmoil::sim_elapsed().unwrap_or_default().as_secs_f64())
    }
}

/// Shows on the standard error what members log, if `RUST_LOG` says of what.
fn show_log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let _ = log.with_timer(Clock).try_init();
}

/// The whole program: one seed if one is given and no count, else many.
///
/// # Errors
/// When something was found.
pub fn program() -> Result<()> {
    if std::env::var_os("SEED").is_some() && std::env::var_os("COUNT").is_none() {
        show_log();
        let outcome = alone(Plan::new(setting("SEED", 0)?));
        for mark in &outcome.verdict.history.marks {
            println!("{:8.3} s  {}", mark.at as f64 / 1e6, mark.what);
        }
        print!("{}", tell(&outcome));
        println!("  history: {}", keep(&outcome)?.display());
        return if outcome.verdict.findings.is_empty() {
            Ok(())
        } else {
            bail!("{} findings", outcome.verdict.findings.count)
        };
    }
    let (count, first) = (setting("COUNT", COUNT)?, setting("SEED", rand::random::<u32>().into())?);
    println!("{count} simulations, first seed {first}");
    let (begun, again) = (Instant::now(), setting("AGAIN", 0)? > 0);
    let run = |seed| {
        let outcome = if again { twice(Plan::new(seed)) } else { alone(Plan::new(seed)) };
        if !outcome.verdict.findings.is_empty() {
            print!("{}", tell(&outcome));
        }
        outcome
    };
    let Many { ran, failed, slowest: (slowest, at) } = many(first, count, None, run);
    for outcome in &failed {
        println!("seed {}: history: {}", outcome.verdict.history.head.seed, keep(outcome)?.display());
    }
    let (seconds, count) = (begun.elapsed().as_secs_f64(), failed.len());
    println!(
        "{ran} simulations in {seconds:.0} s, {:.1} a second; {count} failed; the slowest group worked again after {:.1} s (seed {at})",
        ran as f64 / seconds,
        slowest.as_secs_f64()
    );
    if failed.is_empty() { Ok(()) } else { bail!("something was found") }
}
