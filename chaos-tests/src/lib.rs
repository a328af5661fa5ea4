//! Whole clusters of real processes: booting them, driving them, killing their hosts, and taking them down whatever
//! happens. The scenario suites and the programs that measure build on this.

pub mod bench;
pub mod clients;
pub mod closed_loop;
pub mod cluster;
pub mod command;
pub mod compat;
pub mod failover;
pub mod kubectl;
pub mod lives;
pub mod plain;
pub mod report;
pub mod schemathesis;
pub mod soak;
pub mod store;
pub mod suite;
mod sweep;
pub mod usage;
pub mod watching;

pub use cluster::{Cluster, Options, Pod};
pub use command::{Outcome, eventually, run, run_for};
pub use kubectl::Kubectl;
