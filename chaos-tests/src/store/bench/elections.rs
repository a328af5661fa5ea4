//! Elections for nothing: a group rests, then works on a disk that others keep busy. Its leader is to stay.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::group::{Group, SIZE, Side};
use super::load::{self, Work};
use crate::report::{self, Machine};

/// Keys that the clients write.
const KEYS: u64 = 10_000;
/// How many do.
const CLIENTS: usize = 64;
/// The other user of the disk writes this much, makes it durable, and begins again.
const PIECE: usize = 4 << 20;
const PIECES: u64 = 64;

/// What a part of the run found.
struct Part {
    name: &'static str,
    time: Duration,
    elections: u64,
    /// Processor time of all members, of one core.
    cpu: f64,
    note: String,
}

/// Another user of the disk, on a thread of its own until it is dropped.
struct Busy {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<std::io::Result<()>>>,
}

impl Busy {
    fn start(folder: &Path) -> Result<Self> {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut file = File::create(folder.join("busy"))?;
        let (stopped, counted) = (stop.clone(), written.clone());
        let thread = std::thread::spawn(move || {
            let piece = vec![7u8; PIECE];
            while !stopped.load(Ordering::Relaxed) {
                if counted.load(Ordering::Relaxed) % (PIECES * PIECE as u64) == 0 {
                    file.seek(SeekFrom::Start(0))?;
                }
                file.write_all(&piece)?;
                file.sync_data()?;
                counted.fetch_add(PIECE as u64, Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Self { stop, written, thread: Some(thread) })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The newest term that any member knows.
async fn term(group: &Group) -> Result<u64> {
    let mut newest = 0;
    for i in 0..SIZE {
        newest = newest.max(group.connect(i).await?.leader().await?.term);
    }
    Ok(newest)
}

/// Lets a group rest for some time and then work for half of it; `wants` chooses among "idle" and "loaded".
///
/// # Errors
/// When it does not work, or elected for nothing.
pub async fn program(machine: &Machine, folder: &Path, calm: Duration, wants: impl Fn(&str) -> bool) -> Result<()> {
    let mut group = Group::start(Side::Ours, &folder.join("ours")).await?;
    let leader = group.settle().await?;
    load::fill(&group, leader, 0, KEYS).await?;
    let mut parts = Vec::new();
    if wants("idle") {
        parts.push(rest(&group, calm).await?);
    }
    if wants("loaded") {
        parts.push(work(&mut group, folder, calm / 2).await?);
    }
    ensure!(!parts.is_empty(), "with CALM, ONLY chooses among idle and loaded");
    let row = |p: &Part| {
        let (time, cpu) = (format!("{:.0} s", p.time.as_secs_f64()), format!("{:.1} %", p.cpu * 100.0));
        vec![p.name.to_owned(), time, p.elections.to_string(), cpu, p.note.clone()]
    };
    report::table(
        &["group of three", "for", "elections", "cpu of all", ""],
        &parts.iter().map(row).collect::<Vec<_>>(),
    );
    let kept = parts.iter().map(|p| {
        json!({
            "workload": format!("elections, {}", p.name), "seconds": p.time.as_secs_f64(), "elections": p.elections,
            "cpu_cores": p.cpu, "note": p.note,
        })
    });
    report::leave("elections", machine, &kept.collect::<Vec<_>>())?;
    ensure!(parts.iter().all(|p| p.elections == 0), "a leader that lived was replaced");
    Ok(())
}

async fn rest(group: &Group, time: Duration) -> Result<Part> {
    let (before, cpu, begin) = (term(group).await?, group.cpu()?, Instant::now());
    tokio::time::sleep(time).await;
    let (after, used, time) = (term(group).await?, group.cpu()? - cpu, begin.elapsed());
    let cpu = used.as_secs_f64() / time.as_secs_f64();
    Ok(Part { name: "idle", time, elections: after - before, cpu, note: String::new() })
}

async fn work(group: &mut Group, folder: &Path, time: Duration) -> Result<Part> {
    let leader = group.settle().await?;
    let busy = Busy::start(folder)?;
    let (before, cpu, begin) = (term(group).await?, group.cpu()?, Instant::now());
    let run = load::run(group, leader, Work::Puts, CLIENTS, KEYS, time).await.context("puts on a busy disk")?;
    let (after, used, time) = (term(group).await?, group.cpu()? - cpu, begin.elapsed());
    let others = busy.written.load(Ordering::Relaxed) as f64 / time.as_secs_f64() / f64::from(1 << 20);
    drop(busy);
    let note = format!(
        "{:.0} puts/s of {CLIENTS} clients, p50 {:.1} ms, p99 {:.1} ms; others write and sync {others:.0} MiB/s",
        run.ops, run.p50, run.p99
    );
    let cpu = used.as_secs_f64() / time.as_secs_f64();
    Ok(Part { name: "under load, the disk busy", time, elections: after - before, cpu, note })
}
