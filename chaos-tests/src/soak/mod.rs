//! Half an hour of ordinary work while masters and agents die at random; afterwards the state has to be exactly what was
//! asked for, nothing may have been left anywhere, and memory must not have grown.
//!
//! `SEED` makes the choices: what is created, scaled, rolled, deleted and killed, in which order. When things happen
//! still depends on the machine.

mod chaos;
mod descriptors;
mod desired;
mod leaks;
mod memory;
mod work;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, Options};
use crate::lives::Lives;
use crate::report::{self, Machine};

/// Label of everything that this makes.
const LABEL: &str = "trireme.io/soak=1";
/// Namespace that all happens in.
const NAMESPACE: &str = "default";
/// Until the cluster must have become what is desired, once nobody disturbs it.
const SETTLED: Duration = Duration::from_secs(120);
/// Until what is not needed any more must have been removed, after that.
const CLEAN: Duration = Duration::from_secs(30);

/// What a cluster has to be booted with.
pub fn options() -> Options {
    // Events are kept for an hour by default: for so long their number, and with it memory, would only rise.
    let master_args = vec!["--event-ttl=1m".to_owned()];
    Options { prefix: "s", master_args, ..Options::default() }
}

/// The whole program: `SECONDS` of it, by `SEED`.
///
/// # Errors
/// When the state is not as desired, something was left, or memory has grown.
pub async fn program() -> Result<()> {
    let seconds = report::setting("SECONDS", 1800)?;
    let seed = report::setting("SEED", u64::from(rand::random::<u32>()))?;
    let cluster = tokio::task::block_in_place(|| Cluster::boot(&options()))?;
    let machine = Machine::of(&cluster.bin)?;
    machine.print();
    let told = run(&cluster, Duration::from_secs(seconds), seed).await;
    if told.is_err() {
        cluster.print_logs();
    }
    let rows = told?;
    report::leave("soak", &machine, &rows)?;
    let name = cluster.name.clone();
    tokio::task::block_in_place(|| cluster.down())?;
    let left = leaks::after_down(&cluster, &name)?;
    ensure!(left.is_empty(), "left after down: {}", left.join(", "));
    println!("ok   down left nothing");
    Ok(())
}

/// Works and kills for this long, then judges; rows about memory.
///
/// # Errors
/// What is not as it should be.
pub async fn run(cluster: &Cluster, time: Duration, seed: u64) -> Result<Vec<serde_json::Value>> {
    println!("seed {seed} (SEED={seed} makes the same choices again), {} s", time.as_secs());
    let mut lives = Lives::of(cluster)?;
    let told = judged(cluster, &mut lives, time, seed).await;
    lives.check(cluster, "at the end");
    ensure!(
        lives.ended().is_empty(),
        "{}{}",
        lives.ended().join("; "),
        match &told {
            Err(error) => format!("; besides: {error:#}"),
            Ok(_) => String::new(),
        }
    );
    println!("ok   no process ended but those that were killed");
    told
}

async fn judged(cluster: &Cluster, lives: &mut Lives, time: Duration, seed: u64) -> Result<Vec<serde_json::Value>> {
    let baseline = tokio::task::block_in_place(|| leaks::Host::all(cluster))?;
    let open = descriptors::Open::now(cluster)?;
    let stop = CancellationToken::new();
    let begun = Instant::now();
    let worker = tokio::spawn(work::run(cluster.endpoints().await?, seed, stop.clone()));
    let chaos = chaos::run(cluster, lives, seed, begun, time);
    let sampling = memory::sample(cluster, time, stop.clone());
    let ((killed, disturbed), samples) = tokio::join!(
        async {
            let outcome = chaos.await;
            stop.cancel();
            match outcome {
                Ok(killed) => (killed, Ok(())),
                Err(error) => (0, Err(error)),
            }
        },
        sampling
    );
    let wanted = worker.await.context("the worker panicked")?;
    disturbed?;
    let wanted = wanted?;
    tokio::task::block_in_place(|| lives.mend(cluster))?;
    ensure!(killed > 0, "nothing was killed in {} s: too short a run to tell anything", time.as_secs());
    println!(
        "{} changes were acknowledged, {killed} processes killed; {} Deployments and {} pods are to be there",
        wanted.changes,
        wanted.deployments.len(),
        wanted.pods.len()
    );
    let settled = desired::wait(cluster, &wanted, SETTLED).await?;
    println!("ok   the state is as desired {:.1} s after the last disturbance", settled.as_secs_f64());
    nothing_leaked(cluster, &baseline, "beside the living pods").await?;
    descriptors::shims_alike(cluster, CLEAN).await?;
    work::delete_all(&cluster.endpoints().await?).await?;
    desired::wait(cluster, &work::Wanted::default(), SETTLED).await?;
    nothing_leaked(cluster, &baseline, "once everything is deleted").await?;
    open.not_more(cluster, CLEAN).await?;
    let (rows, wrong) = memory::judge(&samples, time);
    ensure!(wrong.is_empty(), "memory: {}", wrong.join("; "));
    Ok(rows.into_iter().chain([json!({"workload": "soak", "seed": seed, "changes": wanted.changes})]).collect())
}

async fn nothing_leaked(cluster: &Cluster, baseline: &[leaks::Host], when: &str) -> Result<()> {
    let deadline = Instant::now() + CLEAN;
    loop {
        let pods = desired::living(cluster).await?;
        let mut left: BTreeSet<String> = BTreeSet::new();
        for host in baseline {
            left.extend(host.leaked(cluster, &pods)?);
        }
        if left.is_empty() {
            println!("ok   nothing was leaked {when} ({} pods)", pods.pods.len());
            return Ok(());
        }
        if Instant::now() > deadline {
            let all: Vec<String> = left.into_iter().collect();
            anyhow::bail!("leaked, {when}:\n  {}", all.join("\n  "));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
