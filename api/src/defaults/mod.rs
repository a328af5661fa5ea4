//! Defaults as upstream sets them, a file for each family of kinds. All are idempotent.

pub mod objects;
pub mod pod;
pub mod service;
pub mod workloads;

#[cfg(test)]
mod tests;
