//! One write, a thousand watchers: the next one begins when all of them have been told of the last.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::Notify;

use super::connection::Watches;
use super::group::Group;
use super::load::{self, Run, VALUE};
use crate::{report, usage};

/// Watchers, over all members.
pub const WATCHERS: usize = 1000;
/// Connections that they share.
const CONNECTIONS: usize = 12;
const PREFIX: &str = "/bench/watched/";
const WARM_UP: usize = 5;
const PATIENCE: Duration = Duration::from_secs(30);

/// Events that were delivered in a second, and how long it took from the beginning of a write until the last of the
/// watchers knew.
///
/// # Errors
/// When a watch ends, or an event does not come.
pub async fn run(group: &Group, leader: usize, seconds: Duration) -> Result<Run> {
    let (seen, more) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let living = group.living();
    let mut counting = tokio::task::JoinSet::new();
    for i in 0..CONNECTIONS {
        let count = WATCHERS / CONNECTIONS + usize::from(i < WATCHERS % CONNECTIONS);
        let address = group.address(living[i % living.len()]);
        let watches = Watches::open(group.side, address, group.tls(), PREFIX, count).await?;
        let (seen, more) = (seen.clone(), more.clone());
        counting.spawn(watches.count(move |events| {
            // Only the last one of a write wakes the writer.
            if events > 0 && (seen.fetch_add(events, Ordering::AcqRel) + events) % WATCHERS == 0 {
                more.notify_one();
            }
        }));
    }
    let connection = load::connections(group, leader, 1).await?.remove(0);
    let pool = load::pool();
    let own = std::process::id() as i32;
    let (mut took, mut begin, mut before) = (Vec::new(), Instant::now(), (Duration::ZERO, Duration::ZERO));
    for i in 0.. {
        if i == WARM_UP {
            (begin, before) = (Instant::now(), (group.cpu()?, usage::cpu(own)?));
        }
        if i > WARM_UP && begin.elapsed() >= seconds {
            break;
        }
        let start = Instant::now();
        let at = (i * 97) % (pool.len() - VALUE);
        connection.put(format!("{PREFIX}{}", i % 100).into(), pool.slice(at..at + VALUE)).await?;
        let told = async {
            while seen.load(Ordering::Acquire) < (i + 1) * WATCHERS {
                more.notified().await;
            }
        };
        tokio::select! {
            told = tokio::time::timeout(PATIENCE, told) => told.context("not all watchers were told")?,
            Some(ended) = counting.join_next() => ended??,
        }
        if i >= WARM_UP {
            took.push(report::ms(start.elapsed()));
        }
    }
    let (elapsed, after) = (begin.elapsed(), (group.cpu()?, usage::cpu(own)?));
    let events = (took.len() * WATCHERS) as f64;
    Ok(Run {
        ops: events / elapsed.as_secs_f64(),
        p50: report::percentile(&took, 50.0),
        p99: report::percentile(&took, 99.0),
        cpu: after.0.saturating_sub(before.0).as_secs_f64() * 1e6 / events,
        client_cpu: after.1.saturating_sub(before.1).as_secs_f64() * 1e6 / events,
        pss: group.memory()?.0,
    })
}
