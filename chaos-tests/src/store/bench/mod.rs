//! `make bench-store`: this store beside etcd, in one run, alternating, on the same disk.

mod connection;
mod elections;
mod failover;
mod fanout;
mod group;
mod grpc;
mod load;
mod messages;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use self::group::{Group, Side};
use self::load::{Run, Work};
use self::table::Table;
use crate::closed_loop::Only;
use crate::report::{self, Machine};

/// How many clients work at a time.
const CLIENTS: [usize; 4] = [1, 16, 64, 256];
/// Keys that are there while the workloads are compared.
const KEYS: u64 = 10_000;
/// Numbers of keys at which the cost of a write and a read is compared.
const SIZES: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// What is asked for through the environment.
struct Plan {
    /// One run of one workload.
    time: Duration,
    /// Runs of each workload on each side.
    runs: u64,
    /// Kills of the leader on each side.
    kills: u64,
    /// Most keys.
    keys: u64,
    /// How long our group rests, and half as long works, to see whether it elects for nothing; none by default.
    calm: Duration,
    only: Only,
}

impl Plan {
    fn from_environment() -> Result<Self> {
        Ok(Self {
            time: Duration::from_secs(report::setting("SECONDS", 5)?.max(1)),
            runs: report::setting("RUNS", 2)?.max(1),
            kills: report::setting("COUNT", 20)?,
            keys: report::setting("KEYS", SIZES[3])?.max(SIZES[0]),
            calm: Duration::from_secs(report::setting("CALM", 0)?),
            only: Only::from_environment(),
        })
    }
}

/// One workload as it is measured.
#[derive(Clone, Copy)]
enum Measured {
    Load { work: Work, clients: usize, keys: u64 },
    Fanout,
}

/// Both groups; all processes but those that are measured are stopped.
struct Sides {
    groups: [Group; 2],
    table: Table,
}

/// A folder for the members' data: on the disk where builds go, which is what is to be measured, and not in memory.
fn scratch() -> Result<tempfile::TempDir> {
    let folder: PathBuf = report::target()?.join("bench");
    std::fs::create_dir_all(&folder)?;
    tempfile::Builder::new().prefix("store-").tempdir_in(&folder).context("a folder for the members' data")
}

/// The whole program.
///
/// # Errors
/// When a side does not work. A missed aim is told, and no error.
pub async fn program() -> Result<()> {
    let plan = Plan::from_environment()?;
    let machine = Machine::of(&group::store_server()?)?;
    machine.print();
    let folder = scratch()?;
    if !plan.calm.is_zero() {
        return tokio::select! {
            done = elections::program(&machine, folder.path(), plan.calm, |name| plan.only.wants(name)) => done,
            () = asked_to_end() => Err(anyhow::anyhow!("ended early")),
        };
    }
    let starting = async {
        let etcd = Group::start(Side::Etcd, &folder.path().join("etcd")).await?;
        etcd.pause()?;
        let ours = Group::start(Side::Ours, &folder.path().join("ours")).await?;
        ours.pause()?;
        anyhow::Ok((etcd, ours))
    };
    // Members would outlive a program that just ended.
    let (etcd, ours) = tokio::select! {
        started = starting => started?,
        () = asked_to_end() => anyhow::bail!("ended early"),
    };
    println!("etcd {} beside; data in {}", etcd.version, folder.path().display());
    let table = Table::new([ours.version.clone(), etcd.version.clone()]);
    let mut sides = Sides { groups: [ours, etcd], table };
    // Members that are stopped would outlive a program that just ended.
    let done = tokio::select! {
        done = sides.measure(&plan) => done,
        () = asked_to_end() => Err(anyhow::anyhow!("ended early")),
    };
    // What was measured is told also when something went wrong later.
    sides.table.print();
    report::leave("store", &machine, &sides.table.rows())?;
    done
}

async fn asked_to_end() {
    let (Ok(mut term), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup())) else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = hangup.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

