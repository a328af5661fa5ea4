//! Writing and reading the file of a backup, piece by piece.

use std::io::{ErrorKind, Read};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{BackupError, BackupHeader, BackupRecord, BackupSummary, FORMAT};
use crate::codec;

/// What every backup begins with.
const MAGIC: &[u8; 16] = b"TRIREME-SNAPSHOT";
const HEADER: u8 = 1;
const PART: u8 = 2;
const SUMMARY: u8 = 3;
/// Content of a frame is about this long.
const PART_BYTES: usize = 1 << 20;
/// Longest frame that is read: a part holds at least one record, however large that is.
const MAX_FRAME: usize = 64 << 20;
/// Kind, length and checksum.
const FRAME_HEAD: usize = 9;

/// Writes a backup, in pieces that somebody else puts where they belong.
pub(crate) struct Encoder {
    whole: Sha256,
    hash: crc32fast::Hasher,
    part: Vec<u8>,
    keys: u64,
    content_bytes: u64,
}

impl Encoder {
    /// The encoder, and the beginning of the file.
    pub(crate) fn new(header: &BackupHeader) -> (Self, Bytes) {
        let hash = crc32fast::Hasher::new();
        let mut encoder = Self { whole: Sha256::new(), hash, part: Vec::new(), keys: 0, content_bytes: 0 };
        encoder.whole.update(MAGIC);
        let mut begin = MAGIC.to_vec();
        begin.extend_from_slice(&encoder.frame(HEADER, &json(header)));
        (encoder, begin.into())
    }

    /// Adds a record; tells the next piece of the file whenever one is full.
    pub(crate) fn add(&mut self, record: &BackupRecord) -> Option<Bytes> {
        codec::append(&mut self.part, record);
        self.keys += 1;
        self.content_bytes += (record.key.len() + record.value.len()) as u64;
        if self.part.len() < PART_BYTES { None } else { Some(self.part()) }
    }

    fn part(&mut self) -> Bytes {
        let content = std::mem::take(&mut self.part);
        self.hash.update(&content);
        self.frame(PART, &content).into()
    }

    /// The end of the file.
    pub(crate) fn finish(mut self) -> (Bytes, BackupSummary) {
        let mut end = if self.part.is_empty() { Vec::new() } else { self.part().to_vec() };
        let summary = BackupSummary {
            keys: self.keys,
            content_bytes: self.content_bytes,
            hash: self.hash.clone().finalize(),
            sha256: hex(&self.whole.clone().finalize()),
        };
        end.extend_from_slice(&self.frame(SUMMARY, &json(&summary)));
        (end.into(), summary)
    }

    fn frame(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(FRAME_HEAD + content.len());
        out.push(kind);
        out.extend_from_slice(&(content.len() as u32).to_be_bytes());
        out.extend_from_slice(&checksum(kind, content).to_be_bytes());
        out.extend_from_slice(content);
        self.whole.update(&out);
        out
    }
}

