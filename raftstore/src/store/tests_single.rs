//! One member on a real disk.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};

use super::tests_tls::Ca;
use super::*;
use crate::codec;
use crate::network::frames::frame;
use crate::network::peers::{Lane, PeerError, Peers, Road, Target};
use crate::network::tls::PeerTlsConfig;
use crate::network::wire::{SnapshotFile, SnapshotHave, SnapshotHead, SnapshotOffer, path};
use crate::storage::records::{MembersRecord, VoteRecord};

/// A configuration for tests.
pub(super) fn config(dir: &Path) -> Config {
    let tls = Ca::new().member("one");
    Config::new(dir, "one", "127.0.0.1:0".parse().unwrap(), "127.0.0.1:1", "https://one", tls)
}

pub(super) fn put(key: &str, value: &str) -> Op {
    Op::Put { key: key.to_string().into(), value: value.to_string().into(), expires_at_ms: None }
}

pub(super) async fn write(store: &Store, key: &str, value: &str) -> Revision {
    store.txn(Txn { then: vec![put(key, value)], ..Txn::default() }).await.unwrap().revision
}

pub(super) fn prefix(prefix: &str, revision: Option<Revision>) -> RangeRequest {
    RangeRequest {
        range: KeyRange::Prefix(prefix.to_string().into()),
        revision,
        limit: 0,
        consistency: Consistency::Linearizable,
        keys_only: false,
    }
}

/// `key=value@mod_revision` of everything under a prefix.
pub(super) async fn list(store: &Store, p: &str, revision: Option<Revision>) -> Vec<String> {
    let kvs = store.range(prefix(p, revision)).await.unwrap().kvs;
    kvs.iter().map(text).collect()
}

fn text(kv: &KeyValue) -> String {
    let value = String::from_utf8_lossy(&kv.value);
    format!("{}={value}@{}", String::from_utf8_lossy(&kv.key), kv.mod_revision)
}

pub(super) async fn watch_from(store: &Store, p: &str, start_revision: Option<Revision>) -> Watch {
    let range = KeyRange::Prefix(p.to_string().into());
    store.watch(WatchRequest { range, start_revision }).await.unwrap()
}

