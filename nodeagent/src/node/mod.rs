//! The Node object: registration, lease, status, and the pod network that depends on it.

mod facts;
mod lease;
mod network;
mod registration;
mod services;

pub(crate) use facts::{Facts, collect};
pub(crate) use lease::run as run_lease;
pub(crate) use network::{Seen, run as run_network};
pub(crate) use registration::run as run_status;
pub(crate) use services::{follow, run_proxy};