fn checksum(kind: u8, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(&(content.len() as u32).to_be_bytes());
    hasher.update(content);
    hasher.finalize()
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    // Maps with keys that are no texts are what could fail; there are none.
    serde_json::to_vec(value).expect("plain structures are JSON")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads a backup and verifies it on the way.
pub(crate) struct Reader<R> {
    input: R,
    at: u64,
    whole: Sha256,
    hash: crc32fast::Hasher,
    keys: u64,
    content_bytes: u64,
    summary: Option<BackupSummary>,
    last_key: Option<Bytes>,
}

impl<R: Read> Reader<R> {
    /// The reader, and the header.
    pub(crate) fn new(input: R) -> Result<(Self, BackupHeader), BackupError> {
        let mut reader = Self {
            input,
            at: 0,
            whole: Sha256::new(),
            hash: crc32fast::Hasher::new(),
            keys: 0,
            content_bytes: 0,
            summary: None,
            last_key: None,
        };
        let mut magic = [0; MAGIC.len()];
        let read = reader.read(&mut magic);
        if magic != *MAGIC {
            return match read {
                Err(BackupError::Read(error)) => Err(BackupError::Read(error)),
                _ => Err(BackupError::NotABackup),
            };
        }
        reader.whole.update(magic);
        let (kind, content) = reader.frame()?;
        if kind != HEADER {
            return Err(reader.damaged("no header comes first"));
        }
        // A later version may say other things; which one it is, it says in any case.
        #[derive(serde::Deserialize)]
        struct Version {
            format: u32,
        }
        let version: Version = reader.parse("header", &content)?;
        if !(1..=FORMAT).contains(&version.format) {
            return Err(BackupError::UnknownFormat(version.format));
        }
        let header = reader.parse("header", &content)?;
        Ok((reader, header))
    }

    fn damaged(&self, what: impl Into<String>) -> BackupError {
        BackupError::Damaged { what: what.into(), at: self.at }
    }

    fn parse<T: DeserializeOwned>(&self, what: &str, content: &[u8]) -> Result<T, BackupError> {
        serde_json::from_slice(content).map_err(|e| self.damaged(format!("the {what} cannot be read: {e}")))
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), BackupError> {
        let mut filled = 0;
        while filled < into.len() {
            match self.input.read(&mut into[filled..]) {
                Ok(0) => return Err(BackupError::CutOff(self.at + filled as u64)),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(BackupError::Read(error)),
            }
        }
        self.at += into.len() as u64;
        Ok(())
    }

    fn frame(&mut self) -> Result<(u8, Bytes), BackupError> {
        let begin = self.at;
        let mut head = [0; FRAME_HEAD];
        self.read(&mut head)?;
        let kind = head[0];
        let number = |i: usize| u32::from_be_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let (size, expected) = (number(1) as usize, number(5));
        let damaged = |what: String| BackupError::Damaged { what, at: begin };
        if size > MAX_FRAME || !(HEADER..=SUMMARY).contains(&kind) {
            return Err(damaged("no part begins here".into()));
        }
        let mut content = vec![0; size];
        self.read(&mut content)?;
        if checksum(kind, &content) != expected {
            return Err(damaged("a part does not match its checksum".into()));
        }
        if kind != SUMMARY {
            self.whole.update(head);
            self.whole.update(&content);
        }
        Ok((kind, content.into()))
    }

    /// The next records; `None` once everything was read and found to be sound.
    pub(crate) fn next_part(&mut self) -> Result<Option<Vec<BackupRecord>>, BackupError> {
        if self.summary.is_some() {
            return Ok(None);
        }
        let (kind, content) = self.frame()?;
        match kind {
            PART => {
                self.hash.update(&content);
                self.records(&content).map(Some)
            }
            SUMMARY => {
                let summary: BackupSummary = self.parse("summary", &content)?;
                self.compare(&summary)?;
                self.summary = Some(summary);
                Ok(None)
            }
            _ => Err(self.damaged("a second header")),
        }
    }

    fn records(&mut self, content: &Bytes) -> Result<Vec<BackupRecord>, BackupError> {
        let (mut rest, mut found) = (&content[..], Vec::new());
        while !rest.is_empty() {
            let taken = codec::take::<BackupRecord>(rest);
            let (record, used) = taken.map_err(|e| self.damaged(format!("a record cannot be read: {e}")))?;
            rest = &rest[used..];
            if self.last_key.as_ref().is_some_and(|last| *last >= record.key) {
                return Err(self.damaged("keys are out of order"));
            }
            self.last_key = Some(record.key.clone());
            self.keys += 1;
            self.content_bytes += (record.key.len() + record.value.len()) as u64;
            found.push(record);
        }
        Ok(found)
    }

    fn compare(&mut self, summary: &BackupSummary) -> Result<(), BackupError> {
        let counted = (self.keys, self.content_bytes, self.hash.clone().finalize());
        if counted != (summary.keys, summary.content_bytes, summary.hash) {
            return Err(self.damaged("the parts are not those that the summary tells of"));
        }
        if hex(&self.whole.clone().finalize()) != summary.sha256 {
            return Err(self.damaged("the file does not match its SHA-256"));
        }
        let mut more = [0];
        match self.input.read(&mut more) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.damaged("something follows the summary")),
            Err(error) => Err(BackupError::Read(error)),
        }
    }

    /// The summary and the size of the file, once everything was read.
    pub(crate) fn finish(self) -> Result<(BackupSummary, u64), BackupError> {
        let at = self.at;
        self.summary.map(|summary| (summary, at)).ok_or(BackupError::CutOff(at))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Ancestor, BackupMember, Succession};
    use super::*;

    fn header() -> BackupHeader {
        let ancestor = Ancestor { lineage: "old".into(), revision: 7, by: Succession::Restore, at_ms: 5 };
        let member = BackupMember {
            id: 1,
            name: "m".into(),
            peer_address: "h:1".into(),
            client_address: "c".into(),
            voter: true,
        };
        BackupHeader {
            format: FORMAT,
            version: "0".into(),
            lineage: "l".into(),
            ancestors: vec![ancestor],
            revision: 9,
            compacted: 3,
            term: 2,
            index: 11,
            feature_level: 1,
            next_member: 4,
            taken_by: "m".into(),
            taken_at_ms: 6,
            members: vec![member],
        }
    }

    fn record(i: usize, size: usize) -> BackupRecord {
        BackupRecord {
            key: format!("/k/{i:06}").into(),
            create_revision: i as u64,
            mod_revision: i as u64 + 1,
            version: 2,
            expires_at_ms: i.is_multiple_of(2).then_some(99),
            value: vec![i as u8; size].into(),
        }
    }

    fn write(header: &BackupHeader, records: &[BackupRecord]) -> Vec<u8> {
        let (mut encoder, begin) = Encoder::new(header);
        let mut file = begin.to_vec();
        for record in records {
            file.extend(encoder.add(record).unwrap_or_default());
        }
        file.extend(encoder.finish().0);
        file
    }

    fn read(file: &[u8]) -> Result<(BackupHeader, Vec<BackupRecord>, BackupSummary), BackupError> {
        let (mut reader, header) = Reader::new(file)?;
        let mut records = Vec::new();
        while let Some(part) = reader.next_part()? {
            records.extend(part);
        }
        Ok((header, records, reader.finish()?.0))
    }

    #[test]
    fn what_is_written_is_read() {
        let records: Vec<_> = (0..3000).map(|i| record(i, 1000)).collect();
        let file = write(&header(), &records);
        let (found_header, found, summary) = read(&file).unwrap();
        assert_eq!((found_header, &found), (header(), &records));
        assert_eq!((summary.keys, summary.content_bytes), (3000, 3000 * 1009));
        let empty = write(&header(), &[]);
        assert_eq!(read(&empty).unwrap().2.keys, 0);
        // The hash is one of the content, not of who wrote it and when.
        let other = write(&BackupHeader { taken_at_ms: 1, taken_by: "n".into(), ..header() }, &records);
        let other = read(&other).unwrap().2;
        assert_eq!(other.hash, summary.hash);
        assert_ne!(other.sha256, summary.sha256);
    }

    #[test]
    fn every_damage_is_noticed() {
        let records: Vec<_> = (0..20).map(|i| record(i, 10)).collect();
        let file = write(&header(), &records);
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 0x10;
            assert!(read(&changed).is_err(), "byte {at}");
            let cut = read(&file[..at]).unwrap_err();
            assert!(matches!(cut, BackupError::CutOff(_) | BackupError::NotABackup), "cut at {at}: {cut}");
        }
        let mut longer = file.clone();
        longer.push(0);
        assert!(matches!(read(&longer), Err(BackupError::Damaged { .. })));
        assert!(matches!(read(b"SQLite format 3\0..."), Err(BackupError::NotABackup)));
        assert!(matches!(read(b""), Err(BackupError::NotABackup)));
        let newer = write(&BackupHeader { format: FORMAT + 1, ..header() }, &records);
        assert!(matches!(read(&newer), Err(BackupError::UnknownFormat(f)) if f == FORMAT + 1));
    }

    #[test]
    fn a_missing_or_doubled_part_is_noticed() {
        let records: Vec<_> = (0..4000).map(|i| record(i, 1000)).collect();
        let (mut encoder, begin) = Encoder::new(&header());
        let parts: Vec<Bytes> = records.iter().filter_map(|r| encoder.add(r)).collect();
        let end = encoder.finish().0;
        assert!(parts.len() >= 3);
        let join = |order: &[usize]| {
            let middle = order.iter().flat_map(|i| parts[*i].to_vec());
            begin.iter().copied().chain(middle).chain(end.iter().copied()).collect::<Vec<u8>>()
        };
        assert!(read(&join(&[0, 1, 2])).is_ok());
        for wrong in [&[0, 2][..], &[1, 0, 2], &[0, 1, 1, 2], &[0, 1]] {
            assert!(matches!(read(&join(wrong)), Err(BackupError::Damaged { .. })), "{wrong:?}");
        }
    }
}
