//! The applied state: latest records, history, and how far it is applied.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBRawIterator, FlushOptions, Options, WriteBatch, WriteOptions,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::records::{AppliedRecord, MembersRecord};
use super::{StorageError, keys};
use crate::codec;
use crate::machine::{Base, Change, Record};
use crate::types::Revision;

/// Column families.
pub(crate) mod cf {
    /// Single records: how far applied, members, lineage.
    pub(crate) const META: &str = "meta";
    /// Latest record of each key.
    pub(crate) const LIVE: &str = "live";
    /// Former records, by key and the revision that ended them.
    pub(crate) const SUPERSEDED: &str = "superseded";
    /// Which key each revision changed.
    pub(crate) const EVENTS: &str = "events";
    /// Revisions by bucket of keys.
    pub(crate) const BUCKETS: &str = "buckets";
    /// Records that expire, by time.
    pub(crate) const EXPIRY: &str = "expiry";
    /// All of them.
    pub(crate) const ALL: [&str; 6] = [META, LIVE, SUPERSEDED, EVENTS, BUCKETS, EXPIRY];
}

pub(super) const APPLIED: &[u8] = b"applied";
pub(super) const MEMBERS: &[u8] = b"members";
pub(super) const LINEAGE: &[u8] = b"lineage";
/// The lineages before this one.
pub(super) const ANCESTORS: &[u8] = b"ancestors";
const COLLECTED: &[u8] = b"collected";

/// What a revision did.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EventRecord {
    pub(super) key: Vec<u8>,
    pub(super) deleted: bool,
    /// The next revision belongs to the same transaction.
    pub(super) more: bool,
}

/// A database of applied state.
pub(crate) struct StateDb {
    db: DB,
    path: PathBuf,
    remove: AtomicBool,
}

fn options(create: bool) -> Options {
    let mut options = Options::default();
    // A database that should be there and is not must not be taken for an empty one.
    options.create_if_missing(create);
    options.create_missing_column_families(create);
    options.set_paranoid_checks(true);
    // Without a write-ahead log, a crash must not leave one column family newer than another.
    options.set_atomic_flush(true);
    options.set_max_background_jobs(2);
    // RocksDB's own measure of memory: what is not flushed yet is in it.
    options.set_db_write_buffer_size(24 << 20);
    options.set_max_open_files(256);
    options.set_keep_log_file_num(2);
    options.set_stats_dump_period_sec(0);
    options
}

fn column_family(name: &str) -> ColumnFamilyDescriptor {
    let mut options = Options::default();
    options.set_write_buffer_size(12 << 20);
    ColumnFamilyDescriptor::new(name, options)
}

impl StateDb {
    /// Opens a database, or creates it.
    pub(crate) fn open(path: &Path, create: bool) -> Result<Self, StorageError> {
        let db = DB::open_cf_descriptors(&options(create), path, cf::ALL.map(column_family))?;
        Ok(Self { db, path: path.to_owned(), remove: AtomicBool::new(false) })
    }

    /// Removes the directory once nobody uses the database any more.
    pub(crate) fn remove_when_unused(&self) {
        self.remove.store(true, Ordering::Release);
    }

    pub(super) fn db(&self) -> &DB {
        &self.db
    }

    pub(super) fn cf(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("column families are opened together")
    }

    fn meta<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StorageError> {
        match self.db.get_pinned_cf(self.cf(cf::META), key)? {
            Some(bytes) => Ok(Some(codec::decode(&bytes)?)),
            None => Ok(None),
        }
    }

    /// How far the state is applied.
    pub(crate) fn applied(&self) -> Result<AppliedRecord, StorageError> {
        Ok(self.meta(APPLIED)?.unwrap_or_default())
    }

    /// How far the state is applied, as a snapshot of the database sees it.
    pub(super) fn applied_in(&self, snapshot: &rocksdb::Snapshot<'_>) -> Result<AppliedRecord, StorageError> {
        match snapshot.get_pinned_cf(self.cf(cf::META), APPLIED)? {
            Some(bytes) => Ok(codec::decode(&bytes)?),
            None => Ok(AppliedRecord::default()),
        }
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
        let mut batch = WriteBatch::default();
        batch.put_cf(self.cf(cf::META), LINEAGE, codec::encode(lineage));
        self.write_batch(batch)?;
        self.flush()
    }

    /// Up to where compacted history is physically gone.
    pub(super) fn collected(&self) -> Result<Revision, StorageError> {
        Ok(self.meta(COLLECTED)?.unwrap_or(0))
    }

    pub(super) fn put_collected(&self, batch: &mut WriteBatch, revision: Revision) {
        batch.put_cf(self.cf(cf::META), COLLECTED, codec::encode(&revision));
    }

