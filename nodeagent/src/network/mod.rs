//! Pod networking of one node.
//!
//! Every pod has a veth pair: `eth0` inside, the other end on the node's bridge. Pods hold their address as a /32 and
//! send everything to the bridge's address, also what is for a neighbour on the same node: the node then sees both
//! directions of every connection, which address translation for services needs, whatever the kernel's bridge filtering
//! is set to. Other nodes' pods are reached by a route through the node on the same subnet, else through VXLAN.
//!
//! All state that is not in the kernel is a file per address. Every operation brings about what is wanted from whatever
//! is there, so that a restarted agent simply does everything again.

mod ipam;
mod links;
mod netns;
mod peers;
mod rules;
pub mod services;
mod types;

pub use types::{Cidr, Encapsulation, HostPort, NetworkConfig, NetworkError, Peer, PodNetwork, Protocol};

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use ipam::{Ipam, Record, mac_of};
use links::{Links, Route, Vxlan};
pub(crate) use netns::Netns;
use peers::{Here, needs_tunnel, plan, tunnel_mac};
use rules::Rules;

/// Room that VXLAN takes from the MTU of the node's link.
const VXLAN_OVERHEAD: u32 = 50;
const DEFAULT_MTU: u32 = 1500;
/// Pods' links on the node are called this and a hash of the pod's key.
const VETH_PREFIX: &str = "trv";

/// The pod network of one node: a cheap handle. Every operation may be repeated.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    config: NetworkConfig,
    netns: Netns,
    links: Links,
    ipam: Mutex<Ipam>,
    state: Mutex<State>,
    /// One change of routes and rules at a time; holds the rules that were loaded last.
    applying: tokio::sync::Mutex<Option<String>>,
}

#[derive(Clone, Default)]
struct State {
    ready: Option<Ready>,
    known_nodes: Vec<Ipv4Addr>,
}

/// What `configure` found and made.
#[derive(Clone, Copy)]
struct Ready {
    pod_cidr: Cidr,
    bridge: u32,
    mtu: u32,
}

impl Network {
    /// Loads the address records. Touches no link yet.
    pub async fn open(config: NetworkConfig) -> Result<Network, NetworkError> {
        let netns = Netns::open(config.host_netns.as_deref())?;
        let dir = config.state_dir.clone();
        let ipam = blocking(move || Ipam::open(&dir)).await?;
        let links = Links::new(netns.netlink().await?);
        let state = Mutex::default();
        let applying = tokio::sync::Mutex::default();
        Ok(Self { inner: Arc::new(Inner { config, netns, links, ipam: Mutex::new(ipam), state, applying }) })
    }

    /// Makes bridge, forwarding and masquerading for this pod range; called once the Node has its podCIDR, and again
    /// after every start. Without `nft` pods have addresses and reach each other, but nothing outside; that is logged.
    pub async fn configure(&self, pod_cidr: Cidr) -> Result<(), NetworkError> {
        let inner = &self.inner;
        if pod_cidr.prefix() > 30 {
            return Err(NetworkError::Invalid(format!("podCIDR {pod_cidr} is too small")));
        }
        let gateway = pod_cidr.gateway().ok_or(NetworkError::Exhausted(pod_cidr))?;
        let mtu = inner.pod_mtu().await?;
        let name = &inner.config.bridge;
        let mut applied = inner.applying.lock().await;
        let bridge = inner.links.ensure_bridge(name, mac_of(gateway), mtu).await?;
        inner.links.only_address(bridge.index, gateway, pod_cidr.prefix()).await?;
        let bridge_conf = |key: &str| format!("ipv4/conf/{name}/{key}");
        let settings = vec![
            ("ipv4/ip_forward".to_owned(), "1"),
            // Packets go in and out through the bridge on purpose.
            (bridge_conf("send_redirects"), "0"),
            ("ipv4/conf/all/send_redirects".to_owned(), "0"),
            // Service answers and tunnelled packets come in where the route back may not lead.
            (bridge_conf("rp_filter"), "2"),
            (format!("ipv6/conf/{name}/disable_ipv6"), "1"),
        ];
        inner.netns.sysctl(settings).await.or_else(ignore_ipv6)?;
        inner.state.lock().ready = Some(Ready { pod_cidr, bridge: bridge.index, mtu });
        *applied = None;
        inner.apply_rules(&mut applied).await
    }

