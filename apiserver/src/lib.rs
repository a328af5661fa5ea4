//! The API server: HTTP in, store transactions out.
//!
//! [`ApiServer`] is a handle on everything that serves requests: the catalogue of kinds, the caches that one watch of
//! the store feeds, and the pipeline authentication -> authorization -> decoding -> validation -> store transaction ->
//! encoding. The same pipeline serves TLS connections ([`ApiServer::serve`]) and the components of this process
//! ([`ApiServer::in_process`]).

mod audit;
mod authz;
mod bootstrap;
mod config;
mod error;
mod fence;
mod handler;
mod identity;
mod in_process;
pub mod join;
mod keepalive;
mod listener;
mod metrics;
mod node_rules;
mod nonresource;
pub mod pki;
mod proxy;
mod request;
mod response;
mod server;
mod storage;
mod tokens;
mod verbs;

pub use audit::AuditConfig;
pub use config::{Cidr, Config, Limits};
pub use error::ServerError;
pub use fence::{FENCE_KEY, Fence};
pub use identity::{GROUP_AUTHENTICATED, GROUP_MASTERS, GROUP_NODES, PeerCertificate, UserInfo};
pub use in_process::InProcess;
pub use server::ApiServer;
