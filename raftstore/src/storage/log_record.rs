//! The form of the log's files. Knows no disk.
//!
//! The log is a row of segments, numbered without gaps, each a file: a head, then records. The head holds all that the
//! segments before it say but for their entries, so that they can be removed. Records are only ever appended: a vote, an
//! entry, the cutting off of entries, the removal of old ones, how far is committed; their order tells what counts.
//!
//! What is written together is fsynced together before anything else is written, and each record says up to where the
//! segment had been fsynced by then. So a record that does not match its checksum was never acknowledged unless an intact
//! one behind it says that it was on disk.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::StorageError;
use super::log_entry::LogEntry;
use super::records::{LogPosition, VoteRecord};
use crate::codec::{self, CodecError};

const MAGIC: &[u8; 8] = b"TRILOG1\n";
/// Magic, length and checksum of the rest of a segment's head.
const PREFIX: usize = 16;
/// Checksum, length and checksum of the body, end of what was fsynced, kind, mark.
const HEADER: usize = 20;
const MARK: [u8; 3] = [0xa5, 0x5a, 0xc3];
/// Records begin at multiples of this.
const ALIGN: usize = 4;
/// What is between the end of a body and the next record; never nothing and never zeros, so that a sector of zeros shows.
const FILLING: [u8; ALIGN] = [0x69; ALIGN];
/// What a disk writes as a whole.
const SECTOR: usize = 512;

const ENTRY: u8 = 1;
const VOTE: u8 = 2;
const COMMITTED: u8 = 3;
const TRUNCATE: u8 = 4;
const PURGE: u8 = 5;
const SEAL: u8 = 6;

/// What the log says besides its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogState {
    pub(crate) vote: Option<VoteRecord>,
    pub(crate) committed: Option<LogPosition>,
    pub(crate) purged: Option<LogPosition>,
    pub(crate) last: Option<LogPosition>,
}

impl LogState {
    /// The log as it is when everything up to a position is removed.
    pub(super) fn purge(&mut self, upto: LogPosition) {
        self.purged = self.purged.max(Some(upto));
        self.last = match self.last {
            Some(last) if last.index > upto.index => Some(last),
            _ => Some(upto),
        };
    }
}

/// What a segment begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) number: u64,
    pub(super) lineage: String,
    /// Where the records of the segment before it end, if there was one.
    pub(super) before: Option<u64>,
    pub(super) state: LogState,
}

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let body = codec::encode(self);
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&codec::checksum(&[&body]).to_le_bytes());
        out.extend_from_slice(&body);
        fill(&mut out);
        out
    }

    /// The head that a file begins with, and where its records begin.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, usize), CodecError> {
        let prefix = bytes.get(..PREFIX).ok_or(CodecError::Truncated)?;
        if prefix[..8] != *MAGIC {
            return Err(CodecError::Invalid("not a segment of a log"));
        }
        let end = PREFIX + number(&prefix[8..12]) as usize;
        let (body, filling) = bytes.get(PREFIX..padded(end)).ok_or(CodecError::Truncated)?.split_at(end - PREFIX);
        if codec::checksum(&[body]) != number(&prefix[12..16]) || !FILLING.starts_with(filling) {
            return Err(CodecError::Checksum("the head of a segment"));
        }
        Ok((codec::decode(body)?, padded(end)))
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b))
}

/// Where the next record begins after a body that ends at a place.
fn padded(end: usize) -> usize {
    (end / ALIGN + 1) * ALIGN
}

fn fill(out: &mut Vec<u8>) {
    let missing = padded(out.len()) - out.len();
    out.extend_from_slice(&FILLING[..missing]);
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Entry(LogEntry),
    Vote(VoteRecord),
    Committed(LogPosition),
    /// Everything after the position is cut off.
    Truncate(Option<LogPosition>),
    /// Everything up to the position is removed.
    Purge(LogPosition),
    /// The segment ends here, and this one follows.
    Seal(u64),
}

/// Records that are written together.
#[derive(Debug)]
pub(super) struct Batch {
    segment: u64,
    /// Where in the segment they come.
    base: u64,
    synced: u32,
    pub(super) bytes: Vec<u8>,
}

