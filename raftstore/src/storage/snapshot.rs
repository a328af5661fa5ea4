//! Snapshots: checkpoints of the state, and taking over a state that came from another member.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::StorageError;
use super::disk::Disk;
use super::records::{AppliedRecord, MembersRecord};
use super::state::StateDb;
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
    disk: Disk,
    path: PathBuf,
    keep: AtomicBool,
}

impl SnapshotDir {
    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Names and sizes of its files.
    pub(crate) fn files(&self) -> Result<Vec<(String, u64)>, StorageError> {
        let sent = |name: &String| !NOT_SENT.contains(&&**name) && !name.starts_with("LOG.old");
        let names = self.disk.list(&self.path)?.into_iter().filter(sent);
        names.map(|name| self.disk.len(&self.path.join(&name)).map(|len| (name, len))).collect()
    }
}

impl Drop for SnapshotDir {
    fn drop(&mut self) {
        if !self.keep.load(Ordering::Acquire) {
            let _ = self.disk.remove_dir(&self.path);
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
pub(crate) fn clear(disk: &Disk, data_dir: &Path) -> Result<(), StorageError> {
    let dir = data_dir.join(SNAPSHOTS);
    disk.create_dir(&dir)?;
    // What has come of a snapshot need not come again.
    for name in disk.list(&dir)?.into_iter().filter(|name| name != INCOMING) {
        disk.remove_dir(&dir.join(name))?;
    }
    Ok(())
}

/// Where the files of a snapshot are gathered that another member sends.
pub(crate) fn incoming(data_dir: &Path) -> PathBuf {
    data_dir.join(SNAPSHOTS).join(INCOMING)
}

/// A fresh directory under `snapshots/`; it is not created yet. What former runs have left there is gone.
pub(crate) fn fresh_dir(disk: &Disk, data_dir: &Path) -> Arc<SnapshotDir> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let path = data_dir.join(SNAPSHOTS).join(format!("{:012}", COUNT.fetch_add(1, Ordering::Relaxed)));
    Arc::new(SnapshotDir { disk: disk.clone(), path, keep: false.into() })
}

/// Makes a checkpoint. How far it goes is read from the checkpoint itself, since entries are applied meanwhile.
pub(crate) fn checkpoint(disk: &Disk, data_dir: &Path, state: &StateDb) -> Result<StateSnapshot, StorageError> {
    let dir = fresh_dir(disk, data_dir);
    link(state, dir.path())?;
    describe(dir)
}

/// Makes a directory that holds the state as it is now, of hard links.
pub(super) fn link(state: &StateDb, path: &Path) -> Result<(), StorageError> {
    // The checkpoint's own flush would do, but only this one is waited for with all column families.
    state.flush()?;
    state.engine().checkpoint(path)
}

/// Reads how far the state in a directory goes, and leaves it as it is: it is about to be sent, or was just received.
pub(crate) fn describe(dir: Arc<SnapshotDir>) -> Result<StateSnapshot, StorageError> {
    let state = StateDb::open_to_read(&dir.disk, dir.path())?;
    let (applied, members) = (state.applied()?, state.members()?);
    drop(state);
    Ok(StateSnapshot { dir, applied, members })
}

fn state_dir(data_dir: &Path, number: u64) -> PathBuf {
    data_dir.join(format!("state-{number}"))
}

fn current_number(disk: &Disk, data_dir: &Path) -> Result<Option<u64>, StorageError> {
    let Some(content) = disk.read_optional(&data_dir.join(POINTER))? else { return Ok(None) };
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

pub(super) fn point_to(disk: &Disk, data_dir: &Path, number: u64) -> Result<(), StorageError> {
    let name = format!("state-{number}");
    disk.write_whole(data_dir, POINTER, format!("{name} {}\n", checksum(&name)).as_bytes())
}

/// A number that no state in the directory has.
fn next_number(disk: &Disk, data_dir: &Path) -> Result<u64, StorageError> {
    let names = disk.list(data_dir)?;
    let numbers = names.iter().filter_map(|name| name.strip_prefix("state-")?.parse::<u64>().ok());
    Ok(numbers.max().unwrap_or(0) + 1)
}

/// Whether a state was ever there.
pub(crate) fn has_state(disk: &Disk, data_dir: &Path) -> Result<bool, StorageError> {
    disk.exists(&data_dir.join(POINTER))
}

/// Makes a new, empty state the current one.
pub(crate) fn create_state(disk: &Disk, data_dir: &Path) -> Result<(), StorageError> {
    let number = next_number(disk, data_dir)?;
    StateDb::open(disk, &state_dir(data_dir, number), true)?.flush()?;
    point_to(disk, data_dir, number)
}

/// Opens the current state of a member, and removes states that are not current.
pub(crate) fn open_state(disk: &Disk, data_dir: &Path) -> Result<Arc<StateDb>, StorageError> {
    let number = current_number(disk, data_dir)?;
    let number = number.ok_or_else(|| StorageError::Damaged("the pointer file of the state is missing".into()))?;
    let current = state_dir(data_dir, number);
    for name in disk.list(data_dir)?.into_iter().filter(|name| name.starts_with("state-")) {
        let path = data_dir.join(name);
        if path != current && disk.is_dir(&path)? {
            disk.remove_dir(&path)?;
        }
    }
    if !disk.is_dir(&current)? {
        return Err(StorageError::Damaged(format!("{} is missing", current.display())));
    }
    Ok(Arc::new(StateDb::open(disk, &current, false)?))
}

/// Reads all of a received snapshot: one that is damaged must not replace a state.
pub(crate) fn check_received(received: &SnapshotDir) -> Result<(), StorageError> {
    let state = StateDb::open_to_read(received.disk(), received.path());
    let checked = state.and_then(|state| state.verify(&mut |_| true));
    checked.map(drop).map_err(|e| StorageError::Received(Box::new(e)))
}

/// Makes a received snapshot the state of this member: fsyncs it, moves it into place, switches the pointer.
pub(crate) fn install(data_dir: &Path, received: &SnapshotDir, lineage: &str) -> Result<Arc<StateDb>, StorageError> {
    let disk = received.disk();
    for (name, _) in received.files()? {
        disk.open(&received.path().join(name))?.sync_all()?;
    }
    disk.sync_dir(received.path())?;
    let number = next_number(disk, data_dir)?;
    let place = state_dir(data_dir, number);
    disk.remove_dir(&place)?;
    received.keep.store(true, Ordering::Release);
    disk.rename(received.path(), &place)?;
    disk.sync_dir(data_dir)?;
    let state = Arc::new(StateDb::open(disk, &place, false)?);
    let found = state.lineage()?;
    if found.as_deref() != Some(lineage) {
        state.remove_when_unused();
        return Err(StorageError::Damaged(format!("received a state of lineage {found:?}")));
    }
    point_to(disk, data_dir, number)?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::{Change, Record};

    #[test]
    fn a_checkpoint_that_is_described_and_checked_stays_as_it_is() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::Real);
        create_state(&disk, dir.path()).unwrap();
        let state = open_state(&disk, dir.path()).unwrap();
        clear(&disk, dir.path()).unwrap();
        let applied = AppliedRecord::default();
        let write = |revision: u64| {
            let (key, value) = ("/k".into(), "v".into());
            let after =
                Record { create_revision: 2, mod_revision: revision, version: revision, expires_at_ms: None, value };
            let change = Change { key, revision, before: None, after: Some(after), more: false };
            state.write(&[change], &applied, None).unwrap();
        };
        // Files that a database would put together when it has time.
        for revision in 2..8 {
            write(revision);
            state.flush().unwrap();
        }
        let snapshot = fresh_dir(&disk, dir.path());
        link(&state, snapshot.path()).unwrap();
        let before = snapshot.files().unwrap();
        let described = describe(snapshot.clone()).unwrap();
        assert_eq!(described.applied, applied);
        // Whether it is sound is not asked here.
        let _ = check_received(&snapshot);
        assert_eq!(snapshot.files().unwrap(), before);
    }
}
