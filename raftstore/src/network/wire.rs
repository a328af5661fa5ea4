//! The messages between members. Types of our own, so that the wire does not change with openraft's.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::command::{Outcome, Proposal};
use crate::config::{AddOptions, JoinGrant, NewMember};
use crate::storage::log::LogEntry;
use crate::storage::records::{LogPosition, MembersRecord, VoteRecord};
use crate::storage::room::Room;
use crate::types::{Member, MemberId, StoreError};

/// Paths of the requests.
pub(crate) mod path {
    pub(crate) const APPEND: &str = "/v1/append";
    pub(crate) const VOTE: &str = "/v1/vote";
    pub(crate) const PRE_VOTE: &str = "/v1/pre-vote";
    pub(crate) const TRANSFER: &str = "/v1/transfer";
    pub(crate) const SNAPSHOT: &str = "/v1/snapshot";
    pub(crate) const SNAPSHOT_OFFER: &str = "/v1/snapshot/offer";
    pub(crate) const FORWARD: &str = "/v1/forward";
    pub(crate) const READ_INDEX: &str = "/v1/read-index";
    pub(crate) const MEMBERS: &str = "/v1/members";
    pub(crate) const ADD_MEMBER: &str = "/v1/members/add";
    pub(crate) const REMOVE_MEMBER: &str = "/v1/members/remove";
    pub(crate) const PROMOTE_MEMBER: &str = "/v1/members/promote";
    pub(crate) const UPDATE_MEMBER: &str = "/v1/members/update";
    pub(crate) const HELLO: &str = "/v1/hello";
    pub(crate) const STATE: &str = "/v1/state";
    pub(crate) const UPGRADE: &str = "/v1/upgrade";
    pub(crate) const HASHES: &str = "/v1/hashes";
    pub(crate) const DIFFERS: &str = "/v1/differs";
}

/// Asks for a vote, or whether one would be given.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VoteMessage {
    pub(crate) vote: VoteRecord,
    pub(crate) last: Option<LogPosition>,
    pub(crate) transfer: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct VoteReply {
    pub(crate) vote: VoteRecord,
    pub(crate) granted: bool,
    pub(crate) last: Option<LogPosition>,
}

/// Asks a member to take over, or to let another one do so.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TransferMessage {
    pub(crate) from: VoteRecord,
    pub(crate) to: MemberId,
    pub(crate) last: Option<LogPosition>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum TransferReply {
    Accepted,
    VoteChanged { expected: VoteRecord, actual: VoteRecord },
    LogNotFlushed { expected: Option<LogPosition>, actual: Option<LogPosition> },
}

/// What precedes the entries of an append.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppendHead {
    pub(crate) vote: VoteRecord,
    pub(crate) prev: Option<LogPosition>,
    pub(crate) commit: Option<LogPosition>,
    pub(crate) count: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum AppendReply {
    Matched(Option<LogPosition>),
    Conflict(LogPosition),
    HigherVote(VoteRecord),
}

/// What precedes the files of a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) vote: VoteRecord,
    pub(crate) at: Option<LogPosition>,
    pub(crate) members: MembersRecord,
    pub(crate) files: Vec<SnapshotFile>,
}

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotFile {
    pub(crate) name: String,
    pub(crate) size: u64,
    /// The receiver has it; it is not sent.
    pub(crate) kept: bool,
}

/// Asks which files of a snapshot the receiver has: names and sizes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotOffer {
    pub(crate) files: Vec<(String, u64)>,
}

/// The files that it has: names, sizes and checksums.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotHave {
    pub(crate) files: Vec<(String, u64, u32)>,
}

/// Writes for the leader.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ForwardMessage {
    pub(crate) proposals: Vec<Proposal>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ForwardReply {
    Done(Outcome),
    NotTaken,
    Failed { reason: String, maybe_applied: bool },
    NoSpace(String),
}

/// Errors of changes of membership, for which the cause has to reach the caller.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum AdminError {
    NotLeader,
    Refused(String),
    Unavailable { reason: String, maybe_applied: bool },
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Membership(why) | StoreError::Invalid(why) => Self::Refused(why),
            StoreError::Unavailable { reason, maybe_applied } => Self::Unavailable { reason, maybe_applied },
            other => Self::Unavailable { reason: other.to_string(), maybe_applied: true },
        }
    }
}