    /// Gives the pod `eth0` in its network namespace. The same key again gives the same address.
    /// `key` identifies the sandbox (pod uid, or uid and attempt).
    pub async fn attach(
        &self,
        key: &str,
        netns: BorrowedFd<'_>,
        host_ports: &[HostPort],
    ) -> Result<PodNetwork, NetworkError> {
        let inner = &self.inner;
        let ready = inner.state.lock().ready.ok_or(NetworkError::NotConfigured)?;
        let (record, is_new) = inner.allocate(key, ready, host_ports).await?;
        let wired = async {
            inner.wire(&record, ready, netns).await?;
            if host_ports.is_empty() { Ok(()) } else { inner.apply_rules(&mut *inner.applying.lock().await).await }
        };
        match wired.await {
            Ok(()) => Ok(record.network),
            Err(error) => {
                if is_new && let Err(undo) = self.detach(key).await {
                    tracing::warn!(pod = key, error = %undo, "cannot undo a failed attachment");
                }
                Err(error)
            }
        }
    }

    /// The address that `key` has, if any. Does not block.
    pub fn lookup(&self, key: &str) -> Option<PodNetwork> {
        self.inner.ipam.lock().get(key).map(|record| record.network.clone())
    }

    /// The MTU of pods, once configured.
    pub fn mtu(&self) -> Option<u32> {
        self.inner.state.lock().ready.map(|ready| ready.mtu)
    }

    /// Takes link, host ports and address away. Fine when there is nothing.
    pub async fn detach(&self, key: &str) -> Result<(), NetworkError> {
        let inner = self.inner.clone();
        inner.links.delete(&veth_name(key)).await?;
        let (records, key) = (self.inner.clone(), key.to_owned());
        let released = blocking(move || records.ipam.lock().release(&key)).await?;
        if released.is_some_and(|record| !record.host_ports.is_empty()) {
            inner.apply_rules(&mut *inner.applying.lock().await).await?;
        }
        Ok(())
    }

    /// Detaches every key that is not in `live` and removes pods' links that nobody owns; gives the released keys. For
    /// the agent's start, before it attaches anything.
    pub async fn reconcile(&self, live: &BTreeSet<String>) -> Result<Vec<String>, NetworkError> {
        let keys: Vec<String> = self.inner.ipam.lock().records().map(|record| record.key.clone()).collect();
        let gone: Vec<String> = keys.into_iter().filter(|key| !live.contains(key)).collect();
        for key in &gone {
            self.detach(key).await?;
        }
        let owned: BTreeSet<String> = live.iter().map(|key| veth_name(key)).collect();
        for link in self.inner.links.all().await? {
            if link.name.starts_with(VETH_PREFIX) && !owned.contains(&link.name) {
                self.inner.links.delete(&link.name).await?;
            }
        }
        Ok(gone)
    }

    /// Makes routes (and VXLAN entries) to exactly these nodes. This node itself may be among them.
    pub async fn sync_peers(&self, peers: &[Peer]) -> Result<(), NetworkError> {
        let inner = &self.inner;
        let ready = inner.state.lock().ready.ok_or(NetworkError::NotConfigured)?;
        let mut applied = inner.applying.lock().await;
        let (link, subnet) = inner.node_link().await?;
        let mut here = Here { pod_cidr: ready.pod_cidr, link, subnet, tunnel: 0 };
        if needs_tunnel(&inner.config, &here, peers) {
            here.tunnel = inner.ensure_tunnel(ready.mtu).await?;
        } else {
            inner.links.delete(&inner.config.vxlan).await?;
        }
        let plan = plan(&inner.config, &here, peers);
        for warning in &plan.warnings {
            tracing::warn!("{warning}");
        }
        if here.tunnel != 0 {
            inner.links.tunnel_entries(here.tunnel, &plan.tunnel).await?;
        }
        inner.sync_routes(&plan.routes).await?;
        inner.state.lock().known_nodes = plan.known_nodes;
        inner.apply_rules(&mut applied).await
    }

