//! A watch that goes on where it ended, on the same master, and checks what a watch promises: order and no gap.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use kube::Resource;
use kube::api::{Api, WatchEvent, WatchParams};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

/// What a watch told, and when it arrived.
#[derive(Clone, Debug)]
pub struct Seen<K> {
    /// When it was read.
    pub at: Instant,
    /// Its resourceVersion.
    pub revision: u64,
    /// Whether the object was deleted.
    pub deleted: bool,
    /// The object.
    pub object: K,
}

/// Follows the objects of a label from a revision on until it is stopped. Only what contradicts the promises of a watch
/// is an error; a master that cannot be reached is asked again.
///
/// # Errors
/// When revisions do not rise, or the server has forgotten where the watch ended.
pub async fn follow<K>(
    api: Api<K>,
    label: &str,
    from: u64,
    stop: CancellationToken,
    mut sink: impl FnMut(Seen<K>),
) -> Result<()>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let params = WatchParams::default().labels(label).timeout(290);
    let mut reached = from;
    loop {
        let once = one(&api, &params, &mut reached, &mut sink);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ended = once => ended?,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn one<K>(api: &Api<K>, params: &WatchParams, reached: &mut u64, sink: &mut impl FnMut(Seen<K>)) -> Result<()>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let Ok(opened) = api.watch(params, &reached.to_string()).await else { return Ok(()) };
    let mut stream = opened.boxed();
    while let Ok(Some(event)) = stream.try_next().await {
        let (object, deleted) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
            WatchEvent::Deleted(object) => (object, true),
            WatchEvent::Bookmark(bookmark) => {
                let revision: u64 = bookmark.metadata.resource_version.parse()?;
                ensure!(revision >= *reached, "a bookmark of {revision} after an event of {reached}");
                *reached = revision;
                continue;
            }
            WatchEvent::Error(status) if status.code == 410 => {
                bail!("a watch from {reached} cannot be resumed: {}", status.message)
            }
            WatchEvent::Error(_) => return Ok(()),
        };
        let revision: u64 = object.meta().resource_version.as_deref().unwrap_or_default().parse()?;
        let name = object.meta().name.clone().unwrap_or_default();
        ensure!(revision > *reached, "the watch told of {name} at {revision} after {reached}");
        *reached = revision;
        sink(Seen { at: Instant::now(), revision, deleted, object });
    }
    Ok(())
}
