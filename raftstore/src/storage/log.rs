//! The Raft log: what is known of it in memory, and reading it. Writing is `log_writer`'s business.
//!
//! The newest entries are kept in memory, so that an entry can be read as soon as it is appended, and replication and
//! apply do not have to ask the database. An entry leaves memory only after it is in the database.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use parking_lot::Mutex;
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, DBRecoveryMode, Options, ReadOptions};

use super::StorageError;
use super::records::{LogPosition, MembersRecord, VoteRecord};
use super::wal::{self, End};
use crate::codec::{self, CodecError};
use crate::command::{PROPOSAL_HEAD, Proposal};

/// Entries and bytes that stay in memory although they are in the database.
const TAIL_ENTRIES: usize = 8_192;
const TAIL_BYTES: usize = 8 << 20;
/// Bytes of entries that are handed out at a time.
const PIECE_BYTES: usize = 4 << 20;
/// What one entry costs in memory besides its payload.
const ENTRY_OVERHEAD: usize = 96;

pub(super) const LOG_CF: &str = "log";
pub(super) const META_CF: &str = "meta";
pub(super) const VOTE: &[u8] = b"vote";
pub(super) const COMMITTED: &[u8] = b"committed";
pub(super) const PURGED: &[u8] = b"purged";
const LINEAGE: &[u8] = b"lineage";

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    /// Nothing; a new leader's first entry.
    Blank,
    /// An encoded command.
    Command(Bytes),
    /// A change of membership (`at` is not stored, it is the entry's own position).
    Members(Box<MembersRecord>),
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogEntry {
    pub(crate) at: LogPosition,
    pub(crate) payload: Payload,
}

impl LogEntry {
    /// What the entry takes in memory.
    pub(crate) fn weight(&self) -> usize {
        ENTRY_OVERHEAD + if let Payload::Command(bytes) = &self.payload { bytes.len() } else { 0 }
    }

    /// Version, kind, checksum, term, node and index, then the payload. The same bytes go to disk and to the other
    /// members. The checksum covers all but the body of a command, which has one of its own that is older.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, size) = match &self.payload {
            Payload::Blank => (0, 0),
            Payload::Command(bytes) => (1, bytes.len()),
            Payload::Members(_) => (2, 256),
        };
        let mut out = Vec::with_capacity(HEAD + size);
        out.put_u8(codec::VERSION);
        out.put_u8(kind);
        out.put_u32(0);
        out.put_u64(self.at.term);
        out.put_u64(self.at.node);
        out.put_u64(self.at.index);
        match &self.payload {
            Payload::Blank => {}
            Payload::Command(bytes) => out.extend_from_slice(bytes),
            Payload::Members(members) => codec::append(&mut out, members.as_ref()),
        }
        let sum = entry_checksum(&out);
        out[2..6].copy_from_slice(&sum.to_be_bytes());
        out
    }

    /// Whether a command is still what was proposed. Everything else is small and checked when it is decoded.
    pub(crate) fn check(&self) -> Result<(), CodecError> {
        if let Payload::Command(bytes) = &self.payload { Proposal::check(bytes) } else { Ok(()) }
    }

    /// Decodes an entry that is as it was encoded; a command's bytes are shared with the input.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, CodecError> {
        let found = bytes.get(2..6).ok_or(CodecError::Truncated)?;
        if bytes.len() < HEAD {
            return Err(CodecError::Truncated);
        }
        if found != entry_checksum(bytes).to_be_bytes() {
            return Err(CodecError::Checksum("a log entry"));
        }
        if bytes[0] != codec::VERSION {
            return Err(CodecError::UnknownVersion(bytes[0]));
        }
        let number = |at: usize| bytes[at..at + 8].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let at = LogPosition { term: number(6), node: number(14), index: number(22) };
        let body = bytes.slice(HEAD..);
        let payload = match bytes[1] {
            0 => Payload::Blank,
            1 => Payload::Command(body),
            2 => Payload::Members(Box::new(codec::take(&body)?.0)),
            _ => return Err(CodecError::Invalid("unknown kind of log entry")),
        };
        let entry = Self { at, payload };
        entry.check()?;
        Ok(entry)
    }
}

