//! Replaying history for watches that are not at the newest revision.

use super::engine::{Reading, View};
use super::read::former;
use super::state::{EventRecord, StateDb, cf, damaged};
use super::{StorageError, keys};
use crate::codec;
use crate::machine::tombstone;
use crate::types::{Event, KeyRange, Revision};

/// A piece of history.
pub(crate) enum Replay {
    /// Events of the range, and the revision up to which there are no others.
    Events {
        /// Everything up to this revision is included.
        through: Revision,
        /// In order of revision.
        events: Vec<Event>,
    },
    /// The beginning is gone.
    Compacted(Revision),
}

/// How much one piece may hold; a transaction is never split, so it can be exceeded by one.
const MAX_EVENTS: usize = 500;
const MAX_BYTES: usize = 4 << 20;
const MAX_SCANNED: usize = 20_000;

struct Piece {
    events: Vec<Event>,
    bytes: usize,
    scanned: usize,
}

impl Piece {
    fn full(&self) -> bool {
        self.events.len() >= MAX_EVENTS || self.bytes >= MAX_BYTES || self.scanned >= MAX_SCANNED
    }
}

impl StateDb {
    /// Events of a range from a revision on.
    pub(crate) fn replay(&self, range: &KeyRange, from: Revision) -> Result<Replay, StorageError> {
        let view = self.view();
        let meta = view.applied()?.meta;
        if from < meta.compacted {
            return Ok(Replay::Compacted(meta.compacted));
        }
        let mut piece = Piece { events: Vec::new(), bytes: 0, scanned: 0 };
        let through = self.replay_piece(&view, range, from, &mut piece);
        // What was asked for may have been forgotten meanwhile, and then the answer is worth nothing.
        if self.floor() > from {
            return Ok(Replay::Compacted(self.floor()));
        }
        Ok(Replay::Events { through: through?.unwrap_or(meta.revision), events: piece.events })
    }

    /// Returns the revision up to which the piece goes, if that is not the end.
    fn replay_piece(
        &self,
        view: &View<'_>,
        range: &KeyRange,
        from: Revision,
        piece: &mut Piece,
    ) -> Result<Option<Revision>, StorageError> {
        let stopped = match keys::range_bucket(range) {
            Some(bucket) => self.replay_bucket(view, range, bucket, from, piece)?,
            None => self.replay_all(view, range, from, piece)?,
        };
        // A piece that ran full may have stopped inside a transaction: finish that.
        stopped.map(|last| self.finish_transaction(view, range, last, piece)).transpose()
    }

    /// Returns the revision at which the piece ran full, if it did.
    fn replay_bucket(
        &self,
        view: &View<'_>,
        range: &KeyRange,
        bucket: &[u8],
        from: Revision,
        piece: &mut Piece,
    ) -> Result<Option<Revision>, StorageError> {
        let bounds = (keys::bucket_key(bucket, from), Some(keys::bucket_key(bucket, Revision::MAX)));
        let mut it = view.scan(cf::BUCKETS, bounds, Reading::Some);
        while let Some(encoded) = it.key() {
            let revision = keys::trailing_revision(encoded).ok_or_else(|| damaged("buckets"))?;
            let Some(bytes) = view.get(cf::EVENTS, &revision.to_be_bytes())? else {
                return Err(StorageError::Damaged(format!("no event for revision {revision}")));
            };
            let event: EventRecord = codec::decode(&bytes)?;
            self.replay_event(view, range, revision, event, piece)?;
            if piece.full() {
                return Ok(Some(revision));
            }
            it.next();
        }
        it.finish()?;
        Ok(None)
    }

    fn replay_all(
        &self,
        view: &View<'_>,
        range: &KeyRange,
        from: Revision,
        piece: &mut Piece,
    ) -> Result<Option<Revision>, StorageError> {
        let mut it = view.scan(cf::EVENTS, (from.to_be_bytes().to_vec(), None), Reading::Some);
        while let Some((encoded, bytes)) = it.item() {
            let revision = keys::trailing_revision(encoded).ok_or_else(|| damaged("events"))?;
            let event: EventRecord = codec::decode(bytes)?;
            self.replay_event(view, range, revision, event, piece)?;
            if piece.full() {
                return Ok(Some(revision));
            }
            it.next();
        }
        it.finish()?;
        Ok(None)
    }

    fn finish_transaction(
        &self,
        view: &View<'_>,
        range: &KeyRange,
        last: Revision,
        piece: &mut Piece,
    ) -> Result<Revision, StorageError> {
        let mut through = last;
        let mut it = view.scan(cf::EVENTS, (last.to_be_bytes().to_vec(), None), Reading::Some);
        while let Some((encoded, bytes)) = it.item() {
            let revision = keys::trailing_revision(encoded).ok_or_else(|| damaged("events"))?;
            let event: EventRecord = codec::decode(bytes)?;
            let more = event.more;
            if revision > last {
                self.replay_event(view, range, revision, event, piece)?;
            }
            through = revision;
            if !more {
                break;
            }
            it.next();
        }
        it.finish()?;
        Ok(through)
    }

    fn replay_event(
        &self,
        view: &View<'_>,
        range: &KeyRange,
        revision: Revision,
        event: EventRecord,
        piece: &mut Piece,
    ) -> Result<(), StorageError> {
        piece.scanned += 1;
        if !keys::contains(range, &event.key) {
            return Ok(());
        }
        let previous = event.replaced.then(|| former(view, revision)).transpose()?;
        let now = match event.deleted {
            true => None,
            // What the key held from this revision on is what ended at the next change, or what it holds still.
            false => match self.record_before(view, &event.key, revision + 1)? {
                Some(record) if record.mod_revision == revision => Some(record),
                _ => return Err(StorageError::Damaged(format!("no record for revision {revision}"))),
            },
        };
        let key = event.key;
        let kv = match &now {
            Some(record) => record.key_value(key.clone()),
            None => tombstone(key.clone(), revision),
        };
        let previous = previous.map(|r| r.key_value(key));
        piece.bytes += kv.key.len() + kv.value.len() + previous.as_ref().map_or(0, |p| p.value.len());
        piece.events.push(Event { kv, previous, deleted: event.deleted });
        Ok(())
    }
}
