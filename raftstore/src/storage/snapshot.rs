//! Snapshots: checkpoints of the state, and taking over a state that came from another member.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::checkpoint::Checkpoint;

use super::records::{AppliedRecord, MembersRecord};
use super::state::StateDb;
use super::{StorageError, files};
use crate::codec;

/// Name of the file that names the current state.
pub(super) const POINTER: &str = "state";
const SNAPSHOTS: &str = "snapshots";
const INCOMING: &str = "incoming";
/// Files of a database that tell of its past only.
const NOT_SENT: [&str; 3] = ["LOCK", "LOG", "LOG.old"];

/// A directory under `snapshots/` that disappears with its last user.
#[derive(Debug)]
pub(crate) struct SnapshotDir {
    path: PathBuf,
    keep: std::sync::atomic::AtomicBool,
}

impl SnapshotDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Names and sizes of its files.
    pub(crate) fn files(&self) -> Result<Vec<(String, u64)>, StorageError> {
        let what = |e| StorageError::io(self.path.display().to_string(), e);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(what)? {
            let entry = entry.map_err(what)?;
            let name = entry.file_name().into_string().map_err(|n| StorageError::Damaged(format!("file {n:?}")))?;
            if !NOT_SENT.contains(&&*name) && !name.starts_with("LOG.old") {
                found.push((name, entry.metadata().map_err(what)?.len()));
            }
        }
        found.sort();
        Ok(found)
    }
}