/// Bytes before the payload of an encoded entry.
const HEAD: usize = 30;

fn entry_checksum(bytes: &[u8]) -> u32 {
    let end = if bytes[1] == 1 { bytes.len().min(HEAD + PROPOSAL_HEAD) } else { bytes.len() };
    codec::checksum(&[&bytes[..2], &bytes[6..end]])
}

/// What is known of the log in memory.
pub(super) struct LogIndex {
    pub(super) vote: Option<VoteRecord>,
    pub(super) committed: Option<LogPosition>,
    pub(super) purged: Option<LogPosition>,
    pub(super) last: Option<LogPosition>,
    /// The newest entries, without gaps up to `last`, each with the number of the job that writes it.
    tail: VecDeque<(u64, LogEntry)>,
    tail_bytes: usize,
}

impl LogIndex {
    fn read(db: &DB) -> Result<Self, StorageError> {
        Ok(Self {
            vote: read(db, VOTE)?,
            committed: read(db, COMMITTED)?,
            purged: read(db, PURGED)?,
            last: None,
            tail: VecDeque::new(),
            tail_bytes: 0,
        })
    }

    fn tail_first(&self) -> u64 {
        self.tail.front().map_or_else(|| next(self.last), |(_, e)| e.at.index)
    }

    pub(super) fn push(&mut self, job: u64, entry: LogEntry) {
        self.last = Some(entry.at);
        self.tail_bytes += entry.weight();
        self.tail.push_back((job, entry));
    }

    /// Drops entries from memory that are in the database, except for the newest.
    pub(super) fn evict(&mut self, written_job: u64) {
        while self.tail.len() > TAIL_ENTRIES || self.tail_bytes > TAIL_BYTES {
            match self.tail.front() {
                Some((job, _)) if *job <= written_job => self.pop_front(),
                _ => break,
            }
        }
    }

    fn pop_front(&mut self) {
        if let Some((_, entry)) = self.tail.pop_front() {
            self.tail_bytes -= entry.weight();
        }
    }

    pub(super) fn truncate(&mut self, after: Option<LogPosition>) {
        let first = next(after);
        while self.tail.back().is_some_and(|(_, e)| e.at.index >= first) {
            if let Some((_, entry)) = self.tail.pop_back() {
                self.tail_bytes -= entry.weight();
            }
        }
        self.last = after;
    }

    pub(super) fn purge(&mut self, upto: LogPosition) {
        while self.tail.front().is_some_and(|(_, e)| e.at.index <= upto.index) {
            self.pop_front();
        }
        self.purged = self.purged.max(Some(upto));
        self.last = match self.last {
            Some(last) if last.index > upto.index => Some(last),
            _ => Some(upto),
        };
    }
}

fn next(at: Option<LogPosition>) -> u64 {
    at.map_or(0, |p| p.index + 1)
}

/// The database of the log and what is known of it in memory.
pub(crate) struct Log {
    pub(super) db: DB,
    pub(super) index: Mutex<LogIndex>,
}

impl Log {
    /// Opens the log, which is created if it is not there and need not be, and reads all of it: what is damaged must
    /// not be found when it is needed.
    pub(crate) fn open(path: &Path, must_exist: bool) -> Result<Arc<Self>, StorageError> {
        let recovery = match wal::end(path)? {
            End::Whole => DBRecoveryMode::TolerateCorruptedTailRecords,
            End::Torn => {
                tracing::warn!("the last write before a crash is incomplete; nobody was told of it");
                DBRecoveryMode::PointInTime
            }
            End::Damaged => return Err(StorageError::Damaged("a record of the write-ahead log".into())),
        };
        let db = Self::open_database(path, must_exist, recovery)?;
        let log = Self { index: Mutex::new(LogIndex::read(&db)?), db };
        log.verify()?;
        Ok(Arc::new(log))
    }

