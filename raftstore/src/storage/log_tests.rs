//! The log's writer on a real disk.

#![allow(clippy::unwrap_used)]

use super::super::log::Payload;
use super::super::log_record::LogState;
use super::*;
use crate::command::{Command, Proposal};

fn entry(term: u64, index: u64) -> LogEntry {
    let payload = Payload::Command(Proposal::new(&Command::Compact(index)).0);
    LogEntry { at: LogPosition { term, node: 1, index }, payload }
}

fn start(dir: &std::path::Path) -> LogWriter {
    let log = Log::open(&Disk::Real, dir, 1 << 20, false).unwrap();
    if log.lineage().is_none() {
        log.begin("here", LogState::default()).unwrap();
    }
    let space = Space::open(&Disk::Real, dir, &Default::default()).unwrap();
    LogWriter::start(log, Box::new(|_| {}), space.into(), Box::new(|_| Ok(())), Faults::default()).unwrap()
}

async fn append(writer: &LogWriter, entries: Vec<LogEntry>) {
    let (done, wait) = oneshot::channel();
    let appended = Box::new(move |r: io::Result<()>| done.send(r).unwrap());
    writer.append(entries, appended).await.unwrap();
    wait.await.unwrap().unwrap();
}

fn positions(writer: &LogWriter, from: u64, to: u64) -> Vec<(u64, u64)> {
    let entries = writer.log().read(from..to, usize::MAX).unwrap();
    entries.iter().map(|e| (e.at.term, e.at.index)).collect()
}

#[tokio::test]
async fn survives_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let writer = start(dir.path());
    append(&writer, (0..10).map(|i| entry(1, i)).collect()).await;
    writer.truncate_after(Some(entry(1, 6).at)).await.unwrap();
    append(&writer, vec![entry(2, 7), entry(2, 8)]).await;
    writer.purge(entry(1, 2).at).await.unwrap();
    writer.save_vote(VoteRecord { term: 2, node: 3, committed: true }).await.unwrap();
    writer.save_committed(entry(2, 7).at).await.unwrap();
    let expected = vec![(1, 3), (1, 4), (1, 5), (1, 6), (2, 7), (2, 8)];
    assert_eq!(positions(&writer, 0, 100), expected, "from memory");
    writer.stop().await;
    drop(writer);

    let writer = start(dir.path());
    assert_eq!(positions(&writer, 0, 100), expected, "from disk");
    assert_eq!(positions(&writer, 4, 6), [(1, 4), (1, 5)]);
    assert_eq!(writer.log().ends(), (Some(entry(1, 2).at), Some(entry(2, 8).at)));
    assert_eq!(writer.log().vote(), Some(VoteRecord { term: 2, node: 3, committed: true }));
    assert_eq!(writer.log().committed(), Some(entry(2, 7).at));
    append(&writer, vec![entry(3, 9)]).await;
    assert_eq!(positions(&writer, 7, 100), [(2, 7), (2, 8), (3, 9)], "part on disk, part in memory");
    assert_eq!(writer.log().read(3..100, 1).unwrap().len(), 1, "at least one entry, whatever the limit");
    writer.stop().await;
}

#[test]
fn notes_of_what_is_committed_do_not_pile_up_behind_a_full_disk() {
    let mut held = VecDeque::new();
    for index in 0..100 {
        hold(&mut held, Job::Committed(entry(1, index).at));
    }
    hold(&mut held, Job::Purge { upto: entry(1, 9).at });
    hold(&mut held, Job::Committed(entry(1, 100).at));
    assert!(matches!(held.front(), Some(Job::Committed(at)) if at.index == 99));
    assert_eq!(held.len(), 3);
}

#[tokio::test]
async fn a_crash_after_cutting_off_leaves_one_log_without_gaps() {
    let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let writer = start(dir.path());
    append(&writer, (0..10).map(|i| entry(1, i)).collect()).await;
    writer.truncate_after(Some(entry(1, 5).at)).await.unwrap();
    append(&writer, vec![entry(2, 6), entry(2, 7)]).await;
    writer.save_committed(entry(2, 7).at).await.unwrap();
    writer.truncate_after(None).await.unwrap();
    // What was acknowledged is on disk; whether the last truncation is does not matter, but it is all or nothing.
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        std::fs::copy(&path, crashed.path().join(path.file_name().unwrap())).unwrap();
    }
    let expected = (0..6).map(|i| (1, i)).chain([(2, 6), (2, 7)]).collect::<Vec<_>>();
    match Log::open(&Disk::Real, crashed.path(), 1 << 20, true) {
        Ok(log) => {
            let found: Vec<_> = log.read(0..100, usize::MAX).unwrap().iter().map(|e| (e.at.term, e.at.index)).collect();
            assert_eq!(found, expected);
        }
        // That what is committed was cut off is noticed: no leader does that.
        Err(error) => assert!(error.to_string().contains("is committed"), "{error}"),
    }
    writer.stop().await;
}

