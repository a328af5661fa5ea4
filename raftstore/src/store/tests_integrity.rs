//! Injuries to what a member has on disk or in memory, and what has to come of each.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::tests_group::{Group, PATIENCE, leader, open_again, stop, until};
use super::tests_single::{list, write};
use super::*;
use crate::storage::disk::Disk;
use crate::storage::files::Identity;
use crate::storage::log_record::forgery::{self, Newer};
use crate::storage::state::StateDb;

/// What has to come of an injury.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The member starts as if nothing had happened.
    Starts,
    /// It starts, keeps log and vote, and has taken over the state of another member.
    Rebuilds,
    /// It starts, finds the damage when it reads its state, takes itself out, and rebuilds at the next start.
    FindsLater,
    /// It refuses to start under its old id, and says what to do.
    Refuses,
    /// It refuses to start, says that a newer version wrote this, and leaves everything as it is.
    IsNewer,
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    found.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.ends_with(extension) || name.starts_with(extension)
    });
    found.sort_by_key(|path| fs::metadata(path).unwrap().len());
    found
}

/// Flips a bit in the middle of the largest file of a kind.
fn flip(dir: &Path, extension: &str) {
    flip_at(&files(dir, extension).pop().unwrap(), 2);
}

/// Flips a bit after such a part of a file.
fn flip_at(path: &Path, part: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() / part;
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

fn cut(dir: &Path, extension: &str, by: usize) {
    shorten(&files(dir, extension).pop().unwrap(), by);
}

fn shorten(path: &Path, by: usize) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - by]).unwrap();
}

/// The segments of the log, in order.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found = files(&dir.join("log"), ".segment");
    found.sort();
    assert!(found.len() > 2, "{found:?}");
    found
}

fn remove(path: PathBuf) {
    if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
}

/// The directory of the current state.
fn state(dir: &Path) -> PathBuf {
    let pointer = fs::read_to_string(dir.join("state")).unwrap();
    dir.join(pointer.split_whitespace().next().unwrap())
}

type Injury = (&'static str, fn(&Path), Then);

/// All that is injured, one after the other.
const INJURIES: [Injury; 23] = [
    ("nothing", |_| {}, Then::Starts),
    ("log: a bit in the newest segment", |d| flip_at(&segments(d).pop().unwrap(), 2), Then::Refuses),
    ("log: the last write is torn", |d| shorten(&segments(d).pop().unwrap(), 3), Then::Starts),
    ("log: a bit in an older segment", |d| flip_at(&segments(d)[1], 2), Then::Refuses),
    ("log: a bit at the beginning of a segment", |d| flip_at(&segments(d)[1], 200), Then::Refuses),
    ("log: the oldest segment is gone", |d| remove(segments(d).remove(0)), Then::Refuses),
    ("log: the newest segment is gone", |d| remove(segments(d).pop().unwrap()), Then::Refuses),
    ("log: gone", |d| remove(d.join("log")), Then::Refuses),
    (
        "log: gone with the note that there was one",
        |d| ["log", "started"].iter().for_each(|f| remove(d.join(f))),
        Then::Refuses,
    ),
    ("identity: a bit", |d| flip(d, "member"), Then::Refuses),
    ("pointer file: a bit", |d| fs::write(d.join("state"), "state-1 00000000\n").unwrap(), Then::Rebuilds),
    ("pointer file: gone", |d| remove(d.join("state")), Then::Rebuilds),
    ("state: gone", |d| remove(state(d)), Then::Rebuilds),
    ("state: no CURRENT", |d| remove(state(d).join("CURRENT")), Then::Rebuilds),
    ("state: a bit in the manifest", |d| flip(&state(d), "MANIFEST"), Then::Rebuilds),
    ("state: a table is shorter", |d| cut(&state(d), ".sst", 100), Then::Rebuilds),
    ("state: a table is gone", |d| remove(files(&state(d), ".sst").pop().unwrap()), Then::Rebuilds),
    ("state: a bit in a table", |d| flip(&state(d), ".sst"), Then::FindsLater),
    ("log: an entry of a newer version", forge_entry, Then::IsNewer),
    ("log: a segment of a newer version", |d| assert!(forge(&segments(d)[1], Newer::Head)), Then::IsNewer),
    (
        "identity: of a newer version",
        |d| Identity::read(&Disk::Real, d).unwrap().newer().write(&Disk::Real, d).unwrap(),
        Then::IsNewer,
    ),
    (
        "state: of a newer version",
        |d| StateDb::open(&Disk::Real, &state(d), false).unwrap().forge_newer(),
        Then::IsNewer,
    ),
    ("state: with a part that is new", |d| StateDb::forge_part(&state(d)), Then::IsNewer),
];

/// Makes something in a segment of the log what a newer version wrote, if there is such a thing in it.
fn forge(segment: &Path, newer: Newer) -> bool {
    let mut bytes = fs::read(segment).unwrap();
    let forged = forgery::forge(&mut bytes, newer);
    fs::write(segment, bytes).unwrap();
    forged
}

/// The newest segment may have votes alone.
fn forge_entry(dir: &Path) {
    assert!(segments(dir).iter().rev().any(|segment| forge(segment, Newer::Entry)));
}

/// What must not change: the log, who the member is, which state is its own.
fn contents(dir: &Path) -> Vec<Vec<u8>> {
    let mut paths = segments(dir);
    paths.extend(["member", "state"].map(|name| dir.join(name)));
    paths.iter().filter(|path| path.exists()).map(|path| fs::read(path).unwrap()).collect()
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let place = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &place);
        } else {
            fs::copy(&path, &place).unwrap();
        }
    }
}

