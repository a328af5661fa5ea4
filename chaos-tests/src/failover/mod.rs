//! Kills the leading master again and again under load, measures how long what stands still, and checks that nothing
//! that was promised is broken.
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
    let rows: Vec<serde_json::Value> = Round::columns(&rounds)
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
    let load = Load::start(cluster).await?;
    let measured = kill_and_mend(cluster, &load, count).await;
    let seen = load.stop().await;
    let rounds = match measured {
        Ok(rounds) => rounds,
        Err(error) => {
            cluster.print_logs();
            return Err(error);
        }
    };
    let verdict = verdict::judge(cluster, &seen?, count).await?;
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

async fn kill_and_mend(cluster: &Cluster, load: &Load, count: usize) -> Result<Vec<Round>> {
    // Connections are open and pods run before the first kill.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut rounds = Vec::new();
    for number in 1..=count {
        let round = round::kill_leader(cluster, load).await?;
        println!("kill {number:>2}: {}", round.line());
        rounds.push(round);
        verdict::nothing_lost(cluster, load.ledger(), Some(rounds[number - 1].dead)).await?;
        let begun = Instant::now();
        tokio::task::block_in_place(|| cluster.mend())?;
        round::all_caught_up(cluster).await?;
        verdict::nothing_lost(cluster, load.ledger(), None).await?;
        // A fresh member has seen a few heartbeats before the next one dies.
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed())).await;
    }
    Ok(rounds)
}

/// Median and worst of every column against what is aimed at.
fn summary(rounds: &[Round]) {
    let rows: Vec<Vec<String>> = Round::columns(rounds)
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
            vec![(*name).to_owned(), format!("{middle:.0}"), format!("{worst:.0}"), aim, verdict]
        })
        .collect();
    println!("\nms from the kill -9 of the leading master, {} kills", rounds.len());
    report::table(&["", "median", "worst", "aim", "median / worst"], &rows);
    println!();
}

/// Time between two instants, if the second is later.
fn since(later: Instant, earlier: Instant) -> f64 {
    ms(later.saturating_duration_since(earlier))
}
