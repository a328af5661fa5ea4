//! The applied state of this member and everyone who wants to know of it: readers, watchers, those who wait.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::TypeConfig;
use super::convert;
use super::recent::{Known, Recent};
use crate::command::{Command, Outcome};
use crate::faults::{self, Faults};
use crate::machine::{Applier, ApplyError, Change};
use crate::metrics::Metrics;
use crate::storage::StorageError;
use crate::storage::disk::{Disk, Home};
use crate::storage::log::{LogEntry, Payload};
use crate::storage::rebuild;
use crate::storage::records::{AppliedRecord, MembersRecord};
use crate::storage::snapshot::{self, SnapshotDir, StateSnapshot};
use crate::storage::state::StateDb;
use crate::storage::verify::Pace;
use crate::types::{Op, Revision};
use crate::watch::Hub;

/// Bytes of records that are kept in memory for apply.
const RECENT_BYTES: usize = 16 << 20;

/// How far this member has applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Index after the last applied entry.
    pub(crate) next_index: u64,
    /// Newest revision.
    pub(crate) revision: Revision,
}

fn progress(applied: &AppliedRecord) -> Progress {
    Progress { next_index: applied.at.map_or(0, |at| at.index + 1), revision: applied.meta.revision }
}

/// Keeps the addresses of the members beside the state: without it a member finds the others by this alone.
fn remember(disk: &Disk, data_dir: &Path, members: &MembersRecord) {
    if let Err(error) = rebuild::remember(disk, data_dir, members) {
        tracing::warn!(%error, "keeping the addresses of the members");
    }
}

/// The applied state.
pub(crate) struct Machine {
    disk: Disk,
    data_dir: PathBuf,
    lineage: String,
    state: RwLock<Arc<StateDb>>,
    applied: Mutex<AppliedRecord>,
    /// Used by apply alone, and cleared with the state that it belongs to.
    recent: Recent,
    members: Mutex<MembersRecord>,
    /// Index after the last entry whose effects are surely on disk.
    durable_next: AtomicU64,
    snapshot: Mutex<Option<StateSnapshot>>,
    /// Whether a received snapshot has become the state.
    installed: AtomicBool,
    progress: watch::Sender<Progress>,
    hub: Hub,
    metrics: Metrics,
    faults: Faults,
    /// The feature level that this build knows.
    known: u32,
    /// Hashes of the state at some of the newest log indexes, to be compared with the other members'.
    marks: Mutex<VecDeque<Mark>>,
    /// Why the state must not be used, once something was found.
    damage: watch::Sender<Option<String>>,
    counts: Counts,
}

/// What was applied since the start.
#[derive(Default)]
pub(crate) struct Counts {
    /// Bytes that became history.
    pub(crate) history_bytes: AtomicU64,
    /// Keys that were deleted.
    pub(crate) deletions: AtomicU64,
}

impl Counts {
    fn note(&self, changes: &[Change]) {
        // Two or three records of about this size tell of each change.
        const EACH: usize = 100;
        let size = |c: &Change| 3 * c.key.len() + c.before.as_ref().map_or(0, |b| b.value.len()) + EACH;
        self.history_bytes.fetch_add(changes.iter().map(size).sum::<usize>() as u64, Ordering::Relaxed);
        let deletions = changes.iter().filter(|c| c.after.is_none()).count();
        self.deletions.fetch_add(deletions as u64, Ordering::Relaxed);
    }
}

/// A log index, and the hash of the state after that entry.
pub(crate) type Mark = (u64, u128);

/// Entries from one mark to the next, and how many marks are kept.
const MARK_EVERY: u64 = 256;
const MARKS: usize = 128;

impl Machine {
    /// Takes over a state that was opened, or is new.
    pub(crate) fn open(
        home: Home,
        state: Arc<StateDb>,
        lineage: &str,
        known: u32,
        hub: Hub,
        metrics: Metrics,
        faults: Faults,
    ) -> Result<Arc<Self>, StorageError> {
        let Home { disk, dir: data_dir } = home;
        match state.lineage()? {
            None => state.set_lineage(lineage)?,
            Some(found) if found == lineage => {}
            Some(found) => {
                return Err(StorageError::Damaged(format!("the state is of lineage {found}, the member of {lineage}")));
            }
        }
        let applied = state.applied()?;
        if applied.meta.feature_level > known {
            return Err(StorageError::TooNew(applied.meta.feature_level, known));
        }
        let (now, members) = (progress(&applied), state.members()?);
        remember(&disk, &data_dir, &members);
        Ok(Arc::new(Self {
            members: Mutex::new(members),
            state: RwLock::new(state),
            durable_next: AtomicU64::new(now.next_index),
            snapshot: Mutex::new(None),
            installed: AtomicBool::new(false),
            progress: watch::Sender::new(now),
            applied: Mutex::new(applied),
            recent: Recent::new(RECENT_BYTES),
            lineage: lineage.to_owned(),
            disk,
            data_dir,
            hub,
            metrics,
            faults,
            known,
            marks: Mutex::default(),
            damage: watch::Sender::new(None),
            counts: Counts::default(),
        }))
    }

