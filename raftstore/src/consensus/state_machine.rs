//! openraft's view of the applied state.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{FutureExt, Stream, StreamExt};
use openraft::alias::{LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{OptionalSend, Snapshot, SnapshotMeta};

use super::machine::Machine;
use super::{TypeConfig, convert};
use crate::command::Outcome;
use crate::metrics::Metrics;
use crate::simulation;
use crate::storage::StorageError;
use crate::storage::log::LogEntry;
use crate::storage::snapshot::{SnapshotDir, StateSnapshot};
use crate::store::timeline::Timeline;

/// Entries and bytes applied as one batch.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 4 << 20;
/// From when on applying a batch is worth a line in the log.
const SLOW_APPLY: Duration = Duration::from_millis(100);

/// The applied state, as openraft drives it.
#[derive(Clone)]
pub(crate) struct StateMachine {
    machine: Arc<Machine>,
    timeline: Arc<Timeline>,
    metrics: Metrics,
}

impl StateMachine {
    pub(crate) fn new(machine: Arc<Machine>, timeline: Arc<Timeline>, metrics: Metrics) -> Self {
        Self { machine, timeline, metrics }
    }

    /// Applies a batch, and says so if that took long.
    fn apply_batch(&self, batch: Vec<LogEntry>) -> io::Result<Vec<Outcome>> {
        let (begun, entries) = (Instant::now(), batch.len());
        let range = batch.first().zip(batch.last()).map(|(first, last)| (first.at.index, last.at.index));
        let outcomes = self.machine.apply(batch)?;
        let ended = Instant::now();
        let took = ended - begun;
        self.metrics.apply.observe(took.as_secs_f64());
        if let Some((first, last)) = range {
            self.timeline.applied(first, last, begun, ended);
            if took >= SLOW_APPLY {
                self.metrics.slow_applies.inc();
                tracing::warn!(?took, entries, first, last, "applying entries was slow");
            }
        }
        Ok(outcomes)
    }
}

/// How long to wait before what the full disk refused is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(200);

impl StateMachine {
    /// A batch that the disk has no room for changes nothing: it is tried until there is.
    async fn apply_when_there_is_room(&self, batch: Vec<LogEntry>) -> io::Result<Vec<Outcome>> {
        loop {
            match self.apply_batch(batch.clone()) {
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
    simulation::blocking(work).await.map_err(io::Error::other)?
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
        let (machine, begun) = (self.machine.clone(), Instant::now());
        blocking(move || Ok(machine.install(&snapshot)?)).await?;
        self.metrics.snapshot_install.observe(begun.elapsed().as_secs_f64());
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
        let begun = Instant::now();
        let built = loop {
            let machine = self.machine.clone();
            match blocking(move || Ok(machine.build_snapshot())).await? {
                // Nobody waits for it but the log, which is shortened later. An error would end the member.
                Err(error) if error.is_full() => {
                    tracing::warn!(%error, "a checkpoint waits for room on the disk");
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                built => break built?,
            }
        };
        self.metrics.snapshot_build.observe(begun.elapsed().as_secs_f64());
        Ok(raft_snapshot(built))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::command::{Command, Proposal};
    use crate::faults::Faults;
    use crate::machine::FEATURE_LEVEL;
    use crate::storage::disk::memory::MemoryDisk;
    use crate::storage::disk::{Disk, Home};
    use crate::storage::log::Payload;
    use crate::storage::records::LogPosition;
    use crate::storage::snapshot;
    use crate::types::{Op, Txn};
    use crate::watch::Hub;

    #[tokio::test(start_paused = true)]
    async fn a_checkpoint_waits_for_room() {
        let memory = MemoryDisk::new();
        let (disk, dir) = (Disk::Memory(memory.mount()), Path::new("/m"));
        disk.create_dir(dir).unwrap();
        snapshot::create_state(&disk, dir).unwrap();
        snapshot::clear(&disk, dir).unwrap();
        let state = snapshot::open_state(&disk, dir).unwrap();
        let (home, hub) = (Home { disk: disk.clone(), dir: dir.into() }, Hub::new(10, 1000, Faults::default()));
        let (metrics, faults) = (Metrics::default(), Faults::default());
        let machine = Machine::open(home, state, "l", FEATURE_LEVEL, hub, metrics.clone(), faults).unwrap();
        let put = Op::Put { key: "/k".into(), value: vec![1; 1000].into(), expires_at_ms: None };
        let payload = Payload::Command(Proposal::new(&Command::Txn(Txn { then: vec![put], ..Txn::default() })).0);
        machine.apply(vec![LogEntry { at: LogPosition { term: 1, node: 1, index: 1 }, payload }]).unwrap();
        memory.set_capacity(Some(memory.used() + 100));
        let mut builder = StateMachine::new(machine, Arc::default(), metrics);
        let building = tokio::spawn(async move { builder.build_snapshot().await });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!building.is_finished(), "an error would end the member");
        let left = disk.list(&dir.join("snapshots")).unwrap();
        assert!(left.is_empty(), "{left:?} is left of what did not fit");
        memory.set_capacity(None);
        assert_eq!(building.await.unwrap().unwrap().meta.last_log_id.map(|id| id.index), Some(1));
    }
}