    /// Whether this machine has the node's address.
    pub async fn is_here(&self) -> Result<bool, NetworkError> {
        let node = self.inner.config.node_ip;
        Ok(self.inner.links.addresses().await?.iter().any(|(_, address, _)| *address == node))
    }

    /// Removes everything of ours from the node: links, routes, rules. Address records stay for pods that still live.
    pub async fn cleanup(&self) -> Result<(), NetworkError> {
        let inner = &self.inner;
        let mut applied = inner.applying.lock().await;
        *applied = None;
        for (_, route) in inner.links.our_routes().await? {
            inner.links.delete_route(route).await?;
        }
        for link in inner.links.all().await? {
            if link.name.starts_with(VETH_PREFIX) || link.name == inner.config.vxlan || link.name == inner.config.bridge
            {
                inner.links.delete(&link.name).await?;
            }
        }
        inner.state.lock().ready = None;
        let script = format!("add table ip {0}\ndelete table ip {0}\n", rules::TABLE);
        ignore_missing_nft(rules::load(&inner.netns, script).await)
    }
}

impl Inner {
    /// The link with the node's address, and its subnet there.
    async fn node_link(&self) -> Result<(u32, Cidr), NetworkError> {
        let node = self.config.node_ip;
        let found = self.links.addresses().await?.into_iter().find(|(_, address, _)| *address == node);
        let (link, _, prefix) = found
            .ok_or_else(|| NetworkError::Invalid(format!("no link of this machine has the node's address {node}")))?;
        let subnet = Cidr::new(node, prefix).ok_or_else(|| NetworkError::Invalid(format!("bad prefix {prefix}")))?;
        Ok((link, subnet))
    }

    /// Room for VXLAN is left even while every node is a neighbour: a pod's MTU cannot change when a distant node joins.
    async fn pod_mtu(&self) -> Result<u32, NetworkError> {
        if let Some(mtu) = self.config.mtu {
            return Ok(mtu);
        }
        let (index, _) = self.node_link().await?;
        let mtu = self.links.all().await?.into_iter().find(|link| link.index == index).map(|link| link.mtu);
        // Loopback and the like claim 64 KiB.
        let mtu = mtu.filter(|mtu| (1280..=9216).contains(mtu)).unwrap_or(DEFAULT_MTU);
        Ok(if self.config.encapsulation == Encapsulation::Never { mtu } else { mtu - VXLAN_OVERHEAD })
    }

    async fn allocate(
        self: &Arc<Self>,
        key: &str,
        ready: Ready,
        host_ports: &[HostPort],
    ) -> Result<(Record, bool), NetworkError> {
        let (inner, key, host_ports) = (self.clone(), key.to_owned(), host_ports.to_vec());
        blocking(move || {
            let mut ipam = inner.ipam.lock();
            let is_new = ipam.get(&key).is_none();
            ipam.allocate(&key, ready.pod_cidr, ready.mtu, &host_ports).map(|record| (record, is_new))
        })
        .await
    }

