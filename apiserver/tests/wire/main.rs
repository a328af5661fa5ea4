//! Wire tests: a real server over a real single-member store, kube-rs and raw HTTP over TLS as clients.
#![allow(clippy::unwrap_used)]

mod apply;
mod audit;
mod authz;
mod certificates;
mod discovery;
mod errors;
mod evictions;
mod fence;
mod forward;
mod harness;
mod kinds;
mod nonsense;
mod objects;
mod owners;
mod paging;
mod proxy;
mod requests;
mod services;
mod status;
mod streams;
mod tokens;
mod watches;
