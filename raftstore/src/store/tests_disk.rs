//! Disks that are full or do not answer. Small file systems in memory stand in for full ones.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::tests_group::{Group, PATIENCE, leader, stop, until};
use super::tests_single::{list, put, write};
use super::*;

/// A file system of its own on a directory, for as long as this lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(path: PathBuf, size: &str) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
        Self(path)
    }

    /// Leaves so many bytes free.
    fn fill(&self, leave: u64) {
        let mut file = File::options().append(true).create(true).open(self.0.join("ballast")).unwrap();
        let block = vec![0; 64 << 10];
        while free(&self.0) > leave && file.write_all(&block).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
        // The group's folder could not be removed while this was in it.
        let _ = std::fs::remove_dir(&self.0);
        let _ = self.0.parent().map(std::fs::remove_dir);
    }
}

fn free(dir: &Path) -> u64 {
    let stat = rustix::fs::statvfs(dir).unwrap();
    stat.f_bavail * stat.f_frsize
}

async fn try_put(store: &Store, key: &str, value: &str) -> Result<TxnResponse, StoreError> {
    store.txn(Txn { then: vec![put(key, value)], ..Txn::default() }).await
}

fn full(status: &Status) -> bool {
    status.alarms.iter().any(|a| a.kind == AlarmKind::DiskFull)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_what_needs_room_and_recovers_by_itself() {
    let group = Group::new(1);
    let disk = SmallDisk::new(group.data(0), "128m");
    let (_group, stores) = Group::start_with(group).await;
    let store = &stores[0];
    write(store, "/k/a", "1").await;
    write(store, "/k/b", "1").await;
    let reserve = disk.0.join("reserve");
    assert_eq!(reserve.metadata().unwrap().len(), 8 << 20);
    disk.fill(12 << 20);
    until(store, "alarm", full).await;
    let refused = try_put(store, "/k/new", "1").await;
    assert!(matches!(&refused, Err(StoreError::NoSpace(why)) if why.contains("MiB are free")), "{refused:?}");
    let refused = try_put(store, "/k/a", &"x".repeat(1000)).await;
    assert!(matches!(refused, Err(StoreError::NoSpace(_))), "{refused:?}");
    // What is small and replaces something passes, and so do deletes, reads and compaction.
    let newest = write(store, "/k/a", "2").await;
    assert_eq!(list(store, "/k/", None).await, [format!("/k/a=2@{newest}"), "/k/b=1@3".into()]);
    assert!(reserve.exists());
    // Now another program fills it to the last byte: the reserve is given up.
    disk.fill(0);
    let begin = Instant::now();
    while reserve.exists() {
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What is told follows what is left.
    disk.fill(0);
    let says = |s: &Status| s.alarms.iter().any(|a| a.message.contains("0 of 128 MiB are free"));
    until(store, "news of the last bytes", says).await;
    disk.empty();
    disk.fill(8 << 20);
    let delete = Txn { then: vec![Op::Delete { key: "/k/b".into() }], ..Txn::default() };
    let deleted = store.txn(delete).await.unwrap().revision;
    store.compact(deleted).await.unwrap();
    assert_eq!(list(store, "/k/", None).await, [format!("/k/a=2@{newest}")]);
    disk.empty();
    until(store, "room", |s| !full(s)).await;
    try_put(store, "/k/new", "1").await.unwrap();
    assert!(reserve.exists(), "it is kept again");
    stop(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_full_disk_hands_over_and_the_group_goes_on() {
    let group = Group::new(3);
    let disks: Vec<_> = (0..3).map(|i| SmallDisk::new(group.data(i), "256m")).collect();
    let (_group, stores) = Group::start_with(group).await;
    write(&stores[0], "/k/a", "1").await;
    let old = leader(&stores.iter().collect::<Vec<_>>()).await;
    until(&stores[old], "health", |s| s.members.iter().all(|m| m.healthy)).await;
    // To the last byte, reserve and all, so that not even a follower could write.
    disks[old].fill(0);
    let begin = Instant::now();
    while disks[old].0.join("reserve").exists() {
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    disks[old].fill(0);
    let mut leadership = stores[old].leadership();
    let lost = leadership.wait_for(|l| matches!(l, Leadership::NotLeader { .. }));
    tokio::time::timeout(PATIENCE, lost).await.unwrap().unwrap();
    // Writes through any member are taken, the full one keeps its place and its vote.
    let value = "x".repeat(20_000);
    let begin = Instant::now();
    for i in 0..300 {
        while let Err(error) = try_put(&stores[i % 3], &format!("/n/{i}"), &value).await {
            assert!(begin.elapsed() < PATIENCE, "{error}");
            assert!(matches!(error, StoreError::NoSpace(_) | StoreError::Unavailable { .. }), "{error}");
        }
    }
    let now = leader(&stores.iter().collect::<Vec<_>>()).await;
    assert_ne!(now, old);
    let id = stores[old].status().id;
    assert!(stores[now].status().members.iter().any(|m| m.id == id && m.healthy), "heartbeats go on");
    assert!(stores[old].state_damage().is_none());
    disks[old].empty();
    until(&stores[old], "room", |s| !full(s)).await;
    let newest = write(&stores[old], "/k/b", "1").await;
    assert_eq!(stores[old].linearizable_revision().await.unwrap(), newest);
    assert_eq!(list(&stores[old], "/n/", None).await.len(), 300);
    // Two full disks of three: nobody can promise anything new.
    for disk in &disks[..2] {
        disk.fill(20 << 20);
    }
    let begin = Instant::now();
    while !matches!(try_put(&stores[2], "/k/c", "1").await, Err(StoreError::NoSpace(_))) {
        assert!(begin.elapsed() < PATIENCE, "never refused");
        let _ = stores[2].txn(Txn { then: vec![Op::Delete { key: "/k/c".into() }], ..Txn::default() }).await;
    }
    disks[..2].iter().for_each(SmallDisk::empty);
    let begin = Instant::now();
    while try_put(&stores[2], "/k/c", "1").await.is_err() {
        assert!(begin.elapsed() < PATIENCE, "never taken again");
    }
    stop(stores).await;
}

/// Two of three are a quorum, and one of them has no room: nothing new can be promised.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_member_has_no_room() {
    let group = Group::new(3);
    let disks: Vec<_> = (0..3).map(|i| SmallDisk::new(group.data(i), "256m")).collect();
    let (_group, mut stores) = Group::start_with(group).await;
    write(&stores[0], "/k/a", "1").await;
    let lead = leader(&stores.iter().collect::<Vec<_>>()).await;
    let (low, dead) = ((lead + 1) % 3, (lead + 2) % 3);
    disks[low].fill(20 << 20);
    until(&stores[low], "alarm", full).await;
    try_put(&stores[lead], "/k/b", "1").await.expect("two have room");
    let gone = stores[dead].clone();
    gone.shutdown().await.unwrap();
    let begin = Instant::now();
    let refused = loop {
        match try_put(&stores[lead], "/k/c", "1").await {
            Err(error) => break error,
            Ok(_) => assert!(begin.elapsed() < PATIENCE, "never refused"),
        }
        let delete = vec![Op::Delete { key: "/k/c".into() }];
        stores[lead].txn(Txn { then: delete, ..Txn::default() }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let name = format!("m{low}");
    assert!(matches!(&refused, StoreError::NoSpace(why) if why.contains(&name)), "{refused:?}");
    // The dead one's lag is not known to a leader that it never answered, and reads go on.
    stores[lead].handle.node.transfer_leadership().await.unwrap();
    let living = [&stores[lead], &stores[low]];
    let now = leader(&living).await;
    let (id, members) = (stores[dead].status().id, living[now].members().await.unwrap());
    let found = members.iter().find(|m| m.id == id).unwrap();
    assert_eq!((found.healthy, found.lag), (false, None));
    assert_eq!(list(&stores[lead], "/k/b", None).await.len(), 1);
    disks[low].empty();
    until(&stores[low], "room", |s| !full(s)).await;
    stores.remove(dead);
    stop(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_hangs_hands_over() {
    let (_group, stores) = Group::start(3).await;
    write(&stores[0], "/a", "1").await;
    let old = leader(&stores.iter().collect::<Vec<_>>()).await;
    until(&stores[old], "health", |s| s.members.iter().all(|m| m.healthy)).await;
    // What the others report has to have arrived once.
    let begin = Instant::now();
    while stores[old].handle.node.well_voter(0).is_none() {
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (release, hang) = std::sync::mpsc::channel::<()>();
    let writer = stores[old].handle.node.writer.clone();
    writer.append(Vec::new(), Box::new(move |_| assert!(hang.recv().is_err()))).await.unwrap();
    let begin = Instant::now();
    let others: Vec<&Store> = stores.iter().filter(|s| s.status().id != stores[old].status().id).collect();
    leader(&others).await;
    eprintln!("handed over after {:?}", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    let mut leadership = stores[old].leadership();
    let lost = leadership.wait_for(|l| matches!(l, Leadership::NotLeader { .. }));
    tokio::time::timeout(Duration::from_secs(2), lost).await.unwrap().unwrap();
    assert!(stores[old].status().alarms.iter().any(|a| a.kind == AlarmKind::DiskStalled));
    write(others[0], "/b", "2").await;
    write(others[1], "/c", "3").await;
    drop(release);
    until(&stores[old], "answers", |s| s.alarms.is_empty()).await;
    assert_eq!(list(&stores[old], "/", None).await.len(), 3);
    stop(stores).await;
}

/// Members whose disks stall together gain nothing by another leader, although for a while the others do not know of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_hangs_with_all_others_stays() {
    let (_group, stores) = Group::start(3).await;
    write(&stores[0], "/a", "1").await;
    let old = leader(&stores.iter().collect::<Vec<_>>()).await;
    until(&stores[old], "health", |s| s.members.iter().all(|m| m.healthy)).await;
    let term = stores[old].status().term;
    let mut releases = Vec::new();
    let others = (0..3).filter(|i| *i != old);
    for i in std::iter::once(old).chain(others) {
        let (release, hang) = std::sync::mpsc::channel::<()>();
        let writer = stores[i].handle.node.writer.clone();
        writer.append(Vec::new(), Box::new(move |_| assert!(hang.recv().is_err()))).await.unwrap();
        releases.push(release);
        // The others notice later than the leader.
        let later = Duration::from_millis(if i == old { 300 } else { 0 });
        tokio::time::sleep(later).await;
    }
    let store = stores[old].clone();
    let waiting = tokio::spawn(async move { try_put(&store, "/b", "2").await });
    until(&stores[old], "the alarm", |s| s.alarms.iter().any(|a| a.kind == AlarmKind::DiskStalled)).await;
    // Several looks long.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(matches!(*stores[old].leadership().borrow(), Leadership::Leader { .. }));
    drop(releases);
    until(&stores[old], "answers", |s| s.alarms.is_empty()).await;
    waiting.await.unwrap().unwrap();
    assert_eq!(stores[old].status().term, term, "it leads still");
    stop(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_does_not_gather_entries_without_bound() {
    let (_group, stores) = Group::start(1).await;
    let writer = stores[0].handle.node.writer.clone();
    let (release, hang) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let hanging = Box::new(move |_| {
        begin.send(()).unwrap();
        assert!(hang.recv().is_err());
    });
    writer.append(Vec::new(), hanging).await.unwrap();
    // What was before it is written then.
    begun.await.unwrap();
    let mut taken = 0;
    while tokio::time::timeout(Duration::from_secs(1), writer.take_in(1 << 20)).await.is_ok() {
        taken += 1;
        assert!(taken < 200, "no bound");
    }
    assert!((60..=70).contains(&taken), "{taken} MiB");
    let waiting = tokio::spawn({
        let writer = writer.clone();
        async move { writer.take_in(1 << 20).await }
    });
    drop(release);
    tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    stop(stores).await;
}
