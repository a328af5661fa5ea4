//! What is proposed to the group, and what applying it answers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::types::{MemberId, Revision, Txn, TxnResponse};

/// One command of the replicated log. New variants are added at the end only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// An atomic compare-then-else.
    Txn(Txn),
    /// Forgets history below the revision.
    Compact(Revision),
    /// Deletes keys that the leader found to be expired, if they still have the revision that it saw.
    Expire(Vec<(Bytes, Revision)>),
    /// Hands out an id for a new member.
    AllocateMember,
    /// Allows what only builds of this level understand.
    RaiseFeatureLevel(u32),
}

/// An encoded command, as it travels and as the log keeps it: it is encoded once, where the request arrived.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal(pub(crate) Bytes);

impl Proposal {
    pub(crate) fn new(command: &Command) -> Self {
        Self(codec::encode(command).into())
    }

    pub(crate) fn decode(&self) -> Result<Command, CodecError> {
        codec::decode(&self.0)
    }
}

impl std::fmt::Debug for Proposal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proposal({} bytes)", self.0.len())
    }
}

impl std::fmt::Display for Proposal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// What applying a command answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// Done; nothing to tell.
    Done,
    /// Result of a transaction.
    Txn(TxnResponse),
    /// Identity of a new member.
    Member(MemberId),
    /// The revision is compacted already; up to which one is told.
    AlreadyCompacted(Revision),
    /// The revision is not reached; the newest one is told.
    FutureRevision(Revision),
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Outcome::Done => "done",
            Outcome::Txn(_) => "txn",
            Outcome::Member(_) => "member",
            Outcome::AlreadyCompacted(_) => "already compacted",
            Outcome::FutureRevision(_) => "future revision",
        })
    }
}