    /// By default RocksDB drops, without a word, all that follows the first damaged record of its write-ahead log: for
    /// this log that would be to forget votes and entries that were acknowledged.
    fn open_database(path: &Path, must_exist: bool, recovery: DBRecoveryMode) -> Result<DB, rocksdb::Error> {
        let mut options = Options::default();
        options.create_if_missing(!must_exist);
        options.create_missing_column_families(!must_exist);
        options.set_paranoid_checks(true);
        options.set_wal_recovery_mode(recovery);
        options.set_track_and_verify_wals_in_manifest(true);
        options.set_max_background_jobs(2);
        options.set_max_total_wal_size(128 << 20);
        options.set_keep_log_file_num(2);
        options.set_stats_dump_period_sec(0);
        options.set_max_open_files(128);
        let family = |name| {
            let mut options = Options::default();
            // The default of 64 MiB is held in memory, and again after a restart, for entries that are never read.
            options.set_write_buffer_size(8 << 20);
            ColumnFamilyDescriptor::new(name, options)
        };
        DB::open_cf_descriptors(&options, path, [LOG_CF, META_CF].map(family))
    }

    /// Reads every entry: they have to be intact and without gaps. Tells the index where they end.
    fn verify(&self) -> Result<(), StorageError> {
        let (committed, (purged, _)) = (self.committed(), self.ends());
        let mut last = purged;
        let mut it = self.db.raw_iterator_cf(self.cf(LOG_CF));
        it.seek_to_first();
        while let Some((key, value)) = it.item() {
            let damaged = |why: String| Err(StorageError::Damaged(format!("log entry {}: {why}", next(last))));
            let entry = match LogEntry::decode(&Bytes::copy_from_slice(value)) {
                Ok(entry) => entry,
                Err(error) => return damaged(error.to_string()),
            };
            let index = entry.at.index;
            if key != index.to_be_bytes() || index != next(last) || last.is_some_and(|l| l.term > entry.at.term) {
                return damaged(format!("found {:?} after {last:?}", entry.at));
            }
            last = Some(entry.at);
            it.next();
        }
        it.status()?;
        // Entries are written before it is noted that they are committed, and committed ones are never cut off.
        if committed.map(|at| at.index) > last.map(|at| at.index) {
            return Err(StorageError::Damaged(format!("the log ends at {last:?} although {committed:?} is committed")));
        }
        self.index.lock().last = last;
        Ok(())
    }

    pub(super) fn cf(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("column families are opened together")
    }

    /// The lineage that the log belongs to; none in a new one.
    pub(crate) fn lineage(&self) -> Result<Option<String>, StorageError> {
        read(&self.db, LINEAGE)
    }

    /// Sets the lineage of a new log.
    pub(crate) fn set_lineage(&self, lineage: &str) -> Result<(), StorageError> {
        let mut options = rocksdb::WriteOptions::default();
        options.set_sync(true);
        Ok(self.db.put_cf_opt(self.cf(META_CF), LINEAGE, codec::encode(lineage), &options)?)
    }

    pub(crate) fn vote(&self) -> Option<VoteRecord> {
        self.index.lock().vote
    }

    pub(crate) fn committed(&self) -> Option<LogPosition> {
        self.index.lock().committed
    }

    /// Last purged and last existing position.
    pub(crate) fn ends(&self) -> (Option<LogPosition>, Option<LogPosition>) {
        let index = self.index.lock();
        (index.purged, index.last)
    }

