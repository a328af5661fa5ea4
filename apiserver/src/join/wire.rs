//! The bodies of join requests and answers.

use serde::{Deserialize, Serialize};
use trireme_raftstore::JoinGrant;

use crate::pki::{CertificateInfo, SharedKeys};

/// Path of a master's join.
pub const MASTER_PATH: &str = "/trireme.io/v1/join/master";
/// Path of a node's join.
pub const NODE_PATH: &str = "/trireme.io/v1/join/node";
/// Path of the members.
pub const MEMBERS_PATH: &str = "/trireme.io/v1/members";

/// Path at which the group is made to use the newest feature level that all masters know.
pub const UPGRADE_PATH: &str = "/trireme.io/v1/store/upgrade";
/// Path under which a master tells about itself.
pub const STATUS_PATH: &str = "/trireme.io/v1/status";
/// Path of a backup of the store.
pub const SNAPSHOT_PATH: &str = "/trireme.io/v1/snapshot";
/// Path at which a node gets its certificate renewed.
pub const RENEW_PATH: &str = "/trireme.io/v1/renew/node";

/// A master asks to be let in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MasterRequest {
    /// Its name.
    pub name: String,
    /// `IP:port` of its API.
    pub address: String,
    /// `IP:port` of its peer server.
    pub peer_address: String,
    /// Request for the API server's certificate, PEM.
    pub server_csr: String,
    /// Request for the peer certificate, PEM.
    pub peer_csr: String,
    /// The newest feature level of the store that it knows.
    #[serde(default)]
    pub feature_level: u32,
    /// It stays a learner until it is promoted by hand.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub learner: bool,
    /// A dead master of its name makes room for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// What it gets.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MasterResponse {
    /// Keys that all masters share.
    pub keys: SharedKeys,
    /// Its API server certificate with the CA's, PEM.
    pub server_crt: String,
    /// Its peer certificate, PEM.
    pub peer_crt: String,
    /// The right to join the store.
    pub grant: JoinGrant,
    /// URLs of all masters.
    pub masters: Vec<String>,
}

/// A node agent asks to be let in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeRequest {
    /// Its name.
    pub name: String,
    /// Its IP address.
    pub address: String,
    /// Request for its certificate, PEM.
    pub csr: String,
}

/// What it gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeResponse {
    /// Certificate of the API's authority, PEM.
    pub ca_crt: String,
    /// Its certificate, PEM.
    pub crt: String,
    /// URLs of all masters.
    pub masters: Vec<String>,
}

/// All members of the group of masters.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberList {
    /// The members, by name.
    pub members: Vec<MemberInfo>,
}

/// What the group uses after an upgrade.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeatureLevel {
    /// The committed level.
    pub feature_level: u32,
}

/// One master.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberInfo {
    /// Name.
    pub name: String,
    /// URL of its API.
    pub address: String,
    /// `leader`, `follower` or `learner`.
    pub role: String,
    /// Whether it answers.
    pub healthy: bool,
    /// Entries that it is behind the leader, where known.
    pub lag: Option<u64>,
    /// Identity in the store.
    pub id: u64,
    /// `host:port` of its peer server.
    pub peer_address: String,
}

/// What a master knows about itself, told without asking the others: also when there is no quorum.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MasterStatus {
    /// Name.
    pub name: String,
    /// Identity in the store.
    pub id: u64,
    /// URL of its API.
    pub address: String,
    /// `host:port` of its peer server.
    pub peer_address: String,
    /// `leader`, `follower` or `learner`.
    pub role: String,
    /// Whether it leads and has heard of a quorum recently, or knows a leader.
    pub in_contact: bool,
    /// Name of the leader, if it knows one.
    pub leader: Option<String>,
    /// Raft term.
    pub term: u64,
    /// Lineage of the data.
    pub lineage: String,
    /// Newest applied revision.
    pub revision: u64,
    /// History up to here is compacted.
    pub compacted_revision: u64,
    /// Index of the newest entry in its log.
    pub last_log_index: u64,
    /// Index of the newest entry that is applied.
    pub applied_index: u64,
    /// Bytes on disk of state and log.
    pub db_size_bytes: u64,
    /// What its store takes and how fast its disk is.
    #[serde(default)]
    pub store: StoreInfo,
    /// The file system of its data directory.
    pub disk: Option<DiskInfo>,
    /// What is wrong with it, or as the leader with the group, in words.
    #[serde(default)]
    pub alarms: Vec<String>,
    /// Resident memory of the process.
    pub resident_bytes: Option<u64>,
    /// Its certificates and those of the authorities.
    pub certificates: Vec<CertificateInfo>,
    /// Version of the program.
    pub version: String,
    /// Version of Kubernetes that it serves.
    pub kubernetes_version: String,
    /// When it began to serve, RFC 3339.
    pub start_time: String,
    /// Its clock, RFC 3339.
    pub now: String,
    /// The masters as it knows them.
    pub members: Vec<MemberInfo>,
}

/// A master's store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StoreInfo {
    /// Bytes of the state.
    pub state_bytes: u64,
    /// Bytes of the state that hold something.
    pub in_use_bytes: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Committed feature level.
    pub feature_level: u32,
    /// How many fsyncs of the log are summed up here: the last, up to a thousand.
    pub fsync_count: u64,
    /// Half of them were shorter.
    pub fsync_p50_ms: f64,
    /// One in a hundred was longer.
    pub fsync_p99_ms: f64,
    /// The longest.
    pub fsync_max_ms: f64,
    /// When this process last saved a snapshot into a file, seconds since the epoch.
    pub snapshot_at: Option<u64>,
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskInfo {
    /// Size.
    pub total_bytes: u64,
    /// What may still be written.
    pub available_bytes: u64,
}
