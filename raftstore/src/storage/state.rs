//! The applied state: latest records, history, and how far it is applied.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::disk::Disk;
use super::engine::{Batch, Engine, Measure, Reading, View};
use super::records::{AppliedRecord, MembersRecord};
use super::{StorageError, keys};
use crate::codec;
use crate::machine::{Base, Change, Record};
use crate::types::Revision;

pub(crate) use super::engine::cf;

pub(super) const APPLIED: &[u8] = b"applied";
pub(super) const MEMBERS: &[u8] = b"members";
pub(super) const LINEAGE: &[u8] = b"lineage";
/// The lineages before this one.
pub(super) const ANCESTORS: &[u8] = b"ancestors";
const COLLECTED: &[u8] = b"collected";

/// What a revision did.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EventRecord {
    pub(super) key: Bytes,
    pub(super) deleted: bool,
    /// The key had a record before, which is among the former ones.
    pub(super) replaced: bool,
    /// The next revision belongs to the same transaction.
    pub(super) more: bool,
}

/// A database of applied state.
pub(crate) struct StateDb {
    engine: Engine,
    path: PathBuf,
    remove: AtomicBool,
    /// History below this revision may be gone, also from views that were taken before.
    floor: Arc<AtomicU64>,
}

impl StateDb {
    /// Opens a database, or creates it.
    pub(crate) fn open(disk: &Disk, path: &Path, create: bool) -> Result<Self, StorageError> {
        let floor = Arc::<AtomicU64>::default();
        Self::over(Engine::open(disk, path, create, floor.clone())?, path, floor)
    }

    /// Opens a database that must stay as it is.
    pub(crate) fn open_to_read(disk: &Disk, path: &Path) -> Result<Self, StorageError> {
        Self::over(Engine::open_to_read(disk, path)?, path, Arc::default())
    }

    fn over(engine: Engine, path: &Path, floor: Arc<AtomicU64>) -> Result<Self, StorageError> {
        let state = Self { engine, path: path.to_owned(), remove: AtomicBool::new(false), floor };
        state.floor.store(state.collected()?, Ordering::Release);
        Ok(state)
    }

    /// Up to where history may be gone, whatever a view shows.
    pub(super) fn floor(&self) -> Revision {
        self.floor.load(Ordering::Acquire)
    }

    /// Removes the directory once nobody uses the database any more.
    pub(crate) fn remove_when_unused(&self) {
        self.remove.store(true, Ordering::Release);
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Everything as it is now.
    pub(super) fn view(&self) -> View<'_> {
        self.engine.view()
    }

    /// An empty batch.
    pub(super) fn batch(&self) -> Batch<'_> {
        self.engine.batch()
    }

    fn meta<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StorageError> {
        match self.engine.get(cf::META, key)? {
            Some(bytes) => Ok(Some(codec::decode(&bytes)?)),
            None => Ok(None),
        }
    }

    /// How far the state is applied.
    pub(crate) fn applied(&self) -> Result<AppliedRecord, StorageError> {
        Ok(self.meta(APPLIED)?.unwrap_or_default())
    }

    /// The last applied membership.
    pub(crate) fn members(&self) -> Result<MembersRecord, StorageError> {
        Ok(self.meta(MEMBERS)?.unwrap_or_default())
    }

    /// The lineage of the data; none in a new database.
    pub(crate) fn lineage(&self) -> Result<Option<String>, StorageError> {
        self.meta(LINEAGE)
    }

    /// Sets the lineage of a new database.
    pub(crate) fn set_lineage(&self, lineage: &str) -> Result<(), StorageError> {
        let mut batch = self.batch();
        batch.put(cf::META, LINEAGE, codec::encode(lineage));
        self.write_batch(batch)?;
        self.flush()
    }

    /// Up to where history is to be forgotten.
    pub(super) fn collected(&self) -> Result<Revision, StorageError> {
        Ok(self.meta(COLLECTED)?.unwrap_or(0))
    }

    pub(super) fn put_collected(&self, batch: &mut Batch<'_>, revision: Revision) {
        batch.put(cf::META, COLLECTED, codec::encode(&revision));
    }

    pub(super) fn write_batch(&self, batch: Batch<'_>) -> Result<(), StorageError> {
        self.engine.write(batch)
    }

    /// Writes what a batch of entries changed, together with how far it is applied now.
    pub(crate) fn write(
        &self,
        changes: &[Change],
        applied: &AppliedRecord,
        members: Option<&MembersRecord>,
    ) -> Result<(), StorageError> {
        let (mut batch, mut buffer) = (self.batch(), Vec::new());
        for change in changes {
            write_change(&mut batch, &mut buffer, change);
        }
        batch.put(cf::META, APPLIED, codec::encode(applied));
        if let Some(members) = members {
            batch.put(cf::META, MEMBERS, codec::encode(members));
        }
        self.write_batch(batch)
    }

    /// Makes everything written so far durable, and lets go of the history that by then is to be forgotten. Not sooner:
    /// after a crash the state would be one that still has it.
    pub(crate) fn flush(&self) -> Result<(), StorageError> {
        let forgotten = self.collected()?;
        self.engine.flush()?;
        match self.floor.fetch_max(forgotten, Ordering::AcqRel) < forgotten {
            true => self.engine.forget(),
            false => Ok(()),
        }
    }

    /// Keys with a time of expiry not after `now_ms`, with the revision that set it.
    pub(crate) fn expired(&self, now_ms: u64, limit: usize) -> Result<Vec<(Bytes, Revision)>, StorageError> {
        let mut found = Vec::new();
        let view = self.view();
        let mut it = view.all(cf::EXPIRY, Reading::Some);
        while let Some((encoded, seen)) = it.item() {
            let (at, key) = keys::parse_expiry(encoded).ok_or_else(|| damaged("expiry"))?;
            if at > now_ms || found.len() >= limit {
                break;
            }
            found.push((key, codec::decode(seen)?));
            it.next();
        }
        it.finish()?;
        Ok(found)
    }

    /// Changes a record behind everybody's back.
    #[cfg(test)]
    pub(crate) fn tamper(&self, key: &[u8]) {
        let mut record = self.record(key).expect("readable").expect("there");
        record.value = Bytes::from_static(b"tampered");
        let mut batch = self.batch();
        batch.put(cf::LIVE, key, codec::encode(&record));
        self.write_batch(batch).expect("writable");
    }

    /// Marks the state as one that the next version wrote.
    #[cfg(test)]
    pub(crate) fn forge_newer(&self) {
        let mut applied = codec::encode(&self.applied().expect("readable"));
        applied[0] += 1;
        let mut batch = self.batch();
        batch.put(cf::META, APPLIED, applied);
        self.write_batch(batch).expect("writable");
        self.flush().expect("writable");
    }

    /// Adds a part to a closed state that only the next version knows.
    #[cfg(test)]
    pub(crate) fn forge_part(path: &Path) {
        super::engine::add_family(path, "later");
    }

    /// Bytes of all files of the database and its memory tables.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.engine.measure(&cf::ALL, Measure::Bytes)
    }
}

