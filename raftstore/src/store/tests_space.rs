//! What the file system gets back: the blocks that a member's directory takes, as `du` counts them.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::tests_group::{Group, PATIENCE, stop};
use super::tests_single::{list, write};
use super::*;
use bytes::Bytes;

/// Bytes of the files below a directory, each counted once however many names it has, without the reserve.
fn du(dir: &Path, seen: &mut HashSet<u64>) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        // What is removed meanwhile takes nothing.
        let Ok(found) = entry.metadata() else { continue };
        if found.is_dir() {
            sum += du(&entry.path(), seen);
        } else if entry.file_name() != "reserve" && seen.insert(found.ino()) {
            sum += found.blocks() * 512;
        }
    }
    sum
}

/// More keys than it takes until room is given back.
const KEYS: usize = 24_000;
const AT_ONCE: usize = 200;
const VALUE: usize = 2048;

async fn each(store: &Store, op: impl Fn(Bytes) -> Op) {
    for first in (0..KEYS).step_by(AT_ONCE) {
        let then = (first..first + AT_ONCE).map(|i| op(format!("/k/{i:06}").into())).collect();
        store.txn(Txn { then, ..Txn::default() }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_and_compacted_is_given_back_to_the_file_system() {
    let mut group = Group::new(1);
    (group.limits.snapshot_entries, group.limits.keep_log_entries, group.limits.log_segment_bytes) = (60, 10, 1 << 20);
    let stores = vec![Store::bootstrap(group.config(0)).await.unwrap()];
    let (store, data) = (&stores[0], group.data(0));
    let measure = || du(&data, &mut HashSet::new());
    let empty = measure();
    each(store, |key| Op::Put { key, value: vec![7; VALUE].into(), expires_at_ms: None }).await;
    write(store, "/left", "v").await;
    each(store, |key| Op::Delete { key }).await;
    store.handle.node.machine.flush().unwrap();
    let (full, status) = (measure(), store.status());
    assert!(full - empty > (KEYS * VALUE) as u64, "{full} of {empty}");
    store.compact(status.revision).await.unwrap();
    let begin = Instant::now();
    while measure() > empty + full / 10 {
        assert!(begin.elapsed() < PATIENCE * 3, "{} of {full} are left: {:?}", measure(), store.status());
        // What is in RocksDB's first level goes with what is written next, and so does what the last checkpoint still holds.
        let newest = write(store, "/left", "v").await;
        store.compact(newest).await.unwrap();
        store.handle.node.machine.flush().unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("du: {empty} empty, {full} with history, {} after compaction ({:?})", measure(), begin.elapsed());
    assert_eq!(list(store, "/", None).await.len(), 1);
    stop(stores).await;
}
