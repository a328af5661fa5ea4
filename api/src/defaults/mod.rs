//! Defaults as upstream sets them, a file for each family of kinds. All are idempotent.

pub mod batch;
pub mod objects;
pub mod pod;
pub mod policy;
pub mod service;
pub mod storage;
pub mod workloads;

#[cfg(test)]
mod tests;
