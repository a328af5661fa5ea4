//! The Raft log: what is known of it in memory, and reading it. Writing is `log_writer`'s business, the form of the files
//! that of `log_record`.
//!
//! The newest entries are kept in memory, so that an entry can be read as soon as it is appended, and replication and
//! apply do not have to ask the disk. An entry leaves memory only after it is in a file.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::StorageError;
use super::disk::{Disk, DiskFile, DiskLock};
pub(crate) use super::log_entry::{LogEntry, Payload};
use super::log_places::{Place, Places};
use super::log_record::{Head, LogState, Part, Record, damaged, unreadable};
use super::log_replay;
use super::records::{LogPosition, VoteRecord};

/// Entries and bytes that stay in memory although they are in the files.
const TAIL_ENTRIES: usize = 8_192;
const TAIL_BYTES: usize = 8 << 20;
/// Bytes of entries that are handed out at a time.
const PIECE_BYTES: usize = 4 << 20;
/// Bytes that are read from a file at a time.
const CHUNK: usize = 128 << 10;
/// Entries that are looked up at a time.
const LOOKED_UP: u64 = 4_096;
/// The file by which two processes do not write the same log.
const LOCK: &str = "lock";
/// A segment in the making.
const NEW: &str = "new";
const SEGMENT: &str = "segment";

/// What is known of the log in memory.
pub(super) struct LogIndex {
    /// What it says once everything is written that waits for it.
    pub(super) state: LogState,
    /// Where entries are that were written.
    pub(super) places: Places,
    /// The newest entries, without gaps up to the last, each with the number of the job that writes it.
    tail: VecDeque<(u64, LogEntry)>,
    tail_bytes: usize,
}

impl LogIndex {
    fn new(state: LogState, places: Places) -> Self {
        Self { state, places, tail: VecDeque::new(), tail_bytes: 0 }
    }

    fn tail_first(&self) -> u64 {
        self.tail.front().map_or_else(|| next(self.state.last), |(_, e)| e.at.index)
    }

    pub(super) fn push(&mut self, job: u64, entry: LogEntry) {
        self.state.last = Some(entry.at);
        self.tail_bytes += entry.weight();
        self.tail.push_back((job, entry));
    }

    /// Drops entries from memory that are in the files, except for the newest.
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
        self.state.last = after;
    }

    pub(super) fn purge(&mut self, upto: LogPosition) {
        while self.tail.front().is_some_and(|(_, e)| e.at.index <= upto.index) {
            self.pop_front();
        }
        self.state.purge(upto);
    }
}

pub(super) fn next(at: Option<LogPosition>) -> u64 {
    at.map_or(0, |p| p.index + 1)
}

/// The file of a segment.
pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.{SEGMENT}"))
}

/// The number of the segment that a file is.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    name.strip_suffix(SEGMENT)?.strip_suffix('.')?.parse().ok()
}

/// Whether a file is a segment that was never completed.
pub(super) fn is_unfinished(name: &str) -> bool {
    name.ends_with(&format!(".{NEW}"))
}

/// Makes the file of a new segment, durably: it is there with its head or not at all. Nothing is left of one that failed.
pub(super) fn create_segment(disk: &Disk, dir: &Path, head: &Head) -> Result<(DiskFile, u64), StorageError> {
    let (path, bytes) = (segment_path(dir, head.number), head.encode());
    let unfinished = path.with_extension(NEW);
    let make = || -> Result<(), StorageError> {
        let file = disk.create(&unfinished)?;
        file.write_at(0, &bytes)?;
        file.sync_all()?;
        disk.rename(&unfinished, &path)
    };
    if let Err(error) = make() {
        let _ = disk.remove_file(&unfinished);
        return Err(error);
    }
    let opened = disk.sync_dir(dir).and_then(|()| disk.open(&path));
    // It is there and counts, so whatever went wrong now, the former one must not be written to: this is no full disk.
    let file = opened.map_err(|e| StorageError::io(path.display().to_string(), std::io::Error::other(e)))?;
    Ok((file, bytes.len() as u64))
}

/// The files of the log and what is known of it in memory.
pub(crate) struct Log {
    pub(super) disk: Disk,
    pub(super) dir: PathBuf,
    /// Bytes after which a segment is followed by another one.
    pub(super) segment_bytes: u64,
    pub(super) index: Mutex<LogIndex>,
    lineage: Mutex<Option<String>>,
    _lock: DiskLock,
}

impl Log {
    /// Opens the log, which is created if it is not there and need not be, and reads all of it: what is damaged must
    /// not be found when it is needed.
    pub(crate) fn open(
        disk: &Disk,
        dir: &Path,
        segment_bytes: u64,
        must_exist: bool,
    ) -> Result<Arc<Self>, StorageError> {
        if !disk.is_dir(dir)? {
            if must_exist {
                // With the log, its vote and what it has acknowledged are forgotten: under its old id it could split a quorum.
                return Err(StorageError::Damaged("the log is gone".into()));
            }
            disk.create_dir(dir)?;
        }
        let lock = disk.lock(&dir.join(LOCK))?;
        let found = log_replay::replay(disk, dir)?;
        if must_exist && found.lineage.is_none() {
            return Err(StorageError::Damaged("the log is gone".into()));
        }
        Ok(Arc::new(Self {
            disk: disk.clone(),
            dir: dir.to_owned(),
            segment_bytes,
            index: Mutex::new(LogIndex::new(found.state, found.places)),
            lineage: Mutex::new(found.lineage),
            _lock: lock,
        }))
    }

