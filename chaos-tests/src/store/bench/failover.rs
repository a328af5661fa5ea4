//! The leader is killed with -9: how long until the next write is acknowledged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::group::Group;
use super::load;
use crate::report;

/// A write begins this often on each surviving member, whatever became of those before it.
const EVERY: Duration = Duration::from_millis(5);
/// How long one of them is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before the kill, and after everything is whole again.
const CALM: Duration = Duration::from_millis(700);

/// Kills the leader once and starts it again; milliseconds from the kill until a write is acknowledged that began
/// after it.
///
/// # Errors
/// When no write is acknowledged any more.
pub async fn round(group: &mut Group) -> Result<f64> {
    let leader = group.settle().await?;
    tokio::time::sleep(CALM).await;
    let (told, mut acknowledged) = mpsc::channel::<(Instant, Instant)>(4096);
    let mut writers = JoinSet::new();
    for i in group.living().into_iter().filter(|i| *i != leader) {
        let connection = Arc::new(group.connect(i).await?);
        let told = told.clone();
        let pool = load::pool();
        writers.spawn(async move {
            let mut writes = JoinSet::new();
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            for n in 0u64.. {
                ticks.tick().await;
                while writes.try_join_next().is_some() {}
                let (connection, told) = (connection.clone(), told.clone());
                let value = pool.slice(..load::VALUE);
                writes.spawn(async move {
                    let begin = Instant::now();
                    let put = connection.put(format!("/bench/failover/{}", n % 100).into(), value);
                    if let Ok(Ok(())) = tokio::time::timeout(PATIENCE, put).await {
                        let _ = told.send((begin, Instant::now())).await;
                    }
                });
            }
        });
    }
    // Writes have to be acknowledged before, too.
    let calm = Instant::now();
    while calm.elapsed() < CALM {
        tokio::time::timeout(PATIENCE, acknowledged.recv()).await?.context("the writers ended")?;
    }
    let killed = group.kill(leader)?;
    let pause = loop {
        let next = tokio::time::timeout(PATIENCE * 3, acknowledged.recv()).await;
        let (began, ended) = next.context("no write was acknowledged any more")?.context("the writers ended")?;
        if began > killed {
            break report::ms(ended - killed);
        }
    };
    writers.shutdown().await;
    group.restart(leader).await?;
    Ok(pause)
}
