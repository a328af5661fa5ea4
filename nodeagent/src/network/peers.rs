//! What must be there for other nodes' pods to be reached: a pure plan.

use std::net::Ipv4Addr;

use super::links::Route;
use super::{Cidr, Encapsulation, NetworkConfig, Peer};

/// Where this node stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here {
    pub pod_cidr: Cidr,
    /// The link that holds the node's address, and the subnet on it.
    pub link: u32,
    pub subnet: Cidr,
    /// Index of the VXLAN link, 0 while there is none.
    pub tunnel: u32,
}

/// What is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub routes: Vec<Route>,
    /// Next hop, MAC, node address.
    pub tunnel: Vec<(Ipv4Addr, [u8; 6], Ipv4Addr)>,
    /// Nodes that answer our pods directly.
    pub known_nodes: Vec<Ipv4Addr>,
    /// Peers that make no sense, in words.
    pub warnings: Vec<String>,
}

/// MAC of a node's tunnel end: it follows from the node's address, so that nodes need not tell each other.
pub(crate) fn tunnel_mac(node: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = node.octets();
    [0x0e, 0x54, a, b, c, d]
}

/// Whether packets to `address` are wrapped.
fn wrapped(config: &NetworkConfig, here: &Here, address: Ipv4Addr) -> bool {
    match config.encapsulation {
        Encapsulation::Always => true,
        Encapsulation::Never => false,
        Encapsulation::Auto => !here.subnet.contains(address),
    }
}

/// Whether any peer needs the tunnel.
pub(crate) fn needs_tunnel(config: &NetworkConfig, here: &Here, peers: &[Peer]) -> bool {
    peers.iter().any(|peer| peer.address != config.node_ip && wrapped(config, here, peer.address))
}

pub(crate) fn plan(config: &NetworkConfig, here: &Here, peers: &[Peer]) -> Plan {
    let mut plan = Plan::default();
    let mut taken: Vec<(Cidr, &str)> = vec![(here.pod_cidr, config.node_name.as_str())];
    for peer in peers.iter().filter(|peer| peer.address != config.node_ip && peer.name != config.node_name) {
        if let Some((range, owner)) = taken.iter().find(|(range, _)| overlap(*range, peer.pod_cidr)) {
            plan.warnings.push(format!("podCIDR {} of node {} overlaps {range} of {owner}", peer.pod_cidr, peer.name));
            continue;
        }
        let Some(hop) = peer.pod_cidr.gateway() else {
            plan.warnings.push(format!("podCIDR {} of node {} is too small", peer.pod_cidr, peer.name));
            continue;
        };
        taken.push((peer.pod_cidr, &peer.name));
        if wrapped(config, here, peer.address) {
            plan.tunnel.push((hop, tunnel_mac(peer.address), peer.address));
            plan.routes.push(Route {
                to: peer.pod_cidr,
                via: Some(hop),
                link: here.tunnel,
                source: here.pod_cidr.gateway(),
                onlink: true,
            });
        } else if here.subnet.contains(peer.address) {
            plan.known_nodes.push(peer.address);
            plan.routes.push(Route {
                to: peer.pod_cidr,
                via: Some(peer.address),
                link: here.link,
                source: None,
                onlink: false,
            });
        }
    }
    plan.known_nodes.sort();
    plan
}

fn overlap(a: Cidr, b: Cidr) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn peer(name: &str, address: &str, pod_cidr: &str) -> Peer {
        Peer { name: name.into(), address: address.parse().unwrap(), pod_cidr: pod_cidr.parse().unwrap() }
    }

    fn here() -> Here {
        Here {
            pod_cidr: "10.244.1.0/24".parse().unwrap(),
            link: 2,
            subnet: "192.168.7.0/24".parse().unwrap(),
            tunnel: 9,
        }
    }

    #[test]
    fn neighbours_get_routes_and_the_others_tunnels() {
        let mut config = NetworkConfig::new("/x", "one", "192.168.7.1".parse().unwrap());
        let peers = [
            peer("one", "192.168.7.1", "10.244.1.0/24"),
            peer("two", "192.168.7.2", "10.244.2.0/24"),
            peer("far", "172.16.0.9", "10.244.3.0/24"),
            peer("clash", "192.168.7.4", "10.244.2.128/25"),
        ];
        let auto = plan(&config, &here(), &peers);
        assert_eq!(auto.known_nodes, [peers[1].address]);
        assert_eq!(auto.routes.len(), 2);
        assert_eq!((auto.routes[0].via, auto.routes[0].onlink), (Some(peers[1].address), false));
        assert_eq!((auto.routes[1].link, auto.routes[1].onlink), (9, true));
        assert_eq!(auto.routes[1].source, Some(Ipv4Addr::new(10, 244, 1, 1)));
        assert_eq!(auto.tunnel, [(Ipv4Addr::new(10, 244, 3, 1), [0x0e, 0x54, 172, 16, 0, 9], peers[2].address)]);
        assert_eq!(auto.warnings.len(), 1);
        assert!(needs_tunnel(&config, &here(), &peers));

        config.encapsulation = Encapsulation::Always;
        assert_eq!(plan(&config, &here(), &peers).tunnel.len(), 2);
        config.encapsulation = Encapsulation::Never;
        let never = plan(&config, &here(), &peers);
        assert_eq!((never.routes.len(), never.tunnel.len()), (1, 0));
        assert!(!needs_tunnel(&config, &here(), &peers));
    }
}
