//! Closed loops of clients: each asks again as soon as it has its answer.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use http::{Method, StatusCode};

use super::bed::Bed;
use super::connection::{Connection, Target};
use super::objects::Kind;
use crate::{report, usage};

/// Before anything counts.
const WARM_UP: Duration = Duration::from_millis(1000);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Connections that fill a namespace.
const LOADERS: u64 = 48;

/// What clients do.
#[derive(Clone, Debug)]
pub enum Work {
    /// Create objects of a kind in a namespace.
    Create(Kind, String),
    /// Read one of so many ConfigMaps in a namespace; with a resourceVersion of 0 from what the master has.
    Get {
        /// Where they are.
        namespace: String,
        /// How many.
        count: u64,
        /// Whether possibly older state will do.
        stale: bool,
    },
}

/// What one run found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// Answers in a second.
    pub ops: f64,
    /// Milliseconds.
    pub p50: f64,
    /// Milliseconds.
    pub p99: f64,
    /// Processor time of all masters for one answer, in microseconds.
    pub cpu: f64,
    /// That of the clients.
    pub client_cpu: f64,
}

/// Name of an object that was filled in.
pub fn name(number: u64) -> String {
    format!("object-{number:07}")
}

struct Client {
    connection: Connection,
    work: Work,
    number: u64,
    asked: u64,
}

impl Client {
    async fn once(&mut self) -> Result<()> {
        self.asked += 1;
        let asked = async {
            match &self.work {
                Work::Create(kind, namespace) => {
                    let name = format!("c{}-{}", self.number, self.asked);
                    let body = kind.object(&name, self.asked);
                    let path = kind.collection(namespace);
                    self.connection.done(Method::POST, &path, body, &[StatusCode::CREATED]).await
                }
                Work::Get { namespace, count, stale } => {
                    let which = (self.number * 7919 + self.asked * 31) % count;
                    let query = if *stale { "?resourceVersion=0" } else { "" };
                    let path = format!("{}/{}{query}", Kind::Map(0).collection(namespace), name(which));
                    self.connection.done(Method::GET, &path, Bytes::new(), &[StatusCode::OK]).await
                }
            }
        };
        tokio::time::timeout(PATIENCE, asked).await?
    }

    async fn run(mut self, from: Instant, until: Instant) -> Result<Vec<f64>> {
        let mut took = Vec::new();
        loop {
            let begun = Instant::now();
            if begun >= until {
                return Ok(took);
            }
            self.once().await?;
            let end = Instant::now();
            if end >= from && end < until {
                took.push(report::ms(end - begun));
            }
        }
    }
}

/// Connections, spread over all masters.
///
/// # Errors
/// When a master does not answer.
pub async fn connections(targets: &[Target], count: usize) -> Result<Vec<Connection>> {
    let mut all = Vec::with_capacity(count);
    for i in 0..count {
        all.push(targets[i % targets.len()].connect().await?);
    }
    Ok(all)
}

/// Lets so many clients work for some time, each on a connection of its own.
///
/// # Errors
/// When anything is not answered as it should be.
pub async fn run(bed: &Bed, work: &Work, clients: usize, time: Duration) -> Result<Run> {
    let connections = connections(&bed.targets, clients).await?;
    let from = Instant::now() + WARM_UP;
    let until = from + time;
    let clients = connections.into_iter().enumerate().map(|(number, connection)| {
        let client = Client { connection, work: work.clone(), number: number as u64, asked: 0 };
        tokio::spawn(client.run(from, until))
    });
    let clients: Vec<_> = clients.collect();
    let own = std::process::id() as i32;
    tokio::time::sleep_until(from.into()).await;
    let before = (bed.cpu()?, usage::cpu(own)?);
    tokio::time::sleep_until(until.into()).await;
    let after = (bed.cpu()?, usage::cpu(own)?);
    let mut took = Vec::new();
    for client in clients {
        took.extend(client.await??);
    }
    let count = took.len().max(1) as f64;
    Ok(Run {
        ops: took.len() as f64 / time.as_secs_f64(),
        p50: report::percentile(&took, 50.0),
        p99: report::percentile(&took, 99.0),
        cpu: after.0.saturating_sub(before.0).as_secs_f64() * 1e6 / count,
        client_cpu: after.1.saturating_sub(before.1).as_secs_f64() * 1e6 / count,
    })
}

/// Creates so many objects.
///
/// # Errors
/// When one is refused.
pub async fn fill(bed: &Bed, kind: Kind, namespace: &str, count: u64) -> Result<()> {
    let begun = Instant::now();
    let connections = connections(&bed.targets, LOADERS as usize).await?;
    let loaders = connections.into_iter().enumerate().map(|(first, mut connection)| {
        let path = kind.collection(namespace);
        tokio::spawn(async move {
            for number in (first as u64..count).step_by(LOADERS as usize) {
                let body = kind.object(&name(number), number);
                let created = connection.done(Method::POST, &path, body, &[StatusCode::CREATED]);
                tokio::time::timeout(PATIENCE, created).await??;
            }
            anyhow::Ok(())
        })
    });
    for loader in loaders.collect::<Vec<_>>() {
        loader.await??;
    }
    println!("  filled {namespace} with {count} {} in {:.0} s", kind.name(), begun.elapsed().as_secs_f64());
    Ok(())
}
