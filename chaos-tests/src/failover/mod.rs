//! Kills the leading master again and again under load, measures how long what stands still, and checks that nothing
//! that was promised is broken.
//!
//! In every fourth round the leading master is stopped (SIGSTOP) instead and goes on once another one leads, so that a
//! deposed leader lives, goes on with what it was about to write, and records what becomes of it.
//!
//! Every master has writers and a creator of pods of its own. What counts is what the clients of the surviving masters
//! see, from the instant of the kill: the longest pause between acknowledged writes, the first pod that the new leader
//! binds, the first pod created after the kill that runs. The checks are in [`verdict`].

mod audit;
mod ledger;
mod load;
mod observe;
mod round;
mod verdict;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::json;

use crate::cluster::{Cluster, Options};
use crate::lives::Lives;
use crate::report::{self, Machine, judge, median, ms};
use load::Load;
pub use round::{Round, all_caught_up};

/// Label of everything that this makes.
const LABEL: &str = "trireme.io/failover=1";
/// Namespace that all happens in.
const NAMESPACE: &str = "default";
/// Name of every master's audit log, in the folder of its host.
const AUDIT: &str = "audit.log";

/// What is aimed at, in milliseconds: a column's median and worst.
const AIMS: [(&str, f64, f64); 3] =
    [("write pause", 500.0, 1500.0), ("first pod bound", 1000.0, 1500.0), ("new pod running", 2000.0, 2000.0)];

/// What a cluster has to be booted with.
pub fn options() -> Options {
    Options {
        prefix: "f",
        master_args: vec![format!("--audit-log-path={AUDIT}"), "--audit-log-maxsize=0".to_owned()],
        ..Options::default()
    }
}

/// The whole program: `COUNT` kills, a table, rows, and an error if anything was broken.
///
/// # Errors
/// When a check fails, or the cluster does not come back.
pub async fn program() -> Result<()> {
    let count = report::setting("COUNT", 20)? as usize;
    let cluster = tokio::task::block_in_place(|| Cluster::boot(&options()))?;
    let machine = Machine::of(&cluster.bin)?;
    machine.print();
    let rounds = run(&cluster, count).await?;
    summary(&rounds);
    let worst = |values: &[f64]| values.iter().copied().fold(f64::NAN, f64::max);
    let rows: Vec<serde_json::Value> = figures(&rounds)
        .iter()
        .map(|(name, values)| {
            json!({"workload": format!("failover: {name}"), "clients": Load::CLIENTS * cluster.masters(),
                   "p50_ms": median(values), "worst_ms": worst(values), "runs_ms": values})
        })
        .collect();
    report::leave("failover", &machine, &rows)?;
    tokio::task::block_in_place(|| cluster.down()).map(drop)
}

/// Kills the leader so many times; what was measured, if nothing was broken.
///
/// # Errors
/// When a check fails, or the cluster does not come back.
pub async fn run(cluster: &Cluster, count: usize) -> Result<Vec<Round>> {
    let mut lives = Lives::of(cluster)?;
    let load = Load::start(cluster).await?;
    let measured = kill_and_mend(cluster, &load, &mut lives, count).await;
    let seen = load.stop().await;
    lives.check(cluster, "at the end");
    let (rounds, seen) = match measured.and_then(|rounds| Ok((rounds, seen?))) {
        Ok(both) => both,
        Err(error) => {
            cluster.print_logs();
            return Err(if lives.ended().is_empty() { error } else { error.context(lives.ended().join("; ")) });
        }
    };
    let verdict = verdict::judge(cluster, &seen, &rounds, lives.ended()).await?;
    println!("{}", verdict.told.join("\n"));
    ensure!(verdict.broken.is_empty(), "broken promises:\n  {}", verdict.broken.join("\n  "));
    Ok(rounds)
}