    /// The lineage that the log belongs to; none in a new one.
    pub(crate) fn lineage(&self) -> Option<String> {
        self.lineage.lock().clone()
    }

    /// Begins a new log, of a lineage.
    pub(crate) fn begin(&self, lineage: &str, state: LogState) -> Result<(), StorageError> {
        let head = Head { number: 1, lineage: lineage.to_owned(), before: None, state };
        let (_, len) = create_segment(&self.disk, &self.dir, &head)?;
        *self.lineage.lock() = Some(head.lineage);
        let mut index = self.index.lock();
        index.state = head.state;
        index.places.begin(head.number, len);
        Ok(())
    }

    pub(crate) fn vote(&self) -> Option<VoteRecord> {
        self.index.lock().state.vote
    }

    pub(crate) fn committed(&self) -> Option<LogPosition> {
        self.index.lock().state.committed
    }

    /// Last purged and last existing position.
    pub(crate) fn ends(&self) -> (Option<LogPosition>, Option<LogPosition>) {
        let index = self.index.lock();
        (index.state.purged, index.state.last)
    }

    /// Entries of the range that exist, up to a number of bytes but at least one.
    pub(crate) fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>, StorageError> {
        let mut range = range;
        let (from_tail, tail_first, end) = {
            let index = self.index.lock();
            range.start = range.start.max(next(index.state.purged));
            let tail_first = index.tail_first();
            let end = range.end.min(next(index.state.last));
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
            let at = damaged.at;
            tracing::error!(index = at.index, "an entry was damaged in memory; reading it from disk");
            let found = self.read_files(range.start..end, max_bytes).unwrap_or_default();
            // One of the same index that is about to be cut off is another one.
            if found.iter().any(|entry| entry.at == at) {
                return Ok(found);
            }
            return Err(StorageError::Damaged(format!("log entry {} was damaged in memory", at.index)));
        }
        if range.start >= tail_first || range.start >= end {
            return Ok(from_tail);
        }
        let mut found = self.read_files(range.start..end.min(tail_first), max_bytes)?;
        // What is left of the range may be in memory: one more turn, if the limit allows and nothing is missing.
        let reached = found.last().map_or(range.start, |e| e.at.index + 1);
        let bytes: usize = found.iter().map(LogEntry::weight).sum();
        if reached >= tail_first && reached < end && bytes < max_bytes {
            found.extend(self.read(reached..end, max_bytes - bytes)?);
        }
        Ok(found)
    }

    fn read_files(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<LogEntry>, StorageError> {
        let (mut found, mut bytes, mut at): (Vec<LogEntry>, _, _) = (Vec::new(), 0, range.start);
        let mut reader = Reader { log: self, open: None, base: 0, chunk: Vec::new() };
        while at < range.end {
            let places = self.index.lock().places.find(at..range.end.min(at + LOOKED_UP));
            if places.is_empty() {
                break;
            }
            for place in places {
                let entry = match reader.entry(place) {
                    Ok(entry) if entry.at.index == at => entry,
                    Ok(entry) => {
                        return Err(StorageError::Damaged(format!(
                            "log entry {at}: found {:?} in its place",
                            entry.at
                        )));
                    }
                    // It was removed meanwhile: there is nothing to be had before that.
                    Err(error) if is_absent(&error) && self.ends().0.is_some_and(|purged| purged.index >= at) => {
                        return self.read_files(next(self.ends().0)..range.end, max_bytes);
                    }
                    Err(error) => return Err(error),
                };
                if bytes > 0 && bytes + entry.weight() > max_bytes {
                    return Ok(found);
                }
                bytes += entry.weight();
                found.push(entry);
                at += 1;
            }
        }
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

    /// Bytes of all segments.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.index.lock().places.bytes()
    }
}

fn is_absent(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}

/// Reads entries from the files, most of them in the order in which they are there.
struct Reader<'a> {
    log: &'a Log,
    open: Option<(u64, DiskFile)>,
    /// Where in the file the bytes begin that were read.
    base: u64,
    chunk: Vec<u8>,
}

impl Reader<'_> {
    fn entry(&mut self, place: Place) -> Result<LogEntry, StorageError> {
        let (number, at) = (place.segment, u64::from(place.offset));
        let file = match self.open.take() {
            Some((open, file)) if open == number => file,
            _ => {
                self.chunk.clear();
                self.log.disk.open(&segment_path(&self.log.dir, number))?
            }
        };
        let (_, file) = self.open.insert((number, file));
        let mut most = CHUNK;
        // What was read before may do; if not, the first bytes of the record tell how long it is.
        for _ in 0..3 {
            let skip = at.checked_sub(self.base).map_or(usize::MAX, |skip| usize::try_from(skip).unwrap_or(usize::MAX));
            let part = Part { segment: number, base: self.base, bytes: &self.chunk };
            match if skip < self.chunk.len() { part.frame(skip) } else { None } {
                Some(frame) if frame.end() <= self.chunk.len() => {
                    return match frame.record(&part) {
                        Ok(Record::Entry(entry)) => Ok(entry),
                        Ok(_) => Err(damaged(number, at as usize, "this is no entry")),
                        Err(error) => Err(unreadable(number, at as usize, error)),
                    };
                }
                Some(frame) => most = frame.end() - skip,
                None => {}
            }
            (self.base, self.chunk) = (at, file.read_at(at, most)?);
        }
        Err(damaged(number, at as usize, "there is no whole record"))
    }
}