#[tokio::test]
async fn an_entry_that_changed_in_memory_is_neither_read_nor_written() {
    let dir = tempfile::tempdir().unwrap();
    let writer = start(dir.path());
    append(&writer, vec![entry(1, 0), entry(1, 1)]).await;
    let mut wrong = Proposal::new(&Command::Compact(7)).0.to_vec();
    wrong[12 - 2] ^= 1;
    let wrong = LogEntry { at: entry(1, 1).at, payload: Payload::Command(wrong.into()) };
    writer.log().damage_in_memory(wrong.clone());
    assert_eq!(writer.log().read(0..9, usize::MAX).unwrap(), [entry(1, 0), entry(1, 1)], "it is read from disk");
    let (done, wait) = oneshot::channel();
    let next = LogEntry { at: entry(1, 2).at, ..wrong };
    writer.append(vec![next], Box::new(move |r| done.send(r).unwrap())).await.unwrap();
    assert!(wait.await.unwrap().unwrap_err().to_string().contains("damaged in memory"));
    assert!(writer.log().read(2..9, usize::MAX).is_err(), "nowhere is it as it was");
    writer.stop().await;
}

#[tokio::test]
async fn purge_beyond_the_end_leaves_an_empty_log() {
    let dir = tempfile::tempdir().unwrap();
    let writer = start(dir.path());
    append(&writer, (0..3).map(|i| entry(1, i)).collect()).await;
    writer.purge(entry(4, 100).at).await.unwrap();
    assert_eq!(writer.log().ends(), (Some(entry(4, 100).at), Some(entry(4, 100).at)));
    append(&writer, vec![entry(4, 101)]).await;
    assert_eq!(positions(&writer, 0, 200), [(4, 101)]);
    writer.stop().await;
}

#[tokio::test]
async fn what_a_later_version_wrote_is_no_damage_and_stays_as_it_is() {
    use super::super::log_record::forgery;
    let dir = tempfile::tempdir().unwrap();
    let small = |must_exist| Log::open(&Disk::Real, dir.path(), 600, must_exist);
    let log = small(false).unwrap();
    log.begin("here", LogState::default()).unwrap();
    let space = Space::open(&Disk::Real, dir.path(), &Default::default()).unwrap();
    let writer =
        LogWriter::start(log, Box::new(|_| {}), space.into(), Box::new(|_| Ok(())), Faults::default()).unwrap();
    for i in 0..20 {
        append(&writer, vec![entry(1, i)]).await;
        writer.save_vote(VoteRecord { term: 1, node: 1, committed: true }).await.unwrap();
    }
    writer.stop().await;
    drop(writer);
    let mut files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "segment"));
    files.sort();
    assert!(files.len() > 2, "{files:?}");
    let read = || files.iter().map(|path| std::fs::read(path).unwrap()).collect::<Vec<_>>();
    let (all, mut forged) = (read(), std::collections::BTreeSet::new());
    for (at, path) in files.iter().enumerate() {
        for newer in forgery::ALL {
            let mut bytes = all[at].clone();
            if !forgery::forge(&mut bytes, newer) {
                continue;
            }
            forged.insert(newer);
            std::fs::write(path, &bytes).unwrap();
            let before = read();
            let error = small(true).map(drop).unwrap_err();
            assert!(!error.is_damage(), "{newer:?} in {}: {error}", path.display());
            assert!(error.to_string().contains("newer version"), "{newer:?}: {error}");
            assert_eq!(read(), before, "{newer:?} in {}", path.display());
            std::fs::write(path, &all[at]).unwrap();
        }
    }
    assert_eq!(forged.into_iter().collect::<Vec<_>>(), forgery::ALL);
    assert_eq!(small(true).unwrap().ends().1, Some(entry(1, 19).at));
}

#[tokio::test]
async fn only_one_process_has_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let writer = start(dir.path());
    let second = Log::open(&Disk::Real, dir.path(), 1 << 20, true).map(drop).unwrap_err();
    assert!(second.to_string().contains("in use") && !second.is_damage(), "{second}");
    writer.stop().await;
    drop(writer);
    start(dir.path()).stop().await;
}

#[tokio::test]
async fn a_log_that_cannot_be_looked_at_is_not_taken_for_one_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let error = Log::open(&Disk::Real, &path, 1 << 20, true).map(drop).unwrap_err();
    assert!(!error.is_damage(), "{error}");
    let error = Log::open(&Disk::Real, &dir.path().join("other"), 1 << 20, true).map(drop).unwrap_err();
    assert!(error.is_damage(), "{error}");
}

#[tokio::test]
async fn nobody_waits_for_a_thread_that_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let writer = start(dir.path());
    let (begin, begun) = oneshot::channel();
    let ends = Box::new(move |_| {
        begin.send(()).unwrap();
        panic!("on purpose");
    });
    writer.append(vec![entry(1, 0)], ends).await.unwrap();
    begun.await.unwrap();
    let vote = writer.save_vote(VoteRecord { term: 1, node: 1, committed: false });
    let saved = tokio::time::timeout(Duration::from_secs(30), vote).await.unwrap();
    assert!(saved.is_err(), "its disk is not written any more");
    writer.stop().await;
}

#[tokio::test]
async fn what_nobody_waits_for_is_written_soon() {
    let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let writer = start(dir.path());
    append(&writer, (0..3).map(|i| entry(1, i)).collect()).await;
    writer.save_committed(entry(1, 2).at).await.unwrap();
    let begin = Instant::now();
    loop {
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let path = file.unwrap().path();
            std::fs::copy(&path, crashed.path().join(path.file_name().unwrap())).unwrap();
        }
        let log = Log::open(&Disk::Real, crashed.path(), 1 << 20, true).unwrap();
        if log.committed() == Some(entry(1, 2).at) {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "never written");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    writer.stop().await;
}
