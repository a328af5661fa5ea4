//! The replicated state machine as a pure function: latest records and a command in, changes and an outcome out.
//!
//! Nothing here reads a clock, draws random numbers or depends on the order of a map, so every member computes the
//! same. What is written where on disk is the business of `storage`.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::command::{Command, Outcome};
use crate::types::{Compare, Event, KeyValue, Op, OpResult, Revision, Txn, TxnResponse};

pub(crate) mod digest;
#[cfg(test)]
mod scenarios;

/// The newest feature level that this build understands.
pub const FEATURE_LEVEL: u32 = 1;

/// State of the store besides its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Newest revision.
    pub(crate) revision: Revision,
    /// Reads and watches below this one are refused.
    pub(crate) compacted: Revision,
    /// The id that the next new member gets.
    pub(crate) next_member: u64,
    /// Committed feature level.
    pub(crate) feature_level: u32,
    /// Hashes of the state.
    pub(crate) digest: digest::Digest,
}

impl Default for Meta {
    fn default() -> Self {
        // Member 1 is the one that bootstraps the group.
        Self { revision: 1, compacted: 0, next_member: 2, feature_level: 0, digest: Default::default() }
    }
}

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) create_revision: Revision,
    pub(crate) mod_revision: Revision,
    pub(crate) version: u64,
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) value: Bytes,
}

impl Record {
    pub(crate) fn key_value(&self, key: Bytes) -> KeyValue {
        KeyValue {
            key,
            value: self.value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
        }
    }
}

/// One change of one key. Changes of one batch are in order of revision, without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) key: Bytes,
    pub(crate) revision: Revision,
    pub(crate) before: Option<Record>,
    pub(crate) after: Option<Record>,
    /// Whether the next revision belongs to the same transaction.
    pub(crate) more: bool,
}

impl Change {
    pub(crate) fn event(&self) -> Event {
        let kv = match &self.after {
            Some(record) => record.key_value(self.key.clone()),
            None => tombstone(self.key.clone(), self.revision),
        };
        Event {
            kv,
            previous: self.before.as_ref().map(|r| r.key_value(self.key.clone())),
            deleted: self.after.is_none(),
        }
    }
}

/// What watchers are shown as the new state of a deleted key.
pub(crate) fn tombstone(key: Bytes, revision: Revision) -> KeyValue {
    KeyValue { key, value: Bytes::new(), create_revision: 0, mod_revision: revision, version: 0 }
}

/// The records as they are before a batch.
pub(crate) trait Base {
    type Error;
    fn record(&self, key: &[u8]) -> Result<Option<Record>, Self::Error>;
}

/// Why a command could not be applied. The member has to stop: to go on would be to diverge.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError<E> {
    #[error("the group uses feature level {0}, this build knows only level {1}")]
    FeatureLevel(u32, u32),
    #[error(transparent)]
    Base(#[from] E),
}

/// Applies a batch of commands on top of a base, which stays unchanged.
pub(crate) struct Applier<'a, B> {
    base: &'a B,
    overlay: HashMap<Bytes, Option<Record>>,
    meta: Meta,
    changes: Vec<Change>,
    /// The feature level that this build knows.
    known: u32,
}

impl<'a, B: Base> Applier<'a, B> {
    pub(crate) fn new(base: &'a B, meta: Meta, known: u32) -> Self {
        Self { base, overlay: HashMap::new(), meta, changes: Vec::new(), known }
    }

    /// The state as it is now, in the middle of the batch.
    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The state and all changes after the batch.
    pub(crate) fn finish(self) -> (Meta, Vec<Change>) {
        (self.meta, self.changes)
    }

