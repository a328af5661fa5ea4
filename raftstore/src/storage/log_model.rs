//! The log against a model: whatever is done to it and whenever the power fails, what it says afterwards is what it said at
//! some moment, and no earlier one than the last that anybody was told of. And no bit of it may change unnoticed.

#![allow(clippy::unwrap_used)]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::StorageError;
use super::disk::Disk;
use super::disk::memory::MemoryDisk;
use super::log::{Log, LogEntry, Payload};
use super::log_record::LogState;
use super::log_writer::LogWriter;
use super::records::{LogPosition, VoteRecord};
use super::room::Space;
use crate::command::{Command, Proposal};
use crate::faults::Faults;
use crate::types::{Op, Txn};

const DIR: &str = "/member/log";

/// What the log says, with its entries.
#[derive(Clone, Debug, Default, PartialEq)]
struct Said {
    state: LogState,
    entries: Vec<LogEntry>,
}

impl Said {
    fn of(log: &Log) -> Self {
        let (purged, last) = log.ends();
        let state = LogState { vote: log.vote(), committed: log.committed(), purged, last };
        Self { state, entries: log.read(0..u64::MAX, usize::MAX).unwrap() }
    }

    fn next(&self) -> u64 {
        self.state.last.map_or(0, |at| at.index + 1)
    }

    fn term(&self) -> u64 {
        self.state.last.map_or(1, |at| at.term).max(self.state.vote.map_or(0, |vote| vote.term))
    }
}

fn entry(term: u64, index: u64, size: usize) -> LogEntry {
    let put = Op::Put { key: "/k".into(), value: vec![index as u8; size].into(), expires_at_ms: None };
    let payload = match size {
        0 => Payload::Blank,
        _ => Payload::Command(Proposal::new(&Command::Txn(Txn { then: vec![put], ..Txn::default() })).0),
    };
    LogEntry { at: LogPosition { term, node: 1, index }, payload }
}

/// A log in use, and all that it has said, in order.
struct Run {
    memory: MemoryDisk,
    segment_bytes: u64,
    writer: LogWriter,
    said: Vec<Said>,
    /// Up to here somebody was told.
    told: Arc<AtomicUsize>,
    /// On a full disk votes are saved before what waits for room: of them somebody was told up to here.
    told_vote: Option<usize>,
}

fn open(memory: &MemoryDisk, segment_bytes: u64) -> Result<Arc<Log>, StorageError> {
    let disk = Disk::Memory(memory.mount());
    let begun = disk.is_dir(Path::new(DIR))?;
    let log = Log::open(&disk, Path::new(DIR), segment_bytes, false)?;
    if log.lineage().is_none() {
        assert!(!begun || log.ends() == (None, None));
        log.begin("lineage", LogState::default())?;
    }
    Ok(log)
}

fn write(log: Arc<Log>) -> Result<LogWriter, StorageError> {
    let space = Arc::new(Space::open(&log.disk, Path::new(DIR), &Default::default())?);
    LogWriter::start(log, Box::new(|_| {}), space, Box::new(|_| Ok(())), Faults::default())
}

impl Run {
    fn new(memory: MemoryDisk, segment_bytes: u64) -> Self {
        let log = open(&memory, segment_bytes).unwrap();
        let said = vec![Said::of(&log)];
        Self { writer: write(log).unwrap(), memory, segment_bytes, said, told: Arc::default(), told_vote: None }
    }

    fn now(&self) -> &Said {
        self.said.last().unwrap()
    }

    fn say(&mut self, change: impl FnOnce(&mut Said)) {
        let mut now = self.now().clone();
        change(&mut now);
        self.said.push(now);
    }

    async fn append(&mut self, entries: Vec<LogEntry>) -> io::Result<()> {
        for entry in &entries {
            self.say(|said| {
                said.state.last = Some(entry.at);
                said.entries.push(entry.clone());
            });
        }
        let (told, upto) = (self.told.clone(), self.said.len() - 1);
        let appended = Box::new(move |result: io::Result<()>| {
            if result.is_ok() {
                told.fetch_max(upto, Ordering::SeqCst);
            }
        });
        self.writer.append(entries, appended).await
    }