    pub(super) fn write_batch(&self, batch: WriteBatch) -> Result<(), StorageError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        Ok(self.db.write_opt(batch, &options)?)
    }

    /// Writes what a batch of entries changed, together with how far it is applied now.
    pub(crate) fn write(
        &self,
        changes: &[Change],
        applied: &AppliedRecord,
        members: Option<&MembersRecord>,
    ) -> Result<(), StorageError> {
        let mut batch = WriteBatch::default();
        for change in changes {
            self.write_change(&mut batch, change);
        }
        batch.put_cf(self.cf(cf::META), APPLIED, codec::encode(applied));
        if let Some(members) = members {
            batch.put_cf(self.cf(cf::META), MEMBERS, codec::encode(members));
        }
        self.write_batch(batch)
    }

    fn write_change(&self, batch: &mut WriteBatch, change: &Change) {
        let key = &change.key;
        if let Some(before) = &change.before {
            batch.put_cf(self.cf(cf::SUPERSEDED), keys::superseded(key, change.revision), codec::encode(before));
            if let Some(at) = before.expires_at_ms {
                batch.delete_cf(self.cf(cf::EXPIRY), keys::expiry_key(at, key));
            }
        }
        match &change.after {
            Some(after) => {
                batch.put_cf(self.cf(cf::LIVE), key, codec::encode(after));
                if let Some(at) = after.expires_at_ms {
                    let seen = codec::encode(&after.mod_revision);
                    batch.put_cf(self.cf(cf::EXPIRY), keys::expiry_key(at, key), seen);
                }
            }
            None => batch.delete_cf(self.cf(cf::LIVE), key),
        }
        let event = EventRecord { key: key.to_vec(), deleted: change.after.is_none(), more: change.more };
        batch.put_cf(self.cf(cf::EVENTS), change.revision.to_be_bytes(), codec::encode(&event));
        if let Some(bucket) = keys::bucket(key) {
            batch.put_cf(self.cf(cf::BUCKETS), keys::bucket_key(bucket, change.revision), b"");
        }
    }

    /// Makes everything written so far durable; tells up to which log index the state is durable now.
    pub(crate) fn flush(&self) -> Result<(), StorageError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let families: Vec<&ColumnFamily> = cf::ALL.iter().map(|name| self.cf(name)).collect();
        Ok(self.db.flush_cfs_opt(&families, &options)?)
    }

    /// Keys with a time of expiry not after `now_ms`, with the revision that set it.
    pub(crate) fn expired(&self, now_ms: u64, limit: usize) -> Result<Vec<(bytes::Bytes, Revision)>, StorageError> {
        let mut found = Vec::new();
        let mut it = self.db.raw_iterator_cf(self.cf(cf::EXPIRY));
        it.seek_to_first();
        while let Some((encoded, seen)) = it.item() {
            let (at, key) = keys::parse_expiry(encoded).ok_or_else(|| damaged("expiry"))?;
            if at > now_ms || found.len() >= limit {
                break;
            }
            found.push((key, codec::decode(seen)?));
            it.next();
        }
        it.status()?;
        Ok(found)
    }

    /// Changes a record behind everybody's back.
    #[cfg(test)]
    pub(crate) fn tamper(&self, key: &[u8]) {
        let mut record = self.record(key).expect("readable").expect("there");
        record.value = bytes::Bytes::from_static(b"tampered");
        let mut batch = WriteBatch::default();
        batch.put_cf(self.cf(cf::LIVE), key, codec::encode(&record));
        self.write_batch(batch).expect("writable");
    }

    /// Bytes of all files of the database and its memory tables.
    pub(crate) fn size_bytes(&self) -> u64 {
        let of =
            |name: &str, what: &str| self.db.property_int_value_cf(self.cf(name), what).ok().flatten().unwrap_or(0);
        let each = |name: &&str| of(name, "rocksdb.total-sst-files-size") + of(name, "rocksdb.cur-size-all-mem-tables");
        cf::ALL.iter().map(each).sum()
    }
}

impl Base for StateDb {
    type Error = StorageError;

    fn record(&self, key: &[u8]) -> Result<Option<Record>, StorageError> {
        match self.db.get_pinned_cf(self.cf(cf::LIVE), key)? {
            Some(bytes) => Ok(Some(codec::decode(&bytes)?)),
            None => Ok(None),
        }
    }
}

impl Drop for StateDb {
    fn drop(&mut self) {
        if self.remove.load(Ordering::Acquire) {
            self.db.cancel_all_background_work(true);
            // The database still has the files open, which is no obstacle to unlinking them.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

pub(super) fn damaged(what: &str) -> StorageError {
    StorageError::Damaged(format!("malformed key in {what}"))
}

/// Ends an iteration with the iterator's error, if it had one.
pub(super) fn finish(it: &DBRawIterator<'_>) -> Result<(), StorageError> {
    Ok(it.status()?)
}
