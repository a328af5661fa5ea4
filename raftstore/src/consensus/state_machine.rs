//! openraft's view of the applied state.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{OptionalSend, Snapshot, SnapshotMeta};

use super::machine::Machine;
use super::{TypeConfig, convert};
use crate::command::Outcome;
use crate::storage::StorageError;
use crate::storage::log::LogEntry;
use crate::storage::snapshot::{SnapshotDir, StateSnapshot};

/// Entries and bytes applied as one batch.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 4 << 20;

/// The applied state, as openraft drives it.
#[derive(Clone)]
pub(crate) struct StateMachine {
    machine: Arc<Machine>,
}

impl StateMachine {
    pub(crate) fn new(machine: Arc<Machine>) -> Self {
        Self { machine }
    }
}

/// How long to wait before a batch that the full disk refused is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(200);

impl StateMachine {
    /// A batch that the disk has no room for changes nothing: it is tried until there is.
    async fn apply_when_there_is_room(&self, batch: Vec<LogEntry>) -> io::Result<Vec<Outcome>> {
        loop {
            match self.machine.apply(batch.clone()) {
                Err(error) if is_full(&error) => {
                    tracing::error!(%error, "the disk is full; applying waits for room");
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                applied => return applied,
            }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    error.get_ref().and_then(|e| e.downcast_ref::<StorageError>()).is_some_and(StorageError::is_full)
}

fn raft_snapshot(snapshot: StateSnapshot) -> SnapshotOf<TypeConfig, Arc<SnapshotDir>> {
    let meta: SnapshotMetaOf<TypeConfig> = SnapshotMeta {
        last_log_id: snapshot.applied.at.map(convert::log_id),
        last_membership: convert::stored_membership(&snapshot.members),
    };
    Snapshot { meta, snapshot: snapshot.dir }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Arc<SnapshotDir>;
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogIdOf<TypeConfig>>, StoredMembershipOf<TypeConfig>), io::Error> {
        Ok(self.machine.raft_state())
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut entries = entries.fuse();
        while let Some(first) = entries.next().await {
            let (mut batch, mut responders, mut bytes) = (Vec::new(), Vec::new(), 0);
            let mut next = Some(first);
            while let Some(item) = next.take() {
                let (entry, responder) = item?;
                let entry = convert::log_entry(&entry);
                bytes += entry.weight();
                batch.push(entry);
                responders.push(responder);
                if batch.len() < BATCH && bytes < BATCH_BYTES {
                    next = entries.next().now_or_never().flatten();
                }
            }
            let outcomes = self.apply_when_there_is_room(batch).await?;
            for (responder, outcome) in responders.into_iter().zip(outcomes) {
                if let Some(responder) = responder {
                    responder.send(outcome);
                }
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: Self::SnapshotData,
    ) -> Result<(), io::Error> {
        tracing::info!(%meta, "installing a snapshot");
        let machine = self.machine.clone();
        blocking(move || Ok(machine.install(&snapshot)?)).await?;
        let (at, _) = self.machine.raft_state();
        if at != meta.last_log_id {
            return Err(io::Error::other(format!("the snapshot is of {at:?}, announced was {:?}", meta.last_log_id)));
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SnapshotOf<TypeConfig, Self::SnapshotData>>, io::Error> {
        if self.machine.lacks_snapshot() {
            return self.build_snapshot().await.map(Some);
        }
        Ok(self.machine.current_snapshot().map(raft_snapshot))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = Arc<SnapshotDir>;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, Self::SnapshotData>, io::Error> {
        let machine = self.machine.clone();
        let built = blocking(move || Ok(machine.build_snapshot()?)).await?;
        Ok(raft_snapshot(built))
    }
}
