//! The beginning of a new lineage on disk: a log and a state that follow nothing, and their way into place.

use std::path::{Path, PathBuf};

use super::StorageError;
use super::disk::Disk;
use super::files::{self, Identity, Origin};
use super::log::Log;
use super::log_record::LogState;
use super::records::{AppliedRecord, LogPosition, MemberInfo, MembersRecord, VoteRecord};
use super::snapshot::{self, POINTER, point_to};
use super::state::{ANCESTORS, APPLIED, LINEAGE, MEMBERS, StateDb, cf};
use crate::backup::{Ancestor, REVISION_BUMP, Succession, now_ms};
use crate::codec;
use crate::machine::Meta;

/// File that says that the member has been running: from then on its log must be there.
pub(crate) const STARTED: &str = "started";
/// Where a recovery is prepared, inside the member's directory.
const RECOVERING: &str = "recovering";

/// What a new lineage begins with.
#[derive(Clone, Debug)]
pub(crate) struct Succeeding {
    pub(crate) lineage: String,
    pub(crate) ancestors: Vec<Ancestor>,
    /// The position in the log that everything taken over counts as.
    pub(crate) at: LogPosition,
    pub(crate) meta: Meta,
    pub(crate) members: MembersRecord,
    pub(crate) identity: Identity,
}

impl Succeeding {
    /// What follows a lineage whose data is at a position and revision, with one member.
    ///
    /// Everything up to the raised revision counts as compacted: whoever has seen a revision of the former lineage is told
    /// so, and lists anew. The member has an id that the former lineage never gave to anybody.
    pub(crate) fn new(
        former: &str,
        mut ancestors: Vec<Ancestor>,
        last: LogPosition,
        meta: &Meta,
        by: Succession,
        info: MemberInfo,
    ) -> Result<Self, StorageError> {
        let lineage = uuid::Uuid::new_v4().to_string();
        let too_far = || StorageError::Damaged(format!("revision {} cannot be raised any further", meta.revision));
        // Programs in some languages read resourceVersions as floating-point numbers, which are exact up to here.
        let revision = meta.revision.checked_add(REVISION_BUMP).filter(|r| *r < 1 << 53).ok_or_else(too_far)?;
        let id = meta.next_member;
        ancestors.push(Ancestor { lineage: former.to_owned(), revision: meta.revision, by, at_ms: now_ms() });
        let at = LogPosition { term: last.term + 1, node: id, index: last.index + 1 };
        let origin = match by {
            Succession::Restore => Origin::Restore,
            Succession::Recovery => Origin::Recovery,
        };
        let identity = Identity::new(id, &info.name, &lineage, origin);
        let members = MembersRecord { at: Some(at), voters: vec![[id].into()], nodes: [(id, info)].into() };
        let meta = Meta { revision, compacted: revision, next_member: id + 1, ..meta.clone() };
        Ok(Self { lineage, ancestors, at, meta, members, identity })
    }

    /// Writes what the state says of itself.
    fn write_state(&self, state: &StateDb) -> Result<(), StorageError> {
        let mut batch = state.batch();
        let applied = AppliedRecord { at: Some(self.at), meta: self.meta.clone() };
        batch.put(cf::META, LINEAGE, codec::encode(&self.lineage));
        batch.put(cf::META, ANCESTORS, codec::encode(&self.ancestors));
        batch.put(cf::META, APPLIED, codec::encode(&applied));
        batch.put(cf::META, MEMBERS, codec::encode(&self.members));
        state.write_batch(batch)?;
        state.flush()
    }

    /// Writes a log without entries, in which everything up to the position counts as applied and removed.
    fn write_log(&self, disk: &Disk, path: &Path) -> Result<(), StorageError> {
        let vote = VoteRecord { term: self.at.term, node: self.at.node, committed: false };
        let at = Some(self.at);
        let state = LogState { vote: Some(vote), purged: at, last: at, committed: None };
        Log::open(disk, path, u64::MAX, false)?.begin(&self.lineage, state)
    }

    /// Completes a directory in which `state-1` holds the records. The identity comes last: without it there is no member.
    pub(crate) fn complete(&self, disk: &Disk, dir: &Path, state: &StateDb) -> Result<(), StorageError> {
        self.write_state(state)?;
        self.write_log(disk, &dir.join("log"))?;
        disk.write_whole(dir, STARTED, b"")?;
        point_to(disk, dir, 1)?;
        self.identity.write(disk, dir)
    }
}

/// Where the state of a new lineage is made.
pub(crate) fn first_state(dir: &Path) -> PathBuf {
    dir.join("state-1")
}

/// Prepares the directory in which a recovery is made, with the state as it is now.
pub(crate) fn prepare(disk: &Disk, data_dir: &Path, state: &StateDb) -> Result<PathBuf, StorageError> {
    let dir = data_dir.join(RECOVERING);
    disk.remove_dir(&dir)?;
    disk.create_dir(&dir)?;
    // Hard links: neither time nor room is needed.
    snapshot::link(state, &first_state(&dir))?;
    point_to(disk, &dir, 1)?;
    Ok(dir)
}