/// Events up to a revision, as text.
pub(super) async fn events(watch: &mut Watch, through: Revision) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let batch = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap().unwrap();
        for e in &batch.events {
            let previous = e.previous.as_ref().map_or("-".into(), text);
            found.push(format!("{}{} <- {previous}", if e.deleted { "delete " } else { "" }, text(&e.kv)));
        }
        if batch.revision >= through {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn write_read_watch_compact_reopen() {
    let dir = tempfile::tempdir().unwrap();
    assert!(!Store::has_data(dir.path()).unwrap());
    let store = Store::bootstrap(config(dir.path())).await.unwrap();
    assert!(Store::has_data(dir.path()).unwrap());
    assert!(matches!(*store.leadership().borrow(), Leadership::Leader { .. }));
    assert_eq!(store.applied_revision(), 1);
    let mut live = watch_from(&store, "/r/p/", None).await;

    assert_eq!(write(&store, "/r/p/a", "1").await, 2);
    assert_eq!(write(&store, "/r/q/x", "1").await, 3);
    let both = Txn { then: vec![put("/r/p/a", "2"), put("/r/p/b", "1")], ..Txn::default() };
    assert_eq!(store.txn(both).await.unwrap().revision, 5);
    let gone = Op::Delete { key: "/r/p/a".into() };
    assert_eq!(store.txn(Txn { then: vec![gone], ..Txn::default() }).await.unwrap().revision, 6);

    assert_eq!(list(&store, "/r/p/", None).await, ["/r/p/b=1@5"]);
    assert_eq!(list(&store, "/r/", Some(5)).await, ["/r/p/a=2@4", "/r/p/b=1@5", "/r/q/x=1@3"]);
    assert_eq!(list(&store, "/r/", Some(4)).await, ["/r/p/a=2@4", "/r/q/x=1@3"]);
    assert_eq!(list(&store, "/r/", Some(2)).await, ["/r/p/a=1@2"]);
    assert_eq!(list(&store, "", Some(1)).await, Vec::<String>::new());
    let future = store.range(prefix("/r/", Some(7))).await;
    assert!(matches!(future, Err(StoreError::FutureRevision { requested: 7, current: 6 })), "{future:?}");

    let all = ["/r/p/a=1@2 <- -", "/r/p/a=2@4 <- /r/p/a=1@2", "/r/p/b=1@5 <- -", "delete /r/p/a=@6 <- /r/p/a=2@4"];
    assert_eq!(events(&mut live, 6).await, all);
    assert_eq!(events(&mut watch_from(&store, "/r/p/", Some(1)).await, 6).await, all);
    assert_eq!(events(&mut watch_from(&store, "/r/p/", Some(4)).await, 6).await, all[1..]);

    store.compact(5).await.unwrap();
    let old = store.range(prefix("/r/", Some(4))).await;
    assert!(matches!(old, Err(StoreError::Compacted { requested: 4, compacted: 5 })), "{old:?}");
    assert!(matches!(store.compact(5).await, Err(StoreError::Compacted { .. })));
    assert!(matches!(store.compact(50).await, Err(StoreError::FutureRevision { .. })));
    let range = KeyRange::Prefix("/r/".into());
    let old = store.watch(WatchRequest { range, start_revision: Some(4) }).await;
    assert!(matches!(old, Err(StoreError::Compacted { .. })));
    assert_eq!(list(&store, "/r/", Some(5)).await, ["/r/p/a=2@4", "/r/p/b=1@5", "/r/q/x=1@3"]);

    store.shutdown().await.unwrap();
    assert!(matches!(live.next().await, Some(Err(StoreError::ShuttingDown))));
    assert!(live.next().await.is_none());
    assert!(matches!(store.txn(Txn::default()).await, Err(StoreError::ShuttingDown)));
    drop((store, live));

    let store = Store::open(config(dir.path())).await.unwrap();
    assert_eq!(list(&store, "/r/", None).await, ["/r/p/b=1@5", "/r/q/x=1@3"]);
    let mut resumed = watch_from(&store, "/r/p/", Some(5)).await;
    assert_eq!(write(&store, "/r/p/c", "9").await, 7);
    assert_eq!(events(&mut resumed, 7).await, [all[2], all[3], "/r/p/c=9@7 <- -"]);
    assert_eq!(store.status().compacted, 5);
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_pages() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::bootstrap(config(dir.path())).await.unwrap();
    for i in 0..7 {
        write(&store, &format!("/k/{i}"), "v").await;
    }
    let page = RangeRequest { limit: 3, keys_only: true, ..prefix("/k/", None) };
    let response = store.range(page).await.unwrap();
    assert_eq!((response.kvs.len(), response.more, response.count), (3, true, 7));
    assert!(response.kvs.iter().all(|kv| kv.value.is_empty()));
    let rest = KeyRange::Range { start: "/k/3".into(), end: "/k0".into() };
    let rest = RangeRequest { range: rest, revision: Some(response.revision), ..prefix("", None) };
    let response = store.range(rest).await.unwrap();
    assert_eq!((response.kvs.len(), response.more, response.count), (4, false, 4));
    let big = Op::Put { key: "/k/x".into(), value: vec![0; 2 << 20].into(), expires_at_ms: None };
    let refused = store.txn(Txn { then: vec![big], ..Txn::default() }).await;
    assert!(matches!(refused, Err(StoreError::Invalid(_))), "{refused:?}");
    assert!(Store::bootstrap(config(dir.path())).await.is_err(), "a directory is used once");
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_beyond_the_bytes_that_may_be_pending_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::bootstrap(config(dir.path())).await.unwrap();
    let node = &store.handle.node;
    let most = node.config.limits.max_pending_bytes;
    // All but a thousand bytes are taken by writes that wait for their commit.
    let others = node.pending_bytes.try_acquire_many(most as u32 - 1000).unwrap();
    write(&store, "/small", "v").await;
    let large = || Txn { then: vec![put("/large", &"v".repeat(1001))], ..Txn::default() };
    let refused = store.txn(large()).await;
    let why = format!("too many bytes in pending writes ({most})");
    assert!(
        matches!(&refused, Err(StoreError::Unavailable { reason, maybe_applied: false }) if *reason == why),
        "{refused:?}"
    );
    drop(others);
    store.txn(large()).await.unwrap();
    // The store's own writes, such as compaction, hold some for a moment too.
    let begin = std::time::Instant::now();
    while node.pending_bytes.available_permits() != most {
        assert!(begin.elapsed() < Duration::from_secs(20), "all is returned");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store.shutdown().await.unwrap();
}

/// Copies a directory as it is on disk at the moment, as a crash would leave it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if let Err(error) = std::fs::copy(entry.path(), target) {
            // The database removes files that it does not need any more.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_crash_without_flush() {
    let dir = tempfile::tempdir().unwrap();
    let crashed = tempfile::tempdir().unwrap();
    let store = Store::bootstrap(config(dir.path())).await.unwrap();
    for i in 0..100 {
        write(&store, &format!("/k/{}", i % 10), &i.to_string()).await;
    }
    store.compact(20).await.unwrap();
    let (list_now, list_old) = (list(&store, "/k/", None).await, list(&store, "/k/", Some(50)).await);
    // Nothing was flushed: the state on disk is that of the start, and everything comes from the log again.
    copy(dir.path(), crashed.path());
    store.shutdown().await.unwrap();
    let store = Store::open(config(crashed.path())).await.unwrap();
    assert_eq!(list(&store, "/k/", None).await, list_now);
    assert_eq!(list(&store, "/k/", Some(50)).await, list_old);
    assert!(matches!(store.range(prefix("/k/", Some(19))).await, Err(StoreError::Compacted { .. })));
    assert_eq!(write(&store, "/k/x", "y").await, 102);
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_beyond_memory_is_fed_from_history() {
    let dir = tempfile::tempdir().unwrap();
    let mut small = config(dir.path());
    small.limits.watch_events = 5;
    small.limits.watch_max_lag = 100;
    let store = Store::bootstrap(small).await.unwrap();
    let mut slow = watch_from(&store, "/r/p/", None).await;
    let mut hopeless = watch_from(&store, "/r/p/", None).await;
    for i in 0..40 {
        let both = Txn { then: vec![put("/r/p/a", &i.to_string()), put("/r/q/b", "x")], ..Txn::default() };
        store.txn(both).await.unwrap();
    }
    let expected: Vec<String> = (0..40u64)
        .map(|i| match i {
            0 => "/r/p/a=0@2 <- -".to_owned(),
            _ => format!("/r/p/a={i}@{} <- /r/p/a={}@{}", 2 * i + 2, i - 1, 2 * i),
        })
        .collect();
    assert_eq!(events(&mut slow, 81).await, expected, "no gap, no duplicate");
    assert_eq!(write(&store, "/r/p/a", "live").await, 82);
    assert_eq!(events(&mut slow, 82).await, ["/r/p/a=live@82 <- /r/p/a=39@80"]);
    for i in 0..60 {
        write(&store, "/r/q/c", &i.to_string()).await;
    }
    assert!(matches!(hopeless.next().await, Some(Err(StoreError::SlowWatcher(1)))));
    assert!(hopeless.next().await.is_none());
    // A transaction is never split, neither from memory nor from history.
    for start in [1, 60, 80] {
        let mut watch = watch_from(&store, "/r/", Some(start)).await;
        while let Some(Ok(batch)) = watch.next().await {
            assert!(
                batch.revision > 81 || batch.revision % 2 == 1,
                "revision {} is inside a transaction",
                batch.revision
            );
            if batch.revision >= 142 {
                break;
            }
        }
    }
    // One that is asked to begin beyond the newest revision waits for it.
    let mut later = watch_from(&store, "/r/", Some(144)).await;
    write(&store, "/r/z", "143").await;
    write(&store, "/r/z", "144").await;
    assert_eq!(events(&mut later, 144).await, ["/r/z=144@144 <- /r/z=143@143"]);
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_expire() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::bootstrap(config(dir.path())).await.unwrap();
    let mut watch = watch_from(&store, "/e/", None).await;
    let put = |key: &str, at: u64| Op::Put { key: key.to_string().into(), value: "v".into(), expires_at_ms: Some(at) };
    let far = u64::MAX / 2;
    store.txn(Txn { then: vec![put("/e/a", 1_000), put("/e/b", far)], ..Txn::default() }).await.unwrap();
    let found = events(&mut watch, 4).await;
    assert_eq!(found, ["/e/a=v@2 <- -", "/e/b=v@3 <- -", "delete /e/a=@4 <- /e/a=v@2"]);
    assert_eq!(list(&store, "/e/", None).await, ["/e/b=v@3"]);
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_of_an_unknown_version_stops_the_member() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::bootstrap(config(dir.path())).await.unwrap();
    let raft = store.handle.node.raft.clone();
    let mut strange = vec![99, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2];
    let sum = crate::codec::checksum(&[&strange[..5], &strange[9..]]);
    strange[5..9].copy_from_slice(&sum.to_be_bytes());
    let strange = crate::command::Proposal(strange.into());
    assert!(raft.client_write(strange).await.is_err());
    let why = tokio::time::timeout(Duration::from_secs(10), store.failed()).await.unwrap();
    assert!(why.contains("newer version (99;"), "{why}");
    assert!(store.txn(Txn { then: vec![put("/a", "1")], ..Txn::default() }).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_its_log_does_not_start_under_its_old_id() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::bootstrap(config(dir.path())).await.unwrap();
    write(&store, "/a", "1").await;
    store.shutdown().await.unwrap();
    drop(store);
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let refused = Store::open(config(dir.path())).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Damaged { name, .. } if name == "one"), "{refused}");
}

async fn pieces(stream: &mut RangeStream) -> Vec<RangeResponse> {
    let mut found = Vec::new();
    while let Some(piece) = stream.next().await {
        found.push(piece.unwrap());
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_range_comes_in_pieces_of_one_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::bootstrap(config(dir.path())).await.unwrap();
    let value = "v".repeat(100 << 10);
    for i in 0..45 {
        write(&store, &format!("/r/{i:02}"), &value).await;
    }
    let revision = store.applied_revision();
    let all: Vec<Bytes> = (0..45).map(|i| format!("/r/{i:02}").into()).collect();
    for range in [KeyRange::Prefix("/r/".into()), KeyRange::Prefix("".into())] {
        let mut stream = store.stream(RangeRequest { range, ..prefix("", None) });
        let mut found = vec![stream.next().await.unwrap().unwrap()];
        assert!(found[0].more && found[0].kvs.len() < 15, "{}", found[0].kvs.len());
        // What happens meanwhile is not seen: neither what is new, nor what has changed or is gone.
        write(&store, "/r/05x", "new").await;
        write(&store, "/r/40", "changed").await;
        store.txn(Txn { then: vec![Op::Delete { key: "/r/41".into() }], ..Txn::default() }).await.unwrap();
        found.extend(pieces(&mut stream).await);
        assert!(found.iter().all(|piece| piece.revision == found[0].revision && piece.count == piece.kvs.len() as u64));
        assert!(found.iter().rev().skip(1).all(|piece| piece.more) && !found.last().unwrap().more);
        if found[0].revision == revision {
            let seen: Vec<Bytes> = found.iter().flat_map(|p| &p.kvs).map(|kv| kv.key.clone()).collect();
            assert_eq!(seen, all);
            assert!(found.iter().flat_map(|p| &p.kvs).all(|kv| kv.value.len() == value.len()));
        }
    }
    let limited = RangeRequest { limit: 25, revision: Some(revision), ..prefix("/r/", None) };
    let found = pieces(&mut store.stream(limited)).await;
    assert_eq!(found.iter().map(|piece| piece.kvs.len()).sum::<usize>(), 25);
    assert!(found.len() > 1 && !found.last().unwrap().more);
    let keys = RangeRequest { keys_only: true, revision: Some(revision), ..prefix("/r/", None) };
    assert_eq!(pieces(&mut store.stream(keys)).await.len(), 1, "keys are small");
    assert_eq!(pieces(&mut store.stream(prefix("/none/", None))).await.len(), 1);
    // One who takes too long has to begin again.
    let mut slow = store.stream(RangeRequest { revision: Some(revision), ..prefix("/r/", None) });
    slow.next().await.unwrap().unwrap();
    store.compact(revision + 1).await.unwrap();
    assert!(matches!(slow.next().await, Some(Err(StoreError::Compacted { .. }))));
    assert!(slow.next().await.is_none());
    drop(slow);
    store.shutdown().await.unwrap();
}

/// A sender that vanishes without a word does not keep a member from the snapshot of whoever it follows now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_stands_still_makes_room_for_the_next() {
    let (dir, tls) = (tempfile::tempdir().unwrap(), Ca::new().member("one"));
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = Store::bootstrap(Config { listen: address, tls: tls.clone(), ..config(dir.path()) }).await.unwrap();
    let node = store.handle.node.clone();
    let road = Road::Tls(PeerTlsConfig::new(&tls).unwrap().client);
    let runtime = tokio::runtime::Handle::current();
    let peers = Peers::new(1, &node.identity.lineage, road, Duration::from_secs(10), runtime);
    let target = Target { id: 1, address: address.to_string() };
    let file = SnapshotFile { name: "000001.sst".into(), size: 1000, kept: false };
    let vote = VoteRecord { term: 1, node: 1, committed: true };
    let head = SnapshotHead { vote, at: None, members: MembersRecord::default(), files: vec![file] };
    let begin = futures::stream::iter([Ok(http_body::Frame::data(frame(&codec::encode(&head))))]);
    let body = StreamBody::new(begin.chain(futures::stream::pending())).boxed_unsync();
    let (sending, to) = (peers.clone(), target.clone());
    let stuck = tokio::spawn(async move { sending.send(&to, Lane::Snapshot, path::SNAPSHOT, body).await.map(drop) });
    while node.incoming.try_lock().is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (offer, patience) = (SnapshotOffer { files: vec![("000002.sst".into(), 5)] }, Duration::from_secs(60));
    let asked = peers.call::<_, SnapshotHave>(&target, Lane::Forward, path::SNAPSHOT_OFFER, &offer, patience);
    assert!(asked.await.unwrap().files.is_empty());
    let refused = tokio::time::timeout(patience, stuck).await.unwrap().unwrap();
    assert!(matches!(refused, Err(PeerError::Refused { .. })), "{refused:?}");
    store.shutdown().await.unwrap();
}
