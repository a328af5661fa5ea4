//! A member whose state alone is damaged: it keeps its log and its vote, and takes over the state of another member.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;

use crate::codec;
use crate::network::frames::FrameReader;
use crate::network::peers::{Lane, PeerError, Peers, Target};
use crate::network::snapshots;
use crate::network::wire::{StateMessage, path};
use crate::simulation::blocking;
use crate::storage::disk::{Disk, Home};
use crate::storage::log::{Log, Payload};
use crate::storage::snapshot::{self, SnapshotDir};
use crate::storage::state::StateDb;
use crate::storage::{StorageError, rebuild};
use crate::types::{MemberId, StoreError};

/// For how long only the leader's state will do. After that any member's does: the leader may need this one's vote.
const LEADER_ONLY: Duration = Duration::from_secs(5);
/// For how long a state is asked for before the start fails.
const PATIENCE: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(300);
/// How often it is said what is waited for.
const SAY: Duration = Duration::from_secs(5);

/// Who else may have a state: what the file says, and what the log still has.
fn known(Home { disk, dir }: &Home, log: &Log, own: MemberId) -> Result<Vec<Target>, StorageError> {
    let mut found: BTreeSet<_> = rebuild::remembered(disk, dir)?.into_iter().collect();
    log.for_each(log.ends().0, |entries| {
        for entry in entries {
            if let Payload::Members(members) = entry.payload {
                found.extend(members.nodes.into_iter().map(|(id, info)| (id, info.peer_address)));
            }
        }
        Ok(())
    })?;
    Ok(found.into_iter().filter(|(id, _)| *id != own).map(|(id, address)| Target { id, address }).collect())
}

/// Opens the state of a member. One that is damaged is made anew: from the log if that has all, else from another member.
pub(crate) async fn open_state(
    home: &Home,
    own: MemberId,
    has_run: bool,
    log: &Log,
    peers: &Peers,
) -> Result<(Arc<StateDb>, Option<String>), StoreError> {
    let Home { disk, dir: data_dir } = home;
    snapshot::clear(disk, data_dir)?;
    if !has_run && !snapshot::has_state(disk, data_dir)? {
        snapshot::create_state(disk, data_dir)?;
    }
    let why = match rebuild::marked(disk, data_dir)? {
        Some(why) => why,
        None => match snapshot::open_state(disk, data_dir) {
            Ok(state) => return Ok((state, None)),
            Err(error) if error.is_damage() => {
                // From here on the start may be tried again and again.
                rebuild::mark(disk, data_dir, &error.to_string())?;
                error.to_string()
            }
            Err(error) => return Err(error.into()),
        },
    };
    tracing::error!(why, "the state of this member is damaged; log and vote are not: it is built anew");
    match log.ends().0 {
        None => snapshot::create_state(disk, data_dir)?,
        Some(purged) => fetch(home, &known(home, log, own)?, purged.index, peers).await?,
    }
    rebuild::done(disk, data_dir)?;
    tracing::info!("the state was built anew");
    Ok((snapshot::open_state(disk, data_dir)?, Some(why)))
}

/// Gets the state of another member that goes at least as far as the log is purged.
async fn fetch(home: &Home, from: &[Target], at_least: u64, peers: &Peers) -> Result<(), StoreError> {
    let Home { disk, dir: data_dir } = home;
    if from.is_empty() {
        let why = "the state is damaged, the log does not have all of it, and no other member is known to have one";
        return Err(StorageError::Damaged(why.to_owned()).into());
    }
    let begin = Instant::now();
    let (mut said, mut last) = (begin, "nobody was asked yet".to_owned());
    while begin.elapsed() < PATIENCE {
        let leader_only = begin.elapsed() < LEADER_ONLY;
        for target in from {
            match receive(disk, data_dir, target, StateMessage { at_least, leader_only }, peers).await {
                Ok(received) => {
                    let (dir, lineage) = (data_dir.to_owned(), peers.lineage().to_owned());
                    let install = move || snapshot::install(&dir, &received, &lineage).map(drop);
                    let installed = blocking(install);
                    installed.await.map_err(|_| StoreError::ShuttingDown)??;
                    return Ok(());
                }
                Err(Failure::Removed(why)) => return Err(StoreError::Membership(why)),
                Err(Failure::Other(why)) => last = format!("{}: {why}", target.address),
            }
        }
        if said.elapsed() > SAY {
            said = Instant::now();
            tracing::warn!(members = from.len(), last, "waiting for a state from another member");
        }
        tokio::time::sleep(PAUSE).await;
    }
    let reason = format!("the state is damaged and no other member handed out its own; the last answer: {last}");
    Err(StoreError::Unavailable { reason, maybe_applied: false })
}

enum Failure {
    Removed(String),
    Other(String),
}

async fn receive(
    disk: &Disk,
    data_dir: &Path,
    target: &Target,
    message: StateMessage,
    peers: &Peers,
) -> Result<Arc<SnapshotDir>, Failure> {
    let other = |why: String| Failure::Other(why);
    let body = Full::new(Bytes::from(codec::encode(&message))).map_err(|never| match never {}).boxed_unsync();
    let answered = peers.send(target, Lane::Snapshot, path::STATE, body).await.map_err(|error| match error {
        PeerError::Refused { status: StatusCode::GONE, reason, .. } => Failure::Removed(reason),
        error => Failure::Other(error.to_string()),
    })?;
    let mut reader = FrameReader::new(answered.into_body());
    let head = snapshots::receive_head(&mut reader).await.map_err(|e| other(e.to_string()))?;
    tracing::info!(from = target.id, at = ?head.at, files = head.files.len(), "receiving a state");
    let dir = snapshot::fresh_dir(disk, data_dir);
    snapshots::receive_files(&mut reader, &head, &dir).await.map_err(|e| other(e.to_string()))?;
    let received = dir.clone();
    let checked = blocking(move || snapshot::check_received(&received)).await;
    checked.map_err(|e| other(e.to_string()))?.map_err(|e| other(e.to_string()))?;
    Ok(dir)
}
