//! Runs: members as processes in network namespaces, clients, watchers, faults with a seeded schedule.

pub mod chaos;
pub mod clients;
pub mod convert;
pub mod disks;
pub mod group;
pub mod image;
pub mod net;
pub mod program;
pub mod proofs;
pub mod recorder;
pub mod restores;
pub mod round;
pub mod schedule;
pub mod watchers;

pub use program::program;
