//! Many watchers of one collection: how long until the last of them knows of a change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::bed::Bed;
use super::connection::{Streams, Target};
use super::objects::{Kind, SMALL};
use crate::{report, usage};

/// Watches on one connection; a master takes a thousand.
const STREAMS: usize = 900;
/// Longest time until everybody knows.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Milliseconds from the beginning of each write until the last watcher knew.
    pub ms: Vec<f64>,
    /// Processor time of all masters for one event of one watcher, in microseconds.
    pub cpu: f64,
    /// That of the clients.
    pub client_cpu: f64,
    /// Memory of all masters for one watch, in KiB.
    pub kib: f64,
}

/// How many events all watchers together have seen.
#[derive(Default)]
struct Seen {
    count: AtomicU64,
    awaited: AtomicU64,
    reached: Notify,
}

impl Seen {
    fn add(&self, events: u64) {
        let now = self.count.fetch_add(events, Ordering::SeqCst) + events;
        if now >= self.awaited.load(Ordering::SeqCst) {
            self.reached.notify_one();
        }
    }

    async fn wait(&self, count: u64) {
        self.awaited.store(count, Ordering::SeqCst);
        while self.count.load(Ordering::SeqCst) < count {
            self.reached.notified().await;
        }
    }
}

async fn follow(mut body: Incoming, seen: Arc<Seen>) -> Result<()> {
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            seen.add(data.iter().filter(|byte| **byte == b'\n').count() as u64);
        }
    }
    anyhow::bail!("a watch has ended")
}

async fn open(target: &Target, mut streams: Streams, path: &str) -> Result<Incoming> {
    streams.ready().await?;
    let answer = tokio::time::timeout(PATIENCE, streams.send_request(target.watch(path)?)).await??;
    ensure!(answer.status() == StatusCode::OK, "a watch: {}", answer.status());
    Ok(answer.into_body())
}

/// So many watchers over all masters, and so many changes.
///
/// # Errors
/// When a watch ends or somebody is not told.
pub async fn fan_out(bed: &Bed, namespace: &str, watchers: usize, changes: u64) -> Result<Told> {
    let memory = bed.memory_of_all()?;
    let path = format!("{}?watch=1&timeoutSeconds=3000&sendInitialEvents=false", Kind::Map(0).collection(namespace));
    let path = format!("{path}&resourceVersionMatch=NotOlderThan");
    let seen = Arc::new(Seen::default());
    let mut crowd = JoinSet::new();
    let connections = watchers.div_ceil(STREAMS).next_multiple_of(bed.targets.len());
    for i in 0..connections {
        let target = &bed.targets[i % bed.targets.len()];
        let streams = target.streams().await?;
        let own = watchers / connections + usize::from(i < watchers % connections);
        for _ in 0..own {
            crowd.spawn(follow(open(target, streams.clone(), &path).await?, seen.clone()));
        }
    }
    let mut told = Told { kib: (bed.memory_of_all()? - memory) * 1024.0 / watchers as f64, ..Told::default() };
    bed.calm().await?;
    let mut writer = bed.targets[0].connect().await?;
    let own = std::process::id() as i32;
    let before = (bed.cpu()?, usage::cpu(own)?);
    for change in 0..changes {
        let body = Kind::Map(SMALL).object(&format!("change-{watchers}-{change}"), change);
        let begun = Instant::now();
        let path = Kind::Map(SMALL).collection(namespace);
        writer.done(Method::POST, &path, body, &[StatusCode::CREATED]).await?;
        let wanted = watchers as u64 * (change + 1);
        tokio::select! {
            all = tokio::time::timeout(PATIENCE, seen.wait(wanted)) => all.with_context(|| {
                format!("{} of {wanted} were told", seen.count.load(Ordering::SeqCst))
            })?,
            ended = crowd.join_next() => ended.context("no watcher")???,
        }
        told.ms.push(report::ms(begun.elapsed()));
    }
    let events = (watchers as u64 * changes).max(1) as f64;
    told.cpu = (bed.cpu()?.saturating_sub(before.0)).as_secs_f64() * 1e6 / events;
    told.client_cpu = (usage::cpu(own)?.saturating_sub(before.1)).as_secs_f64() * 1e6 / events;
    crowd.shutdown().await;
    Ok(told)
}
