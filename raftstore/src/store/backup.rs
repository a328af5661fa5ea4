//! Taking a backup of a running member.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::Store;
use super::node::Node;
use crate::backup::{
    BackupError, BackupFile, BackupHeader, BackupInfo, BackupMember, BackupRecord, Encoder, FORMAT, now_ms,
};
use crate::storage::export::{Export, Exported};
use crate::storage::records::MemberInfo;
use crate::types::{Consistency, StoreError};

/// Backups that may be read at one time: each keeps the database from forgetting what it shows.
pub(crate) const CONCURRENT: usize = 2;
/// Pieces read ahead of whoever takes them.
const AHEAD: usize = 4;
/// How long whoever takes the pieces may take none.
const STALL: Duration = Duration::from_secs(60);

type Piece = Result<Bytes, StoreError>;

/// A backup that is being read. Dropping it ends it.
#[derive(Debug)]
pub struct Backup {
    header: BackupHeader,
    pieces: mpsc::Receiver<Piece>,
}

impl Backup {
    /// What it is of.
    pub fn header(&self) -> &BackupHeader {
        &self.header
    }

    /// The next piece of the file; `None` at its end. An error is the last thing that comes.
    pub async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        self.pieces.recv().await
    }
}

/// Why a backup did not become a file.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file could not be written.
    #[error(transparent)]
    File(#[from] BackupError),
}

impl Store {
    /// Begins a backup: every key as it is at one revision. Writes go on meanwhile. Linearizable, it holds everything that
    /// was acknowledged before; local, it is also to be had without a quorum.
    pub async fn backup(&self, consistency: Consistency) -> Result<Backup, StoreError> {
        let node = &self.handle.node;
        let Ok(permit) = node.backups.clone().try_acquire_owned() else {
            let reason = format!("{CONCURRENT} snapshots of this member are being taken already");
            return Err(StoreError::Unavailable { reason, maybe_applied: false });
        };
        match consistency {
            Consistency::Linearizable => drop(node.linearizable_revision().await?),
            Consistency::Local => node.check_running()?,
        }
        let (begun, beginning) = oneshot::channel();
        let (pieces, receiver) = mpsc::channel(AHEAD);
        let reading = Reading { node: node.clone(), begun: Some(begun), pieces, encoder: None, _permit: permit };
        node.runtime.spawn_blocking(move || reading.run());
        let header = beginning.await.map_err(|_| StoreError::ShuttingDown)??;
        Ok(Backup { header, pieces: receiver })
    }

    /// Takes a backup into a file, which appears when it is whole.
    pub async fn backup_to(&self, path: &Path, consistency: Consistency) -> Result<BackupInfo, SaveError> {
        let begin = Instant::now();
        let mut backup = self.backup(consistency).await?;
        let path = path.to_owned();
        let written = move || {
            let mut file = BackupFile::create(&path)?;
            while let Some(piece) = backup.pieces.blocking_recv() {
                file.write(&piece?)?;
            }
            Ok(file.finish()?)
        };
        let written = self.handle.node.runtime.spawn_blocking(written).await;
        let written = written.unwrap_or(Err(SaveError::Store(StoreError::ShuttingDown)));
        let metrics = &self.handle.node.metrics;
        match &written {
            Ok(info) => {
                metrics.backup_duration.observe(begin.elapsed().as_secs_f64());
                metrics.backup_at.set((info.header.taken_at_ms / 1000) as i64);
            }
            Err(_) => drop(metrics.backup_failures.inc()),
        }
        written
    }
}

impl Node {
    fn backup_header(&self, exported: Exported) -> BackupHeader {
        let Exported { applied, members, lineage, ancestors } = exported;
        let voters: Vec<u64> = members.voters.iter().flatten().copied().collect();
        let member = |(id, info): (&u64, &MemberInfo)| BackupMember {
            id: *id,
            name: info.name.clone(),
            peer_address: info.peer_address.clone(),
            client_address: info.client_address.clone(),
            voter: voters.contains(id),
        };
        BackupHeader {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            lineage,
            ancestors,
            revision: applied.meta.revision,
            compacted: applied.meta.compacted,
            term: applied.at.map_or(0, |at| at.term),
            index: applied.index(),
            feature_level: applied.meta.feature_level,
            next_member: applied.meta.next_member,
            taken_by: self.identity.name.clone(),
            taken_at_ms: now_ms(),
            members: members.nodes.iter().map(member).collect(),
        }
    }
}

/// What reads the state and hands it out in pieces, on a thread that may block.
struct Reading {
    node: Arc<Node>,
    begun: Option<oneshot::Sender<Result<BackupHeader, StoreError>>>,
    pieces: mpsc::Sender<Piece>,
    encoder: Option<Encoder>,
    _permit: OwnedSemaphorePermit,
}

impl Reading {
    fn run(mut self) {
        let state = self.node.machine.state();
        match state.export(&mut self) {
            Ok(false) => {}
            Ok(true) => {
                if let Some(encoder) = self.encoder.take() {
                    let _ = self.send(Ok(encoder.finish().0));
                }
            }
            Err(error) => {
                tracing::error!(%error, "reading the state for a snapshot");
                match self.begun.take() {
                    Some(begun) => drop(begun.send(Err(error.into()))),
                    None => drop(self.send(Err(error.into()))),
                }
            }
        }
    }

    fn send(&self, piece: Piece) -> ControlFlow<()> {
        let sent = self.node.runtime.block_on(async {
            tokio::select! {
                sent = self.pieces.send_timeout(piece, STALL) => sent.is_ok(),
                () = self.node.stop.cancelled() => false,
            }
        });
        if sent { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

impl Export for Reading {
    fn begin(&mut self, exported: Exported) -> ControlFlow<()> {
        let header = self.node.backup_header(exported);
        let (encoder, beginning) = Encoder::new(&header);
        self.encoder = Some(encoder);
        let heard = self.begun.take().is_some_and(|begun| begun.send(Ok(header)).is_ok());
        if heard { self.send(Ok(beginning)) } else { ControlFlow::Break(()) }
    }

    fn record(&mut self, record: &BackupRecord) -> ControlFlow<()> {
        match self.encoder.as_mut().and_then(|encoder| encoder.add(record)) {
            Some(piece) => self.send(Ok(piece)),
            None => ControlFlow::Continue(()),
        }
    }
}
