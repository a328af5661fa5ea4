//! `make bench-api`: what requests to the API cost, over TLS, with three masters and no node.

mod bed;
mod connection;
mod lists;
mod load;
mod objects;
mod table;
mod watches;

use std::time::Duration;

use anyhow::Result;

use self::bed::Bed;
use self::lists::Question;
use self::load::Work;
use self::objects::{Kind, LARGE, SMALL};
use self::table::{Aims, Table};
use crate::closed_loop::Only;
use crate::report::{self, Machine};

/// Connections that work at a time.
const CLIENTS: [usize; 3] = [1, 32, 256];
/// Pods of the list of pods.
const PODS: u64 = 10_000;
/// ConfigMaps of which one is read.
const READ: u64 = 1_000;
/// Small ConfigMaps that a selector has to look at.
const KEYS: u64 = 300_000;
/// MiB of the large list.
const MIB: u64 = 1_024;
/// Watchers, and changes that they are told of.
const WATCHERS: [(usize, u64); 2] = [(1_000, 50), (10_000, 20)];

/// What is asked for through the environment.
struct Plan {
    time: Duration,
    runs: u64,
    keys: u64,
    mib: u64,
    only: Only,
}

impl Plan {
    fn from_environment() -> Result<Self> {
        Ok(Self {
            time: Duration::from_secs(report::setting("SECONDS", 5)?.max(1)),
            runs: report::setting("RUNS", 2)?.max(1),
            keys: report::setting("KEYS", KEYS)?.max(1),
            mib: report::setting("MIB", MIB)?.max(1),
            only: Only::from_environment(),
        })
    }
}

/// The whole program.
///
/// # Errors
/// When the cluster does not work. A missed aim is told, and no error.
pub async fn program() -> Result<()> {
    let plan = Plan::from_environment()?;
    let machine = Machine::of(&crate::cluster::binary()?)?;
    machine.print();
    let bed = Bed::boot()?;
    let mut table = Table::default();
    let measured = measure(&bed, &plan, &mut table).await;
    table.print();
    report::leave("api", &machine, &table.rows())?;
    tokio::task::block_in_place(|| bed.cluster.down())?;
    measured
}

async fn measure(bed: &Bed, plan: &Plan, table: &mut Table) -> Result<()> {
    for kind in [Kind::Pod, Kind::Map(SMALL)] {
        creates(bed, plan, kind, table).await?;
    }
    gets(bed, plan, table).await?;
    if plan.only.wants("list of pods") {
        pods(bed, table).await?;
    }
    for (watchers, changes) in WATCHERS {
        if plan.only.wants(&format!("watch={watchers}")) {
            bed.namespace("watched").await?;
            table.watch(watchers, watches::fan_out(bed, "watched", watchers, changes).await?);
        }
    }
    if plan.only.wants("list of a size") {
        large(bed, plan, table).await?;
    }
    if plan.only.wants("filtered list") {
        filtered(bed, plan, table).await?;
    }
    Ok(())
}

async fn creates(bed: &Bed, plan: &Plan, kind: Kind, table: &mut Table) -> Result<()> {
    let name = format!("create {}", kind.name());
    for clients in CLIENTS {
        if !plan.only.wants(&format!("{name}={clients}")) {
            continue;
        }
        let aims = Aims {
            ops: (clients == 256).then_some(2_000.0),
            p99: (clients == 32).then_some(20.0),
            cpu: (clients > 1).then_some(500.0),
        };
        let mut runs = Vec::new();
        for run in 0..plan.runs {
            let namespace = format!("create-{}-{clients}-{run}", kind.name());
            bed.namespace(&namespace).await?;
            runs.push(load::run(bed, &Work::Create(kind, namespace), clients, plan.time).await?);
            bed.calm().await?;
        }
        table.requests(name.clone(), clients, aims, runs);
    }
    Ok(())
}

async fn gets(bed: &Bed, plan: &Plan, table: &mut Table) -> Result<()> {
    let mut filled = false;
    for (name, stale) in [("get a configmap", false), ("get a configmap, resourceVersion 0", true)] {
        for clients in CLIENTS {
            if !plan.only.wants(&format!("{name}={clients}")) {
                continue;
            }
            let namespace = "read".to_owned();
            if !filled {
                bed.namespace(&namespace).await?;
                load::fill(bed, Kind::Map(SMALL), &namespace, READ).await?;
                filled = true;
            }
            let work = Work::Get { namespace, count: READ, stale };
            let mut runs = Vec::new();
            for _ in 0..plan.runs {
                runs.push(load::run(bed, &work, clients, plan.time).await?);
            }
            table.requests(name.to_owned(), clients, Aims::default(), runs);
        }
    }
    Ok(())
}

async fn ask(bed: &Bed, table: &mut Table, question: Question) -> Result<()> {
    let answer = lists::ask(bed, &question).await?;
    table.list(question, answer);
    Ok(())
}

async fn pods(bed: &Bed, table: &mut Table) -> Result<()> {
    bed.namespace("pods").await?;
    load::fill(bed, Kind::Pod, "pods", PODS).await?;
    bed.calm().await?;
    let path = Kind::Pod.collection("pods");
    let question = |more: &str| Question::new(format!("list of {PODS} pods{more}"), &path, 5);
    ask(bed, table, question("").bytes(PODS * 500)).await?;
    ask(bed, table, question(", compressed").gzip()).await?;
    ask(bed, table, question(" as a Table").table()).await?;
    ask(bed, table, question(", metadata").metadata()).await?;
    let page = Question::new("the first 500 of them", format!("{path}?limit=500"), 20);
    ask(bed, table, page).await
}

async fn large(bed: &Bed, plan: &Plan, table: &mut Table) -> Result<()> {
    bed.namespace("large").await?;
    let bytes = plan.mib << 20;
    load::fill(bed, Kind::Map(LARGE), "large", bytes / LARGE as u64).await?;
    bed.calm().await?;
    let path = Kind::Map(LARGE).collection("large");
    let question = |more: &str| Question::new(format!("list of {} MiB{more}", plan.mib), &path, 2).above(64.0);
    ask(bed, table, question("").bytes(bytes)).await?;
    ask(bed, table, question(" as a Table").table()).await?;
    ask(bed, table, question(", compressed").gzip()).await
}

async fn filtered(bed: &Bed, plan: &Plan, table: &mut Table) -> Result<()> {
    bed.namespace("small").await?;
    load::fill(bed, Kind::Map(SMALL), "small", plan.keys).await?;
    bed.calm().await?;
    let path = Kind::Map(SMALL).collection("small");
    let question = |what: &str, query: &str, times| {
        Question::new(format!("{what} {} objects of 1 KiB", plan.keys), format!("{path}{query}"), times)
    };
    let none = question("a label that none has, of", "?labelSelector=bench%3Dno", 10);
    ask(bed, table, none.within(150.0)).await?;
    let none = question("a field that none has, of", "?fieldSelector=metadata.name%3Dnobody", 10);
    ask(bed, table, none.within(150.0)).await?;
    let all = question("two labels that none has, in all namespaces, of", "", 10);
    let path = format!("/api/v1/configmaps?labelSelector={}", "app%3Dapp-7,bench%20notin%20(yes)");
    ask(bed, table, Question { path, ..all }.within(150.0)).await?;
    ask(bed, table, question("list of all", "", 2).above(64.0).bytes(plan.keys * SMALL as u64)).await
}
