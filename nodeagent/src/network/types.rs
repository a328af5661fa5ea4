//! The values that pod networking takes and gives.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 address range such as `10.244.1.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    network: Ipv4Addr,
    prefix: u8,
}

impl Cidr {
    /// The range that `address` lies in. `None` for a prefix above 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        let mask = mask(prefix)?;
        Some(Self { network: Ipv4Addr::from(u32::from(address) & mask), prefix })
    }

    /// First address of the range.
    pub fn network(&self) -> Ipv4Addr {
        self.network
    }

    /// Number of leading bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Number of addresses in the range.
    pub fn len(&self) -> u64 {
        1u64 << (32 - u32::from(self.prefix))
    }

    /// A range is never empty; here for symmetry with `len`.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The `index`-th address, if it lies in the range.
    pub fn nth(&self, index: u64) -> Option<Ipv4Addr> {
        (index < self.len()).then(|| Ipv4Addr::from(u32::from(self.network) + index as u32))
    }

    /// Whether `address` lies in the range.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        mask(self.prefix).is_some_and(|mask| u32::from(address) & mask == u32::from(self.network))
    }

    /// The address that the node itself has in its pod range.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.nth(1)
    }
}

fn mask(prefix: u8) -> Option<u32> {
    match prefix {
        0 => Some(0),
        1..=32 => Some(u32::MAX << (32 - u32::from(prefix))),
        _ => None,
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl TryFrom<String> for Cidr {
    type Error = NetworkError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl FromStr for Cidr {
    type Err = NetworkError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_once('/')
            .and_then(|(address, prefix)| Cidr::new(address.parse().ok()?, prefix.parse().ok()?))
            .ok_or_else(|| NetworkError::Invalid(format!("{text:?} is not an IPv4 range such as 10.244.1.0/24")))
    }
}

/// When packets to other nodes' pods are wrapped into VXLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Encapsulation {
    /// Only to nodes that are not on this node's own L2 subnet.
    #[default]
    Auto,
    /// To every node.
    Always,
    /// To none; the routers between the nodes must know the pod ranges.
    Never,
}

/// Configuration of a node's pod network. All names are the node's own: one network namespace holds one node.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Directory for the address records; made when missing.
    pub state_dir: PathBuf,
    /// This node's name, for messages only.
    pub node_name: String,
    /// This node's InternalIP.
    pub node_ip: Ipv4Addr,
    /// Range of all pods of the cluster: traffic inside of it keeps its source address.
    pub cluster_cidr: Cidr,
    /// Range of the services' virtual addresses.
    pub service_cidr: Cidr,
    /// Name of the bridge.
    pub bridge: String,
    /// Name of the VXLAN link.
    pub vxlan: String,
    /// VXLAN network identifier.
    pub vni: u32,
    /// VXLAN UDP port.
    pub vxlan_port: u16,
    /// When to encapsulate.
    pub encapsulation: Encapsulation,
    /// MTU of pods; found out from the node's link when absent.
    pub mtu: Option<u32>,
    /// The node's network namespace, when it is not that of this process.
    pub host_netns: Option<PathBuf>,
}

impl NetworkConfig {
    /// Defaults: pods in 10.244.0.0/16, services in 10.96.0.0/16, bridge `tri0`, VXLAN `tri-vx` 7472 on UDP 8472.
    pub fn new(state_dir: impl Into<PathBuf>, node_name: impl Into<String>, node_ip: Ipv4Addr) -> Self {
        Self {
            state_dir: state_dir.into(),
            node_name: node_name.into(),
            node_ip,
            cluster_cidr: Cidr { network: Ipv4Addr::new(10, 244, 0, 0), prefix: 16 },
            service_cidr: Cidr { network: Ipv4Addr::new(10, 96, 0, 0), prefix: 16 },
            bridge: "tri0".into(),
            vxlan: "tri-vx".into(),
            vni: 7472,
            vxlan_port: 8472,
            encapsulation: Encapsulation::Auto,
            mtu: None,
            host_netns: None,
        }
    }
}

/// A port of the node that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// Only on this address of the node; on all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<Ipv4Addr>,
    /// Port on the node.
    pub host_port: u16,
    /// Port in the pod.
    pub container_port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Protocol,
}

/// A transport protocol as the API writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// From the API's word; absent counts as TCP.
    pub fn from_api(word: Option<&str>) -> Self {
        match word {
            Some("UDP") => Self::Udp,
            Some("SCTP") => Self::Sctp,
            _ => Self::Tcp,
        }
    }

    /// As nftables writes it.
    pub fn nft(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// What a pod got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNetwork {
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// Its default gateway: the bridge.
    pub gateway: Ipv4Addr,
    /// MAC of `eth0`.
    pub mac: String,
    /// MTU of `eth0`.
    pub mtu: u32,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its InternalIP.
    pub address: Ipv4Addr,
    /// Its pods' range.
    pub pod_cidr: Cidr,
}

/// What can go wrong with pod networking.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A value makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// `configure` has not been called: the node has no pod range yet.
    #[error("the node has no podCIDR yet")]
    NotConfigured,
    /// All addresses of the range are taken.
    #[error("no free address in {0}")]
    Exhausted(Cidr),
    /// Another pod of this node has the host port.
    #[error("host port {port}/{protocol} is taken by pod {owner}")]
    HostPortTaken {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: &'static str,
        /// Key of the pod that has it.
        owner: String,
    },
    /// The kernel refused a netlink request.
    #[error("{context}: {source}")]
    Netlink {
        /// What was being done.
        context: String,
        /// The cause.
        #[source]
        source: Box<rtnetlink::Error>,
    },
    /// `nft` is missing or refused a transaction.
    #[error("nftables: {0}")]
    Nftables(String),
    /// The operating system refused.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}