impl Batch {
    /// An empty one for a place in a segment, of which a part is fsynced; the memory is used again.
    pub(super) fn new(segment: u64, base: u64, synced: u64, mut memory: Vec<u8>) -> Self {
        memory.clear();
        Self { segment, base, synced: synced as u32, bytes: memory }
    }

    /// Adds a record; tells where in the segment it is.
    pub(super) fn put(&mut self, record: &Record) -> u64 {
        match record {
            Record::Entry(entry) => self.put_entry(entry),
            Record::Vote(vote) => self.put_as(VOTE, |out| out.extend(codec::encode(vote))),
            Record::Committed(at) => self.put_as(COMMITTED, |out| out.extend(codec::encode(at))),
            Record::Truncate(after) => self.put_as(TRUNCATE, |out| out.extend(codec::encode(after))),
            Record::Purge(upto) => self.put_as(PURGE, |out| out.extend(codec::encode(upto))),
            Record::Seal(next) => self.put_as(SEAL, |out| out.extend(codec::encode(next))),
        }
    }

    /// Adds an entry; tells where in the segment it is.
    pub(super) fn put_entry(&mut self, entry: &LogEntry) -> u64 {
        self.put_as(ENTRY, |out| entry.encode_into(out))
    }

    fn put_as(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) -> u64 {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER]);
        body(&mut self.bytes);
        let (header, content) = self.bytes[start..].split_at_mut(HEADER);
        header[4..8].copy_from_slice(&(content.len() as u32).to_le_bytes());
        header[8..12].copy_from_slice(&codec::checksum(&[content]).to_le_bytes());
        header[12..16].copy_from_slice(&self.synced.to_le_bytes());
        header[16] = kind;
        header[17..].copy_from_slice(&MARK);
        let at = self.base + start as u64;
        let sum = header_checksum(self.segment, at, header);
        header[..4].copy_from_slice(&sum.to_le_bytes());
        fill(&mut self.bytes);
        at
    }
}

/// The place is part of it, so that a record is valid nowhere else.
fn header_checksum(segment: u64, at: u64, header: &[u8]) -> u32 {
    codec::checksum(&[&segment.to_le_bytes(), &at.to_le_bytes(), &header[4..HEADER]])
}

/// The header of a record.
#[derive(Debug)]
pub(super) struct Frame {
    kind: u8,
    /// Where its body is.
    body: Range<usize>,
    sum: u32,
    /// Up to where the segment was fsynced when it was written.
    synced: u64,
}

impl Frame {
    /// Where the next record begins.
    pub(super) fn end(&self) -> usize {
        padded(self.body.end)
    }

    /// The record, if all of it is there and intact.
    pub(super) fn record(&self, part: &Part<'_>) -> Result<Record, CodecError> {
        if self.end() > part.bytes.len() {
            return Err(CodecError::Truncated);
        }
        let (body, filling) = part.bytes[self.body.start..self.end()].split_at(self.body.len());
        if codec::checksum(&[body]) != self.sum || !FILLING.starts_with(filling) {
            return Err(CodecError::Checksum("a record of the log"));
        }
        Ok(match self.kind {
            ENTRY => Record::Entry(LogEntry::decode(&bytes::Bytes::copy_from_slice(body))?),
            VOTE => Record::Vote(codec::decode(body)?),
            COMMITTED => Record::Committed(codec::decode(body)?),
            TRUNCATE => Record::Truncate(codec::decode(body)?),
            PURGE => Record::Purge(codec::decode(body)?),
            SEAL => Record::Seal(codec::decode(body)?),
            kind => return Err(CodecError::Unknown(format!("a record of kind {kind}"))),
        })
    }
}

/// Bytes of a segment.
pub(super) struct Part<'a> {
    pub(super) segment: u64,
    /// Where in the segment they begin.
    pub(super) base: u64,
    pub(super) bytes: &'a [u8],
}

