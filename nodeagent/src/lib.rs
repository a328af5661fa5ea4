//! The node agent: makes the pods bound to its node real and reports what became of them.
//!
//! [`run`] is the agent itself. Containers are not its children: each pod has a small process of its own, the
//! [`shim`], which is this same program started again and which lives on when the agent dies. [`shim::main`] must
//! therefore be called at the very top of `main`, before any thread exists.

mod agent;
mod certificate;
mod config;
mod image_gc;
pub mod images;
mod limits;
pub mod mounts;
pub mod network;
mod node;
mod pods;
mod reset;
mod runtime;
mod server;
pub mod shim;
mod stats;

pub use agent::{AgentError, destroy, run};
pub use certificate::NodeCertificate;
pub use config::{AgentTls, Config, ConfigError};
pub use reset::{Undone, reset};
pub use server::tls::TlsError;