/// A member that starts after an injury; `None` if it refuses.
async fn start(config: Config, then: Then) -> Option<Store> {
    let begin = Instant::now();
    loop {
        match (Store::open(config.clone()).await, then) {
            (Err(StoreError::Damaged { name, .. }), Then::Refuses) => {
                assert_eq!(name, config.name);
                return None;
            }
            (Err(StoreError::Version(why)), Then::IsNewer) => {
                assert!(why.contains("newer version") && why.contains("install"), "{why}");
                return None;
            }
            (Err(StoreError::Storage(error)), _) if begin.elapsed() < PATIENCE => {
                // What the former instance held is given back a little later.
                let held = ["lock", "in use"].iter().any(|what| error.to_string().contains(what));
                assert!(held, "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (Ok(store), Then::Starts | Then::Rebuilds | Then::FindsLater) => return Some(store),
            (other, _) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_injury_to_the_disk_is_found_and_healed_or_refused() {
    let mut group = Group::new(3);
    (group.limits.snapshot_entries, group.limits.keep_log_entries) = (40, 10);
    group.limits.log_segment_bytes = 10_000;
    let (group, mut stores) = Group::start_with(group).await;
    let filling = "x".repeat(3000);
    for i in 0..90 {
        write(&stores[0], &format!("/k/{i}"), &filling).await;
    }
    let config = group.config(2);
    let purged = |s: &Status| s.last_log_index > 0 && stores[2].handle.node.writer.log().ends().0.is_some();
    until(&stores[2], "purge", purged).await;
    // A member that was slow may have got a snapshot instead of the newest entries: several segments have to be there.
    for i in 0.. {
        let (purged, last) = stores[2].handle.node.writer.log().ends();
        let first = purged.map_or(0, |at| at.index + 1);
        if last.is_some_and(|at| at.index >= first + 12) {
            break;
        }
        assert!(i < 200, "it purges all that it gets: {purged:?} {last:?}");
        write(&stores[2], &format!("/k/{i}"), &filling).await;
    }
    let vote = stores[2].handle.node.writer.log().vote().unwrap();
    let away = stores.pop().unwrap();
    away.shutdown().await.unwrap();
    drop(away);
    let (data, kept) = (group.data(2), group.data(9));
    for (what, injure, then) in INJURIES {
        eprintln!("{what}: {then:?}");
        copy(&data, &kept);
        injure(&data);
        let injured = (then == Then::IsNewer).then(|| contents(&data));
        let Some(mut store) = start(config.clone(), then).await else {
            if let Some(injured) = injured {
                assert!(
                    contents(&data) == injured && state(&data).exists() && !data.join("rebuild").exists(),
                    "{what}"
                );
            }
            fs::remove_dir_all(&data).unwrap();
            fs::rename(&kept, &data).unwrap();
            continue;
        };
        if then == Then::FindsLater {
            store.handle.node.suspect.notify_one();
            let why = tokio::time::timeout(PATIENCE, store.failed()).await.unwrap();
            assert!(why.contains("damaged"), "{why}");
            assert!(store.state_damage().is_some());
            let refused = store.linearizable_revision().await;
            assert!(matches!(refused, Err(StoreError::StateDamaged(_))), "{refused:?}");
            assert!(store.status().alarms.iter().any(|a| a.kind == AlarmKind::StateDamaged));
            drop(store);
            store = start(config.clone(), Then::Rebuilds).await.unwrap();
        }
        let rebuilt = store.handle.node.metrics.rebuilt.get();
        assert_eq!(rebuilt, u64::from(matches!(then, Then::Rebuilds | Then::FindsLater)), "{what}");
        let newest = write(&stores[0], "/k/0", &format!("{what} {filling}")).await;
        assert_eq!(store.linearizable_revision().await.unwrap(), newest, "{what}");
        assert_eq!(list(&store, "/k/", None).await, list(&stores[0], "/k/", None).await, "{what}");
        assert!(store.handle.node.writer.log().vote().unwrap().term >= vote.term, "{what}: the vote is kept");
        assert!(!data.join("rebuild").exists(), "{what}");
        store.shutdown().await.unwrap();
        drop(store);
        fs::remove_dir_all(&kept).unwrap();
    }
    stop(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_differs_takes_itself_out_and_rebuilds() {
    let mut group = Group::new(3);
    group.limits.compare_states = Duration::from_millis(100);
    let (group, mut stores) = Group::start_with(group).await;
    write(&stores[0], "/k/a", "1").await;
    // The leader itself: the others are right, so it has to give up leading as well.
    let lead = leader(&stores.iter().collect::<Vec<_>>()).await;
    stores[lead].handle.node.machine.state().tamper(b"/k/a");
    stores[lead].handle.node.machine.forget_recent();
    write(&stores[(lead + 1) % 3], "/k/a", "2").await;
    let why = tokio::time::timeout(PATIENCE, stores[lead].failed()).await.unwrap();
    assert!(why.contains("most other members"), "{why}");
    assert!(matches!(*stores[lead].leadership().borrow(), Leadership::NotLeader { .. }));
    assert!(
        stores[lead].watch(WatchRequest { range: KeyRange::Prefix("/".into()), start_revision: None }).await.is_err()
    );
    let wrong = stores.remove(lead);
    let config = group.config(lead);
    drop(wrong);
    // The others go on without it.
    leader(&stores.iter().collect::<Vec<_>>()).await;
    let newest = write(&stores[0], "/k/b", "3").await;
    let back = open_again(config).await;
    assert_eq!(back.handle.node.metrics.rebuilt.get(), 1);
    assert!(back.linearizable_revision().await.unwrap() >= newest);
    assert_eq!(list(&back, "/k/", None).await, list(&stores[0], "/k/", None).await);
    stores.push(back);
    for store in &stores {
        until(store, "agreement", |s| s.alarms.is_empty()).await;
        assert!(store.state_damage().is_none());
    }
    stop(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_differ_none_is_stopped_unless_its_own_disk_says_so() {
    let mut group = Group::new(2);
    group.limits.compare_states = Duration::from_millis(100);
    let (_group, stores) = Group::start_with(group).await;
    write(&stores[0], "/k/a", "1").await;
    let lead = leader(&stores.iter().collect::<Vec<_>>()).await;
    let node = &stores[1 - lead].handle.node;
    stores[1 - lead].linearizable_revision().await.unwrap();
    // As if it had applied something else: its disk agrees with what it noted.
    node.machine.state().tamper(b"/k/a");
    node.machine.forge_digest();
    write(&stores[0], "/k/b", "1").await;
    until(&stores[lead], "alarm", |s| s.alarms.iter().any(|a| a.kind == AlarmKind::StatesDiffer)).await;
    let begin = Instant::now();
    while node.metrics.verified.get() < 1 || stores[lead].handle.node.metrics.verified.get() < 1 {
        assert!(begin.elapsed() < PATIENCE, "both are verified");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    write(&stores[1 - lead], "/k/c", "both go on").await;
    assert!(stores.iter().all(|s| s.state_damage().is_none()));
    // Now one does not even agree with itself: that settles it.
    stores[1 - lead].linearizable_revision().await.unwrap();
    node.machine.state().tamper(b"/k/b");
    let why = tokio::time::timeout(PATIENCE, stores[1 - lead].failed()).await.unwrap();
    assert!(why.contains("do not have the hash"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_replaces_nothing_and_makes_the_sender_look() {
    let mut group = Group::new(3);
    (group.limits.snapshot_entries, group.limits.keep_log_entries) = (40, 10);
    let (group, mut stores) = Group::start_with(group).await;
    write(&stores[0], "/k/a", "1").await;
    let away = stores.pop().unwrap();
    away.shutdown().await.unwrap();
    drop(away);
    let lead = leader(&stores.iter().collect::<Vec<_>>()).await;
    // On the leader alone a record is not what was written: what it sends is damaged.
    stores[lead].handle.node.machine.state().tamper(b"/k/a");
    let (mut back, mut why) = (None, None);
    for turn in 0..5 {
        for i in 0..120 {
            write(&stores[0], &format!("/n/{turn}/{i}"), "v").await;
        }
        let opened = open_again(group.config(2)).await;
        let arrived = async {
            while list(&opened, &format!("/n/{turn}/119"), None).await.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            found = stores[lead].failed() => why = Some(found),
            _ = tokio::time::timeout(PATIENCE, arrived) => {}
        }
        if why.is_some() {
            back = Some(opened);
            break;
        }
        // On a busy machine another one may have come to lead, and what that one sends is right.
        opened.shutdown().await.unwrap();
        let other = &stores[1 - lead].handle.node;
        if leader(&stores.iter().collect::<Vec<_>>()).await != lead {
            other.transfer_to(stores[lead].handle.node.identity.id).await.unwrap();
        }
    }
    let (back, why) = (back.expect("the sender looked"), why.unwrap());
    assert!(why.contains("do not have the hash"), "{why}");
    let config = group.config(lead);
    drop(stores.remove(lead));
    // The other one leads now, and its state is right.
    assert_eq!(list(&back, "/k/a", None).await, ["/k/a=1@2"]);
    let healed = open_again(config).await;
    assert_eq!(list(&healed, "/k/a", None).await, ["/k/a=1@2"]);
    stores.extend([back, healed]);
    stop(stores).await;
}

/// A watcher that asked again and again kept the processor busy for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_older_than_what_was_applied_ends_watches() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = super::tests_single::config(dir.path());
    config.limits.watch_events = 1;
    let store = Store::bootstrap(config).await.unwrap();
    write(&store, "/k/a", "1").await;
    let machine = store.handle.node.machine.clone();
    let old = machine.applied();
    let mut last = 0;
    for value in ["2", "3", "4"] {
        last = write(&store, "/k/a", value).await;
    }
    machine.state().write(&[], &old, None).unwrap();
    let range = KeyRange::Prefix("/k/".into());
    let mut watch = store.watch(WatchRequest { range, start_revision: Some(last - 1) }).await.unwrap();
    let told = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap();
    assert!(matches!(told, Err(StoreError::Storage(_))), "{told:?}");
    // Nobody else has the state: it goes on, and says so.
    until(&store, "alarm", |s| s.alarms.iter().any(|a| a.kind == AlarmKind::StateDamaged)).await;
    drop(watch);
    let _ = store.shutdown().await;
}
