//! The figures that people ask for first: how long a cluster takes to boot, what it costs when nothing happens, how
//! fast a pod runs, how large the program is.

pub mod api;
mod pods;

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Options};
use crate::command::run;
use crate::report::{self, Machine, judge, median, percentile};
use crate::usage;

/// Boots whose time is taken.
const RUNS: u64 = 5;
/// Before an idle cluster is looked at.
const SETTLE: Duration = Duration::from_secs(10);
/// Pods that run one after the other.
const PODS: usize = 50;

/// One line of the table.
struct Line {
    what: String,
    value: String,
    aim: String,
    judged: String,
}

/// All that is measured.
#[derive(Default)]
struct Figures {
    lines: Vec<Line>,
    rows: Vec<Value>,
}

impl Figures {
    fn add(&mut self, what: &str, value: f64, unit: &str, aim: Option<f64>, more: &str) {
        self.lines.push(Line {
            what: what.to_owned(),
            value: format!("{value:.1} {unit}{more}"),
            aim: aim.map(|aim| format!("{aim:.0} {unit}")).unwrap_or_default(),
            judged: aim.map(|aim| judge(value, aim)).unwrap_or_default(),
        });
    }

    fn print(&self) {
        let rows: Vec<Vec<String>> = self
            .lines
            .iter()
            .map(|line| vec![line.what.clone(), line.value.clone(), line.aim.clone(), line.judged.clone()])
            .collect();
        println!();
        report::table(&["", "measured", "aim", ""], &rows);
        println!();
    }
}

/// The whole program.
///
/// # Errors
/// When the cluster does not work. A missed aim is told, and no error.
pub async fn program() -> Result<()> {
    let (runs, seconds) = (report::setting("RUNS", RUNS)?.max(1), report::setting("SECONDS", 30)?.max(1));
    let machine = Machine::of(&crate::cluster::binary()?)?;
    machine.print();
    let mut figures = Figures::default();
    let cluster = boots(runs, &mut figures)?;
    idle(&cluster, Duration::from_secs(seconds), &mut figures).await?;
    let timings = pods::one_after_the_other(&cluster, PODS).await?;
    let of = |part: fn(&pods::Timing) -> f64| timings.iter().map(part).collect::<Vec<f64>>();
    let running = of(|timing| timing.running);
    figures.add("pod: create to Running, median", median(&running), "ms", Some(150.0), "");
    figures.add("pod: create to Running, p99", percentile(&running, 99.0), "ms", None, "");
    figures.add("pod: of that, create to acknowledged, median", median(&of(|timing| timing.created)), "ms", None, "");
    figures.add("pod: of that, create to bound, median", median(&of(|timing| timing.bound)), "ms", None, "");
    figures.rows.push(json!({"workload": "pod create to Running", "clients": 1, "p50_ms": median(&running),
        "p99_ms": percentile(&running, 99.0), "runs_ms": running}));
    shims(&cluster, &mut figures).await?;
    binary(&cluster, &mut figures)?;
    figures.print();
    report::leave("bench", &machine, &figures.rows)?;
    tokio::task::block_in_place(|| cluster.down()).map(drop)
}

/// Boots so many clusters one after the other; the last one stays.
fn boots(runs: u64, figures: &mut Figures) -> Result<Cluster> {
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..runs {
        drop(last.take());
        let cluster = tokio::task::block_in_place(|| Cluster::boot(&Options { prefix: "b", ..Options::default() }))?;
        times.push(cluster.booted.as_secs_f64());
        last = Some(cluster);
    }
    let all: Vec<String> = times.iter().map(|time| format!("{time:.1}")).collect();
    let more = format!(" (runs: {})", all.join(", "));
    figures.add("boot of 3 masters and 2 nodes to all Ready, median", median(&times), "s", Some(5.0), &more);
    let in_ms: Vec<f64> = times.iter().map(|time| time * 1000.0).collect();
    figures.rows.push(json!({"workload": "boot to all Ready", "p50_ms": median(&in_ms), "runs_ms": in_ms}));
    last.context("no cluster")
}

/// What hosts cost while nothing happens.
async fn idle(cluster: &Cluster, time: Duration, figures: &mut Figures) -> Result<()> {
    tokio::time::sleep(SETTLE).await;
    let leader = tokio::task::block_in_place(|| cluster.leader())?;
    let mut before = Vec::new();
    for host in cluster.hosts() {
        let pid = cluster.pid(host)?;
        before.push((host, pid, usage::cpu(pid)?));
    }
    tokio::time::sleep(time).await;
    for (host, pid, used) in before {
        let share = (usage::cpu(pid)? - used).as_secs_f64() / time.as_secs_f64() * 100.0;
        let memory = usage::memory(pid)?;
        let (role, aim_memory, aim_cpu) = match host.starts_with("master-") {
            true if *host == leader => ("leading", 64.0, Some(1.0)),
            true => ("following", 64.0, Some(1.0)),
            false => ("agent", 32.0, None),
        };
        let more = format!(" PSS ({:.1} anonymous, {:.1} RSS)", memory.anonymous, memory.rss);
        figures.add(&format!("idle {host} ({role}): memory"), memory.pss, "MiB", Some(aim_memory), &more);
        figures.add(&format!("idle {host} ({role}): processor"), share, "% of a core", aim_cpu, "");
        figures.rows.push(json!({"workload": format!("idle {role}"), "host": host, "pss_mib": memory.pss,
            "anonymous_mib": memory.anonymous, "rss_mib": memory.rss, "cpu_percent": share}));
    }
    Ok(())
}

/// Memory of the shims of ten pods.
async fn shims(cluster: &Cluster, figures: &mut Figures) -> Result<()> {
    let kept = pods::keep(cluster, 10).await?;
    // The children that start containers look like their shims until they are done.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let pids = usage::running(&cluster.root().join("bin/trireme"), "shim");
    let memories: Vec<usage::Memory> = pids.iter().filter_map(|pid| usage::memory(*pid).ok()).collect();
    let pss: Vec<f64> = memories.iter().map(|memory| memory.pss).collect();
    let anonymous: Vec<f64> = memories.iter().map(|memory| memory.anonymous).collect();
    let more = format!(" PSS ({:.1} anonymous; {} shims for {kept} pods)", median(&anonymous), pids.len());
    figures.add("shim of a pod: memory, median", median(&pss), "MiB", None, &more);
    figures.rows.push(json!({"workload": "shim", "pss_mib": median(&pss), "anonymous_mib": median(&anonymous)}));
    Ok(())
}

/// Size of the program without symbols.
fn binary(cluster: &Cluster, figures: &mut Figures) -> Result<()> {
    let copy = cluster.dir.join("stripped");
    run(Command::new("strip").arg("-o").arg(&copy).arg(&cluster.bin))?.ok()?;
    let size = fs::metadata(&copy)?.len() as f64 / 1e6;
    figures.add("the program, stripped", size, "MB", Some(60.0), "");
    figures.rows.push(json!({"workload": "stripped binary", "size_mb": size}));
    Ok(())
}