    /// Entries of the range that exist, up to a number of bytes but at least one.
    pub(crate) fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>, StorageError> {
        let mut range = range;
        let (from_tail, tail_first, end) = {
            let index = self.index.lock();
            range.start = range.start.max(next(index.purged));
            let tail_first = index.tail_first();
            let end = range.end.min(next(index.last));
            let skip = range.start.saturating_sub(tail_first) as usize;
            let mut bytes = 0;
            let mut found = Vec::new();
            if range.start >= tail_first {
                for (_, entry) in index.tail.iter().skip(skip) {
                    if entry.at.index >= end || (bytes > 0 && bytes + entry.weight() > max_bytes) {
                        break;
                    }
                    bytes += entry.weight();
                    found.push(entry.clone());
                }
            }
            (found, tail_first, end)
        };
        if let Some(damaged) = from_tail.iter().find(|e| e.check().is_err()) {
            // What came from the network and what is on disk was intact: this is the machine's memory.
            let index = damaged.at.index;
            tracing::error!(index, "an entry was damaged in memory; reading it from disk");
            let found = self.read_database(range.start..end, max_bytes)?;
            let reached = found.last().map_or(range.start, |e| e.at.index + 1);
            if reached > index {
                return Ok(found);
            }
            return Err(StorageError::Damaged(format!("log entry {index} was damaged in memory")));
        }
        if range.start >= tail_first || range.start >= end {
            return Ok(from_tail);
        }
        let mut found = self.read_database(range.start..end.min(tail_first), max_bytes)?;
        // What is left of the range may be in memory: one more turn, if the limit allows and nothing is missing.
        let reached = found.last().map_or(range.start, |e| e.at.index + 1);
        let bytes: usize = found.iter().map(LogEntry::weight).sum();
        if reached >= tail_first && reached < end && bytes < max_bytes {
            found.extend(self.read(reached..end, max_bytes - bytes)?);
        }
        Ok(found)
    }

    fn read_database(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>, StorageError> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(range.end.to_be_bytes());
        let mut it = self.db.raw_iterator_cf_opt(self.cf(LOG_CF), options);
        it.seek(range.start.to_be_bytes());
        let mut found = Vec::new();
        let mut bytes = 0;
        while let Some(value) = it.value() {
            let entry = LogEntry::decode(&Bytes::copy_from_slice(value))?;
            if bytes > 0 && bytes + entry.weight() > max_bytes {
                break;
            }
            bytes += entry.weight();
            found.push(entry);
            it.next();
        }
        it.status()?;
        Ok(found)
    }

    /// Replaces an entry in memory only.
    #[cfg(test)]
    pub(crate) fn damage_in_memory(&self, entry: LogEntry) {
        let mut index = self.index.lock();
        let place = index.tail.iter_mut().find(|(_, e)| e.at == entry.at);
        place.expect("in memory").1 = entry;
    }

    /// Hands out the entries after a position, some at a time.
    pub(crate) fn for_each(
        &self,
        after: Option<LogPosition>,
        mut each: impl FnMut(Vec<LogEntry>) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let (mut at, end) = (next(after), next(self.ends().1));
        while at < end {
            let entries = self.read(at..end, PIECE_BYTES)?;
            match (entries.first(), entries.last()) {
                (Some(first), Some(last)) if first.at.index == at => at = last.at.index + 1,
                _ => return Err(StorageError::Damaged(format!("entry {at} is missing in the log"))),
            }
            each(entries)?;
        }
        Ok(())
    }

    /// Bytes of all files of the database and its memory tables.
    pub(crate) fn size_bytes(&self) -> u64 {
        let of = |what: &str| self.db.property_int_value_cf(self.cf(LOG_CF), what).ok().flatten().unwrap_or(0);
        of("rocksdb.total-sst-files-size") + of("rocksdb.cur-size-all-mem-tables")
    }
}

fn read<T: serde::de::DeserializeOwned>(db: &DB, key: &[u8]) -> Result<Option<T>, StorageError> {
    let family = db.cf_handle(META_CF).expect("column families are opened together");
    match db.get_pinned_cf(family, key)? {
        Some(bytes) => Ok(Some(codec::decode(&bytes)?)),
        None => Ok(None),
    }
}
