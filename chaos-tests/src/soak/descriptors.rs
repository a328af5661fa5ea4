//! Open files, sockets and the like of masters, agents and shims.
//!
//! The rule: once everything is deleted, each master and each agent has at most so many more open than before the work.
//! Connections move between masters when one dies, and RocksDB keeps its tables open: masters get more slack. Shims end
//! with their pods; of those that live at the end of the work, none may have more than a few beyond the smallest count.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::cluster::Cluster;
use crate::usage;

/// What a master may have more than before.
const MASTER: usize = 64;
/// What an agent may have more than before.
const AGENT: usize = 16;
/// What a shim may have more than another.
const SHIM: usize = 4;

/// Counts by host.
#[derive(Clone, Debug)]
pub struct Open(BTreeMap<String, usize>);

impl Open {
    /// Counts.
    ///
    /// # Errors
    /// When a host does not run.
    pub fn now(cluster: &Cluster) -> Result<Open> {
        let count = |host: &String| Ok((host.clone(), usage::descriptors(cluster.pid(host)?)?));
        cluster.hosts().iter().map(count).collect::<Result<_>>().map(Open)
    }

    /// Waits until no host has more open than this and the slack.
    ///
    /// # Errors
    /// When one still has after the limit.
    pub async fn not_more(&self, cluster: &Cluster, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let now = Open::now(cluster)?;
            let more = self.exceeded(&now);
            if more.is_empty() {
                let shown = now.0.iter().map(|(host, count)| format!("{host} {} to {count}", self.before(host)));
                println!("ok   open descriptors, once everything is deleted: {}", shown.collect::<Vec<_>>().join(", "));
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "open descriptors: {}", more.join("; "));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn before(&self, host: &str) -> usize {
        self.0.get(host).copied().unwrap_or_default()
    }

    fn exceeded(&self, now: &Open) -> Vec<String> {
        let slack = |host: &str| if host.starts_with("master-") { MASTER } else { AGENT };
        let more = now.0.iter().filter(|(host, count)| **count > self.before(host) + slack(host));
        more.map(|(host, count)| format!("{host} has {count}, {} before the work", self.before(host))).collect()
    }
}

/// Waits until no shim of a living pod has many more open than another.
///
/// # Errors
/// When one still has after the limit.
pub async fn shims_alike(cluster: &Cluster, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let shims = usage::running(&cluster.root().join("bin/trireme"), "shim");
        let counts: Vec<usize> = shims.iter().filter_map(|pid| usage::descriptors(*pid).ok()).collect();
        let (least, most) = (counts.iter().min().copied(), counts.iter().max().copied());
        if alike(&counts) {
            let (least, most) = (least.unwrap_or_default(), most.unwrap_or_default());
            println!("ok   {} shims have {least} to {most} open descriptors", counts.len());
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "shims have from {least:?} to {most:?} open descriptors: {counts:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn alike(counts: &[usize]) -> bool {
    let least = counts.iter().min().copied().unwrap_or_default();
    counts.iter().all(|count| *count <= least + SHIM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_many_more_is_named() {
        let open =
            |master: usize, agent: usize| Open([("master-1".to_owned(), master), ("node-1".to_owned(), agent)].into());
        let before = open(100, 40);
        assert!(before.exceeded(&open(100 + MASTER, 40 + AGENT)).is_empty());
        assert_eq!(before.exceeded(&open(100, 41 + AGENT)), ["node-1 has 57, 40 before the work"]);
        assert_eq!(before.exceeded(&open(101 + MASTER, 41 + AGENT)).len(), 2);
        assert!(alike(&[]) && alike(&[20, 20 + SHIM]) && !alike(&[20, 21 + SHIM]));
    }
}
