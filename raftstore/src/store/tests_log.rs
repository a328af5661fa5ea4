//! Log, vote and state after crashes at bad moments. A crash is a copy of the files as they are while the member runs:
//! what a database only holds in memory is not in it.

#![allow(clippy::unwrap_used)]

use std::time::Instant;

use super::tests_group::{Group, PATIENCE, open_again, stop, until};
use super::tests_integrity::copy;
use super::tests_single::{list, write};
use super::*;

/// A member with a shortened log, and what a crash leaves of it.
async fn crash_after_purge(guarded: bool) -> Result<Vec<String>, StoreError> {
    let mut group = Group::new(1);
    (group.limits.snapshot_entries, group.limits.keep_log_entries) = (1_000_000, 0);
    let mut config = group.config(0);
    config.faults.purge_unflushed = !guarded;
    let stores = vec![Store::bootstrap(config).await.unwrap()];
    let node = &stores[0].handle.node;
    for i in 0..50 {
        write(&stores[0], &format!("/k/{i:02}"), "v").await;
    }
    let last = node.writer.log().ends().1.unwrap();
    node.writer.purge(last).await.unwrap();
    let vote = node.writer.log().vote().unwrap();
    // Everything before it is on disk when this is.
    node.writer.save_vote(vote).await.unwrap();
    copy(&group.data(0), &group.data(9));
    stop(stores).await;
    std::fs::remove_dir_all(group.data(0)).unwrap();
    std::fs::rename(group.data(9), group.data(0)).unwrap();
    let back = Store::open(group.config(0)).await?;
    assert!(back.handle.node.writer.log().vote().unwrap().term >= vote.term, "the vote is not forgotten");
    let found = list(&back, "/k/", None).await;
    back.shutdown().await.unwrap();
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_shortened_only_up_to_what_is_flushed() {
    assert_eq!(crash_after_purge(true).await.unwrap().len(), 50);
    // Without the guard neither the log nor the state has it any more.
    let lost = crash_after_purge(false).await;
    assert!(lost.as_ref().map_or(true, |found| found.len() < 50), "{lost:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_are_not_reused_although_members_and_leaders_go() {
    let mut group = Group::new(5);
    group.founders = 2;
    let (group, mut stores) = Group::start_with(group).await;
    let mut seen: Vec<MemberId> = stores.iter().map(|s| s.status().id).collect();
    for i in [2, 3, 4] {
        let grant = stores[0].add_member(group.new_member(i)).await.unwrap();
        assert!(!seen.contains(&grant.id), "{} again", grant.id);
        seen.push(grant.id);
        // It never comes up.
        stores[0].remove_member(grant.id).await.unwrap();
        let restarted = stores.remove(0);
        let at: usize = restarted.status().name[1..].parse().unwrap();
        restarted.shutdown().await.unwrap();
        drop(restarted);
        stores.push(open_again(group.config(at)).await);
        let begin = Instant::now();
        while stores[0].linearizable_revision().await.is_err() {
            assert!(begin.elapsed() < PATIENCE);
        }
        until(&stores[0], "health", |s| s.members.iter().all(|m| m.healthy)).await;
    }
    stop(stores).await;
}
