//! kube-rs clients over TLS, each of one master, as a user's kubeconfig describes it.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};

use crate::cluster::Cluster;

/// Longest time that a program waits for the answer to one request.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A client of one master alone, counted from 1.
///
/// # Errors
/// When its kubeconfig cannot be used.
pub async fn of_master(cluster: &Cluster, master: usize) -> Result<kube::Client> {
    let path = cluster.root().join(format!("kubeconfig-master-{master}"));
    let kubeconfig = Kubeconfig::read_from(&path).with_context(|| path.display().to_string())?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(Duration::from_secs(1));
    config.read_timeout = None;
    config.write_timeout = None;
    // A write that may have happened must be known as such, not as the refusal of its repetition.
    config.default_retry = false;
    Ok(kube::Client::try_from(config)?)
}

/// Clients of all masters, in order.
///
/// # Errors
/// When a kubeconfig cannot be used.
pub async fn of_all_masters(cluster: &Cluster) -> Result<Vec<kube::Client>> {
    let mut all = Vec::new();
    for master in 1..=cluster.masters() {
        all.push(of_master(cluster, master).await?);
    }
    Ok(all)
}

/// Clients of all masters, for work that has to get done whichever of them is dead.
#[derive(Clone)]
pub struct Endpoints {
    clients: Vec<kube::Client>,
}

/// Longest time that something may be tried.
const GIVE_UP: Duration = Duration::from_secs(60);

impl Endpoints {
    /// Tries it on one master after the other until it is done.
    ///
    /// # Errors
    /// The last failure, when it does not work for a minute.
    pub async fn until_done<T, F>(&self, what: &str, mut attempt: impl FnMut(kube::Client) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let deadline = std::time::Instant::now() + GIVE_UP;
        for turn in 0.. {
            let client = self.clients[turn % self.clients.len()].clone();
            let error = match tokio::time::timeout(PATIENCE, attempt(client)).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs()),
            };
            if std::time::Instant::now() > deadline {
                return Err(error.context(format!("given up: {what}")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        unreachable!("the loop returns")
    }
}

impl Cluster {
    /// Clients of all masters.
    ///
    /// # Errors
    /// When a kubeconfig cannot be used.
    pub async fn endpoints(&self) -> Result<Endpoints> {
        Ok(Endpoints { clients: of_all_masters(self).await? })
    }
}
