//! Pod networking: bridge, addresses, routes.

mod types;

pub use types::{Cidr, Encapsulation, HostPort, NetworkConfig, NetworkError, Peer, PodNetwork, Protocol};

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

/// The pod network of one node: a cheap handle. Every operation may be repeated.
#[derive(Clone)]
pub struct Network {}
impl Network {
    /// Loads the address records. Touches no link yet.
    pub async fn open(_config: NetworkConfig) -> Result<Network, NetworkError> {
        Err(NetworkError::NotConfigured)
    }
    /// Makes bridge, forwarding and masquerading for this pod range; called once the Node has its podCIDR, and again
    /// after every start.
    pub async fn configure(&self, _pod_cidr: Cidr) -> Result<(), NetworkError> {
        Err(NetworkError::NotConfigured)
    }
    /// Gives the pod `eth0` in its network namespace. The same key again gives the same address.
    /// `key` identifies the sandbox (pod uid, or uid and attempt).
    pub async fn attach(
        &self,
        _key: &str,
        _netns: BorrowedFd<'_>,
        _host_ports: &[HostPort],
    ) -> Result<PodNetwork, NetworkError> {
        Err(NetworkError::NotConfigured)
    }
    /// The address that `key` has, if any. Does not block.
    pub fn lookup(&self, _key: &str) -> Option<PodNetwork> {
        None
    }
    /// Takes link, host ports and address away. Fine when there is nothing.
    pub async fn detach(&self, _key: &str) -> Result<(), NetworkError> {
        Ok(())
    }
    /// Detaches every key that is not in `live`; gives the released keys. For the agent's start.
    pub async fn reconcile(&self, _live: &BTreeSet<String>) -> Result<Vec<String>, NetworkError> {
        Ok(Vec::new())
    }
    /// Makes routes (and VXLAN entries) to exactly these nodes.
    pub async fn sync_peers(&self, _peers: &[Peer]) -> Result<(), NetworkError> {
        Ok(())
    }
    /// Removes everything of ours from the node: links, routes, rules. Address records stay for live pods.
    pub async fn cleanup(&self) -> Result<(), NetworkError> {
        Ok(())
    }
}
