//! Physical removal of compacted history. Each member does it for itself, in small batches beside the writes: what
//! the group agrees on is only from where on history may be asked for.

use super::engine::Reading;
use super::state::{EventRecord, StateDb, cf, damaged};
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
        let view = self.view();
        let bounds = (from.to_be_bytes().to_vec(), Some(compacted.to_be_bytes().to_vec()));
        let mut it = view.scan(cf::EVENTS, bounds, Reading::Some);
        let mut batch = self.batch();
        let mut removed: usize = 0;
        let mut next = compacted;
        while let Some((encoded, bytes)) = it.item() {
            let revision: Revision = keys::trailing_revision(encoded).ok_or_else(|| damaged("events"))?;
            if removed == BATCH {
                next = revision;
                break;
            }
            let event: EventRecord = codec::decode(bytes)?;
            batch.delete(cf::SUPERSEDED, keys::superseded(&event.key, revision));
            if let Some(bucket) = keys::bucket(&event.key) {
                batch.delete(cf::BUCKETS, keys::bucket_key(bucket, revision));
            }
            removed += 1;
            it.next();
        }
        it.finish()?;
        batch.delete_range(cf::EVENTS, from.to_be_bytes(), next.to_be_bytes());
        self.put_collected(&mut batch, next);
        self.write_batch(batch)?;
        Ok(Collected { revisions: removed as u64, more: next < compacted })
    }
}
