//! Undoing everything that an agent has made on a machine, except for its data directory.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::agent::{AgentError, destroy, io};
use crate::config::Config;
use crate::mounts;
use crate::network::services::ServiceProxy;
use crate::network::{Network, NetworkConfig};

/// What was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undone {
    /// Mounts below the data directory.
    pub mounts: usize,
    /// Whether links, routes and rules were looked at: only where this machine has the node's address, since the names of
    /// links are the same on every node.
    pub network: bool,
}

/// Ends all pods of a node whose agent does not run, and removes cgroups, mounts, links, routes and rules.
///
/// # Errors
/// With the first thing that cannot be removed; it may be repeated.
pub async fn reset(config: &Config) -> Result<Undone, AgentError> {
    let own = config.clone();
    let work = move || -> Result<usize, AgentError> {
        destroy(&own)?;
        mounts::undo(|points| below(points, &own.data_dir))
            .map_err(io("unmounting what is in the data directory".to_owned()))
    };
    let mounts = tokio::task::spawn_blocking(work).await.map_err(AgentError::Broken)??;
    let mut undone = Undone { mounts, network: false };
    if let IpAddr::V4(address) = config.node_ip {
        let settings = NetworkConfig::new(config.data_dir.join("network"), &config.node_name, address);
        let network = Network::open(settings).await?;
        if network.is_here().await? {
            network.reconcile(&BTreeSet::new()).await?;
            ServiceProxy::new(&network).cleanup().await?;
            network.cleanup().await?;
            undone.network = true;
        }
    }
    Ok(undone)
}

/// Those inside a directory. It may be a mount point itself, and that is not ours to undo.
fn below(points: Vec<PathBuf>, dir: &Path) -> Vec<PathBuf> {
    points.into_iter().filter(|point| point.starts_with(dir) && point != dir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directorys_own_mount_stays() {
        let points = ["/", "/data", "/data/node", "/data/node/pods/a", "/data/node2"].map(PathBuf::from);
        assert_eq!(below(points.to_vec(), Path::new("/data/node")), [PathBuf::from("/data/node/pods/a")]);
    }
}
