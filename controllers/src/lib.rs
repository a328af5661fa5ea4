//! The control loops that the leading master runs.
//!
//! One folder a controller: observe, plan (pure), execute. A controller is given keys, never events, and starts
//! from the shared informers each time. Every master keeps the informers warm; only the one that reigns acts,
//! through the fenced client of its reign.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use trireme_client::informer::Informers;
use trireme_client::leadership::{LeadershipRx, Reign, while_reigning};

mod config;

pub use config::{Config, ConfigError};

/// Runs all controllers whenever this process reigns, until `shutdown`.
pub async fn run(informers: Arc<Informers>, leadership: LeadershipRx, config: Config, shutdown: CancellationToken) {
    let config = Arc::new(config);
    let body = |reign: Arc<Reign>| reign_over(informers.clone(), reign, config.clone());
    while_reigning(leadership, informers.clone(), shutdown, body).await;
}

async fn reign_over(_informers: Arc<Informers>, reign: Arc<Reign>, _config: Arc<Config>) {
    tracing::info!(fence = reign.fence_revision, "controllers act");
    std::future::pending::<()>().await;
}
