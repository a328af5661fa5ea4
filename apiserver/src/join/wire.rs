//! The bodies of join requests and answers.

use serde::{Deserialize, Serialize};
use trireme_raftstore::JoinGrant;

use crate::pki::SharedKeys;

/// Path of a master's join.
pub const MASTER_PATH: &str = "/trireme.io/v1/join/master";
/// Path of a node's join.
pub const NODE_PATH: &str = "/trireme.io/v1/join/node";
/// Path of the members.
pub const MEMBERS_PATH: &str = "/trireme.io/v1/members";

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