/// Deletes what a run has made, for those who go on with the cluster.
///
/// # Errors
/// When it cannot be deleted.
pub async fn tidy_up(cluster: &Cluster) -> Result<()> {
    let delete = |client: kube::Client| async move {
        let (params, all) = (DeleteParams::default(), ListParams::default().labels(LABEL));
        Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE).delete_collection(&params, &all).await?;
        let pods = Api::<Pod>::namespaced(client, NAMESPACE);
        pods.delete_collection(&params, &all).await?;
        ensure!(pods.list(&all).await?.items.is_empty(), "pods are still going");
        Ok(())
    };
    cluster.endpoints().await?.until_done("deleting what the load has made", delete).await
}

/// Whether the leader is stopped in this round instead of killed: every fourth, and one of fewer.
fn pauses(number: usize, count: usize) -> bool {
    number.is_multiple_of(4) || (number == 2 && count < 4)
}

async fn kill_and_mend(cluster: &Cluster, load: &Load, lives: &mut Lives, count: usize) -> Result<Vec<Round>> {
    // Connections are open and pods run before the first kill.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut rounds = Vec::new();
    for number in 1..=count {
        let round = round::depose_leader(cluster, load, lives, pauses(number, count)).await?;
        println!("round {number:>2}: {}", round.line());
        let dead = (!round.paused()).then_some(round.deposed);
        rounds.push(round);
        verdict::nothing_lost(cluster, load.ledger(), dead).await?;
        let begun = Instant::now();
        tokio::task::block_in_place(|| lives.mend(cluster))?;
        round::all_caught_up(cluster).await?;
        verdict::nothing_lost(cluster, load.ledger(), None).await?;
        // A fresh member has seen a few heartbeats before the next one dies.
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed())).await;
    }
    Ok(rounds)
}

/// Names and values of all columns: first of the rounds in which the leader was killed, then of the others.
fn figures(rounds: &[Round]) -> Vec<(String, Vec<f64>)> {
    let (paused, killed): (Vec<Round>, Vec<Round>) = rounds.iter().cloned().partition(Round::paused);
    let mut all: Vec<(String, Vec<f64>)> =
        Round::columns(&killed).map(|(name, values)| (name.to_owned(), values)).into();
    all.extend(Round::columns(&paused).map(|(name, values)| (format!("leader paused: {name}"), values)));
    all.retain(|(_, values)| !values.is_empty());
    all
}

/// Median and worst of every column against what is aimed at; nothing is aimed at for a leader that is paused.
fn summary(rounds: &[Round]) {
    let rows: Vec<Vec<String>> = figures(rounds)
        .iter()
        .map(|(name, values)| {
            let (middle, worst) = (median(values), values.iter().copied().fold(f64::NAN, f64::max));
            let (aim, verdict) = match AIMS.iter().find(|(aimed, ..)| aimed == name) {
                Some((_, typical, limit)) => (
                    format!("{typical:.0} / {limit:.0}"),
                    format!("{} / {}", judge(middle, *typical), judge(worst, *limit)),
                ),
                None => (String::new(), String::new()),
            };
            vec![name.clone(), format!("{middle:.0}"), format!("{worst:.0}"), aim, verdict]
        })
        .collect();
    let paused = rounds.iter().filter(|round| round.paused()).count();
    println!("\nms from the kill -9 of the leading master ({} times) or its SIGSTOP ({paused})", rounds.len() - paused);
    report::table(&["", "median", "worst", "aim", "median / worst"], &rows);
    println!();
}

/// Time between two instants, if the second is later.
fn since(later: Instant, earlier: Instant) -> f64 {
    ms(later.saturating_duration_since(earlier))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_leaders_are_paused() {
        let paused = |count: usize| (1..=count).filter(|number| pauses(*number, count)).collect::<Vec<_>>();
        assert_eq!(paused(20), [4, 8, 12, 16, 20]);
        assert_eq!((paused(4), paused(3), paused(1)), (vec![4], vec![2], vec![]));
    }
}
