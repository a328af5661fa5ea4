//! Reading the whole log at a start: what it says, where its entries are, and whether it is whole.
//!
//! Only the end of the newest segment can be torn by a crash, in what was not fsynced; that is cut off. Everything else that
//! does not match is loss: a member without it might have forgotten a vote or something that it acknowledged.

use std::path::Path;

use super::StorageError;
use super::disk::Disk;
use super::log::{is_unfinished, next, segment_number, segment_path};
use super::log_places::Places;
use super::log_record::{Batch, Head, LogState, Part, Record, damaged, unreadable};

/// Bytes that hold the head of a segment, and more.
const HEAD_BYTES: usize = 4 << 10;

/// What a log says.
#[derive(Default)]
pub(super) struct Replayed {
    /// None if there is no segment.
    pub(super) lineage: Option<String>,
    pub(super) state: LogState,
    pub(super) places: Places,
}

/// Reads all segments, and completes what a crash left undone.
pub(super) fn replay(disk: &Disk, dir: &Path) -> Result<Replayed, StorageError> {
    let names = disk.list(dir)?;
    for name in names.iter().filter(|name| is_unfinished(name)) {
        disk.remove_file(&dir.join(name))?;
    }
    // The names that are there may not be durable yet, and what is written from here on counts on them.
    disk.sync_dir(dir)?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    // Segments are removed from the oldest one on, but a crash may bring some of them back. Whether what remains is all that
    // is needed, its entries tell.
    let gap = numbers.windows(2).rposition(|pair| pair[0] + 1 != pair[1]);
    let stray = numbers.drain(..gap.map_or(0, |at| at + 1)).collect::<Vec<_>>();
    let mut found = Replayed::default();
    let mut heads = Vec::new();
    for number in &numbers {
        let bytes = disk.open(&segment_path(dir, *number))?.read_at(0, HEAD_BYTES)?;
        let (head, begin) = Head::decode(&bytes).map_err(|error| unreadable(*number, 0, error))?;
        if head.number != *number {
            return Err(damaged(*number, 0, format!("it says that it is segment {}", head.number)));
        }
        heads.push((head, begin));
    }
    if let Some((first, _)) = heads.first() {
        (found.lineage, found.state) = (Some(first.lineage.clone()), first.state.clone());
    }
    for (at, (head, begin)) in heads.iter().enumerate() {
        if head.state != found.state || Some(&head.lineage) != found.lineage.as_ref() {
            return Err(damaged(head.number, 0, "it does not continue the segment before it"));
        }
        let follows = heads.get(at + 1).map(|(next, _)| next);
        Segment { disk, dir, head, begin: *begin }.replay(follows, &mut found)?;
    }
    found.check()?;
    for number in stray {
        disk.remove_file(&segment_path(dir, number))?;
    }
    Ok(found)
}

struct Segment<'a> {
    disk: &'a Disk,
    dir: &'a Path,
    head: &'a Head,
    begin: usize,
}

impl Segment<'_> {
    fn replay(&self, follows: Option<&Head>, found: &mut Replayed) -> Result<(), StorageError> {
        let number = self.head.number;
        let bytes = self.disk.read(&segment_path(self.dir, number))?;
        found.places.begin(number, bytes.len() as u64);
        let part = Part { segment: number, base: 0, bytes: &bytes };
        let Some(follows) = follows else { return self.replay_newest(&part, found) };
        let end = follows.before.unwrap_or(0) as usize;
        let reached = replay_records(&part, self.begin, end, found)?;
        if reached != end {
            return Err(damaged(number, reached, format!("its records ought to end at byte {end}")));
        }
        match part.frame(end).map(|frame| frame.record(&part)) {
            Some(Ok(Record::Seal(next))) if next == follows.number => Ok(()),
            Some(Ok(_)) => Err(damaged(number, end, "something follows the end of its records")),
            Some(Err(error)) if error.is_of_other_version() => Err(unreadable(number, end, error)),
            // A crash came between the next segment and the note that there is one.
            _ => {
                let file = self.disk.open(&segment_path(self.dir, number))?;
                let mut seal = Batch::new(number, end as u64, end as u64, Vec::new());
                seal.put(&Record::Seal(follows.number));
                file.set_len(end as u64)?;
                file.write_at(end as u64, &seal.bytes)?;
                file.sync_all()
            }
        }
    }

    fn replay_newest(&self, part: &Part<'_>, found: &mut Replayed) -> Result<(), StorageError> {
        let (number, len) = (self.head.number, part.bytes.len());
        let end = replay_records(part, self.begin, len, found)?;
        let file = self.disk.open(&segment_path(self.dir, number))?;
        if end < len {
            if let Some(Ok(Record::Seal(next))) = part.frame(end).map(|frame| frame.record(part)) {
                return Err(StorageError::Damaged(format!("segment {next} of the log is missing")));
            }
            if !part.is_torn(end) {
                return Err(damaged(number, end, "a record does not match its checksum"));
            }
            tracing::warn!("the last write before a crash is incomplete; nobody was told of it");
            file.set_len(end as u64)?;
            found.places.grow(end as u64);
        }
        // What a process that was killed wrote last may be in memory only, and from here on it counts.
        file.sync_all()
    }
}

/// Takes in records of a segment; tells where it came to: an end, the note that another segment follows, or something bad.
fn replay_records(part: &Part<'_>, begin: usize, end: usize, found: &mut Replayed) -> Result<usize, StorageError> {
    let mut at = begin;
    while at < end {
        let Some(frame) = part.frame(at) else { break };
        match frame.record(part) {
            // It is whole: nothing that looks for the end of what a crash left may touch it.
            Err(error) if error.is_of_other_version() => return Err(unreadable(part.segment, at, error)),
            Ok(Record::Seal(_)) | Err(_) => break,
            Ok(record) => found.take(part.segment, at, record)?,
        }
        at = frame.end();
    }
    Ok(at)
}

impl Replayed {
    fn take(&mut self, segment: u64, at: usize, record: Record) -> Result<(), StorageError> {
        match record {
            Record::Entry(entry) => {
                let (index, last) = (entry.at.index, self.state.last);
                if index != next(last) || last.is_some_and(|l| l.term > entry.at.term) {
                    return Err(damaged(segment, at, format!("found entry {:?} after {last:?}", entry.at)));
                }
                self.state.last = Some(entry.at);
                self.places.put(index, at as u64);
            }
            Record::Vote(vote) => self.state.vote = Some(vote),
            Record::Committed(committed) => self.state.committed = Some(committed),
            Record::Truncate(after) => {
                self.places.truncate(next(after));
                self.state.last = after;
            }
            Record::Purge(upto) => {
                self.places.purge(upto.index);
                self.state.purge(upto);
            }
            Record::Seal(_) => {}
        }
        Ok(())
    }

    /// Nothing that is committed may be missing, and of what is not removed nothing at all.
    fn check(&self) -> Result<(), StorageError> {
        let LogState { committed, purged, last, .. } = self.state;
        // Entries are written before it is noted that they are committed, and committed ones are never cut off.
        if committed.map(|at| at.index) > last.map(|at| at.index) {
            return Err(StorageError::Damaged(format!("the log ends at {last:?} although {committed:?} is committed")));
        }
        let wanted = next(purged);
        if next(last) > wanted && self.places.first().is_none_or(|first| first > wanted) {
            let found = self.places.first().unwrap_or(next(last));
            return Err(StorageError::Damaged(format!("log entries {wanted} to {} are missing", found - 1)));
        }
        Ok(())
    }
}
