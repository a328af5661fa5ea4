//! openraft, wrapped: its types, traits and errors stay in this module and what calls it directly.

pub(crate) mod confirmed;
pub(crate) mod convert;
pub(crate) mod log_store;
pub(crate) mod machine;
pub(crate) mod recent;
pub(crate) mod runtime;
pub(crate) mod state_machine;
pub(crate) mod transport;

use std::sync::Arc;

use openraft::{Config as RaftConfig, SnapshotPolicy};

use crate::command::{Outcome, Proposal};
use crate::config::Config;
use crate::storage::records::MemberInfo;
use crate::types::StoreError;

openraft::declare_raft_types!(
    /// The types that the group is made of.
    pub(crate) TypeConfig:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = MemberInfo,
        AsyncRuntime = runtime::Runtime,
);

/// The running Raft node.
pub(crate) type Raft = openraft::Raft<TypeConfig, state_machine::StateMachine>;

/// openraft's configuration for ours.
pub(crate) fn raft_config(config: &Config, lineage: &str) -> Result<Arc<RaftConfig>, StoreError> {
    let timing = &config.timing;
    let limits = &config.limits;
    let raft = RaftConfig {
        cluster_name: lineage.to_owned(),
        // Heartbeats and elections have clocks of our own (store/election.rs): openraft's would wake every member a
        // hundred times a second.
        enable_tick: false,
        // What is left of these: how long a heartbeat may take, how long a vote may take, and the leader's lease.
        heartbeat_interval: (timing.heartbeat * 2).min(timing.election_min / 2).as_millis() as u64,
        election_timeout_min: timing.election_min.as_millis() as u64 - 1,
        election_timeout_max: timing.election_min.as_millis() as u64,
        // Pre-vote keeps a member that was cut off from forcing an election when it returns.
        enable_pre_vote: Some(true),
        // A leader that comes back has to be elected anew: its own first entry is then after everything that it
        // acknowledged before, also if its note of the commit index did not reach the disk. Without that, its reads
        // could miss acknowledged writes.
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(limits.snapshot_entries),
        max_in_snapshot_log_to_keep: limits.keep_log_entries,
        purge_batch_size: (limits.keep_log_entries / 4).max(1),
        // A member whose next entry is still in the log gets entries, else a snapshot.
        replication_lag_threshold: limits.snapshot_entries + limits.keep_log_entries,
        max_payload_entries: 512,
        install_snapshot_timeout: 600_000,
        backoff: "20ms, 40ms, 80ms, ..500ms".to_owned(),
        ..RaftConfig::default()
    };
    raft.validate().map(Arc::new).map_err(|e| StoreError::Invalid(format!("timing: {e}")))
}