impl Part<'_> {
    /// The header of the record that begins at a place in the bytes, if it is intact.
    pub(super) fn frame(&self, at: usize) -> Option<Frame> {
        let header = self.bytes.get(at..at + HEADER)?;
        if header[17..] != MARK || header_checksum(self.segment, self.base + at as u64, header) != number(&header[..4])
        {
            return None;
        }
        let body = at + HEADER..at + HEADER + number(&header[4..8]) as usize;
        let (sum, synced) = (number(&header[8..12]), u64::from(number(&header[12..16])));
        Some(Frame { kind: header[16], body, sum, synced })
    }

    /// Whether what is wrong with the record at a place is what a crash does to a write that was not fsynced: it ends early,
    /// or lacks whole sectors. The bytes are all that there are of the newest segment.
    pub(super) fn is_torn(&self, bad: usize) -> bool {
        let mut later = (bad + ALIGN..self.bytes.len()).step_by(ALIGN).filter_map(|at| self.frame(at));
        if later.any(|frame| frame.synced > bad as u64) {
            return false;
        }
        match self.frame(bad) {
            // The header is there, so the sector with its end is: what is missing begins in a later one.
            Some(frame) => {
                let (first, end) = ((bad + HEADER).div_ceil(SECTOR) * SECTOR, frame.end());
                end > self.bytes.len() || (first..end).step_by(SECTOR).any(|at| self.is_empty(at..at + SECTOR, end))
            }
            None => {
                let (first, end) = (bad / SECTOR * SECTOR, self.bytes.len());
                let mut sectors = [first, first + SECTOR].into_iter().filter(|at| *at < bad + HEADER);
                bad + HEADER > end || sectors.any(|at| self.is_empty(at.max(bad)..at + SECTOR, end))
            }
        }
    }

    /// Whether there is something in the range, up to an end, and all of it is zeros.
    fn is_empty(&self, range: Range<usize>, end: usize) -> bool {
        let part = &self.bytes[range.start.min(end)..range.end.min(end)];
        !part.is_empty() && part.iter().all(|b| *b == 0)
    }
}

/// What is wrong with a place in a segment.
pub(super) fn damaged(segment: u64, at: usize, why: impl std::fmt::Display) -> StorageError {
    StorageError::Damaged(format!("segment {segment} of the log, at byte {at}: {why}"))
}

/// Why the record at a place in a segment cannot be read.
pub(super) fn unreadable(segment: u64, at: usize, error: CodecError) -> StorageError {
    match error.is_of_other_version() {
        true => StorageError::other_version(format!("segment {segment} of the log, at byte {at}"), error),
        false => damaged(segment, at, error),
    }
}

