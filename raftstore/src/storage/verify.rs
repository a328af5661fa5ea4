//! Reading the whole state and comparing it with what apply noted. RocksDB compares the checksum of every block that is
//! read; the hash of the live records tells whether they are the ones that apply wrote.

use super::engine::{Cursor, Family, Reading, View};
use super::records::AppliedRecord;
use super::state::{EventRecord, StateDb, cf, damaged};
use super::{StorageError, keys};
use crate::codec;
use crate::machine::Record;
use crate::machine::digest::Digest;
use crate::types::Revision;

/// Called with the bytes of each row; the reading ends early if it answers false.
pub(crate) type Pace<'a> = &'a mut dyn FnMut(usize) -> bool;

fn rows_from<'a>(view: &'a View<'_>, family: Family, revision: Revision) -> Cursor<'a> {
    view.scan(family, (revision.to_be_bytes().to_vec(), None), Reading::All)
}

impl StateDb {
    /// Reads everything; answers how far the state was applied that was read, or nothing if it was told to end early.
    pub(crate) fn verify(&self, pace: Pace<'_>) -> Result<Option<AppliedRecord>, StorageError> {
        let view = self.view();
        let applied = view.applied()?;
        let Some(live) = self.sum_live(&view, pace)? else { return Ok(None) };
        if live != applied.meta.digest.live {
            let (index, noted) = (applied.index(), applied.meta.digest.live);
            return Err(StorageError::Damaged(format!(
                "the records on disk do not have the hash that was noted at log index {index}: {live:032x}, not {noted:032x}"
            )));
        }
        if !self.verify_events(&view, &applied, pace)? {
            return Ok(None);
        }
        for family in [cf::META, cf::SUPERSEDED, cf::BUCKETS, cf::EXPIRY] {
            let mut it = view.all(family, Reading::All);
            while let Some((key, value)) = it.item() {
                if family == cf::SUPERSEDED {
                    keys::parse_superseded(key).ok_or_else(|| damaged("superseded"))?;
                    codec::decode::<Revision>(value)?;
                }
                if !pace(key.len() + value.len()) {
                    return Ok(None);
                }
                it.next();
            }
            it.finish()?;
        }
        Ok(Some(applied))
    }

    /// The hash of the live records, computed from them.
    #[cfg(test)]
    pub(crate) fn live_hash(&self) -> Result<u128, StorageError> {
        Ok(self.sum_live(&self.view(), &mut |_| true)?.unwrap_or_default())
    }

    fn sum_live(&self, view: &View<'_>, pace: Pace<'_>) -> Result<Option<u128>, StorageError> {
        let mut sum = 0u128;
        let mut it = view.all(cf::LIVE, Reading::All);
        while let Some((key, value)) = it.item() {
            sum = sum.wrapping_add(Digest::of(key, &codec::decode::<Record>(value)?));
            if !pace(key.len() + value.len()) {
                return Ok(None);
            }
            it.next();
        }
        it.finish()?;
        Ok(Some(sum))
    }

    /// What can be asked for has one event for each revision, and the record that it ended.
    fn verify_events(&self, view: &View<'_>, applied: &AppliedRecord, pace: Pace<'_>) -> Result<bool, StorageError> {
        let meta = &applied.meta;
        let from = meta.compacted.max(1) + 1;
        let (mut it, mut former) = (rows_from(view, cf::EVENTS, from), rows_from(view, cf::FORMER, from));
        // Nothing happened at revision 1, what is compacted may or may not be gone, and what was forgotten before these
        // cursors were there may be gone too.
        let mut next = from.max(self.floor() + 1);
        it.seek(next.to_be_bytes());
        former.seek(next.to_be_bytes());
        while let Some((key, value)) = it.item() {
            let event: EventRecord = codec::decode(value)?;
            let revision = keys::trailing_revision(key).ok_or_else(|| damaged("events"))?;
            if revision != next {
                return Err(StorageError::Damaged(format!("the event of revision {next} is missing")));
            }
            let mut read = key.len() + value.len();
            if event.replaced != (former.key() == Some(key)) {
                // A cursor that could not be read ends, too.
                former.finish()?;
                return Err(StorageError::Damaged(format!(
                    "the former record of revision {next} is missing, or too much"
                )));
            }
            if event.replaced {
                let value = former.value().unwrap_or_default();
                codec::decode::<Record>(value)?;
                read += value.len();
                former.next();
            }
            next += 1;
            if !pace(read) {
                return Ok(false);
            }
            it.next();
        }
        it.finish()?;
        former.finish()?;
        if next <= meta.revision {
            return Err(StorageError::Damaged(format!("the events end before revision {next}")));
        }
        Ok(true)
    }
}
