//! Netlink requests in the form that pod networking needs them: each may be repeated.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoBridgePort, InfoData, InfoVeth, LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan, RouteMessageBuilder,
};

use super::{Cidr, NetworkError};

/// Marks our routes (`ip route show proto 116`), so that ours alone are ever removed.
pub(crate) const ROUTE_PROTOCOL: u8 = 116;

/// A netlink handle with the operations of this module.
#[derive(Clone)]
pub(crate) struct Links {
    handle: Handle,
    /// The kernel lists one thing at a time for each socket and answers EBUSY to whoever asks meanwhile.
    listing: Arc<tokio::sync::Mutex<()>>,
}

/// A link, as far as we look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    pub controller: Option<u32>,
}

/// A route to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub to: Cidr,
    pub via: Option<Ipv4Addr>,
    pub link: u32,
    pub source: Option<Ipv4Addr>,
    /// The next hop is on the link although no address of it says so.
    pub onlink: bool,
}

fn fail<'a>(context: impl Into<String> + 'a) -> impl FnOnce(rtnetlink::Error) -> NetworkError + 'a {
    move |source| NetworkError::Netlink { context: context.into(), source: Box::new(source) }
}

fn errno(error: &rtnetlink::Error) -> i32 {
    match error {
        rtnetlink::Error::NetlinkError(message) => -message.raw_code(),
        _ => 0,
    }
}

/// What is not there need not be removed; what is there need not be made.
fn unless(code: nix::errno::Errno, result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if errno(&error) == code as i32 => Ok(()),
        other => other,
    }
}

impl Links {
    pub fn new(handle: Handle) -> Links {
        Links { handle, listing: Arc::default() }
    }

    pub async fn find(&self, name: &str) -> Result<Option<Link>, NetworkError> {
        let mut links = self.handle.link().get().match_name(name).execute();
        match links.try_next().await {
            Ok(link) => Ok(link.map(describe)),
            Err(error) if errno(&error) == nix::errno::Errno::ENODEV as i32 => Ok(None),
            Err(error) => Err(fail(format!("cannot find link {name}"))(error)),
        }
    }

    pub async fn all(&self) -> Result<Vec<Link>, NetworkError> {
        let _alone = self.listing.lock().await;
        let links: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(fail("cannot list links"))?;
        Ok(links.into_iter().map(describe).collect())
    }

    async fn must_find(&self, name: &str) -> Result<Link, NetworkError> {
        let gone = || NetworkError::Invalid(format!("link {name} vanished"));
        self.find(name).await?.ok_or_else(gone)
    }

    /// A bridge that is up, with a MAC of its own: else it would change with its ports.
    pub async fn ensure_bridge(&self, name: &str, mac: [u8; 6], mtu: u32) -> Result<Link, NetworkError> {
        if self.find(name).await?.is_none() {
            let message = LinkBridge::new(name).address(mac.to_vec()).build();
            let added = self.handle.link().add(message).execute().await;
            unless(nix::errno::Errno::EEXIST, added).map_err(fail(format!("cannot make bridge {name}")))?;
        }
        let link = self.must_find(name).await?;
        let message = LinkUnspec::new_with_index(link.index).address(mac.to_vec()).mtu(mtu).up().build();
        self.handle.link().set(message).execute().await.map_err(fail(format!("cannot set up bridge {name}")))?;
        Ok(link)
    }

    /// A VXLAN link that learns nothing: entries are ours.
    pub async fn ensure_vxlan(&self, wanted: &Vxlan<'_>) -> Result<Link, NetworkError> {
        if self.find(wanted.name).await?.is_none() {
            let message = LinkVxlan::new(wanted.name, wanted.vni)
                .port(wanted.port)
                .local(wanted.local)
                .learning(false)
                .address(wanted.mac.to_vec())
                .build();
            let added = self.handle.link().add(message).execute().await;
            unless(nix::errno::Errno::EEXIST, added).map_err(fail(format!("cannot make VXLAN {}", wanted.name)))?;
        }
        let link = self.must_find(wanted.name).await?;
        let message = LinkUnspec::new_with_index(link.index).mtu(wanted.mtu).up().build();
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(fail(format!("cannot set up VXLAN {}", wanted.name)))?;
        Ok(link)
    }

