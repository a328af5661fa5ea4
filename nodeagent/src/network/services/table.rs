//! What services ask of a node: a pure function of services and endpoint slices.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::super::Protocol;

/// Where a connection goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Frontend {
    /// A virtual address, or any address of the node for a node port.
    pub address: Option<Ipv4Addr>,
    pub protocol: Protocol,
    pub port: u16,
}

/// Where it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Backends {
    /// `namespace/name:port`, for whoever reads the rules.
    pub service: String,
    pub endpoints: BTreeSet<(Ipv4Addr, u16)>,
    /// Seconds that a client stays with its endpoint.
    pub affinity: Option<u32>,
    /// Traffic from outside is answered through this node.
    pub masquerade: bool,
    /// Unready endpoints elsewhere: drop instead of refusing (externalTrafficPolicy Local).
    pub drop_if_empty: bool,
}

/// Everything that is to be loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub frontends: BTreeMap<Frontend, Backends>,
}

/// An endpoint as slices tell of it.
struct Endpoint<'a> {
    address: Ipv4Addr,
    node: Option<&'a str>,
    ready: bool,
    serving: bool,
}

/// Endpoints by namespace, service, port name and protocol.
type Slices<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>;

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const DEFAULT_AFFINITY: i32 = 10_800;

impl Table {
    pub fn new<S: Borrow<Service>, E: Borrow<EndpointSlice>>(node: &str, services: &[S], slices: &[E]) -> Self {
        let mut by_service: Slices<'_> = BTreeMap::new();
        for slice in slices.iter().map(Borrow::borrow).filter(|slice| slice.address_type == "IPv4") {
            let labels = slice.metadata.labels.as_ref();
            if let Some(name) = labels.and_then(|labels| labels.get(SERVICE_NAME)) {
                let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
                by_service.entry((namespace, name)).or_default().push(slice);
            }
        }
        let mut table = Self::default();
        for service in services.iter().map(Borrow::borrow) {
            table.add(node, service, &by_service);
        }
        table
    }

    fn add(&mut self, node: &str, service: &Service, slices: &Slices<'_>) {
        let Some(spec) = &service.spec else { return };
        let cluster_ip = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
        let Some(cluster_ip) = cluster_ip.filter(|_| spec.type_.as_deref() != Some("ExternalName")) else { return };
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let slices = slices.get(&(namespace, name)).map(Vec::as_slice).unwrap_or_default();
        let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        for port in spec.ports.iter().flatten() {
            let (Ok(number), protocol) = (u16::try_from(port.port), Protocol::from_api(port.protocol.as_deref()))
            else {
                continue;
            };
            let endpoints = endpoints(slices, port, protocol);
            let label = format!("{namespace}/{name}:{}", port.name.as_deref().unwrap_or_default());
            let backends = |node: Option<&str>, outside: bool| Backends {
                service: label.clone(),
                endpoints: usable(&endpoints, node),
                affinity: affinity(spec),
                masquerade: outside && node.is_none(),
                drop_if_empty: outside && node.is_some(),
            };
            let inside = backends(local(&spec.internal_traffic_policy).then_some(node), false);
            let frontend = |address, port| Frontend { address, protocol, port };
            self.frontends.entry(frontend(Some(cluster_ip), number)).or_insert(inside);
            let outside = backends(local(&spec.external_traffic_policy).then_some(node), true);
            if let Some(node_port) = node_port(port) {
                self.frontends.entry(frontend(None, node_port)).or_insert_with(|| outside.clone());
            }
            for address in outside_addresses(service, spec) {
                self.frontends.entry(frontend(Some(address), number)).or_insert_with(|| outside.clone());
            }
        }
    }
}

/// External and load balancer addresses: traffic for them may arrive at any node.
fn outside_addresses(service: &Service, spec: &ServiceSpec) -> Vec<Ipv4Addr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    let texts = spec.external_ips.iter().flatten().cloned().chain(ingress.filter_map(|ingress| ingress.ip.clone()));
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn node_port(port: &ServicePort) -> Option<u16> {
    port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
}

fn affinity(spec: &ServiceSpec) -> Option<u32> {
    (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
        let seconds = config.and_then(|config| config.timeout_seconds).unwrap_or(DEFAULT_AFFINITY);
        u32::try_from(seconds).unwrap_or(1).max(1)
    })
}