    /// Applies one command.
    pub(crate) fn apply(&mut self, command: Command) -> Result<Outcome, ApplyError<B::Error>> {
        let first = self.changes.len();
        let outcome = match command {
            Command::Txn(txn) => Outcome::Txn(self.txn(txn)?),
            Command::Compact(revision) => self.compact(revision),
            Command::Expire(keys) => self.expire(keys)?,
            Command::AllocateMember => {
                let id = self.meta.next_member;
                self.meta.next_member += 1;
                Outcome::Member(id)
            }
            #[cfg(test)]
            Command::Future => {
                self.meta.next_member += 100;
                Outcome::Done
            }
            Command::RaiseFeatureLevel(level) if level > self.known => {
                return Err(ApplyError::FeatureLevel(level, self.known));
            }
            Command::RaiseFeatureLevel(level) => {
                self.meta.feature_level = self.meta.feature_level.max(level);
                Outcome::Done
            }
        };
        let last = self.changes.len().saturating_sub(1);
        for (i, change) in self.changes.iter_mut().enumerate().skip(first) {
            change.more = i < last;
        }
        Ok(outcome)
    }

    fn record(&self, key: &[u8]) -> Result<Option<Record>, B::Error> {
        match self.overlay.get(key) {
            Some(record) => Ok(record.clone()),
            None => self.base.record(key),
        }
    }

    fn txn(&mut self, txn: Txn) -> Result<TxnResponse, B::Error> {
        let mut failed_compare = None;
        for (i, compare) in txn.compares.iter().enumerate() {
            if !self.holds(compare)? {
                failed_compare = Some(i);
                break;
            }
        }
        let succeeded = failed_compare.is_none();
        let ops = if succeeded { txn.then } else { txn.otherwise };
        let results = ops.into_iter().map(|op| self.op(op)).collect::<Result<_, _>>()?;
        Ok(TxnResponse { succeeded, failed_compare, revision: self.meta.revision, results })
    }

    fn holds(&self, compare: &Compare) -> Result<bool, B::Error> {
        Ok(match compare {
            Compare::ModRevision(key, revision) => self.record(key)?.map_or(0, |r| r.mod_revision) == *revision,
            Compare::CreateRevision(key, revision) => self.record(key)?.map_or(0, |r| r.create_revision) == *revision,
            Compare::Exists(key) => self.record(key)?.is_some(),
            Compare::Absent(key) => self.record(key)?.is_none(),
            Compare::Value(key, value) => self.record(key)?.is_some_and(|r| r.value == value),
        })
    }

    fn op(&mut self, op: Op) -> Result<OpResult, B::Error> {
        Ok(match op {
            Op::Put { key, value, expires_at_ms } => {
                let before = self.record(&key)?;
                let revision = self.meta.revision + 1;
                let after = Record {
                    create_revision: before.as_ref().map_or(revision, |r| r.create_revision),
                    mod_revision: revision,
                    version: before.as_ref().map_or(1, |r| r.version + 1),
                    expires_at_ms,
                    value,
                };
                let create_revision = after.create_revision;
                self.change(key, before, Some(after));
                OpResult::Put { revision, create_revision }
            }
            Op::Delete { key } => match self.record(&key)? {
                None => OpResult::Delete { previous: None, revision: 0 },
                Some(before) => {
                    let previous = Some(before.key_value(key.clone()));
                    OpResult::Delete { previous, revision: self.change(key, Some(before), None) }
                }
            },
            Op::Get { key } => OpResult::Get(self.record(&key)?.map(|r| r.key_value(key))),
        })
    }

    fn change(&mut self, key: Bytes, before: Option<Record>, after: Option<Record>) -> Revision {
        self.meta.revision += 1;
        let revision = self.meta.revision;
        self.overlay.insert(key.clone(), after.clone());
        let change = Change { key, revision, before, after, more: false };
        self.meta.digest.change(&change);
        self.changes.push(change);
        revision
    }

    fn compact(&mut self, revision: Revision) -> Outcome {
        if revision <= self.meta.compacted {
            Outcome::AlreadyCompacted(self.meta.compacted)
        } else if revision > self.meta.revision {
            Outcome::FutureRevision(self.meta.revision)
        } else {
            self.meta.compacted = revision;
            Outcome::Done
        }
    }

    fn expire(&mut self, keys: Vec<(Bytes, Revision)>) -> Result<Outcome, B::Error> {
        for (key, seen) in keys {
            // A key that was written again since the leader looked has a new life time.
            if let Some(before) = self.record(&key)?
                && before.mod_revision == seen
            {
                self.change(key, Some(before), None);
            }
        }
        Ok(Outcome::Done)
    }
}
