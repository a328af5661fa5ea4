//! Proof that the rig sees: known bugs, of this design and of others, each brought about by taking its guard out of the
//! store. With the guard nothing is found; without it the checkers find something.
//!
//! The steps are the same with and without the guard, so that what is found is due to it.

use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::group::Settings;
use super::net::Deaf;
use super::restores::restored;
use super::round::{Outcome, Plan, Running};
use super::schedule::{Kind, Step};

/// How long something is waited for that has to happen.
const LIMIT: Duration = Duration::from_secs(30);

type Steps = for<'a> fn(&'a mut Running) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// One bug.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What takes the guard out, on the member with the number, or on all.
    pub without: (Option<u32>, &'static str),
    plan: fn(Plan) -> Plan,
    steps: Steps,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// All of them.
pub const CASES: [Case; 13] = [
    // The four deliberate faults.
    Case {
        name: "acknowledged without an fsync",
        without: (None, "no-fsync"),
        plan: |mut plan| {
            plan.settings.power = true;
            plan
        },
        steps: |running| Box::pin(power_fails(running)),
    },
    Case {
        name: "acknowledged before the fsync",
        without: (None, "ack-before-fsync=100"),
        plan: |plan| plan,
        steps: |running| Box::pin(dies_as_a_whole(running)),
    },
    Case {
        name: "read without ReadIndex",
        without: (None, "read-without-quorum"),
        plan: many_reads,
        steps: |running| Box::pin(cut_off_leader(running)),
    },
    Case {
        name: "an entry skipped by one member",
        without: (Some(2), "skip-entry=60"),
        plan: |plan| plan,
        steps: |running| Box::pin(at_work(running)),
    },
    Case {
        name: "an event dropped by a watch",
        without: (Some(2), "drop-event=80"),
        plan: |plan| plan,
        steps: |running| Box::pin(at_work(running)),
    },
    // Known bugs of others.
    Case {
        name: "stale read after a process pause",
        without: (None, "read-without-quorum"),
        plan: many_reads,
        steps: |running| Box::pin(paused_leaders(running)),
    },
    Case {
        name: "watch time travel after a partition",
        without: (None, "keep-ring"),
        plan: |mut plan| {
            plan.settings = plan.settings.set("snapshot-entries", 60).set("keep-log-entries", 10);
            plan.load.through = vec![1, 3];
            plan.watchers.iter_mut().for_each(|watcher| (watcher.stays, watcher.slow) = (true, false));
            plan
        },
        steps: |running| Box::pin(cut_off_follower(running)),
    },
    Case {
        name: "events lost under a starved stream",
        without: (None, "no-replay"),
        plan: |mut plan| {
            plan.settings = plan.settings.set("watch-events", 10);
            plan.watchers.iter_mut().for_each(|watcher| watcher.slow = true);
            plan
        },
        steps: |running| Box::pin(paused_members(running)),
    },
    Case {
        name: "inconsistent revision after a crash during apply",
        without: (None, "torn-apply=15"),
        plan: |plan| plan,
        steps: |running| Box::pin(dies_as_a_whole(running)),
    },
    Case {
        name: "a wiped member comes back and splits the quorum",
        without: (Some(2), "accept-lost-log"),
        plan: |plan| plan,
        steps: |running| Box::pin(wiped(running)),
    },
    Case {
        name: "a log purged beyond the flushed state",
        without: (None, "purge-unflushed"),
        plan: |mut plan| {
            plan.settings = plan.settings.set("snapshot-entries", 40).set("keep-log-entries", 5);
            plan
        },
        steps: |running| Box::pin(dies_as_a_whole(running)),
    },
    Case {
        name: "a restore that rewinds revisions",
        without: (None, "restore-rewinds"),
        plan: |plan| plan,
        steps: |running| Box::pin(restored(running)),
    },
    Case {
        name: "expiry decided by a stuck old leader",
        without: (None, "blind-expiry"),
        plan: |mut plan| {
            plan.settings = plan.settings.with("expiry-pause=1200");
            // A key has to rest until it expires, and to be written just then.
            (plan.load.keys, plan.load.expiring) = (15, 60);
            plan
        },
        steps: |running| Box::pin(stuck_leader(running)),
    },
];

/// Runs a case with its guard, or without it.
///
/// # Errors
/// When it cannot be run.
pub async fn run(case: &Case, guarded: bool, seed: u64) -> Result<Outcome> {
    let how = if guarded { "with" } else { "without" };
    let name = format!("{} {how} guard", case.name).replace(' ', "-");
    let mut plan = (case.plan)(Plan::new(&name, seed, Duration::ZERO));
    if !guarded {
        // A group that does not work any more would not work later either.
        plan.patience = Duration::from_secs(15);
        let (member, fault) = case.without;
        plan.settings = match member {
            Some(member) => plan.settings.with_on(member, fault),
            None => Settings::with(plan.settings, fault),
        };
    }
    let mut running = Running::begin(plan).await?;
    let done = match running.progress(40).await {
        Ok(()) => (case.steps)(&mut running).await,
        stuck => stuck,
    };
    // Without its guard the group may not get to the end of the steps, which shows as well that something is wrong.
    match done {
        Err(error) if guarded => return Err(error.context(case.name)),
        Err(error) => println!("{}: {error:#}", case.name),
        Ok(()) => {}
    }
    running.judge().await
}

/// All cases, or those whose name holds a word, with and without their guards.
///
/// # Errors
/// When one does not do what it should.
pub async fn program(word: &str) -> Result<()> {
    let mut wrong = Vec::new();
    for case in CASES.iter().filter(|case| case.name.contains(word)) {
        for guarded in [true, false] {
            let how = if guarded { "with" } else { "without" };
            println!("\n{}, {how} its guard", case.name);
            let outcome = seen(case, guarded).await?;
            println!("{}", outcome.line());
            outcome.verdict.findings.lines().iter().take(3).for_each(|line| println!("  {line}"));
            if outcome.verdict.findings.is_empty() != guarded || is_evident(&outcome) == guarded {
                wrong.push(format!("{} {how} its guard", case.name));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!("not as it should be: {wrong:?}") }
}

/// Attempts without a guard, since a crash or a pause may miss the moment.
const ATTEMPTS: u32 = 5;

/// Runs a case; without its guard again if nothing is found, or it could not be run.
///
/// # Errors
/// When it cannot be run.
pub async fn seen(case: &Case, guarded: bool) -> Result<Outcome> {
    for _ in 1..ATTEMPTS {
        match run(case, guarded, rand::random::<u32>().into()).await {
            Ok(outcome) if guarded || is_evident(&outcome) => return Ok(outcome),
            Err(error) if guarded => return Err(error),
            Ok(_) => println!("{}: nothing is found, once more", case.name),
            Err(error) => println!("{}: once more: {error:#}", case.name),
        }
    }
    run(case, guarded, rand::random::<u32>().into()).await
}

/// Whether more was found than that something took too long, which a busy machine can do as well.
fn is_evident(outcome: &Outcome) -> bool {
    outcome.verdict.findings.kept.iter().any(|finding| !matches!(finding.rule, "fault" | "availability" | "late"))
}

fn many_reads(mut plan: Plan) -> Plan {
    (plan.load.reads, plan.load.think_ms) = (60, 4);
    plan
}

fn step(kind: Kind, victim: u32, leader: bool, ms: u64) -> Step {
    Step { quiet_ms: 100, kind, leader, victim, other: victim % 3 + 1, ms, coin: false }
}

async fn at_work(running: &mut Running) -> Result<()> {
    running.progress(300).await
}

async fn dies_as_a_whole(running: &mut Running) -> Result<()> {
    for _ in 0..3 {
        running.chaos.step(&step(Kind::KillAll, 1, false, 0)).await;
        if !running.chaos.findings.is_empty() {
            // It does not work any more.
            break;
        }
        running.progress(30).await?;
    }
    Ok(())
}

async fn power_fails(running: &mut Running) -> Result<()> {
    for _ in 0..3 {
        running.chaos.step(&Step { coin: true, ..step(Kind::Power, 1, false, 0) }).await;
        if !running.chaos.findings.is_empty() {
            break;
        }
        running.progress(30).await?;
    }
    Ok(())
}

/// Who leads; waits until somebody does.
async fn leading(running: &Running) -> Result<u32> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(leader) = running.group().leader().await {
            return Ok(leader);
        }
        ensure!(Instant::now() < deadline, "nobody leads");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until another one leads, and so many more writes are acknowledged or no client is left that could write.
async fn overtaken(running: &Running, former: u32, writes: u64) -> Result<()> {
    let (group, begun) = (running.group().clone(), Instant::now());
    let leads = async |member: u32| group.status(member).await.is_ok_and(|status| status.leader == Some(status.id));
    let others = (1..=group.members()).filter(|member| *member != former).cycle();
    for member in others {
        if leads(member).await {
            break;
        }
        ensure!(begun.elapsed() < LIMIT, "nobody else leads");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (target, elected) = (running.recorder().acknowledged() + writes, Instant::now());
    while running.recorder().acknowledged() < target && elected.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn cut_off_leader(running: &mut Running) -> Result<()> {
    let (group, leader, begun) = (running.group().clone(), leading(running).await?, running.recorder().now());
    for member in 1..=group.members() {
        let to = (1..=group.members()).filter(|other| *other != member && (member == leader || *other == leader));
        group.net.deafen(member, &Deaf { to: to.collect(), loss: 0 })?;
    }
    let cut = overtaken(running, leader, 150).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    group.net.heal()?;
    running.recorder().mark(begun, format!("cut off leader m{leader}"));
    running.chaos.recover("a leader was cut off").await;
    cut
}

/// Stops the leader in its tracks until another one has taken over.
async fn pause_leader(running: &mut Running) -> Result<()> {
    let (group, leader, begun) = (running.group().clone(), leading(running).await?, running.recorder().now());
    group.pause(leader, true)?;
    let paused = overtaken(running, leader, 20).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    group.pause(leader, false)?;
    running.recorder().mark(begun, format!("SIGSTOP leader m{leader}"));
    running.chaos.recover("a leader was stopped").await;
    paused
}

async fn paused_leaders(running: &mut Running) -> Result<()> {
    for _ in 0..3 {
        pause_leader(running).await?;
    }
    Ok(())
}

async fn paused_members(running: &mut Running) -> Result<()> {
    for member in 1..=3 {
        running.chaos.step(&step(Kind::Pause, member, false, 800)).await;
        running.progress(60).await?;
    }
    // Slow watchers move on to another member, from where they were.
    let begun = Instant::now();
    while running.recorder().sessions() < 6 && begun.elapsed() < LIMIT {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// A member is cut off until it needs a snapshot; the watchers on it stay.
async fn cut_off_follower(running: &mut Running) -> Result<()> {
    let group = running.group().clone();
    // On a busy machine the others may still have all that it lacks in their logs.
    for _ in 0..5 {
        group.net.deafen(2, &Deaf { to: vec![1, 3], loss: 0 })?;
        running.progress(250).await?;
        group.net.heal()?;
        running.chaos.step(&step(Kind::Transfer, 1, false, 0)).await;
        running.progress(30).await?;
        if group.said(2, "receiving a snapshot") {
            return Ok(());
        }
    }
    bail!("member 2 never needed a snapshot")
}

/// A leader stops while it is about to remove what has expired.
async fn stuck_leader(running: &mut Running) -> Result<()> {
    for _ in 0..2 {
        running.progress(250).await?;
        pause_leader(running).await?;
    }
    running.progress(250).await
}

/// Writes are acknowledged by members 1 and 2. Then 1 is dead, 2 has lost its disk, and 3 knows nothing of them.
async fn wiped(running: &mut Running) -> Result<()> {
    let group = running.group().clone();
    group.net.deafen(3, &Deaf { to: vec![1, 2], loss: 0 })?;
    running.progress(60).await?;
    group.kill(1)?;
    group.kill(2)?;
    let data = group.data(2);
    for entry in std::fs::read_dir(&data).with_context(|| data.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else if name == "state" {
            std::fs::remove_file(entry.path())?;
        }
    }
    group.net.heal()?;
    group.open(2, &[])?;
    // It refuses to start; or it and 3, who know nothing of the former writes, go on with others.
    let (before, begun) = (running.recorder().acknowledged(), Instant::now());
    while !group.ended().contains(&2) && running.recorder().acknowledged() < before + 10 && begun.elapsed() < LIMIT {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = group.ended();
    group.open(1, &[])?;
    if refused.contains(&2) {
        // As it should be: it is removed and joins as a new one.
        group.kill(2)?;
        running.progress(30).await?;
        group.replace(2).await?;
        running.progress(30).await?;
        return Ok(());
    }
    running.progress(30).await?;
    ensure!(group.ended().is_empty(), "a member ended by itself");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn wait<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
    }

    /// Some at a time: they mostly wait.
    #[test]
    fn the_rig_sees_every_known_bug() {
        let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            while let Some(case) = CASES.get(next.fetch_add(1, Ordering::SeqCst)) {
                wrong.lock().unwrap().extend(is_missed(case));
            }
        };
        std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(work))));
        let wrong = wrong.into_inner().unwrap();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// Why a case is not seen, if it is not.
    fn is_missed(case: &Case) -> Option<String> {
        let outcome = match wait(seen(case, false)) {
            Ok(outcome) => outcome,
            Err(error) => return Some(format!("{}: {error:#}", case.name)),
        };
        println!("{}: {}", case.name, outcome.line());
        outcome.verdict.findings.lines().iter().take(2).for_each(|line| println!("    {line:.300}"));
        (!is_evident(&outcome)).then(|| format!("{}: nothing was found: {}", case.name, outcome.line()))
    }

    #[test]
    fn half_a_minute_of_chaos_is_linearizable() {
        let seed = rand::random::<u32>().into();
        let mut plan = Plan::new("test", seed, Duration::from_secs(25));
        // Full disks are left to `make chaos`: what is slow anyway takes much longer on one.
        plan.kinds.retain(|kind| *kind != Kind::FullDisk);
        let outcome = wait(super::super::round::round(plan)).unwrap();
        println!("seed {seed}: {}", outcome.line());
        assert!(
            outcome.verdict.findings.is_empty(),
            "seed {seed}, {}: {:#?}",
            outcome.folder.display(),
            outcome.verdict.findings.lines()
        );
        assert!(outcome.verdict.counts.revisions > 200 && outcome.verdict.watched.moved > 0, "{}", outcome.line());
    }
}