    /// A veth pair: one end here under `name`, the other in `netns` as `eth0`.
    pub async fn add_veth(
        &self,
        name: &str,
        netns: BorrowedFd<'_>,
        mac: [u8; 6],
        mtu: u32,
    ) -> Result<Link, NetworkError> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name("eth0")
            .address(mac.to_vec())
            .mtu(mtu)
            .setns_by_fd(netns.as_raw_fd())
            .build();
        let message = LinkVeth::new(name, "eth0").set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).mtu(mtu).build();
        self.handle.link().add(message).execute().await.map_err(fail(format!("cannot make veth {name}")))?;
        self.must_find(name).await
    }

    /// Plugs a link into a bridge, up, and lets a pod reach itself through a service address.
    pub async fn plug(&self, link: u32, bridge: u32) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(link).controller(bridge).up().build();
        self.handle.link().set(message).execute().await.map_err(fail("cannot plug a pod into the bridge"))?;
        let message = LinkBridgePort::new(link).append_info_data(InfoBridgePort::HairpinMode(true)).build();
        self.handle.link().set_port(message).execute().await.map_err(fail("cannot set up a bridge port"))
    }

    pub async fn set_up(&self, index: u32) -> Result<(), NetworkError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(message).execute().await.map_err(fail("cannot set a link up"))
    }

    pub async fn delete(&self, name: &str) -> Result<(), NetworkError> {
        let Some(link) = self.find(name).await? else { return Ok(()) };
        let deleted = self.handle.link().del(link.index).execute().await;
        unless(nix::errno::Errno::ENODEV, deleted).map_err(fail(format!("cannot delete link {name}")))
    }

    /// IPv4 addresses with link index and prefix length.
    pub async fn addresses(&self) -> Result<Vec<(u32, Ipv4Addr, u8)>, NetworkError> {
        let _alone = self.listing.lock().await;
        let all: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.map_err(fail("cannot list addresses"))?;
        Ok(all.iter().filter_map(address_of).collect())
    }

    /// Gives the link this IPv4 address and no other.
    pub async fn only_address(&self, link: u32, address: Ipv4Addr, prefix: u8) -> Result<(), NetworkError> {
        let listing = self.listing.lock().await;
        let mut all = self.handle.address().get().set_link_index_filter(link).execute();
        let mut stale = Vec::new();
        let mut there = false;
        while let Some(message) = all.next().await {
            let message = message.map_err(fail("cannot list addresses"))?;
            match address_of(&message) {
                Some((_, have, length)) if have == address && length == prefix => there = true,
                Some(_) => stale.push(message),
                None => {}
            }
        }
        drop((all, listing));
        for message in stale {
            let deleted = self.handle.address().del(message).execute().await;
            unless(nix::errno::Errno::EADDRNOTAVAIL, deleted).map_err(fail("cannot remove an old address"))?;
        }
        if there {
            return Ok(());
        }
        let added = self.handle.address().add(link, IpAddr::V4(address), prefix).execute().await;
        unless(nix::errno::Errno::EEXIST, added).map_err(fail(format!("cannot add address {address}/{prefix}")))
    }

    pub async fn replace_route(&self, route: &Route) -> Result<(), NetworkError> {
        let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(route.to.network(), route.to.prefix())
            .output_interface(route.link)
            .protocol(RouteProtocol::from(ROUTE_PROTOCOL));
        builder = match route.via {
            Some(via) => builder.gateway(via),
            None => builder.scope(RouteScope::Link),
        };
        if let Some(source) = route.source {
            builder = builder.pref_source(source);
        }
        if route.onlink {
            builder = builder.onlink();
        }
        let added = self.handle.route().add(builder.build()).replace().execute().await;
        added.map_err(fail(format!("cannot make the route to {}", route.to)))
    }

    /// Our own routes that leave through other nodes or to virtual addresses.
    pub async fn our_routes(&self) -> Result<Vec<(Cidr, RouteMessage)>, NetworkError> {
        let _alone = self.listing.lock().await;
        let all = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        let all: Vec<RouteMessage> = all.try_collect().await.map_err(fail("cannot list routes"))?;
        let ours = all.into_iter().filter(|route| route.header.protocol == RouteProtocol::from(ROUTE_PROTOCOL));
        Ok(ours.filter_map(|route| Some((destination(&route)?, route))).collect())
    }

    pub async fn delete_route(&self, route: RouteMessage) -> Result<(), NetworkError> {
        let deleted = self.handle.route().del(route).execute().await;
        unless(nix::errno::Errno::ESRCH, deleted).map_err(fail("cannot remove a route"))
    }

    /// Makes the tunnel's neighbour and forwarding entries exactly these: (next hop, MAC, node address).
    pub async fn tunnel_entries(
        &self,
        link: u32,
        wanted: &[(Ipv4Addr, [u8; 6], Ipv4Addr)],
    ) -> Result<(), NetworkError> {
        for stale in self.neighbours(link, AddressFamily::Inet).await? {
            let keep =
                |(hop, mac, _): &(Ipv4Addr, [u8; 6], Ipv4Addr)| has_address(&stale, *hop) && has_mac(&stale, mac);
            if !wanted.iter().any(keep) {
                self.delete_neighbour(stale).await?;
            }
        }
        for stale in self.neighbours(link, AddressFamily::Bridge).await? {
            let keep =
                |(_, mac, node): &(Ipv4Addr, [u8; 6], Ipv4Addr)| has_address(&stale, *node) && has_mac(&stale, mac);
            if !wanted.iter().any(keep) {
                self.delete_neighbour(stale).await?;
            }
        }
        let neighbours = self.handle.neighbours();
        for (hop, mac, node) in wanted {
            let neighbour = neighbours.add(link, IpAddr::V4(*hop)).link_layer_address(mac).replace();
            neighbour.execute().await.map_err(fail(format!("cannot make the neighbour {hop}")))?;
            let forward = neighbours
                .add_bridge(link, mac)
                .destination(IpAddr::V4(*node))
                .flags(NeighbourFlags::Own)
                .replace()
                .execute();
            forward.await.map_err(fail(format!("cannot make the forwarding entry to {node}")))?;
        }
        Ok(())
    }

    async fn neighbours(&self, link: u32, family: AddressFamily) -> Result<Vec<NeighbourMessage>, NetworkError> {
        let _alone = self.listing.lock().await;
        let all = self.handle.neighbours().get().set_address_family(family).execute();
        let all: Vec<NeighbourMessage> = all.try_collect().await.map_err(fail("cannot list neighbours"))?;
        Ok(all.into_iter().filter(|entry| entry.header.ifindex == link).collect())
    }

    async fn delete_neighbour(&self, mut entry: NeighbourMessage) -> Result<(), NetworkError> {
        // What the kernel reports besides the key is no part of a request.
        entry.attributes.retain(|attribute| {
            matches!(attribute, NeighbourAttribute::Destination(_) | NeighbourAttribute::LinkLayerAddress(_))
        });
        let deleted = self.handle.neighbours().del(entry).execute().await;
        unless(nix::errno::Errno::ENOENT, deleted).map_err(fail("cannot remove a neighbour"))
    }
}

