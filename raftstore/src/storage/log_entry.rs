//! Entries of the Raft log, and how they are encoded.

use bytes::{BufMut, Bytes};

use super::records::{LogPosition, MembersRecord};
use crate::codec::{self, CodecError};
use crate::command::{PROPOSAL_HEAD, Proposal};

/// What one entry costs in memory besides its payload.
const ENTRY_OVERHEAD: usize = 96;

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
        let size = if let Payload::Command(bytes) = &self.payload { bytes.len() } else { 256 };
        let mut out = Vec::with_capacity(HEAD + size);
        self.encode_into(&mut out);
        out
    }

    /// The same, behind what is already there.
    pub(super) fn encode_into(&self, out: &mut Vec<u8>) {
        let kind = match &self.payload {
            Payload::Blank => 0,
            Payload::Command(_) => 1,
            Payload::Members(_) => 2,
        };
        let start = out.len();
        out.put_u8(codec::VERSION);
        out.put_u8(kind);
        out.put_u32(0);
        out.put_u64(self.at.term);
        out.put_u64(self.at.node);
        out.put_u64(self.at.index);
        match &self.payload {
            Payload::Blank => {}
            Payload::Command(bytes) => out.extend_from_slice(bytes),
            Payload::Members(members) => codec::append(out, members.as_ref()),
        }
        let sum = entry_checksum(&out[start..]);
        out[start + 2..start + 6].copy_from_slice(&sum.to_be_bytes());
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
            return Err(CodecError::version(bytes[0]));
        }
        let number = |at: usize| bytes[at..at + 8].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let at = LogPosition { term: number(6), node: number(14), index: number(22) };
        let body = bytes.slice(HEAD..);
        let payload = match bytes[1] {
            0 => Payload::Blank,
            1 => Payload::Command(body),
            2 => Payload::Members(Box::new(codec::take(&body)?.0)),
            kind => return Err(CodecError::Unknown(format!("a log entry of kind {kind}"))),
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

/// Makes the checksum of an encoded entry right again.
#[cfg(test)]
pub(super) fn sign(bytes: &mut [u8]) {
    let sum = entry_checksum(bytes);
    bytes[2..6].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::command::Command;

    #[test]
    fn an_entry_of_another_version_is_an_error() {
        let payload = Payload::Command(Proposal::new(&Command::Compact(1)).0);
        let entry = LogEntry { at: LogPosition { term: 1, node: 1, index: 1 }, payload };
        let mut bytes = entry.encode();
        assert_eq!(LogEntry::decode(&bytes.clone().into()).unwrap(), entry);
        bytes[0] = 9;
        sign(&mut bytes);
        assert!(matches!(LogEntry::decode(&bytes.into()), Err(CodecError::UnknownVersion(9, _))));
        assert!(LogEntry::decode(&vec![codec::VERSION, 1, 0].into()).is_err());
    }
}
