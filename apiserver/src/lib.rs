//! The API server: HTTP in, store transactions out.

pub mod join;
pub mod pki;
