//! The vocabulary of the store: revisions, key-values, ranges, transactions, events, members and errors.
//!
//! The model is etcd's v3 model (keys and values are bytes, a store-wide revision, atomic compare-then-else
//! transactions) with one difference: every key a transaction changes gets a revision of its own, consecutive, and no
//! list, watch batch or bookmark falls between them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A point in the store's history. Starts at 1 for the empty store; each changed key takes the next one.
pub type Revision = u64;

/// Identity of a member for the whole life of a lineage. Never reused.
pub type MemberId = u64;

/// One key at one revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// Revision at which the key was last created.
    pub create_revision: Revision,
    /// Revision of the last change.
    pub mod_revision: Revision,
    /// Number of changes since creation; 1 after the create.
    pub version: u64,
}

/// What part of the key space an operation is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyRange {
    /// One key.
    Key(Bytes),
    /// All keys that begin with the prefix.
    Prefix(Bytes),
    /// `start` inclusive to `end` exclusive.
    Range {
        /// First key.
        start: Bytes,
        /// First key that is not part of the range any more.
        end: Bytes,
    },
}

/// How fresh an answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Consistency {
    /// At least as new as everything acknowledged before the call (ReadIndex, then wait for apply).
    #[default]
    Linearizable,
    /// Whatever this member has applied; possibly old, never from before the commit index known at start.
    Local,
}

/// A read of a key or a range.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RangeRequest {
    /// Which keys.
    pub range: KeyRange,
    /// Read at this revision; `None` is the newest. Answers [`StoreError::Compacted`] below the compaction revision
    /// and [`StoreError::FutureRevision`] above the newest.
    pub revision: Option<Revision>,
    /// At most this many key-values; 0 is no limit.
    pub limit: usize,
    /// Freshness.
    pub consistency: Consistency,
    /// Leave the values empty and only count and list keys.
    pub keys_only: bool,
}

/// Answer to a [`RangeRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RangeResponse {
    /// Revision at which the answer is a consistent snapshot.
    pub revision: Revision,
    /// Key-values in key order.
    pub kvs: Vec<KeyValue>,
    /// Whether more keys than the limit are in the range.
    pub more: bool,
    /// Number of keys in the whole range at that revision.
    pub count: u64,
}

/// A condition on one key. All compares of a transaction must hold for `then` to be applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compare {
    /// The key's `mod_revision` is exactly this; 0 means the key does not exist.
    ModRevision(Bytes, Revision),
    /// The key's `create_revision` is exactly this; 0 means the key does not exist.
    CreateRevision(Bytes, Revision),
    /// The key exists.
    Exists(Bytes),
    /// The key does not exist.
    Absent(Bytes),
    /// The value is exactly this.
    Value(Bytes, Bytes),
}

/// One change or read inside a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Creates or replaces a key.
    Put {
        /// The key.
        key: Bytes,
        /// The new value.
        value: Bytes,
        /// Absolute expiry, milliseconds since the Unix epoch; the record is removed some time after it by a
        /// committed entry. `None` never expires.
        expires_at_ms: Option<u64>,
    },
    /// Deletes a key; nothing happens when it is absent.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Reads a key, after the changes of the operations before it.
    Get {
        /// The key.
        key: Bytes,
    },
}

/// An atomic compare-then-else. A key may be changed at most once in each branch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// Conditions.
    pub compares: Vec<Compare>,
    /// Applied if all conditions hold.
    pub then: Vec<Op>,
    /// Applied otherwise.
    pub otherwise: Vec<Op>,
}

/// Result of one [`Op`], in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpResult {
    /// The revision that the put took.
    Put {
        /// `mod_revision` of the key now.
        revision: Revision,
        /// `create_revision` of the key now.
        create_revision: Revision,
    },
    /// The key-value that was deleted, and at which revision; `None` if there was none.
    Delete {
        /// What was there before.
        previous: Option<KeyValue>,
        /// Revision of the deletion; 0 when nothing was deleted.
        revision: Revision,
    },
    /// What the key holds.
    Get(Option<KeyValue>),
}

/// Answer to a [`Txn`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TxnResponse {
    /// Whether the compares held.
    pub succeeded: bool,
    /// Index of the first compare that did not hold.
    pub failed_compare: Option<usize>,
    /// Store revision after the transaction.
    pub revision: Revision,
    /// One result for each operation of the branch taken.
    pub results: Vec<OpResult>,
}

/// A change of one key, as watchers see it. Cloning is cheap: keys and values are shared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The new state; for a deletion `value` is empty and `mod_revision` is the revision of the deletion.
    pub kv: KeyValue,
    /// The state before; `None` for a creation, or when it was compacted away.
    pub previous: Option<KeyValue>,
    /// Whether this is a deletion.
    pub deleted: bool,
}

/// A request to be told of changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WatchRequest {
    /// Which keys.
    pub range: KeyRange,
    /// First revision to report; `None` is "from now on". Below the compaction revision the watch ends with
    /// [`StoreError::Compacted`].
    pub start_revision: Option<Revision>,
}

/// What a watch delivers. Batches never split a transaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WatchBatch {
    /// Everything up to and including this revision has been delivered once this batch is consumed.
    pub revision: Revision,
    /// Events in order of revision; empty for a progress notification.
    pub events: Vec<Event>,
}

/// What a member does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Leads the group.
    Leader,
    /// Votes and follows.
    Follower,
    /// Follows without a vote.
    Learner,
}

/// Whether this member leads, as far as it may act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This member leads in the term, all earlier entries are applied here, and a quorum was heard of recently.
    Leader {
        /// Raft term.
        term: u64,
    },
    /// It does not, or it lost contact to a quorum.
    NotLeader {
        /// The leader, if one is known.
        leader: Option<MemberId>,
    },
}

