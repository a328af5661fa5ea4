//! Replicated, revisioned bytes: a Raft group (openraft) over RocksDB with etcd's data model.
//!
//! This crate knows no Kubernetes word.
//!
//! | module | what it is |
//! |---|---|
//! | `backup` | the file that a backup is |
//! | `types`, `config` | the vocabulary: requests, answers, errors, limits |
//! | `store` | the handle: requests, routing to the leader, leadership, membership, background work |
//! | `watch` | change streams, from memory or from history |
//! | `machine` | apply as a pure function |
//! | `consensus` | openraft, wrapped |
//! | `storage` | what is on disk: the log in files, the state in RocksDB, snapshots |
//! | `network` | what members say to each other |
//! | `port` | for tests and benchmarks: the store behind a TLS port, and its client |
//! | `faults` | for tests: what goes wrong on purpose |
//! | `simulation` | for tests: another disk, network, clock and chance than the machine's |
//! | `codec`, `command` | how commands are encoded |

pub mod backup;
pub mod config;
#[doc(hidden)]
pub mod faults;
pub mod port;
#[doc(hidden)]
pub mod simulation;
pub mod store;
pub mod types;
pub mod watch;

mod codec;
mod command;
mod consensus;
mod machine;
mod metrics;
mod network;
mod storage;

pub use backup::{BackupError, BackupFile, BackupInfo};
pub use config::{AddOptions, Config, GrantMember, JoinGrant, Limits, NewMember, PeerTls, Timing};
pub use machine::FEATURE_LEVEL;
#[doc(hidden)]
pub use storage::disk::memory::MemoryDisk;
pub use store::{Backup, NewLineage, RangeStream, RestoreError, RestoreTarget, SaveError, Store};
pub use types::*;
pub use watch::Watch;