/// Endpoints of a service's port with their target port. A slice's ports are matched by name.
fn endpoints<'a>(slices: &[&'a EndpointSlice], port: &ServicePort, protocol: Protocol) -> Vec<(Endpoint<'a>, u16)> {
    let mut found = Vec::new();
    let name = port.name.as_deref().unwrap_or_default();
    for slice in slices {
        let target = slice.ports.iter().flatten().find(|target| {
            target.name.as_deref().unwrap_or_default() == name
                && Protocol::from_api(target.protocol.as_deref()) == protocol
        });
        let Some(target) = target.and_then(|target| u16::try_from(target.port?).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(address) = endpoint.addresses.first().and_then(|address| address.parse().ok()) else { continue };
            let conditions = endpoint.conditions.as_ref();
            // Unknown counts as ready, and who does not say whether it serves serves while it is ready.
            let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
            let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
            found.push((Endpoint { address, node: endpoint.node_name.as_deref(), ready, serving }, target));
        }
    }
    found
}

/// Ready endpoints, on the given node if there is one; where none is ready, those that end but still serve.
fn usable(endpoints: &[(Endpoint<'_>, u16)], node: Option<&str>) -> BTreeSet<(Ipv4Addr, u16)> {
    let here = |endpoint: &Endpoint<'_>| node.is_none() || endpoint.node == node;
    let pick = |wanted: &dyn Fn(&Endpoint<'_>) -> bool| -> BTreeSet<(Ipv4Addr, u16)> {
        let fitting = endpoints.iter().filter(|(endpoint, _)| here(endpoint) && wanted(endpoint));
        fitting.map(|(endpoint, port)| (endpoint.address, *port)).collect()
    };
    let ready = pick(&|endpoint| endpoint.ready);
    if ready.is_empty() { pick(&|endpoint| endpoint.serving) } else { ready }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn service(extra: serde_json::Value) -> Service {
        let mut spec = json!({"clusterIP": "10.96.0.10", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"namespace": "d", "name": "web"}, "spec": spec})).unwrap()
    }

    fn slice(endpoints: serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json!({"addressType": "IPv4", "endpoints": endpoints,
            "metadata": {"namespace": "d", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}))
        .unwrap()
    }

    fn endpoint(ip: &str, ready: bool, serving: bool, node: &str) -> serde_json::Value {
        json!({"addresses": [ip], "nodeName": node, "conditions": {"ready": ready, "serving": serving}})
    }

    fn addresses(backends: &Backends) -> Vec<String> {
        backends.endpoints.iter().map(|(ip, port)| format!("{ip}:{port}")).collect()
    }

    fn at(address: Option<&str>, port: u16) -> Frontend {
        Frontend { address: address.map(|ip| ip.parse().unwrap()), protocol: Protocol::Tcp, port }
    }

    #[test]
    fn ready_endpoints_are_used_and_serving_ones_in_need() {
        let slices =
            [slice(json!([endpoint("10.244.1.2", true, true, "a"), endpoint("10.244.1.3", false, true, "b")]))];
        let table = Table::new("a", &[service(json!({}))], &slices);
        assert_eq!(addresses(&table.frontends[&at(Some("10.96.0.10"), 80)]), ["10.244.1.2:8080"]);
        let slices =
            [slice(json!([endpoint("10.244.1.3", false, true, "b"), endpoint("10.244.1.4", false, false, "b")]))];
        let table = Table::new("a", &[service(json!({}))], &slices);
        assert_eq!(addresses(&table.frontends[&at(Some("10.96.0.10"), 80)]), ["10.244.1.3:8080"]);
    }

    #[test]
    fn headless_and_external_names_have_nothing() {
        let none: [EndpointSlice; 0] = [];
        let services =
            [service(json!({"clusterIP": "None"})), service(json!({"type": "ExternalName", "clusterIP": "10.96.0.9"}))];
        assert_eq!(Table::new("a", &services, &none), Table::default());
    }

    #[test]
    fn policies_node_ports_and_affinity() {
        let slices = [slice(json!([endpoint("10.244.1.2", true, true, "a"), endpoint("10.244.2.2", true, true, "b")]))];
        let extra = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "externalIPs": ["192.0.2.7"],
            "sessionAffinity": "ClientIP", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
        let table = Table::new("a", &[service(extra)], &slices);
        let inside = &table.frontends[&at(Some("10.96.0.10"), 80)];
        assert_eq!((inside.endpoints.len(), inside.affinity, inside.masquerade), (2, Some(10_800), false));
        for outside in [at(None, 30080), at(Some("192.0.2.7"), 80)] {
            let outside = &table.frontends[&outside];
            assert_eq!(addresses(outside), ["10.244.1.2:8080"]);
            assert!(!outside.masquerade && outside.drop_if_empty);
        }
    }
}
