//! The state as a stream of records at one revision, and a state made of such a stream.

use std::ops::ControlFlow;

use bytes::Bytes;
use rocksdb::{ReadOptions, Snapshot, WriteBatch};
use serde::de::DeserializeOwned;

use super::records::{AppliedRecord, MembersRecord};
use super::state::{ANCESTORS, LINEAGE, MEMBERS, StateDb, cf, finish};
use super::{StorageError, keys};
use crate::backup::{Ancestor, BackupRecord};
use crate::codec;
use crate::machine::Record;
use crate::machine::digest::Digest;

/// What goes with the records.
pub(crate) struct Exported {
    pub(crate) applied: AppliedRecord,
    pub(crate) members: MembersRecord,
    pub(crate) lineage: String,
    pub(crate) ancestors: Vec<Ancestor>,
}

/// Whoever takes what is exported, until it has had enough.
pub(crate) trait Export {
    /// What comes before the records.
    fn begin(&mut self, exported: Exported) -> ControlFlow<()>;
    /// The next record.
    fn record(&mut self, record: &BackupRecord) -> ControlFlow<()>;
}

impl StateDb {
    fn meta_in<T: DeserializeOwned>(&self, snapshot: &Snapshot<'_>, key: &[u8]) -> Result<Option<T>, StorageError> {
        match snapshot.get_pinned_cf(self.cf(cf::META), key)? {
            Some(bytes) => Ok(Some(codec::decode(&bytes)?)),
            None => Ok(None),
        }
    }

    /// Shows everything that holds at one moment, records in the order of their keys; tells whether it came to the end.
    /// Writes go on meanwhile.
    pub(crate) fn export(&self, to: &mut impl Export) -> Result<bool, StorageError> {
        let snapshot = self.db().snapshot();
        let exported = Exported {
            applied: self.applied_in(&snapshot)?,
            members: self.meta_in(&snapshot, MEMBERS)?.unwrap_or_default(),
            lineage: self.meta_in(&snapshot, LINEAGE)?.unwrap_or_default(),
            ancestors: self.meta_in(&snapshot, ANCESTORS)?.unwrap_or_default(),
        };
        if to.begin(exported).is_break() {
            return Ok(false);
        }
        let mut options = ReadOptions::default();
        // What is read once must not push out what is read often.
        options.fill_cache(false);
        options.set_readahead_size(2 << 20);
        let mut it = snapshot.raw_iterator_cf_opt(self.cf(cf::LIVE), options);
        it.seek_to_first();
        while let Some((key, bytes)) = it.item() {
            let record: Record = codec::decode(bytes)?;
            let record = BackupRecord {
                key: Bytes::copy_from_slice(key),
                create_revision: record.create_revision,
                mod_revision: record.mod_revision,
                version: record.version,
                expires_at_ms: record.expires_at_ms,
                value: record.value,
            };
            if to.record(&record).is_break() {
                return Ok(false);
            }
            it.next();
        }
        finish(&it)?;
        Ok(true)
    }

    /// Writes records of a backup into a new database; tells the sum of their hashes.
    pub(crate) fn import(&self, records: Vec<BackupRecord>) -> Result<u128, StorageError> {
        let (mut batch, mut sum) = (WriteBatch::default(), 0u128);
        for found in records {
            let record = Record {
                create_revision: found.create_revision,
                mod_revision: found.mod_revision,
                version: found.version,
                expires_at_ms: found.expires_at_ms,
                value: found.value,
            };
            if let Some(at) = record.expires_at_ms {
                let seen = codec::encode(&record.mod_revision);
                batch.put_cf(self.cf(cf::EXPIRY), keys::expiry_key(at, &found.key), seen);
            }
            sum = sum.wrapping_add(Digest::of(&found.key, &record));
            batch.put_cf(self.cf(cf::LIVE), &found.key, codec::encode(&record));
        }
        self.write_batch(batch)?;
        Ok(sum)
    }

    /// The lineages before this one, oldest first.
    pub(crate) fn ancestors(&self) -> Result<Vec<Ancestor>, StorageError> {
        self.meta_in(&self.db().snapshot(), ANCESTORS).map(Option::unwrap_or_default)
    }
}