/// Puts a prepared recovery in the place of what was there before, which is kept beside it. Goes on where a crash ended
/// it; tells where the former data is, if there was anything to do.
pub(crate) fn take_over(disk: &Disk, data_dir: &Path) -> Result<Option<PathBuf>, StorageError> {
    let dir = data_dir.join(RECOVERING);
    // The identity is written last and moved last: with it everything else is ready.
    if !Identity::exists(disk, &dir)? {
        return Ok(None);
    }
    let lineage = Identity::read(disk, &dir)?.lineage;
    let before = data_dir.join(format!("before-{}", lineage.split('-').next().unwrap_or(&lineage)));
    disk.create_dir(&before)?;
    let aside = |name: &str| -> Result<(), StorageError> {
        let (from, to) = (data_dir.join(name), before.join(name));
        if disk.exists(&from)? { disk.rename(&from, &to) } else { Ok(()) }
    };
    for name in ["state-1", "log", POINTER, STARTED] {
        let from = dir.join(name);
        if !disk.exists(&from)? {
            continue;
        }
        if name == "state-1" {
            for state in disk.list(data_dir)?.iter().filter(|name| name.starts_with("state-")) {
                aside(state)?;
            }
        }
        aside(name)?;
        disk.rename(&from, &data_dir.join(name))?;
    }
    disk.sync_dir(&before)?;
    disk.sync_dir(data_dir)?;
    // Addresses of former members, and notes of a state that was to be built anew.
    for name in ["peers", "rebuild"] {
        aside(name)?;
    }
    // Who the member was is copied, so that there is one at any time.
    let (old, new) = (data_dir.join(files::IDENTITY), dir.join(files::IDENTITY));
    if let Some(content) = disk.read_optional(&old)? {
        disk.write_whole(&before, files::IDENTITY, &content)?;
    }
    disk.sync_dir(&before)?;
    disk.rename(&new, &old)?;
    disk.sync_dir(data_dir)?;
    disk.remove_dir(&dir)?;
    Ok(Some(before))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    fn touch(dir: &Path, names: &[&str], content: &str) {
        for name in names {
            let path = dir.join(name);
            match name.starts_with("state-") || *name == "log" {
                true => {
                    fs::create_dir_all(&path).unwrap();
                    fs::write(path.join("f"), content).unwrap();
                }
                false => fs::write(path, content).unwrap(),
            }
        }
    }

    fn content(dir: &Path, name: &str) -> Option<String> {
        let path = dir.join(name);
        let path = if path.is_dir() { path.join("f") } else { path };
        fs::read_to_string(path).ok()
    }

    /// However far the moves came before a crash, they are completed.
    #[test]
    fn taking_over_goes_on_after_a_crash() {
        let order = ["state-1", "log", POINTER, STARTED];
        for done in 0..=order.len() {
            let data = tempfile::tempdir().unwrap();
            let (data, dir) = (data.path(), data.path().join(RECOVERING));
            fs::create_dir_all(&dir).unwrap();
            touch(data, &["state-1", "state-7", "log", POINTER, STARTED], "old");
            Identity::new(1, "m", "old-lineage", Origin::Bootstrap).write(&Disk::Real, data).unwrap();
            touch(&dir, &order, "new");
            Identity::new(4, "m", "fresh-lineage", Origin::Recovery).write(&Disk::Real, &dir).unwrap();
            // A crash in between: some are moved, of the next one only the former is out of the way.
            let before = data.join("before-fresh");
            fs::create_dir_all(&before).unwrap();
            for name in &order[..done] {
                fs::rename(data.join(name), before.join(name)).unwrap();
                fs::rename(dir.join(name), data.join(name)).unwrap();
            }
            if let Some(name) = order.get(done) {
                fs::rename(data.join(name), before.join(name)).unwrap();
            }
            if done > 0 {
                fs::rename(data.join("state-7"), before.join("state-7")).unwrap();
            }
            assert_eq!(take_over(&Disk::Real, data).unwrap(), Some(before.clone()));
            for name in order {
                assert_eq!(content(data, name).as_deref(), Some("new"), "{name} after {done}");
                assert_eq!(content(&before, name).as_deref(), Some("old"), "{name} after {done}");
            }
            assert!(!data.join("state-7").exists() && !dir.exists());
            assert_eq!(Identity::read(&Disk::Real, data).unwrap().id, 4);
            assert_eq!(Identity::read(&Disk::Real, &before).unwrap().id, 1);
            assert_eq!(take_over(&Disk::Real, data).unwrap(), None, "once");
        }
        // What was not completed is no recovery.
        let data = tempfile::tempdir().unwrap();
        fs::create_dir_all(data.path().join(RECOVERING)).unwrap();
        touch(&data.path().join(RECOVERING), &["state-1", "log"], "new");
        assert_eq!(take_over(&Disk::Real, data.path()).unwrap(), None);
    }
}
