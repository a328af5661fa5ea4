//! Replicated, revisioned bytes: a Raft group (openraft) over RocksDB with etcd's data model.
//!
//! This crate knows no Kubernetes word.

pub mod types;

pub use types::*;
