//! Physical removal of compacted history. Each member does it for itself, in small batches beside the writes: what
//! the group agrees on is only from where on history may be asked for.

use rocksdb::WriteBatch;

use super::state::{EventRecord, StateDb, cf, damaged, finish};
use super::{StorageError, keys};
use crate::codec;
use crate::types::Revision;

/// Revisions removed in one batch.
const BATCH: usize = 2_000;

/// What one step has removed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Collected {
    pub(crate) revisions: u64,
    /// Whether more is left to do.
    pub(crate) more: bool,
}

impl StateDb {
    /// Removes one batch of history below the compaction revision.
    pub(crate) fn collect(&self) -> Result<Collected, StorageError> {
        let compacted = self.applied()?.meta.compacted;
        let from = self.collected()?;
        if from >= compacted {
            return Ok(Collected::default());
        }
        let snapshot = self.db().snapshot();
        let bounds = (from.to_be_bytes().to_vec(), Some(compacted.to_be_bytes().to_vec()));
        let mut it = self.scan(&snapshot, cf::EVENTS, bounds);
        let mut batch = WriteBatch::default();
        let mut removed: usize = 0;
        let mut next = compacted;
        while let Some((encoded, bytes)) = it.item() {
            let revision: Revision = keys::trailing_revision(encoded).ok_or_else(|| damaged("events"))?;
            if removed == BATCH {
                next = revision;
                break;
            }
            let event: EventRecord = codec::decode(bytes)?;
            batch.delete_cf(self.cf(cf::SUPERSEDED), keys::superseded(&event.key, revision));
            if let Some(bucket) = keys::bucket(&event.key) {
                batch.delete_cf(self.cf(cf::BUCKETS), keys::bucket_key(bucket, revision));
            }
            removed += 1;
            it.next();
        }
        finish(&it)?;
        batch.delete_range_cf(self.cf(cf::EVENTS), from.to_be_bytes(), next.to_be_bytes());
        self.put_collected(&mut batch, next);
        self.write_batch(batch)?;
        Ok(Collected { revisions: removed as u64, more: next < compacted })
    }
}
