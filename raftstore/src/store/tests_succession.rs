//! Backups, restores, recoveries, and members of a former lineage.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::tests_group::{Group, PATIENCE, leader, open_again, stop};
use super::tests_single::{events, list, prefix, put, watch_from, write};
use super::*;
use crate::backup::{self, REVISION_BUMP, Succession};

fn target(config: &Config) -> RestoreTarget {
    RestoreTarget {
        data_dir: config.data_dir.clone(),
        name: config.name.clone(),
        peer_address: config.advertise.clone(),
        client_address: config.client_address.clone(),
    }
}

/// Some history: a key with versions, one that is gone, one that expires in a far future.
async fn history(store: &Store) -> Revision {
    for value in ["1", "2", "3"] {
        write(store, "/r/p/a", value).await;
    }
    write(store, "/r/p/gone", "x").await;
    let expiring = Op::Put { key: "/r/e/x".into(), value: "v".into(), expires_at_ms: Some(u64::MAX / 2) };
    let then = vec![Op::Delete { key: "/r/p/gone".into() }, expiring];
    store.txn(Txn { then, ..Txn::default() }).await.unwrap().revision
}

async fn told(store: &Store) -> String {
    tokio::time::timeout(PATIENCE, store.failed()).await.expect("it should have found out")
}

