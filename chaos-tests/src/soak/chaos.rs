//! Masters and agents that die at random and are brought back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::cluster::Cluster;
use crate::failover::all_caught_up;
use crate::lives::Lives;

/// The part of the time after which the last master and the last node are spared, so that their memory can be followed.
const SPARED_AFTER: f64 = 0.25;
/// Between a recovery and the next kill.
const QUIET: std::ops::Range<u64> = 4_000..12_000;
/// Between a kill and the recovery.
const DEAD: std::ops::Range<u64> = 0..5_000;

/// Kills and brings back until the time is over; how many were killed.
pub async fn run(cluster: &Cluster, lives: &mut Lives, seed: u64, begun: Instant, time: Duration) -> Result<usize> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x5eed);
    let mut killed = 0;
    loop {
        let quiet = Duration::from_millis(random.random_range(QUIET));
        let dead = Duration::from_millis(random.random_range(DEAD));
        let pick = random.random_range(0..1024usize);
        let agent_too = random.random_range(0..4) == 0;
        // Enough time stays to bring back what dies.
        if begun.elapsed() + quiet + dead + Duration::from_secs(3) > time {
            tokio::time::sleep(time.saturating_sub(begun.elapsed())).await;
            return Ok(killed);
        }
        tokio::time::sleep(quiet).await;
        let spare = begun.elapsed().as_secs_f64() > time.as_secs_f64() * SPARED_AFTER;
        let victim = victim(cluster, pick, spare);
        let mut victims = vec![victim.clone()];
        if agent_too && victim.starts_with("master-") {
            victims.push("node-1".to_owned());
        }
        for victim in &victims {
            killed += usize::from(lives.kill(cluster, victim)?);
        }
        println!("{:>7.1} s  kill -9 {}", begun.elapsed().as_secs_f64(), victims.join(", "));
        tokio::time::sleep(dead).await;
        tokio::task::block_in_place(|| lives.mend(cluster))?;
        // Only then can a majority survive the next kill.
        all_caught_up(cluster).await.with_context(|| format!("{victim} does not catch up"))?;
    }
}

fn victim(cluster: &Cluster, pick: usize, spare: bool) -> String {
    let last = |prefix: &str| cluster.hosts().iter().rfind(|host| host.starts_with(prefix)).cloned();
    let spared = [last("master-"), last("node-")];
    let all = cluster.hosts().iter().filter(|host| !spare || !spared.contains(&Some((*host).clone())));
    let all: Vec<&String> = all.collect();
    all[pick % all.len()].clone()
}
