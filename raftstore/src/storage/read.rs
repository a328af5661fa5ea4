//! Reading ranges, at the newest or an older revision. A read sees one moment throughout.

use bytes::Bytes;

use super::engine::{Cursor, Reading, View};
use super::state::{StateDb, cf, damaged};
use super::{StorageError, keys};
use crate::codec;
use crate::machine::Record;
use crate::types::{KeyRange, KeyValue, RangeResponse, Revision};

/// Answer of a read.
pub(crate) enum Read {
    /// The range.
    Found(RangeResponse),
    /// The revision is gone.
    Compacted(Revision),
    /// The revision is not there yet.
    Future(Revision),
}

/// How much of a range is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// At most this many keys; 0 is no limit.
    pub(crate) limit: usize,
    /// Only the beginning of the range, with values of about this size together; what follows is not counted.
    pub(crate) piece: Option<usize>,
    /// Without the values.
    pub(crate) keys_only: bool,
}

/// Collects an answer within its limit.
struct Answer {
    wanted: Wanted,
    kvs: Vec<KeyValue>,
    bytes: usize,
    count: u64,
}

impl Answer {
    fn wants_more(&self) -> bool {
        let Wanted { limit, piece, .. } = self.wanted;
        (limit == 0 || self.kvs.len() < limit) && piece.is_none_or(|most| self.bytes < most)
    }

    /// Whether nothing is wanted of the rest, not even its number; one key more tells that there is a rest.
    fn is_done(&self) -> bool {
        self.wanted.piece.is_some() && self.count > self.kvs.len() as u64
    }

    fn add(&mut self, key: &[u8], record: impl FnOnce() -> Result<Record, StorageError>) -> Result<(), StorageError> {
        if self.wants_more() {
            let mut kv = record()?.key_value(Bytes::copy_from_slice(key));
            if self.wanted.keys_only {
                kv.value = Bytes::new();
            }
            self.bytes += kv.key.len() + kv.value.len();
            self.kvs.push(kv);
        }
        self.count += 1;
        Ok(())
    }
}

impl StateDb {
    /// Reads a range at a revision, or at the newest.
    pub(crate) fn range(
        &self,
        range: &KeyRange,
        revision: Option<Revision>,
        wanted: Wanted,
    ) -> Result<Read, StorageError> {
        let view = self.view();
        let meta = view.applied()?.meta;
        let at = revision.unwrap_or(meta.revision);
        if at > meta.revision {
            return Ok(Read::Future(meta.revision));
        }
        if at < meta.compacted {
            return Ok(Read::Compacted(meta.compacted));
        }
        let mut answer = Answer { wanted, kvs: Vec::new(), bytes: 0, count: 0 };
        match range {
            KeyRange::Key(key) if at == meta.revision => self.read_key(&view, key, &mut answer)?,
            _ if at == meta.revision => self.read_latest(&view, range, &mut answer)?,
            _ => {
                let read = self.read_old(&view, range, at, &mut answer);
                // What was asked for may have been forgotten meanwhile, and then the answer is worth nothing.
                if self.floor() > at {
                    return Ok(Read::Compacted(self.floor()));
                }
                read?;
            }
        }
        let more = answer.count > answer.kvs.len() as u64;
        Ok(Read::Found(RangeResponse { revision: at, kvs: answer.kvs, more, count: answer.count }))
    }

    fn read_key(&self, view: &View<'_>, key: &[u8], answer: &mut Answer) -> Result<(), StorageError> {
        match view.get(cf::LIVE, key)? {
            Some(bytes) => answer.add(key, || Ok(codec::decode(&bytes)?)),
            None => Ok(()),
        }
    }

    fn read_latest(&self, view: &View<'_>, range: &KeyRange, answer: &mut Answer) -> Result<(), StorageError> {
        let mut live = view.scan(cf::LIVE, keys::bounds(range), Reading::Some);
        while !answer.is_done()
            && let Some((key, bytes)) = live.item()
        {
            answer.add(key, || Ok(codec::decode(bytes)?))?;
            live.next();
        }
        live.finish()
    }

    /// Merges live keys with those that were superseded after the revision. Of a key's former records, the one that
    /// held at the revision is the first that ended after it.
    fn read_old(
        &self,
        view: &View<'_>,
        range: &KeyRange,
        at: Revision,
        answer: &mut Answer,
    ) -> Result<(), StorageError> {
        let (start, end) = keys::bounds(range);
        let old_bounds = (keys::superseded_bound(&start), end.as_deref().map(keys::superseded_bound));
        let mut live = view.scan(cf::LIVE, (start, end), Reading::Some);
        let mut old = view.scan(cf::SUPERSEDED, old_bounds, Reading::Some);
        while !answer.is_done() {
            let next_live = live.key().map(<[u8]>::to_vec);
            let next_old = match old.key() {
                Some(encoded) => Some(keys::parse_superseded(encoded).ok_or_else(|| damaged("superseded"))?.0),
                None => None,
            };
            let key = match (next_live, next_old) {
                (None, None) => break,
                (Some(key), None) | (None, Some(key)) => key,
                (Some(l), Some(o)) => l.min(o),
            };
            let mut held = None;
            if live.key() == Some(&key[..]) {
                let record: Record = codec::decode(live.value().unwrap_or_default())?;
                held = (record.mod_revision <= at).then_some(record);
                live.next();
            }
            let ended = skip_former(&mut old, &key, at)?;
            if let Some(record) = held {
                answer.add(&key, || Ok(record))?;
            } else if let Some(ended) = ended {
                answer.add(&key, || former(view, ended))?;
            }
        }
        live.finish()?;
        old.finish()
    }

    /// The record that a key had right before `ended` or, if it did not change since, has now.
    pub(super) fn record_before(
        &self,
        view: &View<'_>,
        key: &[u8],
        ended: Revision,
    ) -> Result<Option<Record>, StorageError> {
        let mut old = view.scan(cf::SUPERSEDED, (keys::superseded_prefix(key), None), Reading::Some);
        if let Some(ended) = skip_former(&mut old, key, ended - 1)? {
            return former(view, ended).map(Some);
        }
        match view.get(cf::LIVE, key)? {
            Some(bytes) => Ok(Some(codec::decode::<Record>(&bytes)?).filter(|r| r.mod_revision < ended)),
            None => Ok(None),
        }
    }
}

/// The record that ended at a revision.
pub(super) fn former(view: &View<'_>, ended: Revision) -> Result<Record, StorageError> {
    match view.get(cf::FORMER, &ended.to_be_bytes())? {
        Some(bytes) => Ok(codec::decode(&bytes)?),
        None => Err(StorageError::Damaged(format!("no former record for revision {ended}"))),
    }
}

/// Finds when the key's former record ended that held at the revision, and leaves the iterator at the next key.
fn skip_former(old: &mut Cursor<'_>, key: &[u8], at: Revision) -> Result<Option<Revision>, StorageError> {
    let prefix = keys::superseded_prefix(key);
    if !old.key().is_some_and(|encoded| encoded.starts_with(&prefix)) {
        return Ok(None);
    }
    old.seek(keys::superseded(key, at + 1));
    let mut found = None;
    if let Some((encoded, bytes)) = old.item()
        && encoded.starts_with(&prefix)
    {
        let ended = keys::trailing_revision(encoded).ok_or_else(|| damaged("superseded"))?;
        found = (codec::decode::<Revision>(bytes)? <= at).then_some(ended);
    }
    old.seek(keys::superseded(key, Revision::MAX));
    while old.key().is_some_and(|encoded| encoded.starts_with(&prefix)) {
        old.next();
    }
    Ok(found)
}