    async fn act(&mut self, dice: &mut SmallRng) -> io::Result<()> {
        let (first, now) = (self.now().state.purged.map_or(0, |at| at.index + 1), self.now().next());
        // Neither what is committed nor what is purged is ever cut off, and only what is committed is purged.
        let firm = self.now().state.committed.map_or(0, |at| at.index + 1).max(first);
        match dice.random_range(0..12) {
            0..6 => {
                let (term, count) =
                    (self.now().term() + u64::from(dice.random_range(0..4) == 0), dice.random_range(1..6));
                let size = [0, 10, 300, 2000][dice.random_range(0..4)];
                self.append((now..now + count).map(|index| entry(term, index, size)).collect()).await
            }
            6 if now > firm => {
                let after = dice.random_range(firm..=now).checked_sub(1);
                let after = after.filter(|_| self.now().state.last.is_some());
                let at = |index: u64| self.now().entries.iter().map(|e| e.at).find(|at| at.index == index);
                let Some(after) = after.map_or(Some(None), |i| at(i).or(self.now().state.purged).map(Some)) else {
                    return Ok(());
                };
                self.say(|said| {
                    said.state.last = after;
                    said.entries.retain(|e| after.is_some_and(|after| e.at.index <= after.index));
                });
                self.writer.truncate_after(after).await
            }
            7 => {
                let vote = VoteRecord { term: self.now().term() + 1, node: 2, committed: dice.random() };
                self.say(|said| said.state.vote = Some(vote));
                self.writer.save_vote(vote).await?;
                let now = self.said.len() - 1;
                match &mut self.told_vote {
                    Some(told) => *told = now,
                    None => drop(self.told.fetch_max(now, Ordering::SeqCst)),
                }
                Ok(())
            }
            8 | 9 if now > firm => {
                let index = dice.random_range(firm..now);
                let at = self.now().entries.iter().map(|e| e.at).find(|at| at.index == index).unwrap();
                self.say(|said| said.state.committed = Some(at));
                self.writer.save_committed(at).await
            }
            10 if firm > first => {
                let index = dice.random_range(first..firm);
                let Some(upto) = self.now().entries.iter().map(|e| e.at).find(|at| at.index == index) else {
                    return Ok(());
                };
                self.say(|said| {
                    said.state.purge(upto);
                    said.entries.retain(|e| e.at.index > upto.index);
                });
                self.writer.purge(upto).await
            }
            11 => {
                tokio::time::sleep(Duration::from_millis(dice.random_range(0..1500))).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Opens what a crash left, which fails now and then because the power does again, and compares.
    async fn crash(self, dice: &mut SmallRng, what: &str) -> Self {
        let Self { memory, segment_bytes, writer, said, told, told_vote } = self;
        drop(writer);
        match dice.random_range(0..4) {
            0 => memory.kill(),
            _ => memory.crash(dice.random()),
        }
        memory.set_capacity(None);
        loop {
            if dice.random_range(0..3) == 0 {
                memory.set_fuse(dice.random_range(0..12));
            }
            match open(&memory, segment_bytes).and_then(|log| Ok((Said::of(&log), write(log)?))) {
                Ok((found, writer)) => {
                    let from = told.load(Ordering::SeqCst);
                    let when = match told_vote {
                        None => said[from..].iter().position(|said| *said == found),
                        // Of what was said with one vote or another, and of the votes, each counts for itself.
                        Some(vote) => {
                            let voted = said[vote..].iter().any(|said| said.state.vote == found.state.vote);
                            let but = |said: &Said| LogState { vote: found.state.vote, ..said.state.clone() };
                            let same = |said: &Said| but(said) == found.state && said.entries == found.entries;
                            said[from..].iter().position(same).filter(|_| voted)
                        }
                    };
                    let brief =
                        |said: &Said| (said.state.clone(), said.entries.iter().map(|e| e.at).collect::<Vec<_>>());
                    assert!(when.is_some(), "{what}: {:#?}\ntold {:#?}", brief(&found), brief(&said[from]));
                    let (said, told) = (vec![found], Arc::default());
                    return Self { memory, segment_bytes, writer, said, told, told_vote: None };
                }
                Err(error) => {
                    assert!(!error.is_damage(), "{what}: {error}");
                    memory.crash(dice.random());
                }
            }
        }
    }
}

/// The first seed and how many: `SEED` and `COUNT` of the environment let it run for longer.
fn seeds() -> (u64, u64) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    (number("SEED").unwrap_or(0), number("COUNT").unwrap_or(1_200))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

#[test]
fn nothing_that_was_told_is_lost_and_nothing_that_was_cut_off_comes_back() {
    runtime().block_on(async {
        let (first, seeds) = seeds();
        for seed in first..first + seeds {
            let mut dice = SmallRng::seed_from_u64(seed);
            let segment_bytes = [1, 400, 1500, 6000][dice.random_range(0..4)];
            let mut run = Run::new(MemoryDisk::new(), segment_bytes);
            for round in 0..5 {
                if dice.random_range(0..3) > 0 {
                    run.memory.set_fuse(dice.random_range(0..40));
                }
                if dice.random_range(0..4) == 0 {
                    run.memory.set_capacity(Some(run.memory.used() + dice.random_range(0..6000)));
                    run.told_vote = Some(0);
                }
                for _ in 0..dice.random_range(0..40) {
                    // A vote that does not fit waits for room.
                    let acted = tokio::time::timeout(Duration::from_secs(3), run.act(&mut dice));
                    if !matches!(acted.await, Ok(Ok(()))) {
                        break;
                    }
                    if dice.random_range(0..20) == 0 {
                        run.memory.set_capacity(None);
                    }
                    for _ in 0..dice.random_range(0..3) {
                        tokio::task::yield_now().await;
                    }
                }
                if dice.random_range(0..4) == 0 {
                    run.writer.stop().await;
                }
                run = run.crash(&mut dice, &format!("seed {seed}, round {round}")).await;
            }
        }
    });
}

/// A log of several segments that was stopped in order, and its files.
async fn filled(memory: &MemoryDisk) -> (Said, Vec<PathBuf>) {
    let mut run = Run::new(memory.clone(), 1500);
    for index in 0..12 {
        run.append(vec![entry(1, index, 300)]).await.unwrap();
        run.writer.save_committed(entry(1, index, 300).at).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    run.writer.save_vote(VoteRecord { term: 2, node: 1, committed: true }).await.unwrap();
    run.writer.truncate_after(Some(entry(1, 11, 300).at)).await.unwrap();
    run.append(vec![entry(2, 12, 100)]).await.unwrap();
    run.writer.purge(entry(1, 5, 300).at).await.unwrap();
    run.writer.save_committed(entry(2, 12, 100).at).await.unwrap();
    run.writer.stop().await;
    let said = Said::of(run.writer.log());
    let disk = Disk::Memory(memory.mount());
    let mut files: Vec<PathBuf> = disk.list(Path::new(DIR)).unwrap().iter().map(|n| Path::new(DIR).join(n)).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "segment"));
    assert!(files.len() > 2 && said.entries.len() == 7, "{files:?}");
    (said, files)
}

#[test]
fn no_bit_changes_unnoticed_and_no_file_goes() {
    runtime().block_on(async {
        let memory = MemoryDisk::new();
        let (said, files) = filled(&memory).await;
        assert_eq!(Said::of(&open(&memory, 1500).unwrap()), said);
        let disk = Disk::Memory(memory.mount());
        let newest = files.last().unwrap();
        for path in &files {
            let whole = disk.read(path).unwrap();
            let restore = || {
                let file = disk.create(path).unwrap();
                file.write_at(0, &whole).unwrap();
            };
            for (at, byte) in whole.iter().enumerate() {
                disk.open(path).unwrap().write_at(at as u64, &[byte ^ 1 << (at % 8)]).unwrap();
                // The note that a segment is followed by another says what the other one says, too.
                match open(&memory, 1500) {
                    Err(error) => assert!(error.is_damage(), "{} byte {at}: {error}", path.display()),
                    Ok(log) => assert!(path != newest && Said::of(&log) == said, "{} byte {at}", path.display()),
                }
                restore();
            }
            // Cut short, only the newest can be what a crash left: then its end is what nobody was told of.
            for len in 0..whole.len() {
                disk.open(path).unwrap().set_len(len as u64).unwrap();
                match open(&memory, 1500) {
                    Err(error) => assert!(error.is_damage(), "{} of {len} bytes: {error}", path.display()),
                    Ok(log) => {
                        let found = Said::of(&log);
                        // The note that the first six are removed may be gone with it.
                        let kept: Vec<_> = found.entries.iter().filter(|e| e.at.index > 5).cloned().collect();
                        let part = path == newest && said.entries.starts_with(&kept);
                        assert!(part || found == said, "{} of {len} bytes", path.display());
                    }
                }
                restore();
            }
            disk.remove_file(path).unwrap();
            let error = open(&memory, 1500).map(drop).unwrap_err();
            assert!(error.is_damage(), "without {}: {error}", path.display());
            restore();
        }
        assert_eq!(Said::of(&open(&memory, 1500).unwrap()), said);
        disk.remove_dir(Path::new(DIR)).unwrap();
        let gone = Log::open(&disk, Path::new(DIR), 1500, true).map(drop).unwrap_err();
        assert!(gone.to_string().contains("the log is gone"), "{gone}");
    });
}

#[test]
fn a_full_disk_takes_votes_and_holds_the_rest() {
    runtime().block_on(async {
        let memory = MemoryDisk::new();
        let mut run = Run::new(memory.clone(), 4000);
        run.append(vec![entry(1, 0, 2000)]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let told = run.told.load(Ordering::SeqCst);
        assert_eq!(told, 1);
        memory.set_capacity(Some(memory.used() + 1000));
        for index in 1..9 {
            run.append(vec![entry(1, index, 2000)]).await.unwrap();
        }
        let vote = VoteRecord { term: 5, node: 3, committed: false };
        run.writer.save_vote(vote).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(run.told.load(Ordering::SeqCst), told, "what does not fit is not acknowledged");
        assert_eq!(run.writer.log().read(0..9, usize::MAX).unwrap().len(), 9, "but can be read");
        // What is on the disk now is the entry that fits and the vote.
        let copy = Disk::Memory(MemoryDisk::new().mount());
        let disk = Disk::Memory(memory.mount());
        copy.create_dir(Path::new(DIR)).unwrap();
        for name in disk.list(Path::new(DIR)).unwrap() {
            copy.write_whole(Path::new(DIR), &name, &disk.read(&Path::new(DIR).join(&name)).unwrap()).unwrap();
        }
        let found = Said::of(&Log::open(&copy, Path::new(DIR), 4000, true).unwrap());
        assert_eq!((found.state.vote, found.entries.len()), (Some(vote), 1));
        memory.set_capacity(None);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(run.told.load(Ordering::SeqCst), run.said.len() - 1);
        let said = run.now().entries.clone();
        run.writer.stop().await;
        drop(run);
        assert_eq!(Said::of(&open(&memory, 4000).unwrap()).entries, said);
    });
}

/// A batch that did not fit was cut off again, and a vote is written in its place when the power fails.
#[test]
fn what_did_not_fit_is_not_mixed_with_what_comes_after_it() {
    runtime().block_on(async {
        for (seed, size) in (0..8).flat_map(|seed| (350..520).step_by(6).map(move |size| (seed, size))) {
            let memory = MemoryDisk::new();
            let mut run = Run::new(memory.clone(), 100_000);
            run.append(vec![entry(1, 0, size)]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert_eq!(run.told.load(Ordering::SeqCst), 1);
            memory.set_capacity(Some(memory.used() + 3000));
            run.append(vec![entry(1, 1, 9000)]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
            memory.set_latency(Duration::from_secs(100));
            let vote = VoteRecord { term: 5, node: 3, committed: false };
            let saving = tokio::time::timeout(Duration::from_secs(10), run.writer.save_vote(vote)).await;
            assert!(saving.is_err(), "it is written and not fsynced");
            memory.crash(seed);
            drop(run);
            memory.set_capacity(None);
            let found = open(&memory, 100_000).map(|log| Said::of(&log).entries.len());
            assert!(matches!(found, Ok(1..)), "seed {seed}, size {size}: {found:?}");
        }
    });
}

#[test]
fn after_a_failed_fsync_nothing_is_acknowledged_any_more() {
    runtime().block_on(async {
        let memory = MemoryDisk::new();
        let mut run = Run::new(memory.clone(), 4000);
        run.append(vec![entry(1, 0, 10)]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        memory.fail_syncs(true);
        run.append(vec![entry(1, 1, 10)]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        // The kernel tells of a lost write only once.
        memory.fail_syncs(false);
        run.append(vec![entry(1, 2, 10)]).await.unwrap();
        assert!(run.writer.save_vote(VoteRecord { term: 9, node: 1, committed: true }).await.is_err());
        assert_eq!(run.told.load(Ordering::SeqCst), 1);
        run.crash(&mut SmallRng::seed_from_u64(1), "failed fsync").await;
    });
}

#[test]
fn many_entries_take_little_memory_and_are_found() {
    runtime().block_on(async {
        let mut run = Run::new(MemoryDisk::new(), 64 << 10);
        let (mut all, count) = (Vec::new(), 20_000);
        for first in (0..count).step_by(100) {
            let entries: Vec<LogEntry> =
                (first..first + 100).map(|index| entry(1, index, index as usize % 50)).collect();
            all.extend(entries.clone());
            run.said.truncate(1);
            run.append(entries).await.unwrap();
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        let log = run.writer.log().clone();
        assert_eq!(log.read(0..u64::MAX, usize::MAX).unwrap(), all);
        for from in [0, 1, 777, 8_191, 11_808, 12_000, count - 1] {
            assert_eq!(
                log.read(from..from + 3, usize::MAX).unwrap(),
                all[from as usize..(from as usize + 3).min(all.len())]
            );
            assert_eq!(log.read(from..u64::MAX, 1).unwrap(), all[from as usize..from as usize + 1]);
        }
        let before = log.size_bytes();
        run.writer.purge(all[15_000].at).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(log.size_bytes() < before / 2, "{} of {before}", log.size_bytes());
        assert_eq!(log.read(0..u64::MAX, usize::MAX).unwrap(), all[15_001..]);
    });
}
