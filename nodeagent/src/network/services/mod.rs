//! Services: virtual addresses and node ports that lead to ready endpoints, through nftables.
//!
//! [`table`] says what should be (pure), [`script`] turns the difference to what is loaded into one nftables transaction
//! (pure); here both are applied. The table is our own and is replaced as a whole at start and after a failure.

mod script;
mod table;

use std::borrow::Borrow;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::links::Route;
use super::{Inner, Network, NetworkError, ignore_missing_nft, rules};
use table::Table;

/// Carries traffic for services from this node to their endpoints: a cheap handle.
#[derive(Clone)]
pub struct ServiceProxy {
    inner: Arc<Proxy>,
}

struct Proxy {
    network: Arc<Inner>,
    /// What is loaded; unknown before the first and after a failed transaction.
    loaded: tokio::sync::Mutex<Option<Loaded>>,
}

struct Loaded {
    table: Table,
    /// Link and source address of the route to the virtual addresses.
    route: (u32, Option<Ipv4Addr>),
}

impl ServiceProxy {
    /// For the node of that network.
    pub fn new(network: &Network) -> Self {
        Self { inner: Arc::new(Proxy { network: network.inner.clone(), loaded: tokio::sync::Mutex::default() }) }
    }

    /// Brings about what these services and slices (all of the cluster) ask for. Only what changed since the last call is
    /// loaded, in one transaction. The network must be configured.
    pub async fn sync<S, E>(&self, services: &[S], slices: &[E]) -> Result<(), NetworkError>
    where
        S: Borrow<Service> + Sync,
        E: Borrow<EndpointSlice> + Sync,
    {
        let network = &self.inner.network;
        let ready = network.state.lock().ready.ok_or(NetworkError::NotConfigured)?;
        let wanted = Table::new(&network.config.node_name, services, slices);
        let mut loaded = self.inner.loaded.lock().await;
        // Unknown until it has worked.
        let old = loaded.take();
        let route = (ready.bridge, ready.pod_cidr.gateway());
        if old.as_ref().map(|old| old.route) != Some(route) {
            self.route(route).await?;
        }
        let script = match &old {
            Some(old) => script::difference(&old.table, &wanted),
            None => script::whole(&wanted, network.config.service_cidr),
        };
        if !script.is_empty() {
            ignore_missing_nft(rules::load(&network.netns, script).await)?;
        }
        *loaded = Some(Loaded { table: wanted, route });
        Ok(())
    }

    /// The node's own clients look up a route before translation: without one they get "network is unreachable".
    async fn route(&self, (link, source): (u32, Option<Ipv4Addr>)) -> Result<(), NetworkError> {
        let to = self.inner.network.config.service_cidr;
        let route = Route { to, via: None, link, source, onlink: false };
        self.inner.network.links.replace_route(&route).await
    }

    /// Removes all rules and the route.
    pub async fn cleanup(&self) -> Result<(), NetworkError> {
        let network = &self.inner.network;
        *self.inner.loaded.lock().await = None;
        for (to, route) in network.links.our_routes().await? {
            if to == network.config.service_cidr {
                network.links.delete_route(route).await?;
            }
        }
        ignore_missing_nft(rules::load(&network.netns, script::nothing()).await)
    }
}