    /// The database to read from. A snapshot that is installed meanwhile replaces it.
    pub(crate) fn state(&self) -> Arc<StateDb> {
        self.state.read().clone()
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    pub(crate) fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    pub(crate) fn watch_progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    pub(crate) fn applied(&self) -> AppliedRecord {
        self.applied.lock().clone()
    }

    pub(crate) fn members(&self) -> MembersRecord {
        self.members.lock().clone()
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Applies entries in order and tells everyone; answers one outcome for each.
    pub(crate) fn apply(&self, entries: Vec<LogEntry>) -> io::Result<Vec<Outcome>> {
        let Some(last) = entries.last().map(|e| e.at) else { return Ok(Vec::new()) };
        let state = self.state();
        let known = Known { base: state.as_ref(), recent: &self.recent };
        let mut applier = Applier::new(&known, self.applied.lock().meta.clone(), self.known);
        let mut outcomes = Vec::with_capacity(entries.len());
        let (mut members, mut marks) = (None, Vec::new());
        for entry in entries {
            outcomes.push(match entry.payload {
                Payload::Blank => Outcome::Done,
                Payload::Command(bytes) => {
                    let command = crate::command::Proposal(bytes).decode(self.known)?;
                    match changes_something(&command) && self.faults.skips(entry.at.index) {
                        true => Outcome::Done,
                        false => applier.apply(command).map_err(|error| self.apply_error(error))?,
                    }
                }
                Payload::Members(mut record) => {
                    record.at = Some(entry.at);
                    members = Some(*record);
                    Outcome::Done
                }
            });
            if entry.at.index % MARK_EVERY == 0 {
                marks.push((entry.at.index, applier.meta().hash()));
            }
        }
        let (meta, changes) = applier.finish();
        let applied = AppliedRecord { at: Some(last), meta };
        if self.faults.torn_apply.is_some() {
            state.write(&changes, &self.applied(), None)?;
            state.flush()?;
            faults::pause(self.faults.torn_apply);
        }
        state.write(&changes, &applied, members.as_ref()).inspect_err(|e| self.note(e))?;
        for change in &changes {
            self.recent.put(change.key.clone(), change.after.clone());
        }
        if let Some(members) = members {
            remember(&self.disk, &self.data_dir, &members);
            *self.members.lock() = members;
        }
        let now = progress(&applied);
        *self.applied.lock() = applied;
        self.mark(marks);
        self.metrics.applied.inc_by(outcomes.len() as u64);
        self.metrics.applied_index.set(last.index as i64);
        self.counts.note(&changes);
        self.hub.publish(&changes, now.revision);
        self.progress.send_replace(now);
        Ok(outcomes)
    }

    fn apply_error(&self, error: ApplyError<StorageError>) -> io::Error {
        if let ApplyError::Base(error) = &error {
            self.note(error);
        }
        io::Error::other(error)
    }

    fn mark(&self, new: Vec<Mark>) {
        let mut marks = self.marks.lock();
        marks.extend(new);
        let surplus = marks.len().saturating_sub(MARKS);
        marks.drain(..surplus);
    }

    /// Hashes of the state at some log indexes, the newest one last.
    pub(crate) fn marks(&self) -> Vec<Mark> {
        let mut marks: Vec<Mark> = self.marks.lock().iter().copied().collect();
        let applied = self.applied.lock();
        if applied.at.is_some() {
            marks.push((applied.index(), applied.meta.hash()));
        }
        marks
    }

    /// Makes the hashes those of what is on disk, as if that had been applied.
    #[cfg(test)]
    pub(crate) fn forge_digest(&self) {
        let mut applied = self.applied.lock();
        applied.meta.digest.live = self.state().live_hash().expect("readable");
    }

    /// Notes that the state is damaged, if that is what the error says.
    pub(crate) fn note(&self, error: &StorageError) {
        if error.is_damage() {
            self.set_damaged(error.to_string());
        }
    }

    /// Notes why the state must not be used any more; the first reason counts.
    pub(crate) fn set_damaged(&self, why: String) {
        self.damage.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(why);
            first
        });
    }

