//! Closed loops of clients: each asks again as soon as it has an answer.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use super::connection::Connection;
use super::group::Group;
use crate::{closed_loop, report};

/// Bytes of a value.
pub const VALUE: usize = 1024;
/// Before anything counts.
const WARM_UP: Duration = Duration::from_millis(700);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Keys written by one transaction of a load, and how many of these are under way.
const BATCH: u64 = 64;
const LOADERS: u64 = 8;

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Write one of the keys.
    Puts,
    /// Read one, as new as everything acknowledged.
    LinearizableReads,
    /// Read one, as the member has it.
    SerializableReads,
    /// Nine linearizable reads to one write.
    Mixed,
}

impl Work {
    /// How rows call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Puts => "puts",
            Self::LinearizableReads => "linearizable reads",
            Self::SerializableReads => "serializable reads",
            Self::Mixed => "90% reads",
        }
    }
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
    /// Processor time of all members for one answer, in microseconds.
    pub cpu: f64,
    /// That of the clients.
    pub client_cpu: f64,
    /// Memory of all members afterwards, in MiB.
    pub pss: f64,
}

/// Random bytes of which each value is a piece.
pub fn pool() -> Bytes {
    let mut bytes = vec![0; 1 << 20];
    SmallRng::seed_from_u64(1).fill_bytes(&mut bytes);
    bytes.into()
}

fn value(pool: &Bytes, random: &mut SmallRng) -> Bytes {
    let at = random.random_range(0..pool.len() - VALUE);
    pool.slice(at..at + VALUE)
}

/// A key of the load.
pub fn key(i: u64) -> Bytes {
    format!("/bench/keys/{i:010}").into()
}

/// Connections to all living members, the leader first: client i uses the one at i modulo their number.
///
/// # Errors
/// When a member does not answer.
pub async fn connections(group: &Group, leader: usize, count: usize) -> Result<Vec<Connection>> {
    let mut living = group.living();
    let at = living.iter().position(|i| *i == leader).context("the leader is gone")?;
    living.rotate_left(at);
    let mut connections = Vec::new();
    for i in 0..count {
        connections.push(group.connect(living[i % living.len()]).await?);
    }
    Ok(connections)
}

/// Writes the keys from one number to another.
///
/// # Errors
/// When a write is not acknowledged.
pub async fn fill(group: &Group, leader: usize, from: u64, to: u64) -> Result<()> {
    let connections = connections(group, leader, 4).await?;
    let pool = pool();
    let loaders = (0..LOADERS).map(|loader| {
        let (connection, pool) = (connections[loader as usize % connections.len()].clone(), pool.clone());
        tokio::spawn(async move {
            let mut random = SmallRng::seed_from_u64(loader);
            let mut first = from + loader * BATCH;
            while first < to {
                let puts = (first..(first + BATCH).min(to)).map(|i| (key(i), value(&pool, &mut random)));
                tokio::time::timeout(PATIENCE, connection.put_many(puts.collect())).await??;
                first += LOADERS * BATCH;
            }
            anyhow::Ok(())
        })
    });
    for loader in futures::future::join_all(loaders).await {
        loader??;
    }
    Ok(())
}

struct Client {
    connection: Connection,
    work: Work,
    keys: u64,
    pool: Bytes,
    random: SmallRng,
}

impl closed_loop::Client for Client {
    async fn once(&mut self) -> Result<()> {
        let key = key(self.random.random_range(0..self.keys));
        let writes = match self.work {
            Work::Puts => true,
            Work::Mixed => self.random.random_ratio(1, 10),
            _ => false,
        };
        let asked = async {
            match writes {
                true => self.connection.put(key, value(&self.pool, &mut self.random)).await,
                false => self.connection.get(key, self.work != Work::SerializableReads).await,
            }
        };
        tokio::time::timeout(PATIENCE, asked).await?
    }
}

/// Lets clients work for some time, and measures.
///
/// # Errors
/// When anything is not answered.
pub async fn run(
    group: &Group,
    leader: usize,
    work: Work,
    clients: usize,
    keys: u64,
    seconds: Duration,
) -> Result<Run> {
    let most = report::setting("CONNECTIONS", 12)? as usize;
    let connections = connections(group, leader, clients.min(most)).await?;
    let pool = pool();
    let clients = (0..clients).map(|i| {
        let connection = connections[i % connections.len()].clone();
        let random = SmallRng::seed_from_u64(rand::random());
        Client { connection, work, keys, pool: pool.clone(), random }
    });
    let done = closed_loop::run(clients.collect(), WARM_UP, seconds, || group.cpu()).await?;
    let closed_loop::Run { ops, p50, p99, cpu, client_cpu } = done;
    Ok(Run { ops, p50, p99, cpu, client_cpu, pss: group.memory()?.0 })
}