#[cfg(test)]
#[path = "log_forgery.rs"]
pub(crate) mod forgery;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::log_entry::Payload;
    use super::*;
    use crate::command::{Command, Proposal};
    use crate::types::{Op, Txn};

    /// What becomes of reading it.
    #[derive(Debug, PartialEq)]
    enum End {
        Whole,
        Torn,
        Damaged,
    }

    fn judge(bytes: &[u8]) -> End {
        let (part, mut at) = (Part { segment: 7, base: 0, bytes }, 0);
        while at < bytes.len() {
            match part.frame(at).map(|frame| (frame.end(), frame.record(&part).is_ok())) {
                Some((end, true)) => at = end,
                _ if part.is_torn(at) => return End::Torn,
                _ => return End::Damaged,
            }
        }
        End::Whole
    }

    fn entry(index: u64, size: usize) -> Record {
        let put = Op::Put { key: "/k".into(), value: vec![index as u8 + 1; size].into(), expires_at_ms: None };
        let payload = Payload::Command(Proposal::new(&Command::Txn(Txn { then: vec![put], ..Txn::default() })).0);
        Record::Entry(LogEntry { at: LogPosition { term: 1, node: 1, index }, payload })
    }

    /// Ten entries, each fsynced before the next.
    fn log() -> (Vec<u8>, usize) {
        let (mut log, mut last) = (Vec::new(), 0);
        for i in 0..10 {
            last = log.len();
            let mut batch = Batch::new(7, last as u64, last as u64, Vec::new());
            batch.put(&entry(i, 2000));
            log.extend(batch.bytes);
        }
        (log, last)
    }

    #[test]
    fn a_torn_end_is_told_from_damage() {
        let (log, last) = log();
        assert_eq!(judge(&log), End::Whole);
        for cut in [1, 3, 1500, 2005, log.len() - last - 1] {
            assert_eq!(judge(&log[..log.len() - cut]), End::Torn, "cut by {cut}");
        }
        let mut zeros = log.clone();
        zeros[(last + 600) / SECTOR * SECTOR..].fill(0);
        assert_eq!(judge(&zeros), End::Torn, "its later sectors did not reach the disk");
        zeros[last..].fill(0);
        assert_eq!(judge(&zeros), End::Torn, "nothing of it reached the disk");
        let mut grown = log.clone();
        grown.extend_from_slice(&[0; 4096]);
        assert_eq!(judge(&grown), End::Torn, "the file grew before its content came");
        for at in [last + 100, last + 4, last + 5, last + 12, last + 17, log.len() - 5, 5000, 3, 5] {
            let mut flipped = log.clone();
            flipped[at] ^= 0x10;
            assert_eq!(judge(&flipped), End::Damaged, "bit flipped at {at}");
        }
        let mut hole = log.clone();
        hole[4096..8192].fill(0);
        assert_eq!(judge(&hole), End::Damaged, "what follows says that it was on disk");
        let mut gone = log.clone();
        gone.drain(4096..4608);
        assert_eq!(judge(&gone), End::Damaged, "nothing is where it was");
    }

    #[test]
    fn what_was_written_together_may_be_torn_in_the_middle() {
        let (mut log, _) = log();
        let start = log.len();
        let mut batch = Batch::new(7, start as u64, start as u64, Vec::new());
        for index in 10..20 {
            batch.put(&entry(index, 2000));
        }
        log.extend(batch.bytes);
        assert_eq!(judge(&log), End::Whole);
        for sector in start.div_ceil(SECTOR)..log.len() / SECTOR {
            let mut hole = log.clone();
            hole[sector * SECTOR..(sector + 1) * SECTOR].fill(0);
            assert_eq!(judge(&hole), End::Torn, "sector {sector} is missing, later ones are there");
        }
        let mut batch = Batch::new(7, log.len() as u64, log.len() as u64, Vec::new());
        batch.put(&Record::Committed(LogPosition { term: 1, node: 1, index: 19 }));
        log.extend(batch.bytes);
        log[start + 4096..start + 4608].fill(0);
        assert_eq!(judge(&log), End::Damaged, "it was fsynced");
    }

    #[test]
    fn records_are_what_they_were_and_valid_in_one_place_only() {
        let at = LogPosition { term: 3, node: 2, index: 9 };
        let records = [
            entry(9, 10),
            Record::Vote(VoteRecord { term: 4, node: 2, committed: true }),
            Record::Committed(at),
            Record::Truncate(Some(at)),
            Record::Truncate(None),
            Record::Purge(at),
            Record::Seal(8),
        ];
        let mut batch = Batch::new(7, 100, 60, Vec::new());
        let places: Vec<u64> = records.iter().map(|record| batch.put(record)).collect();
        let part = Part { segment: 7, base: 100, bytes: &batch.bytes };
        for (record, place) in records.iter().zip(&places) {
            let frame = part.frame((place - 100) as usize).unwrap();
            assert_eq!((frame.record(&part).unwrap(), frame.synced), (record.clone(), 60));
        }
        assert!(Part { segment: 8, base: 100, bytes: &batch.bytes }.frame(0).is_none(), "of another segment");
        assert!(Part { segment: 7, base: 104, bytes: &batch.bytes }.frame(0).is_none(), "in another place");
        let head = Head { number: 7, lineage: "l".into(), before: Some(5), state: LogState::default() };
        let bytes = head.encode();
        assert_eq!(Head::decode(&bytes).unwrap(), (head, bytes.len()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Head::decode(&flipped).is_err(), "bit {bit}");
        }
    }
}
