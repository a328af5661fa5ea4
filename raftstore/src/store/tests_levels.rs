//! Members of two versions in one group, under load.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::tests_group::{Group, PATIENCE, leader, open_again, stop, until};
use super::tests_single::{put, write};
use super::*;
use crate::command::Proposal;
use crate::machine::FEATURE_LEVEL;

const NEXT: u32 = FEATURE_LEVEL + 1;

/// Writes on members that come and go, until told to stop; answers how many writes were acknowledged.
async fn load(members: Arc<parking_lot::Mutex<Vec<Store>>>, done: Arc<AtomicBool>, count: Arc<AtomicU64>) {
    for i in 0.. {
        if done.load(Ordering::Relaxed) {
            return;
        }
        let store = {
            let members = members.lock();
            members[i % members.len()].clone()
        };
        let put = put(&format!("/load/{}", i % 50), "v");
        if store.txn(Txn { then: vec![put], ..Txn::default() }).await.is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn progress(count: &AtomicU64) {
    let (before, begin) = (count.load(Ordering::Relaxed), std::time::Instant::now());
    while count.load(Ordering::Relaxed) < before + 20 {
        assert!(begin.elapsed() < PATIENCE, "no progress");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn restart(group: &Group, members: &parking_lot::Mutex<Vec<Store>>, i: usize) {
    let name = format!("m{i}");
    let old = {
        let mut members = members.lock();
        let at = members.iter().position(|s| s.status().name == name).unwrap();
        members.remove(at)
    };
    old.shutdown().await.unwrap();
    drop(old);
    let new = open_again(group.config(i)).await;
    members.lock().push(new);
}

fn all(members: &parking_lot::Mutex<Vec<Store>>) -> Vec<Store> {
    members.lock().clone()
}

/// Asks for the newest level until all members have told what they know; it has to be this one.
async fn upgraded(members: &parking_lot::Mutex<Vec<Store>>, level: u32) {
    let begin = std::time::Instant::now();
    loop {
        match all(members)[0].upgrade().await {
            Ok(raised) => return assert_eq!(raised, level),
            Err(error) => assert!(begin.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_versions_run_side_by_side_until_the_level_is_raised() {
    let mut group = Group::new(4);
    group.founders = 3;
    let (mut group, stores) = Group::start_with(group).await;
    let members = Arc::new(parking_lot::Mutex::new(stores));
    let (done, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let loading = tokio::spawn(load(members.clone(), done.clone(), count.clone()));
    until(&all(&members)[0], "a level", |s| s.feature_level == FEATURE_LEVEL).await;
    // One after the other gets the next version. Nobody may use what is new, and going back is possible.
    for i in [0, 1] {
        group.levels.insert(i, NEXT);
        restart(&group, &members, i).await;
        progress(&count).await;
        for store in all(&members) {
            let refused = store.handle.node.propose(Command::Future).await;
            assert!(matches!(&refused, Err(StoreError::Invalid(_) | StoreError::Unavailable { .. })), "{refused:?}");
        }
    }
    upgraded(&members, FEATURE_LEVEL).await;
    group.levels.remove(&1);
    restart(&group, &members, 1).await;
    progress(&count).await;
    for i in [1, 2] {
        group.levels.insert(i, NEXT);
        restart(&group, &members, i).await;
        progress(&count).await;
    }
    // Now all know it. It is used once somebody says so, or after a while.
    upgraded(&members, NEXT).await;
    for store in all(&members) {
        until(&store, "the next level", |s| s.feature_level == NEXT).await;
    }
    all(&members)[0].handle.node.propose(Command::Future).await.unwrap();
    progress(&count).await;
    // What is older cannot come back, cannot join, and says why.
    let too_old = all(&members)[0].add_member(NewMember { feature_level: FEATURE_LEVEL, ..group.new_member(3) }).await;
    assert!(matches!(&too_old, Err(StoreError::Membership(why)) if why.contains("too old")), "{too_old:?}");
    group.levels.remove(&0);
    let old = {
        let mut members = members.lock();
        let at = members.iter().position(|s| s.status().name == "m0").unwrap();
        members.remove(at)
    };
    old.shutdown().await.unwrap();
    drop(old);
    let refused = Store::open(group.config(0)).await;
    assert!(matches!(&refused, Err(StoreError::Version(why)) if why.contains("feature level")), "{refused:?}");
    group.levels.insert(0, NEXT);
    let back = open_again(group.config(0)).await;
    members.lock().push(back);
    progress(&count).await;
    done.store(true, Ordering::Relaxed);
    loading.await.unwrap();
    let stores = std::mem::take(&mut *members.lock());
    let newest = write(&stores[0], "/last", "v").await;
    for store in &stores {
        assert_eq!(store.linearizable_revision().await.unwrap(), newest);
        assert!(store.handle.node.machine.applied().meta.next_member > 100, "applied everywhere");
    }
    stop(stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_does_not_understand_an_entry_stops_and_skips_nothing() {
    let mut group = Group::new(3);
    group.levels = [(1, NEXT)].into();
    let (mut group, mut stores) = Group::start_with(group).await;
    until(&stores[0], "a level", |s| s.feature_level == FEATURE_LEVEL).await;
    group.levels.insert(0, NEXT);
    let old = stores.remove(0);
    old.shutdown().await.unwrap();
    drop(old);
    stores.insert(0, open_again(group.config(0)).await);
    leader(&stores.iter().collect::<Vec<_>>()).await;
    let newest = write(&stores[0], "/a", "1").await;
    let begin = std::time::Instant::now();
    // The guard that refuses such a command while the level is not raised is passed by.
    let lead = leader(&stores.iter().collect::<Vec<_>>()).await;
    if lead == 2 {
        stores[2].transfer_leadership().await.unwrap();
    }
    loop {
        let lead = leader(&stores.iter().collect::<Vec<_>>()).await;
        let proposal = Proposal::new(&Command::Future);
        if stores[lead].handle.node.raft.client_write(proposal).await.is_ok() {
            break;
        }
        assert!(begin.elapsed() < PATIENCE);
    }
    let why = tokio::time::timeout(PATIENCE, stores[2].failed()).await.unwrap();
    assert!(why.contains(&format!("feature level {NEXT}")), "{why}");
    assert_eq!(stores[2].applied_revision(), newest);
    write(&stores[0], "/b", "the others go on").await;
    assert_eq!(stores[2].applied_revision(), newest, "nothing after it is applied");
    // With the right version it goes on where it stopped.
    drop(stores.pop());
    let mut config = group.config(2);
    config.feature_level = NEXT;
    let back = open_again(config).await;
    assert!(back.linearizable_revision().await.unwrap() > newest);
    assert_eq!(back.handle.node.machine.applied().meta.hash(), stores[0].handle.node.machine.applied().meta.hash());
    stores.push(back);
    stop(stores).await;
}