pub(crate) type ReadIndexReply = Result<u64, String>;
pub(crate) type MembersReply = Result<Vec<Member>, AdminError>;
pub(crate) type AddMemberReply = Result<JoinGrant, AdminError>;
pub(crate) type RemoveMemberReply = Result<(), AdminError>;
pub(crate) type UpgradeReply = Result<u32, AdminError>;
/// Somebody is to be added.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AddMemberMessage {
    pub(crate) member: NewMember,
    pub(crate) options: AddOptions,
}

/// Somebody is to be removed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct RemoveMemberMessage {
    pub(crate) id: MemberId,
    /// Not if it lives.
    pub(crate) only_dead: bool,
}

/// A member says that its addresses changed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UpdateMemberMessage {
    pub(crate) id: MemberId,
    pub(crate) peer_address: String,
    pub(crate) client_address: String,
}

/// Who answers, and what it understands.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HelloReply {
    pub(crate) id: MemberId,
    pub(crate) feature_level: u32,
    /// The last entry of its log.
    pub(crate) last: Option<LogPosition>,
}

/// Asks for a whole state, by a member that lost its own. The answer is a `SnapshotHead` and the files.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StateMessage {
    /// Log index that it has to contain.
    pub(crate) at_least: u64,
    /// Whether only the leader's will do.
    pub(crate) leader_only: bool,
}

/// What a member tells the leader of itself, each time that it asks who the members are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) room: Room,
    /// Its disk does not answer in time.
    pub(crate) stalled: bool,
    /// The newest feature level that it knows.
    pub(crate) feature_level: u32,
}

impl Report {
    /// Whether its disk is fit for a leader.
    pub(crate) fn is_well(&self) -> bool {
        self.room == Room::Enough && !self.stalled
    }
}

/// Hashes of the state of a member at some log indexes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HashesReply {
    pub(crate) marks: Vec<(u64, u128)>,
}

/// The leader says what hash most members have at a log index, or that there is no majority and each should verify.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct DiffersMessage {
    pub(crate) index: u64,
    pub(crate) hash: Option<u128>,
}

/// Encodes an append as a frame: its length, the head, then each entry as the log has it.
pub(crate) fn encode_append(head: &AppendHead, entries: &[LogEntry]) -> Bytes {
    let mut out = Vec::with_capacity(64 + entries.iter().map(LogEntry::weight).sum::<usize>());
    out.extend_from_slice(&[0, 0, 0, 0, codec::VERSION]);
    codec::append(&mut out, head);
    for entry in entries {
        let bytes = entry.encode();
        out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        out.extend_from_slice(&bytes);
    }
    let size = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&size.to_be_bytes());
    out.into()
}

/// Decodes an append; the commands in it share its memory.
pub(crate) fn decode_append(message: &Bytes) -> Result<(AppendHead, Vec<LogEntry>), CodecError> {
    match message.first() {
        Some(&codec::VERSION) => {}
        Some(other) => return Err(CodecError::version(*other)),
        None => return Err(CodecError::Truncated),
    }
    let (head, used): (AppendHead, usize) = codec::take(&message[1..])?;
    let mut rest = message.slice(1 + used..);
    let mut entries = Vec::with_capacity(head.count.min(4096) as usize);
    for _ in 0..head.count {
        let size = rest.first_chunk::<4>().map(|b| u32::from_be_bytes(*b) as usize).ok_or(CodecError::Truncated)?;
        if rest.len() < 4 + size {
            return Err(CodecError::Truncated);
        }
        entries.push(LogEntry::decode(&rest.slice(4..4 + size))?);
        rest = rest.slice(4 + size..);
    }
    if rest.is_empty() { Ok((head, entries)) } else { Err(CodecError::Invalid("trailing bytes")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::command::Command;
    use crate::storage::log::Payload;

    #[test]
    fn append_round_trip() {
        let at = |index| LogPosition { term: 3, node: 2, index };
        let vote = VoteRecord { term: 3, node: 2, committed: true };
        let head = AppendHead { vote, prev: Some(at(6)), commit: None, count: 2 };
        let entries = vec![
            LogEntry { at: at(7), payload: Payload::Blank },
            LogEntry { at: at(8), payload: Payload::Command(Proposal::new(&Command::Compact(7)).0) },
        ];
        let frame = encode_append(&head, &entries);
        let (size, bytes) = (u32::from_be_bytes(*frame.first_chunk::<4>().unwrap()), frame.slice(4..));
        assert_eq!(size as usize, bytes.len());
        assert_eq!(decode_append(&bytes).unwrap(), (head, entries));
        assert!(decode_append(&bytes.slice(..bytes.len() - 1)).is_err());
        assert!(decode_append(&Bytes::from_static(&[9])).is_err());
    }
}
