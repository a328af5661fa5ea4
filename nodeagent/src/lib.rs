//! The node agent: makes the pods bound to its node real and reports what became of them.
//!
//! [`run`] is the agent itself. Containers are not its children: each pod has a small process of its own, the
//! [`shim`], which is this same program started again and which lives on when the agent dies. [`shim::main`] must
//! therefore be called at the very top of `main`, before any thread exists.

mod agent;
mod config;
pub mod images;
pub mod network;
mod node;
mod pods;
mod runtime;
mod server;
pub mod shim;

pub use agent::{AgentError, destroy, run};
pub use config::{AgentTls, Config, ConfigError};
pub use server::tls::TlsError;