/// What clients of the former lineage find, whatever they have seen there.
async fn nobody_is_misled(store: &Store, seen: Revision) {
    let raised = seen + REVISION_BUMP;
    for old in [1, seen, seen + 1, seen + 100_000] {
        let read = store.range(prefix("/", Some(old))).await;
        assert!(matches!(read, Err(StoreError::Compacted { .. })), "{old}: {read:?}");
        let range = KeyRange::Prefix("/r/".into());
        let watch = store.watch(WatchRequest { range, start_revision: Some(old + 1) }).await;
        assert!(matches!(watch.err(), Some(StoreError::Compacted { .. })), "{old}");
    }
    assert!(store.applied_revision() >= raised);
    let mut watch = watch_from(store, "/r/", None).await;
    let revision = write(store, "/r/p/new", "n").await;
    assert!(revision > raised);
    let _ = events(&mut watch, revision).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_begins_a_new_lineage() {
    let (group, mut stores) = Group::start(3).await;
    let seen = history(&stores[1]).await;
    let former = stores[0].status().lineage;
    let file = group.path("backup");
    let info = stores[2].backup_to(&file, Consistency::Linearizable).await.unwrap();
    assert_eq!(backup::verify(&file).unwrap(), info);
    assert_eq!((info.header.revision, info.summary.keys, &info.header.lineage), (seen, 2, &former));
    assert_eq!(info.header.members.len(), 3);
    let local = stores[0].backup_to(&group.path("local"), Consistency::Local).await.unwrap();
    assert_eq!(local.summary.hash, info.summary.hash, "every member has the same content");
    // What comes later is lost, and so are the revisions that told of it.
    write(&stores[0], "/r/p/a", "later").await;
    let kept = list(&stores[1], "/r/e/", None).await;
    let old = stores.pop().unwrap();
    old.shutdown().await.unwrap();
    drop(old);
    stop(std::mem::take(&mut stores)).await;

    let occupied = Store::restore(&file, &target(&group.config(0)));
    assert!(matches!(occupied, Err(RestoreError::Store(StoreError::Invalid(_)))), "{occupied:?}");
    std::fs::rename(&group.config(0).data_dir, group.path("m0-former")).unwrap();
    let begun = Store::restore(&file, &target(&group.config(0))).unwrap();
    assert_eq!((begun.former_revision, begun.revision, begun.id), (seen, seen + REVISION_BUMP, 4));
    let restored = Store::open(group.config(0)).await.unwrap();
    assert_eq!(restored.status().lineage, begun.lineage);
    assert_ne!(begun.lineage, former);
    assert_eq!(list(&restored, "/r/p/", None).await, ["/r/p/a=3@4"], "mod_revisions stay");
    assert_eq!(list(&restored, "/r/e/", None).await, kept);
    nobody_is_misled(&restored, seen).await;

    // Old members are refused, say why, and do no harm.
    for i in [1, 2] {
        let old = open_again(group.config(i)).await;
        let why = told(&old).await;
        for part in ["restored from a snapshot", &former, &begun.lineage, "join anew"] {
            assert!(why.contains(part), "{why}");
        }
        old.shutdown().await.unwrap();
    }
    assert_eq!(restored.members().await.unwrap().len(), 1);
    // One that joins anew gets everything, and knows of the former lineage too.
    std::fs::remove_dir_all(group.config(1).data_dir).unwrap();
    let joined = group.join(&restored, 1).await;
    assert_eq!(list(&joined, "/", None).await, list(&restored, "/", None).await);
    let ancestors = joined.handle.node.machine.state().ancestors().unwrap();
    assert_eq!((ancestors.len(), ancestors[0].by, &ancestors[0].lineage), (1, Succession::Restore, &former));
    assert!(joined.status().id > 4);
    stop(vec![restored, joined]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_whole_backup_is_not_restored() {
    let group = Group::new(1);
    let store = Store::bootstrap(group.config(0)).await.unwrap();
    history(&store).await;
    let file = group.path("backup");
    store.backup_to(&file, Consistency::Linearizable).await.unwrap();
    store.shutdown().await.unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let target = RestoreTarget { data_dir: group.path("other"), ..target(&group.config(0)) };
    let refused = Store::restore(&file, &target);
    assert!(matches!(refused, Err(RestoreError::Backup(backup::BackupError::Damaged { .. }))), "{refused:?}");
    assert!(!target.data_dir.exists(), "nothing was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_of_three_recovers() {
    let (group, mut stores) = Group::start(3).await;
    let seen = history(&stores[1]).await;
    let former = stores[0].status().lineage;
    let survivor = leader(&stores.iter().collect::<Vec<_>>()).await;
    // While the others answer there is nothing to recover.
    let left = stores.remove(survivor);
    let acknowledged = write(&left, "/r/p/last", "1").await;
    left.shutdown().await.unwrap();
    drop(left);
    let refused = Store::recover(group.config(survivor), false).await;
    assert!(matches!(&refused, Err(StoreError::Membership(why)) if why.contains("start it as usual")), "{refused:?}");
    // Started again, it crashes together with all others.
    let left = open_again(group.config(survivor)).await;
    write(&stores[0], "/r/p/after", "1").await;
    left.linearizable_revision().await.unwrap();
    drop(left);
    drop(stores);
    let begin = std::time::Instant::now();
    let begun = loop {
        match Store::recover(group.config(survivor), false).await {
            Ok(begun) => break begun,
            // The files are released a little after the handle.
            Err(error) => assert!(begin.elapsed() < PATIENCE, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((begun.id, &begun.former), (4, &former));
    assert!(begun.former_revision > acknowledged && begun.revision == begun.former_revision + REVISION_BUMP);
    assert!(begun.kept.as_ref().is_some_and(|dir| dir.join("log").is_dir()));
    let recovered = Store::open(group.config(survivor)).await.unwrap();
    let found = list(&recovered, "/r/p/", None).await;
    assert_eq!(
        found,
        ["/r/p/a=3@4".to_owned(), "/r/p/after=1@9".into(), "/r/p/last=1@8".into()],
        "what was acknowledged"
    );
    nobody_is_misled(&recovered, seen).await;
    // Old members are refused and may join anew; the recovery is not to be repeated.
    let others: Vec<usize> = (0..3).filter(|i| *i != survivor).collect();
    // Both together would be a quorum of the former lineage.
    let old = [open_again(group.config(others[0])).await, open_again(group.config(others[1])).await];
    let gone = old.map(|old| async move {
        assert_eq!(answered_until_told(&old, "recovered after the loss of its majority").await, None);
        // A process needs some time to end.
        assert!(answer(&old).await.is_none() && old.range(prefix("/", None)).await.is_err());
        assert!(matches!(*old.leadership().borrow(), Leadership::NotLeader { .. }));
        old.shutdown().await.unwrap();
    });
    futures::future::join_all(gone).await;
    std::fs::remove_dir_all(group.config(others[0]).data_dir).unwrap();
    let joined = group.join(&recovered, others[0]).await;
    assert_eq!(list(&joined, "/r/", None).await, list(&recovered, "/r/", None).await);
    stop(vec![recovered]).await;
    let refused = Store::recover(group.config(survivor), false).await;
    assert!(matches!(&refused, Err(StoreError::Membership(why)) if why.contains("start it as usual")), "{refused:?}");
    stop(vec![joined]).await;
}

/// What a member says to a write or to a linearizable read, if it is a promise.
async fn answer(store: &Store) -> Option<String> {
    let then = vec![put("/r/p/late", "lost")];
    let (wrote, read) = tokio::join!(store.txn(Txn { then, ..Txn::default() }), store.linearizable_revision());
    wrote.map(|w| format!("wrote {w:?}")).or_else(|_| read.map(|r| format!("read at {r}"))).ok()
}

/// The first promise of a member before it is told why it does not belong to the group any more.
async fn answered_until_told(store: &Store, reason: &str) -> Option<String> {
    let asking = async {
        loop {
            if let Some(promise) = answer(store).await {
                return promise;
            }
            // Who has left refuses at once.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        promise = asking => Some(promise),
        why = told(store) => {
            assert!(why.contains(reason), "{why}");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_left_behind_that_do_not_ask_make_promises() {
    let (group, stores) = Group::start(3).await;
    history(&stores[0]).await;
    stop(stores).await;
    Store::recover(group.config(0), false).await.unwrap();
    let recovered = Store::open(group.config(0)).await.unwrap();
    let unguarded = |i| {
        let mut config = group.config(i);
        config.faults.stay_behind = true;
        config
    };
    let old = [open_again(unguarded(1)).await, open_again(unguarded(2)).await];
    let promise = tokio::time::timeout(PATIENCE, answer(&old[0])).await.unwrap();
    assert!(promise.is_some(), "what the guard keeps from happening");
    assert!(!list(&recovered, "/r/", None).await.iter().any(|found| found.contains("late")));
    stop(old.into()).await;
    stop(vec![recovered]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_member_with_a_quorum_stays() {
    let (group, mut stores) = Group::start(3).await;
    history(&stores[0]).await;
    let file = group.path("backup");
    stores[0].backup_to(&file, Consistency::Linearizable).await.unwrap();
    let lead = leader(&stores.iter().collect::<Vec<_>>()).await;
    let away = (lead + 1) % 3;
    let gone = stores.remove(away);
    gone.shutdown().await.unwrap();
    drop(gone);
    std::fs::remove_dir_all(group.config(away).data_dir).unwrap();
    // Somebody restores in the place of the third while the other two go on.
    Store::restore(&file, &target(&group.config(away))).unwrap();
    let stray = Store::open(group.config(away)).await.unwrap();
    let node = &stores[0].handle.node;
    let mut superseded = node.peers.superseded();
    let noticed = superseded.wait_for(Option::is_some);
    let other = &stores[1].handle.node.peers;
    let mut superseded = other.superseded();
    let noticed_there = superseded.wait_for(Option::is_some);
    let either = async {
        tokio::select! { _ = noticed => {}, _ = noticed_there => {} }
    };
    tokio::time::timeout(PATIENCE, either).await.unwrap();
    let revision = write(&stores[0], "/r/p/a", "still").await;
    assert!(revision < REVISION_BUMP);
    assert!(stores.iter().all(|s| !s.handle.node.removed.is_cancelled()));
    let then = vec![put("/r/p/a", "stray")];
    assert!(stray.txn(Txn { then, ..Txn::default() }).await.unwrap().revision > REVISION_BUMP);
    stop(stores).await;
    stop(vec![stray]).await;
}
