//! Records of our own for what Raft needs to remember, so that the disk format does not follow openraft's types.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::machine::Meta;
use crate::types::MemberId;

/// Position in the replicated log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct LogPosition {
    pub(crate) term: u64,
    pub(crate) node: MemberId,
    pub(crate) index: u64,
}

/// A vote for a candidate, or the acceptance of a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteRecord {
    pub(crate) term: u64,
    pub(crate) node: MemberId,
    pub(crate) committed: bool,
}

/// What every member knows of another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberInfo {
    pub(crate) name: String,
    pub(crate) peer_address: String,
    pub(crate) client_address: String,
    /// Stays without a vote until somebody promotes it.
    pub(crate) held: bool,
}

/// Who belongs to the group and who votes (two sets while that changes).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembersRecord {
    pub(crate) at: Option<LogPosition>,
    pub(crate) voters: Vec<BTreeSet<MemberId>>,
    pub(crate) nodes: BTreeMap<MemberId, MemberInfo>,
}

/// How far the state is applied. Written in the same batch as what it describes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppliedRecord {
    pub(crate) at: Option<LogPosition>,
    pub(crate) meta: Meta,
}

impl AppliedRecord {
    /// Index of the last applied entry; 0 if there is none (real entries of a group begin at 0, but that one only
    /// says who bootstrapped it).
    pub(crate) fn index(&self) -> u64 {
        self.at.map_or(0, |at| at.index)
    }
}