/// What a change does to the families. The buffer saves an allocation for each record.
fn write_change(batch: &mut Batch<'_>, buffer: &mut Vec<u8>, change: &Change) {
    let mut put = |batch: &mut Batch<'_>, family, key: &[u8], record: &dyn Fn(&mut Vec<u8>)| {
        record(buffer);
        batch.put(family, key, &*buffer);
    };
    let (key, revision) = (&change.key, change.revision.to_be_bytes());
    if let Some(before) = &change.before {
        let ended = keys::superseded(key, change.revision);
        put(batch, cf::SUPERSEDED, &ended, &|out| codec::encode_into(out, &before.mod_revision));
        put(batch, cf::FORMER, &revision, &|out| codec::encode_into(out, before));
        if let Some(at) = before.expires_at_ms {
            batch.delete(cf::EXPIRY, keys::expiry_key(at, key));
        }
    }
    match &change.after {
        Some(after) => {
            put(batch, cf::LIVE, key, &|out| codec::encode_into(out, after));
            if let Some(at) = after.expires_at_ms {
                let expiry = keys::expiry_key(at, key);
                put(batch, cf::EXPIRY, &expiry, &|out| codec::encode_into(out, &after.mod_revision));
            }
        }
        None => batch.delete(cf::LIVE, key),
    }
    let (deleted, replaced) = (change.after.is_none(), change.before.is_some());
    let event = EventRecord { key: key.clone(), deleted, replaced, more: change.more };
    put(batch, cf::EVENTS, &revision, &|out| codec::encode_into(out, &event));
    if let Some(bucket) = keys::bucket(key) {
        batch.put(cf::BUCKETS, keys::bucket_key(bucket, change.revision), b"");
    }
}

impl View<'_> {
    /// A single record.
    pub(super) fn meta<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StorageError> {
        match self.get(cf::META, key)? {
            Some(bytes) => Ok(Some(codec::decode(&bytes)?)),
            None => Ok(None),
        }
    }

    /// How far the state is applied, as this view sees it.
    pub(super) fn applied(&self) -> Result<AppliedRecord, StorageError> {
        Ok(self.meta(APPLIED)?.unwrap_or_default())
    }
}

impl Base for StateDb {
    type Error = StorageError;

    fn record(&self, key: &[u8]) -> Result<Option<Record>, StorageError> {
        match self.engine.get(cf::LIVE, key)? {
            Some(bytes) => Ok(Some(codec::decode(&bytes)?)),
            None => Ok(None),
        }
    }
}

impl Drop for StateDb {
    fn drop(&mut self) {
        if self.remove.load(Ordering::Acquire) {
            self.engine.remove(&self.path);
        }
    }
}

pub(super) fn damaged(what: &str) -> StorageError {
    StorageError::Damaged(format!("malformed key in {what}"))
}
