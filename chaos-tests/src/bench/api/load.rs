//! Closed loops of clients: each asks again as soon as it has its answer.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use http::{Method, StatusCode};

use super::bed::Bed;
use super::connection::{Connection, Target};
use super::objects::Kind;
use crate::closed_loop::{self, Run};

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

impl closed_loop::Client for Client {
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
    let clients = connections.into_iter().zip(0u64..);
    let clients = clients.map(|(connection, number)| Client { connection, work: work.clone(), number, asked: 0 });
    closed_loop::run(clients.collect(), WARM_UP, time, || bed.cpu()).await
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
