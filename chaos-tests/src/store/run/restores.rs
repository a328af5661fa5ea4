//! A restore seen by those who hold revisions from before it: none of them may be told of a past that did not happen.
//!
//! What was written after the backup is gone, as it must be, so that no history goes on over a restore. Whoever held one
//! of its revisions has to be told that it is gone; it must never stand for something else.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use trireme_raftstore::port::Client;
use trireme_raftstore::{
    Compare, Consistency, KeyRange, Op, OpResult, RangeRequest, Revision, StoreError, Txn, WatchRequest,
};

use super::round::Running;

const KEY: &str = "/r/a/0";
/// How long a watch may take to say something.
const WATCH: Duration = Duration::from_secs(20);

/// Writes the key, if it was last written at a revision; the revision of that, or none if it was not.
async fn write(client: &Client, value: &str, known: Option<Revision>) -> Result<Option<Revision>> {
    let compares = known.map(|known| Compare::ModRevision(KEY.into(), known)).into_iter().collect();
    let then = vec![Op::Put { key: KEY.into(), value: Bytes::copy_from_slice(value.as_bytes()), expires_at_ms: None }];
    let answer = client.txn(Txn { compares, then, otherwise: vec![] }).await?;
    Ok(match answer.results.first() {
        Some(OpResult::Put { revision, .. }) if answer.succeeded => Some(*revision),
        _ => None,
    })
}

/// A backup, writes that it does not hold, a restore, and clients that come back with what they knew.
pub async fn restored(running: &mut Running) -> Result<()> {
    let (group, backup) = (running.group().clone(), running.dir().join("backup"));
    group.reach(1).await?.backup(&backup).await.context("taking a backup")?;
    running.progress(60).await?;
    running.finish().await;
    let mut known = 0;
    for i in 0..5 {
        known = write(&group.reach(2).await?, &format!("former/{i}"), None).await?.context("not written")?;
    }
    group.restore(&backup).await?;
    let client = group.reach(3).await?;
    let mut tell = |what: String| running.chaos.findings.add("rewound", || what);

    let now = client.linearizable_revision().await?;
    if now <= known {
        tell(format!("revision {known} was reached before the restore, and only {now} after it"));
    }
    // What it is told first is looked at last.
    let (range, begin) = (KeyRange::Prefix("/r/".into()), Some(known + 1));
    let mut watch = client.watch(WatchRequest { range: range.clone(), start_revision: begin }).await;
    // Others write until the former revision is reached once more, if it can be.
    let mut newest = now;
    for i in 0..(known + 5).saturating_sub(now).min(5_000) {
        newest = write(&client, &format!("later/{i}"), None).await?.context("not written")?;
        if newest == known {
            break;
        }
    }
    let request = RangeRequest {
        range,
        revision: Some(known),
        limit: 0,
        consistency: Consistency::Linearizable,
        keys_only: false,
    };
    if !matches!(client.range(request).await, Err(StoreError::Compacted { .. })) {
        tell(format!("revision {known} can be read, though what it was is gone (the newest is {newest})"));
    }
    if let Some(revision) = write(&client, "former/last", Some(known)).await? {
        tell(format!("revision {revision} replaces what its writer, who knew revision {known}, has never seen"));
    }
    let told = match &mut watch {
        Ok(watch) => tokio::time::timeout(WATCH, watch.next()).await.ok().flatten(),
        Err(_) => None,
    };
    let compacted = |error: &StoreError| matches!(error, StoreError::Compacted { .. });
    if !watch.as_ref().is_err_and(compacted) && !matches!(&told, Some(Err(error)) if compacted(error)) {
        tell(format!("a watch goes on at revision {} as if there had been no restore", known + 1));
    }
    Ok(())
}
