//! The agent's composition root: starts its parts and waits for the end.

use tokio_util::sync::CancellationToken;

use crate::config::{AgentTls, Config, ConfigError};

/// Why an agent stopped.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file, socket or process operation failed.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// Runs the agent until `shutdown` is cancelled. Containers go on running after it returns.
pub async fn run(
    config: Config,
    client: kube::Client,
    tls: AgentTls,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    config.validate()?;
    let _ = (client, tls);
    shutdown.cancelled().await;
    Ok(())
}