impl Sides {
    async fn measure(&mut self, plan: &Plan) -> Result<()> {
        let mut filled = 0;
        for keys in SIZES.into_iter().filter(|keys| *keys <= plan.keys) {
            let scaling = plan.only.wants(&format!("keys={keys}"));
            if keys > KEYS && !scaling {
                continue;
            }
            self.fill(filled, keys).await?;
            filled = keys;
            if keys == KEYS {
                self.workloads(plan).await?;
            }
            if scaling {
                for work in [Work::Puts, Work::LinearizableReads] {
                    let name = format!("{} at {keys} keys", work.name());
                    self.compare(plan, &name, Measured::Load { work, clients: 64, keys }).await?;
                }
            }
        }
        self.failovers(plan).await
    }

    async fn workloads(&mut self, plan: &Plan) -> Result<()> {
        for work in [Work::Puts, Work::LinearizableReads, Work::SerializableReads, Work::Mixed] {
            for clients in CLIENTS.into_iter().filter(|n| plan.only.wants(&format!("{}={n}", work.name()))) {
                self.compare(plan, work.name(), Measured::Load { work, clients, keys: KEYS }).await?;
            }
        }
        if plan.only.wants("watch") {
            self.compare(plan, "watch, events", Measured::Fanout).await?;
        }
        if plan.only.wants("dead") {
            self.with_a_dead_follower(plan).await?;
        }
        Ok(())
    }

    async fn with_a_dead_follower(&mut self, plan: &Plan) -> Result<()> {
        let mut dead = Vec::new();
        for group in &mut self.groups {
            let leader = group.resume().await?;
            dead.push((leader + 1) % group::SIZE);
            group.kill((leader + 1) % group::SIZE)?;
            group.pause()?;
        }
        for (work, clients) in [(Work::Puts, 1), (Work::Puts, 64), (Work::Puts, 256), (Work::LinearizableReads, 64)] {
            let name = format!("{}, a follower dead", work.name());
            self.compare(plan, &name, Measured::Load { work, clients, keys: KEYS }).await?;
        }
        for (group, dead) in self.groups.iter_mut().zip(dead) {
            group.resume().await?;
            group.restart(dead).await?;
            group.pause()?;
        }
        Ok(())
    }

    /// Measures a workload on one side after the other, as often as the plan says.
    async fn compare(&mut self, plan: &Plan, name: &str, measured: Measured) -> Result<()> {
        let clients = if let Measured::Load { clients, .. } = measured { clients } else { 1 };
        for _ in 0..plan.runs {
            for group in &mut self.groups {
                let leader = group.resume().await?;
                let run = match measured {
                    Measured::Load { work, clients, keys } => {
                        load::run(group, leader, work, clients, keys, plan.time).await
                    }
                    Measured::Fanout => fanout::run(group, leader, plan.time).await,
                };
                let run = run.with_context(|| format!("{name} of {clients} clients on {}", group.side.name()))?;
                group.pause()?;
                say(name, clients, group.side, &run);
                self.table.add(name, clients, group.side, run);
            }
        }
        Ok(())
    }

    async fn fill(&mut self, from: u64, to: u64) -> Result<()> {
        for group in &mut self.groups {
            let leader = group.resume().await?;
            let begin = std::time::Instant::now();
            load::fill(group, leader, from, to).await?;
            let (pss, anonymous) = group.memory()?;
            group.pause()?;
            let (name, took) = (group.side.name(), begin.elapsed().as_secs_f64());
            println!("{name}: {to} keys after {took:.1} s, memory {pss:.0} MiB ({anonymous:.0} anonymous)");
            self.table.remember(group.side, to, pss, anonymous);
        }
        Ok(())
    }

    async fn failovers(&mut self, plan: &Plan) -> Result<()> {
        if !plan.only.wants("failover") {
            return Ok(());
        }
        for n in 0..plan.kills {
            for group in &mut self.groups {
                group.resume().await?;
                let pause = failover::round(group).await?;
                group.pause()?;
                println!("failover {}: {}: {pause:.0} ms", n + 1, group.side.name());
                self.table.add_failover(group.side, pause);
            }
        }
        Ok(())
    }
}

fn say(name: &str, clients: usize, side: Side, run: &Run) {
    println!(
        "{name}, {clients} clients: {:8} {:9.0}/s  p50 {:8.2} ms  p99 {:8.2} ms  {:7.1} us of cpu each (clients {:.1})",
        side.name(),
        run.ops,
        run.p50,
        run.p99,
        run.cpu,
        run.client_cpu
    );
}