/// Whose data a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Identity in the group; never given to another one of the same lineage.
    pub id: MemberId,
    /// Name that people use.
    pub name: String,
    /// The lineage that it is a member of.
    pub lineage: String,
}

/// One member as the group knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Identity.
    pub id: MemberId,
    /// Name that people use; unique in the group.
    pub name: String,
    /// `host:port` of its peer server.
    pub peer_address: String,
    /// What the layer above wants every member to know of it, for example the URL of its API; opaque here.
    pub client_address: String,
    /// What it does.
    pub role: Role,
    /// Whether it answered the leader recently (on the leader), or is reachable as far as this member knows.
    pub healthy: bool,
    /// Log entries that it is behind the leader; `None` where this member cannot know.
    pub lag: Option<u64>,
}

/// What a member has to say that needs somebody's attention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// What kind of trouble.
    pub kind: AlarmKind,
    /// In words.
    pub message: String,
}

/// Kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlarmKind {
    /// This member's state is not what it should be. It serves no more and is built anew at the next start.
    StateDamaged,
    /// As the leader sees it, members have different states.
    StatesDiffer,
    /// The disk has hardly any room left.
    DiskFull,
    /// The disk does not answer in time.
    DiskStalled,
    /// Members of different versions cannot go on together.
    Version,
}

/// How long something took lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// How many times are summed up here.
    pub count: u64,
    /// Half of them were shorter.
    pub p50: std::time::Duration,
    /// One in a hundred was longer.
    pub p99: std::time::Duration,
    /// The longest.
    pub max: std::time::Duration,
}

/// A summary of this member for status pages and metrics.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// This member.
    pub id: MemberId,
    /// This member's name.
    pub name: String,
    /// Lineage of the data: changes with each restore or forced recovery.
    pub lineage: String,
    /// Raft term.
    pub term: u64,
    /// The leader, if known.
    pub leader: Option<MemberId>,
    /// Newest applied store revision.
    pub revision: Revision,
    /// Everything up to this revision is compacted.
    pub compacted: Revision,
    /// Raft index of the last entry in the log.
    pub last_log_index: u64,
    /// Raft index of the last applied entry.
    pub applied_index: u64,
    /// Bytes on disk of state and log.
    pub db_size_bytes: u64,
    /// Bytes of the state.
    pub state_bytes: u64,
    /// Bytes of the state that hold something; the rest is given back in time.
    pub in_use_bytes: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Writes and fsyncs of the log.
    pub fsync: Latency,
    /// When a snapshot was last saved into a file by this process, seconds since the Unix epoch.
    pub backup_at: Option<u64>,
    /// Whether it leads with a quorum behind it, or has heard of a leader recently.
    pub in_contact: bool,
    /// All members.
    pub members: Vec<Member>,
    /// The feature level that the group uses.
    pub feature_level: u32,
    /// The newest one that this member knows.
    pub known_feature_level: u32,
    /// What is wrong with this member, or as the leader with the group.
    pub alarms: Vec<Alarm>,
}

/// Why the store did not do what it was asked to.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum StoreError {
    /// The revision is gone; list anew.
    #[error("required revision {requested} has been compacted (compacted up to {compacted})")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// Compaction revision.
        compacted: Revision,
    },
    /// The revision is not reached yet.
    #[error("required revision {requested} is a future revision (newest is {current})")]
    FutureRevision {
        /// What was asked for.
        requested: Revision,
        /// Newest revision here.
        current: Revision,
    },
    /// There is no leader, or no quorum answered in time. The operation was not performed, except when
    /// `maybe_applied` says that it could have been.
    #[error("the store cannot do that at the moment: {reason}")]
    Unavailable {
        /// What was tried.
        reason: String,
        /// Whether a write may nevertheless take effect.
        maybe_applied: bool,
    },
    /// The request breaks a limit of the store.
    #[error("request refused: {0}")]
    Invalid(String),
    /// The watcher was too slow and has to resume from the last revision it saw.
    #[error("watcher fell behind; resume after revision {0}")]
    SlowWatcher(Revision),
    /// A change of membership is refused.
    #[error("membership change refused: {0}")]
    Membership(String),
    /// This member is shutting down.
    #[error("the store is shutting down")]
    ShuttingDown,
    /// Log, vote or identity of this member are damaged: under its old id it could split a quorum.
    #[error(
        "member {name:?} cannot come back as the member it was: {reason}. Remove it from the group, empty its directory, join anew"
    )]
    Damaged {
        /// Name of the member.
        name: String,
        /// What was found.
        reason: String,
    },
    /// This build is too old for the group.
    #[error("{0}")]
    Version(String),
    /// The disks are nearly full: only what makes room is taken.
    #[error("database space exceeded: {0}; only deletes and small changes are taken until there is room")]
    NoSpace(String),
    /// The state of this member is damaged; the next start builds it anew.
    #[error("the state of this member is damaged: {0}")]
    StateDamaged(String),
    /// Reading or writing the local disk failed.
    #[error("storage failure")]
    Storage(
        #[source]
        #[serde(with = "cause")]
        Box<dyn std::error::Error + Send + Sync>,
    ),
}

/// A cause crosses a wire as its text and that of its own causes.
mod cause {
    use serde::{Deserialize, Deserializer, Serializer};

    type Cause = Box<dyn std::error::Error + Send + Sync>;

    pub(super) fn serialize<S: Serializer>(cause: &Cause, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = cause.to_string();
        let mut next = cause.source();
        while let Some(cause) = next {
            text = format!("{text}: {cause}");
            next = cause.source();
        }
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cause, D::Error> {
        String::deserialize(deserializer).map(Cause::from)
    }
}