    /// Makes or repairs the pod's link.
    async fn wire(&self, record: &Record, ready: Ready, netns: BorrowedFd<'_>) -> Result<(), NetworkError> {
        let pod = Netns::of(netns)?;
        let inside = Links::new(pod.netlink().await?);
        let (name, network) = (veth_name(&record.key), &record.network);
        let mut eth0 = inside.find("eth0").await?;
        let mut outer = self.links.find(&name).await?;
        if outer.is_none() || eth0.is_none() {
            // Half a pair is the rest of an earlier attempt, in this namespace or in one that is gone.
            self.links.delete(&name).await?;
            inside.delete("eth0").await?;
            outer = Some(self.links.add_veth(&name, netns.as_fd(), mac_of(network.ip), network.mtu).await?);
            eth0 = inside.find("eth0").await?;
        }
        let (Some(outer), Some(eth0)) = (outer, eth0) else {
            return Err(NetworkError::Invalid(format!("the link of pod {} vanished", record.key)));
        };
        self.links.plug(outer.index, ready.bridge).await?;
        if let Some(lo) = inside.find("lo").await? {
            inside.set_up(lo.index).await?;
        }
        inside.only_address(eth0.index, network.ip, 32).await?;
        inside.set_up(eth0.index).await?;
        let everything = Cidr::new(Ipv4Addr::UNSPECIFIED, 0);
        let Some(everything) = everything else { return Ok(()) };
        let default =
            Route { to: everything, via: Some(network.gateway), link: eth0.index, source: None, onlink: true };
        inside.replace_route(&default).await
    }

    async fn ensure_tunnel(&self, mtu: u32) -> Result<u32, NetworkError> {
        let config = &self.config;
        let wanted = Vxlan {
            name: &config.vxlan,
            vni: config.vni,
            port: config.vxlan_port,
            local: config.node_ip,
            mac: tunnel_mac(config.node_ip),
            mtu,
        };
        let link = self.links.ensure_vxlan(&wanted).await?;
        let settings = vec![
            (format!("ipv6/conf/{}/disable_ipv6", config.vxlan), "1"),
            (format!("ipv4/conf/{}/rp_filter", config.vxlan), "2"),
        ];
        self.netns.sysctl(settings).await.or_else(ignore_ipv6)?;
        Ok(link.index)
    }

    /// Routes that are ours and not wanted go; a route that cannot be made does not keep the others away.
    async fn sync_routes(&self, wanted: &[Route]) -> Result<(), NetworkError> {
        let mut first = Ok(());
        for (to, route) in self.links.our_routes().await? {
            let keep = to == self.config.service_cidr || wanted.iter().any(|wanted| wanted.to == to);
            if !keep {
                first = first.and(self.links.delete_route(route).await);
            }
        }
        for route in wanted {
            first = first.and(self.links.replace_route(route).await);
        }
        first
    }

    /// Loads the rules if they differ from those loaded last.
    async fn apply_rules(&self, applied: &mut Option<String>) -> Result<(), NetworkError> {
        let state = self.state.lock().clone();
        let Some(ready) = state.ready else { return Ok(()) };
        let rules = Rules {
            bridge: &self.config.bridge,
            pod_cidr: ready.pod_cidr,
            cluster_cidr: self.config.cluster_cidr,
            known_nodes: state.known_nodes,
            records: self.ipam.lock().records().filter(|record| !record.host_ports.is_empty()).cloned().collect(),
        };
        let script = rules.render();
        if applied.as_ref() == Some(&script) {
            return Ok(());
        }
        ignore_missing_nft(rules::load(&self.netns, script.clone()).await)?;
        *applied = Some(script);
        Ok(())
    }
}

/// The name of a pod's link on the node: at most 15 bytes.
fn veth_name(key: &str) -> String {
    let hash = Sha256::digest(key);
    hash.iter().take(6).fold(VETH_PREFIX.to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

/// A kernel without IPv6 has nothing to switch off.
fn ignore_ipv6(error: NetworkError) -> Result<(), NetworkError> {
    match &error {
        NetworkError::Io { source, .. } if source.to_string().contains("ipv6") => Ok(()),
        _ => Err(error),
    }
}

fn ignore_missing_nft(result: Result<(), NetworkError>) -> Result<(), NetworkError> {
    match result {
        Err(NetworkError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            tracing::warn!(
                "nft is not installed: pods cannot reach addresses outside of the cluster, host ports are closed"
            );
            Ok(())
        }
        other => other,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(NetworkError::Io { context: "internal error".into(), source: std::io::Error::other(error) })
    })
}