impl Drop for SnapshotDir {
    fn drop(&mut self) {
        if !self.keep.load(std::sync::atomic::Ordering::Acquire) {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A checkpoint of the state, and how far it goes.
#[derive(Clone, Debug)]
pub(crate) struct StateSnapshot {
    pub(crate) dir: Arc<SnapshotDir>,
    pub(crate) applied: AppliedRecord,
    pub(crate) members: MembersRecord,
}

/// Removes what earlier runs left under `snapshots/`.
pub(crate) fn clear(data_dir: &Path) -> Result<(), StorageError> {
    let dir = data_dir.join(SNAPSHOTS);
    files::create_dir(&dir)?;
    let what = |e| StorageError::io(dir.display().to_string(), e);
    for entry in fs::read_dir(&dir).map_err(what)? {
        let entry = entry.map_err(what)?;
        // What has come of a snapshot need not come again.
        if entry.file_name() != INCOMING {
            files::remove_dir(&entry.path())?;
        }
    }
    Ok(())
}

/// Where the files of a snapshot are gathered that another member sends.
pub(crate) fn incoming(data_dir: &Path) -> PathBuf {
    data_dir.join(SNAPSHOTS).join(INCOMING)
}

/// A fresh directory under `snapshots/`; it is not created yet.
pub(crate) fn fresh_dir(data_dir: &Path) -> Arc<SnapshotDir> {
    let path = data_dir.join(SNAPSHOTS).join(uuid::Uuid::new_v4().simple().to_string());
    Arc::new(SnapshotDir { path, keep: false.into() })
}

/// Makes a checkpoint. How far it goes is read from the checkpoint itself, since entries are applied meanwhile.
pub(crate) fn checkpoint(data_dir: &Path, state: &StateDb) -> Result<StateSnapshot, StorageError> {
    let dir = fresh_dir(data_dir);
    link(state, dir.path())?;
    describe(dir)
}

/// Makes a directory that holds the state as it is now, of hard links.
pub(super) fn link(state: &StateDb, path: &Path) -> Result<(), StorageError> {
    // The checkpoint's own flush would do, but only this one is waited for with all column families.
    state.flush()?;
    Ok(Checkpoint::new(state.db())?.create_checkpoint(path)?)
}

/// Reads how far the state in a directory goes.
pub(crate) fn describe(dir: Arc<SnapshotDir>) -> Result<StateSnapshot, StorageError> {
    let state = StateDb::open(dir.path(), false)?;
    let (applied, members) = (state.applied()?, state.members()?);
    drop(state);
    Ok(StateSnapshot { dir, applied, members })
}

fn state_dir(data_dir: &Path, number: u64) -> PathBuf {
    data_dir.join(format!("state-{number}"))
}

fn current_number(data_dir: &Path) -> Result<Option<u64>, StorageError> {
    let Some(content) = files::read_optional(&data_dir.join(POINTER))? else { return Ok(None) };
    let text = String::from_utf8_lossy(&content);
    let number = || {
        let (name, sum) = text.trim().rsplit_once(' ')?;
        let number = name.strip_prefix("state-")?.parse().ok()?;
        (sum == checksum(name)).then_some(number)
    };
    number().map(Some).ok_or_else(|| StorageError::Damaged(format!("pointer file says {text:?}")))
}

fn checksum(name: &str) -> String {
    format!("{:08x}", codec::checksum(&[name.as_bytes()]))
}

pub(super) fn point_to(data_dir: &Path, number: u64) -> Result<(), StorageError> {
    let name = format!("state-{number}");
    files::write_whole(data_dir, POINTER, format!("{name} {}\n", checksum(&name)).as_bytes())
}

/// A number that no state in the directory has.
fn next_number(data_dir: &Path) -> Result<u64, StorageError> {
    let what = |e| StorageError::io(data_dir.display().to_string(), e);
    let mut highest = 0;
    for entry in fs::read_dir(data_dir).map_err(what)? {
        let name = entry.map_err(what)?.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix("state-")?.parse().ok());
        highest = highest.max(number.unwrap_or(0));
    }
    Ok(highest + 1)
}

/// Whether a state was ever there.
pub(crate) fn has_state(data_dir: &Path) -> Result<bool, StorageError> {
    Ok(files::read_optional(&data_dir.join(POINTER))?.is_some())
}

/// Makes a new, empty state the current one.
pub(crate) fn create_state(data_dir: &Path) -> Result<(), StorageError> {
    let number = next_number(data_dir)?;
    StateDb::open(&state_dir(data_dir, number), true)?.flush()?;
    point_to(data_dir, number)
}

/// Opens the current state of a member, and removes states that are not current.
pub(crate) fn open_state(data_dir: &Path) -> Result<Arc<StateDb>, StorageError> {
    let number = current_number(data_dir)?;
    let number = number.ok_or_else(|| StorageError::Damaged("the pointer file of the state is missing".into()))?;
    let current = state_dir(data_dir, number);
    let what = |e| StorageError::io(data_dir.display().to_string(), e);
    for entry in fs::read_dir(data_dir).map_err(what)? {
        let path = entry.map_err(what)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name.starts_with("state-") && path != current {
            files::remove_dir(&path)?;
        }
    }
    if !current.is_dir() {
        return Err(StorageError::Damaged(format!("{} is missing", current.display())));
    }
    Ok(Arc::new(StateDb::open(&current, false)?))
}

/// Reads all of a received snapshot: one that is damaged must not replace a state.
pub(crate) fn check_received(received: &SnapshotDir) -> Result<(), StorageError> {
    let checked = StateDb::open(received.path(), false).and_then(|state| state.verify(&mut |_| true));
    checked.map(drop).map_err(|e| StorageError::Received(Box::new(e)))
}

/// Makes a received snapshot the state of this member: fsyncs it, moves it into place, switches the pointer.
pub(crate) fn install(data_dir: &Path, received: &SnapshotDir, lineage: &str) -> Result<Arc<StateDb>, StorageError> {
    for (name, _) in received.files()? {
        let path = received.path().join(name);
        let synced = File::open(&path).and_then(|f| f.sync_all());
        synced.map_err(|e| StorageError::io(path.display().to_string(), e))?;
    }
    files::sync_dir(received.path())?;
    let number = next_number(data_dir)?;
    let place = state_dir(data_dir, number);
    files::remove_dir(&place)?;
    received.keep.store(true, std::sync::atomic::Ordering::Release);
    fs::rename(received.path(), &place).map_err(|e| StorageError::io(place.display().to_string(), e))?;
    files::sync_dir(data_dir)?;
    let state = Arc::new(StateDb::open(&place, false)?);
    let found = state.lineage()?;
    if found.as_deref() != Some(lineage) {
        state.remove_when_unused();
        return Err(StorageError::Damaged(format!("received a state of lineage {found:?}")));
    }
    point_to(data_dir, number)?;
    Ok(state)
}
