//! Between openraft's types and our own, which are what goes to disk and over the network.

use std::collections::BTreeMap;

use openraft::alias::{CommittedLeaderIdOf, EntryOf, LogIdOf, StoredMembershipOf, VoteOf};
use openraft::raft::{
    StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest,
};
use openraft::vote::{RaftLeaderId, RaftVote};
use openraft::{EntryPayload, Membership};

use super::TypeConfig;
use crate::command::Proposal;
use crate::network::wire::{AppendReply, TransferMessage, TransferReply, VoteMessage};
use crate::storage::log::{LogEntry, Payload};
use crate::storage::records::{LogPosition, MemberInfo, MembersRecord, VoteRecord};

type LeaderId = CommittedLeaderIdOf<TypeConfig>;

pub(crate) fn position(id: &LogIdOf<TypeConfig>) -> LogPosition {
    LogPosition { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

pub(crate) fn log_id(at: LogPosition) -> LogIdOf<TypeConfig> {
    LogIdOf::<TypeConfig> { leader_id: <LeaderId as RaftLeaderId>::new(at.term, at.node), index: at.index }
}

pub(crate) fn vote_record(vote: &VoteOf<TypeConfig>) -> VoteRecord {
    let leader = vote.leader_id();
    VoteRecord { term: leader.term, node: leader.node_id, committed: vote.is_committed() }
}

pub(crate) fn vote(record: VoteRecord) -> VoteOf<TypeConfig> {
    let leader = <LeaderId as RaftLeaderId>::new(record.term, record.node);
    VoteOf::<TypeConfig>::from_leader_id(leader, record.committed)
}

pub(crate) fn append_reply(result: StreamAppendResult<TypeConfig>) -> AppendReply {
    match result {
        Ok(matched) => AppendReply::Matched(matched.as_ref().map(position)),
        Err(StreamAppendError::Conflict(at)) => AppendReply::Conflict(position(&at)),
        Err(StreamAppendError::HigherVote(vote)) => AppendReply::HigherVote(vote_record(&vote)),
    }
}

pub(crate) fn members_record(at: Option<LogPosition>, membership: &Membership<u64, MemberInfo>) -> MembersRecord {
    MembersRecord {
        at,
        voters: membership.get_joint_config().clone(),
        nodes: membership.nodes().map(|(id, info)| (*id, info.clone())).collect(),
    }
}

pub(crate) fn membership(record: &MembersRecord) -> Membership<u64, MemberInfo> {
    let nodes: BTreeMap<u64, MemberInfo> = record.nodes.clone();
    // A voter without a node cannot be in a record that we wrote; openraft then knows the voter without an address.
    let built = Membership::new(record.voters.clone(), nodes);
    built.unwrap_or_else(|_| Membership::new_with_defaults(record.voters.clone(), []))
}

pub(crate) fn stored_membership(record: &MembersRecord) -> StoredMembershipOf<TypeConfig> {
    if record.voters.is_empty() && record.nodes.is_empty() {
        return StoredMembershipOf::<TypeConfig>::default();
    }
    StoredMembershipOf::<TypeConfig>::new(record.at.map(log_id), membership(record))
}

pub(crate) fn log_entry(entry: &EntryOf<TypeConfig>) -> LogEntry {
    let at = position(&entry.log_id);
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(proposal) => Payload::Command(proposal.0.clone()),
        EntryPayload::Membership(m) => Payload::Members(Box::new(members_record(None, m))),
    };
    LogEntry { at, payload }
}

pub(crate) fn entry(entry: LogEntry) -> EntryOf<TypeConfig> {
    let payload = match entry.payload {
        Payload::Blank => EntryPayload::Blank,
        Payload::Command(bytes) => EntryPayload::Normal(Proposal(bytes)),
        Payload::Members(record) => EntryPayload::Membership(membership(&record)),
    };
    EntryOf::<TypeConfig> { log_id: log_id(entry.at), payload }
}

pub(crate) fn vote_message(request: &VoteRequest<TypeConfig>) -> VoteMessage {
    VoteMessage {
        vote: vote_record(&request.vote),
        last: request.last_log_id.as_ref().map(position),
        transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request(message: &VoteMessage) -> VoteRequest<TypeConfig> {
    let mut request = VoteRequest::new(vote(message.vote), message.last.map(log_id));
    request.leadership_transfer = message.transfer;
    request
}

pub(crate) fn transfer_message(request: &TransferLeaderRequest<TypeConfig>) -> TransferMessage {
    TransferMessage {
        from: vote_record(request.from_leader()),
        to: *request.to_node_id(),
        last: request.last_log_id().map(position),
    }
}

pub(crate) fn transfer_request(message: &TransferMessage) -> TransferLeaderRequest<TypeConfig> {
    TransferLeaderRequest::new(vote(message.from), message.to, message.last.map(log_id))
}

pub(crate) fn transfer_reply(response: TransferLeaderResponse<TypeConfig>) -> TransferReply {
    match response {
        Ok(()) => TransferReply::Accepted,
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            TransferReply::VoteChanged { expected: vote_record(&expected), actual: vote_record(&actual) }
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => TransferReply::LogNotFlushed {
            expected: expected.as_ref().map(position),
            actual: actual.as_ref().map(position),
        },
    }
}

pub(crate) fn transfer_response(reply: TransferReply) -> TransferLeaderResponse<TypeConfig> {
    match reply {
        TransferReply::Accepted => Ok(()),
        TransferReply::VoteChanged { expected, actual } => {
            Err(TransferLeaderError::VoteChanged { expected: vote(expected), actual: vote(actual) })
        }
        TransferReply::LogNotFlushed { expected, actual } => {
            Err(TransferLeaderError::LogNotFlushed { expected: expected.map(log_id), actual: actual.map(log_id) })
        }
    }
}
