//! The cluster that is measured, and what its masters use.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::json;

use super::connection::{self, Target};
use crate::cluster::{Cluster, Options};
use crate::usage;

/// How long masters may take to become calm.
const CALM: Duration = Duration::from_secs(45);

/// Three masters and no node.
pub struct Bed {
    /// Taken down when this is dropped.
    pub cluster: Cluster,
    /// All masters.
    pub targets: Vec<Target>,
    pids: Vec<i32>,
}

impl Bed {
    /// Boots it.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn boot() -> Result<Bed> {
        let options = Options { prefix: "a", nodes: 0, ..Options::default() };
        let cluster = tokio::task::block_in_place(|| Cluster::boot(&options))?;
        let targets = connection::targets(&cluster)?;
        let pids = cluster.hosts().iter().map(|host| cluster.pid(host)).collect::<Result<_>>()?;
        Ok(Bed { cluster, targets, pids })
    }

    /// Processor time of all masters.
    ///
    /// # Errors
    /// When one is gone.
    pub fn cpu(&self) -> Result<Duration> {
        self.pids.iter().map(|pid| usage::cpu(*pid)).sum()
    }

    /// Memory of all masters that no file backs, in MiB.
    ///
    /// # Errors
    /// When one is gone.
    pub fn memory_of_all(&self) -> Result<f64> {
        self.pids.iter().map(|pid| anonymous(*pid)).sum()
    }

    /// A namespace.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string();
        let mut connection = self.targets[0].connect().await?;
        let codes = [StatusCode::CREATED, StatusCode::CONFLICT];
        connection.done(Method::POST, "/api/v1/namespaces", Bytes::from(body), &codes).await
    }

    /// Waits until the masters have nothing left to do of what came before, or for some time.
    ///
    /// # Errors
    /// When one is gone.
    pub async fn calm(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let before = self.cpu()?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let used = self.cpu()?.saturating_sub(before);
            if used < Duration::from_millis(60) || begun.elapsed() > CALM {
                return Ok(());
            }
        }
    }

    /// The most memory that a master has from now on, above what it has now.
    ///
    /// # Errors
    /// When it is gone.
    pub fn peak(&self, master: usize) -> Result<Peak> {
        Peak::begin(self.pids[master])
    }
}

/// Looks at a process's memory every few milliseconds.
pub struct Peak {
    before: f64,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<f64>,
}

impl Peak {
    fn begin(pid: i32) -> Result<Peak> {
        let before = anonymous(pid)?;
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut most: f64 = 0.0;
            while !asked.load(Ordering::Relaxed) {
                most = most.max(anonymous(pid).unwrap_or_default());
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        Ok(Peak { before, stop, thread })
    }

    /// MiB above what was before.
    pub fn end(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        (self.thread.join().unwrap_or_default() - self.before).max(0.0)
    }
}

/// What the kernel counts without walking the pages: gigabytes of them would take it a while each time.
fn anonymous(pid: i32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).with_context(|| path.clone())?;
    let kib: f64 = line.split_whitespace().next().unwrap_or_default().parse()?;
    Ok(kib / 1024.0)
}
