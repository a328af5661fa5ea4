//! The state as a stream of records at one revision, and a state made of such a stream.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::engine::Reading;
use super::records::{AppliedRecord, MembersRecord};
use super::state::{ANCESTORS, LINEAGE, MEMBERS, StateDb, cf};
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
    /// Shows everything that holds at one moment, records in the order of their keys; tells whether it came to the end.
    /// Writes go on meanwhile.
    pub(crate) fn export(&self, to: &mut impl Export) -> Result<bool, StorageError> {
        let view = self.view();
        let exported = Exported {
            applied: view.applied()?,
            members: view.meta(MEMBERS)?.unwrap_or_default(),
            lineage: view.meta(LINEAGE)?.unwrap_or_default(),
            ancestors: view.meta(ANCESTORS)?.unwrap_or_default(),
        };
        if to.begin(exported).is_break() {
            return Ok(false);
        }
        let mut it = view.all(cf::LIVE, Reading::Ahead);
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
        it.finish()?;
        Ok(true)
    }

    /// Writes records of a backup into a new database; tells the sum of their hashes.
    pub(crate) fn import(&self, records: Vec<BackupRecord>) -> Result<u128, StorageError> {
        let (mut batch, mut sum) = (self.batch(), 0u128);
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
                batch.put(cf::EXPIRY, keys::expiry_key(at, &found.key), seen);
            }
            sum = sum.wrapping_add(Digest::of(&found.key, &record));
            batch.put(cf::LIVE, &found.key, codec::encode(&record));
        }
        self.write_batch(batch)?;
        Ok(sum)
    }

    /// The lineages before this one, oldest first.
    pub(crate) fn ancestors(&self) -> Result<Vec<Ancestor>, StorageError> {
        self.view().meta(ANCESTORS).map(Option::unwrap_or_default)
    }
}