    /// Why the state must not be used, once something was found.
    pub(crate) fn damage(&self) -> watch::Receiver<Option<String>> {
        self.damage.subscribe()
    }

    /// Reads the whole state and compares it with what apply noted.
    pub(crate) fn verify(&self, pace: Pace<'_>) -> Result<Option<AppliedRecord>, StorageError> {
        self.state().verify(pace).inspect_err(|error| self.note(error))
    }

    /// Makes a checkpoint for a member that lost its state.
    pub(crate) fn checkpoint(&self) -> Result<StateSnapshot, StorageError> {
        snapshot::checkpoint(&self.disk, &self.data_dir, &self.state())
    }

    /// As if what was written lately were written long ago: apply reads it from disk again.
    #[cfg(test)]
    pub(crate) fn forget_recent(&self) {
        self.recent.clear();
    }

    /// Makes a checkpoint of the state, which from then on is what a lagging member gets.
    pub(crate) fn build_snapshot(&self) -> Result<StateSnapshot, StorageError> {
        let state = self.state();
        let built = match self.faults.purge_unflushed {
            false => snapshot::checkpoint(&self.disk, &self.data_dir, &state).inspect_err(|e| self.note(e))?,
            true => {
                let dir = snapshot::fresh_dir(&self.disk, &self.data_dir);
                StateSnapshot { dir, applied: self.applied(), members: self.members() }
            }
        };
        self.note_durable(&built.applied);
        *self.snapshot.lock() = Some(built.clone());
        Ok(built)
    }

    pub(crate) fn current_snapshot(&self) -> Option<StateSnapshot> {
        self.snapshot.lock().clone()
    }

    /// Whether the engine counts on a snapshot that is not there any more: the one that was received is the state now, and
    /// the log before it is gone.
    pub(crate) fn lacks_snapshot(&self) -> bool {
        self.installed.load(Ordering::Acquire) && self.snapshot.lock().is_none()
    }

    /// Replaces the state by a received one.
    pub(crate) fn install(&self, received: &SnapshotDir) -> Result<(), StorageError> {
        let state = snapshot::install(&self.data_dir, received, &self.lineage)?;
        let (applied, members) = (state.applied()?, state.members()?);
        let now = progress(&applied);
        self.note_durable(&applied);
        self.recent.clear();
        let old = std::mem::replace(&mut *self.state.write(), state);
        old.remove_when_unused();
        drop(old);
        remember(&self.disk, &self.data_dir, &members);
        *self.members.lock() = members;
        *self.applied.lock() = applied;
        *self.snapshot.lock() = None;
        self.installed.store(true, Ordering::Release);
        self.marks.lock().clear();
        self.hub.reset(now.revision);
        self.progress.send_replace(now);
        Ok(())
    }

    fn note_durable(&self, applied: &AppliedRecord) {
        self.durable_next.fetch_max(progress(applied).next_index, Ordering::AcqRel);
    }

    /// Makes sure that the effects of an entry are on disk.
    pub(crate) fn ensure_durable(&self, index: u64) -> Result<(), StorageError> {
        if self.durable_next.load(Ordering::Acquire) > index || self.faults.purge_unflushed {
            return Ok(());
        }
        self.flush()?;
        match self.durable_next.load(Ordering::Acquire) > index {
            true => Ok(()),
            false => Err(StorageError::Damaged(format!("entry {index} is not applied"))),
        }
    }

    /// Makes everything applied so far durable.
    pub(crate) fn flush(&self) -> Result<(), StorageError> {
        let (state, applied) = (self.state(), self.applied());
        state.flush()?;
        self.note_durable(&applied);
        Ok(())
    }

    /// What openraft wants to know at the start.
    pub(crate) fn raft_state(
        &self,
    ) -> (Option<openraft::alias::LogIdOf<TypeConfig>>, openraft::alias::StoredMembershipOf<TypeConfig>) {
        let at = self.applied.lock().at.map(convert::log_id);
        (at, convert::stored_membership(&self.members.lock()))
    }
}

/// Whether it is sure to: an entry that changes nothing could be skipped unnoticed.
fn changes_something(command: &Command) -> bool {
    matches!(command, Command::Txn(txn) if txn.compares.is_empty() && matches!(txn.then.first(), Some(Op::Put { .. })))
}
