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
    /// What a build of the next feature level could bring: allocates an id, so that skipping it would be noticed.
    #[cfg(test)]
    Future,
}

impl Command {
    /// The lowest feature level at which every member understands the command.
    fn level(&self) -> u32 {
        match self {
            Self::Txn(_) | Self::Compact(_) | Self::Expire(_) | Self::AllocateMember | Self::RaiseFeatureLevel(_) => 0,
            #[cfg(test)]
            Self::Future => crate::machine::FEATURE_LEVEL + 1,
        }
    }
}

/// An encoded command, as it travels and as the log keeps it: it is encoded once, where the request arrived. Version,
/// needed feature level and a checksum come first; the checksum goes with it through every log and network and is
/// compared before the command is sent on, written or applied.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal(pub(crate) Bytes);

/// Bytes before the command itself.
pub(crate) const PROPOSAL_HEAD: usize = 9;

impl Proposal {
    pub(crate) fn new(command: &Command) -> Self {
        let mut out = vec![codec::VERSION];
        out.extend_from_slice(&command.level().to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        codec::append(&mut out, command);
        let sum = codec::checksum(&[&out[..5], &out[PROPOSAL_HEAD..]]);
        out[5..PROPOSAL_HEAD].copy_from_slice(&sum.to_be_bytes());
        Self(out.into())
    }

    /// Whether the bytes are what they were when the command was encoded.
    pub(crate) fn check(bytes: &[u8]) -> Result<(), CodecError> {
        let (head, body) = bytes.split_at_checked(PROPOSAL_HEAD).ok_or(CodecError::Truncated)?;
        let sum = codec::checksum(&[&head[..5], body]);
        if head[5..] == sum.to_be_bytes() { Ok(()) } else { Err(CodecError::Checksum("a command")) }
    }

    /// The feature level that it takes to understand the command.
    pub(crate) fn level(&self) -> u32 {
        self.0.get(1..5).map_or(0, |level| level.iter().fold(0, |level, b| level << 8 | u32::from(*b)))
    }

    /// Decodes the command, if this build, which knows features up to a level, understands it.
    pub(crate) fn decode(&self, known: u32) -> Result<Command, CodecError> {
        Self::check(&self.0)?;
        if self.0[0] != codec::VERSION {
            return Err(CodecError::version(self.0[0]));
        }
        let needed = self.level();
        if needed > known {
            return Err(CodecError::FeatureLevel(needed, known));
        }
        let (command, used) = codec::take(&self.0[PROPOSAL_HEAD..])?;
        if used + PROPOSAL_HEAD == self.0.len() { Ok(command) } else { Err(CodecError::Invalid("trailing bytes")) }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_command_is_refused_if_any_bit_changed_or_a_newer_build_wrote_it() {
        let proposal = Proposal::new(&Command::Compact(300));
        assert_eq!(proposal.decode(0).unwrap(), Command::Compact(300));
        for bit in 0..proposal.0.len() * 8 {
            let mut bytes = proposal.0.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let result = Proposal(bytes.into()).decode(9);
            assert!(matches!(result, Err(CodecError::Checksum(_))), "bit {bit}: {result:?}");
        }
        let mut newer = proposal.0.to_vec();
        newer[4] = 7;
        let sum = codec::checksum(&[&newer[..5], &newer[PROPOSAL_HEAD..]]);
        newer[5..PROPOSAL_HEAD].copy_from_slice(&sum.to_be_bytes());
        assert!(matches!(Proposal(newer.into()).decode(6), Err(CodecError::FeatureLevel(7, 6))));
        assert!(matches!(Proposal(Bytes::new()).decode(6), Err(CodecError::Truncated)));
    }
}