/// A VXLAN link to be made.
pub(crate) struct Vxlan<'a> {
    pub name: &'a str,
    pub vni: u32,
    pub port: u16,
    pub local: Ipv4Addr,
    pub mac: [u8; 6],
    pub mtu: u32,
}

fn describe(message: LinkMessage) -> Link {
    let mut link = Link { index: message.header.index, name: String::new(), mtu: 0, controller: None };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(index) => link.controller = Some(index),
            _ => {}
        }
    }
    link
}

fn address_of(message: &AddressMessage) -> Option<(u32, Ipv4Addr, u8)> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => {
            Some((message.header.index, *address, message.header.prefix_len))
        }
        _ => None,
    })
}

fn destination(route: &RouteMessage) -> Option<Cidr> {
    let network = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    Cidr::new(network.unwrap_or(Ipv4Addr::UNSPECIFIED), route.header.destination_prefix_length)
}

fn has_address(entry: &NeighbourMessage, wanted: Ipv4Addr) -> bool {
    entry.attributes.iter().any(|attribute| {
        matches!(attribute, NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) if *address == wanted)
    })
}

fn has_mac(entry: &NeighbourMessage, wanted: &[u8; 6]) -> bool {
    entry
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, NeighbourAttribute::LinkLayerAddress(mac) if mac.as_slice() == wanted))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn many_may_list_at_once() {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        let links = Links::new(handle);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let links = links.clone();
            tasks.spawn(async move {
                links.addresses().await.unwrap();
                links.all().await.unwrap();
                links.our_routes().await.unwrap();
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }
}
