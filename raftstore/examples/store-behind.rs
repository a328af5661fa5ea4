//! Measures what a member costs the others that was away for many entries, and what compaction gives back: three members in
//! processes of their own (`store-server`), one of them killed, entries written without it, and started again under load.
//!
//!     cargo build -p trireme-raftstore --examples
//!     target/debug/examples/store-behind [ENTRIES] [WRITES A SECOND]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use trireme_raftstore::port::{Client, tls_files};
use trireme_raftstore::{Op, StoreError, Txn};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const CLIENTS: usize = 32;
const VALUE: usize = 512;
const BASE: u16 = 27_400;

/// Processes that end with this one.
struct Members {
    dir: tempfile::TempDir,
    server: PathBuf,
    running: Vec<Option<Child>>,
}

impl Drop for Members {
    fn drop(&mut self) {
        for child in self.running.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn port(kind: u16, i: usize) -> String {
    format!("127.0.0.1:{}", BASE + kind + i as u16)
}

impl Members {
    fn new() -> Result<Self, Failure> {
        let server = std::env::current_exe()?.with_file_name("store-server");
        let members = Self { dir: tempfile::tempdir_in(".")?, server, running: vec![None, None, None] };
        let tls = members.dir.path().join("tls");
        let made = Command::new(&members.server).arg("certs").arg(&tls).args(["m0", "m1", "m2"]).status()?;
        if made.success() { Ok(members) } else { Err("no certificates".into()) }
    }

    fn data(&self, i: usize) -> PathBuf {
        self.dir.path().join(format!("m{i}"))
    }

    fn start(&mut self, how: &str, i: usize) -> Result<(), Failure> {
        let mut command = Command::new(&self.server);
        command.arg(how).arg("--data").arg(self.data(i)).args(["--name", &format!("m{i}")]);
        command.args(["--peer", &port(0, i), "--client", &port(10, i), "--tls"]).arg(self.dir.path().join("tls"));
        if how == "join" {
            command.args(["--via", &port(10, 0)]);
        }
        command.args(["--set", "keep-history-s=20"]).stdout(Stdio::null());
        let log = std::fs::File::create(self.dir.path().join(format!("m{i}.log")))?;
        self.running[i] = Some(command.stderr(log).spawn()?);
        Ok(())
    }

    fn kill(&mut self, i: usize) -> Result<(), Failure> {
        if let Some(mut child) = self.running[i].take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    async fn client(&self, i: usize) -> Result<Client, Failure> {
        let tls = tls_files(&self.dir.path().join("tls"), &format!("m{i}"))?;
        let begin = Instant::now();
        loop {
            match Client::connect(&port(10, i), &tls).await {
                Ok(client) => return Ok(client),
                Err(error) if begin.elapsed() > Duration::from_secs(60) => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

fn du(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut seen = std::collections::HashSet::new();
    let mut stack: Vec<_> = entries.map(|e| e.path()).collect();
    let mut bytes = 0;
    while let Some(path) = stack.pop() {
        use std::os::unix::fs::MetadataExt;
        let Ok(meta) = path.symlink_metadata() else { continue };
        if meta.is_dir() {
            stack.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|e| e.path()));
        } else if seen.insert(meta.ino()) {
            bytes += meta.blocks() * 512;
        }
    }
    bytes
}

async fn put(client: &Client, n: u64, keys: u64) -> Result<(), StoreError> {
    let key = Bytes::from(format!("/registry/things/{:08}", n.wrapping_mul(7_919) % keys));
    let value = Bytes::from(vec![n as u8; VALUE]);
    let then = vec![Op::Put { key, value, expires_at_ms: None }];
    client.txn(Txn { then, ..Txn::default() }).await.map(drop)
}

/// Writes so many entries as fast as it goes, or at a rate until told to stop; the latencies in milliseconds.
async fn load(client: &Client, keys: u64, count: u64, rate: Option<f64>, until: Duration) -> (Vec<f64>, u64) {
    let (next, failed, begin) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, next, failed) = (client.clone(), next.clone(), failed.clone());
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count || begin.elapsed() >= until {
                    return latencies;
                }
                if let Some(rate) = rate {
                    let due = begin + Duration::from_secs_f64(n as f64 / rate);
                    tokio::time::sleep_until(due.into()).await;
                }
                let sent = Instant::now();
                match put(&client, n, keys).await {
                    Ok(()) => latencies.push(sent.elapsed().as_secs_f64() * 1000.0),
                    Err(_) => drop(failed.fetch_add(1, Ordering::Relaxed)),
                }
            }
        });
    }
    let mut all: Vec<f64> = tasks.join_all().await.into_iter().flatten().collect();
    all.sort_by(f64::total_cmp);
    (all, failed.load(Ordering::Relaxed))
}

fn row(what: &str, (latencies, failed): &(Vec<f64>, u64), took: Duration) {
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or_default();
    let rate = latencies.len() as f64 / took.as_secs_f64();
    println!("{what:<38} {rate:>8.0}/s  p50 {:>7.1} ms  p99 {:>7.1} ms  failed {failed}", at(0.5), at(0.99));
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<u64>());
    let entries = arguments.next().unwrap_or(Ok(1_000_000))?;
    let rate = arguments.next().unwrap_or(Ok(1_000))? as f64;
    let keys = (entries / 5).max(1);
    let mut members = Members::new()?;
    members.start("bootstrap", 0)?;
    let client = members.client(0).await?;
    for i in [1, 2] {
        members.start("join", i)?;
        members.client(i).await?;
    }
    while client.members().await?.iter().filter(|m| m.healthy && m.lag == Some(0)).count() < 3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    members.kill(2)?;
    let begin = Instant::now();
    let written = load(&client, keys, entries, None, Duration::from_secs(3600)).await;
    row(&format!("{entries} entries without the third"), &written, begin.elapsed());
    let window = Duration::from_secs(20);
    let two = load(&client, keys, u64::MAX, Some(rate), window).await;
    row("steady load, two members", &two, window);
    members.start("open", 2)?;
    let returned = Instant::now();
    let watching = tokio::spawn({
        let client = client.clone();
        async move {
            loop {
                let all = client.members().await.unwrap_or_default();
                if all.iter().any(|m| m.name == "m2" && m.healthy && m.lag.is_some_and(|lag| lag < 100)) {
                    return returned.elapsed();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    let catching_up = load(&client, keys, u64::MAX, Some(rate), window).await;
    row("steady load, the third catches up", &catching_up, window);
    println!("caught up after {:.1} s", watching.await?.as_secs_f64());
    let three = load(&client, keys, u64::MAX, Some(rate), window).await;
    row("steady load, three members", &three, window);
    for i in 0..3 {
        println!("m{i}: {} MB on disk", du(&members.data(i)) / 1_000_000);
    }
    // Everything but the newest state of each key goes, while the load goes on.
    let revision = client.applied_revision().await?;
    let _ = client.compact(revision).await;
    let compacting = load(&client, keys, u64::MAX, Some(rate), window).await;
    row("steady load, compaction of everything", &compacting, window);
    for i in 0..3 {
        println!("m{i}: {} MB on disk", du(&members.data(i)) / 1_000_000);
    }
    Ok(())
}
