//! Replicated, revisioned bytes: a Raft group (openraft) over RocksDB with etcd's data model.
//!
//! This crate knows no Kubernetes word.

pub mod config;
pub mod store;
pub mod types;

pub use config::{Config, GrantMember, JoinGrant, Limits, NewMember, PeerTls, Timing};
pub use store::{Store, Watch};
pub use types::*;
