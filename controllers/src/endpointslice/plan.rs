//! The slices that a service should have, as changes to those it has. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::pods;
use crate::services::{
    HEADLESS_LABEL, addresses, hostname, is_headless, ports, protocol, publishes_not_ready, reference, target_port,
};

pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(super) const CONTROLLER: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";
/// The most endpoints in a slice.
pub(super) const MOST: usize = 100;

/// What to write.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Vec<EndpointSlice>,
    /// Slices as they should be; those that are already are among them.
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<EndpointSlice>,
}

/// Ports in a form that can be ordered: name, number, protocol, application protocol.
type Ports = Vec<(String, Option<i32>, String, Option<String>)>;

/// Plans the slices of a service. `zone_of` tells the zone of a node.
pub(super) fn plan(
    service: &Service,
    selected: &[Arc<Pod>],
    present: &[Arc<EndpointSlice>],
    node: impl Fn(&str) -> Option<Arc<Node>>,
) -> Plan {
    let mut plan = Plan::default();
    let families = families(service);
    plan.delete.extend(
        present
            .iter()
            .filter(|slice| !families.contains(&&*slice.address_type))
            .map(|slice| EndpointSlice::clone(slice)),
    );
    for family in families {
        let own: Vec<&EndpointSlice> =
            present.iter().map(|slice| &**slice).filter(|slice| slice.address_type == family).collect();
        let mut groups: BTreeMap<Ports, Vec<Endpoint>> = BTreeMap::new();
        for pod in selected {
            let Some(endpoint) = endpoint(service, pod, family, &node) else { continue };
            groups.entry(ports_of(service, pod)).or_default().push(endpoint);
        }
        plan_family(service, family, groups, own, &mut plan);
    }
    plan
}

fn families(service: &Service) -> Vec<&'static str> {
    let listed = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref());
    let known = |family: &String| if family == "IPv6" { "IPv6" } else { "IPv4" };
    let families: Vec<_> = listed.into_iter().flatten().map(known).collect();
    if families.is_empty() { vec!["IPv4"] } else { families }
}

fn endpoint(service: &Service, pod: &Pod, family: &str, node: &impl Fn(&str) -> Option<Arc<Node>>) -> Option<Endpoint> {
    if pods::is_terminal(pod) {
        return None;
    }
    let address = addresses(pod).into_iter().find(|address| address.is_ipv6() == (family == "IPv6"))?;
    let serving = pods::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let node_name = pods::node_of(pod);
    let zone = node_name.and_then(node).and_then(|node| node.metadata.labels.as_ref()?.get(ZONE).cloned());
    Some(Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(publishes_not_ready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: node_name.map(str::to_owned),
        target_ref: Some(reference(pod)),
        zone,
        ..Endpoint::default()
    })
}

fn ports_of(service: &Service, pod: &Pod) -> Ports {
    let found = ports(service).iter().filter_map(|port| {
        let number = target_port(pod, port)?;
        let name = port.name.clone().unwrap_or_default();
        Some((name, Some(number), protocol(port).to_owned(), port.app_protocol.clone()))
    });
    let mut found: Ports = found.collect();
    found.sort();
    found
}

fn ports_in(slice: &EndpointSlice) -> Ports {
    let ports = slice.ports.iter().flatten().map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        (port.name.clone().unwrap_or_default(), port.port, protocol, port.app_protocol.clone())
    });
    let mut ports: Ports = ports.collect();
    ports.sort();
    ports
}

fn identity(endpoint: &Endpoint) -> (Option<&str>, Option<&String>) {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref());
    (uid, endpoint.addresses.first())
}

/// Keeps what is where it is as far as it can, fills up slices that have room, then makes new ones; what is left
/// empty is used for those or deleted.
fn plan_family(
    service: &Service,
    family: &'static str,
    mut groups: BTreeMap<Ports, Vec<Endpoint>>,
    present: Vec<&EndpointSlice>,
    plan: &mut Plan,
) {
    if groups.is_empty() {
        // So that consumers can tell "no endpoints" from "not there yet".
        groups.insert(Ports::new(), Vec::new());
    }
    let (mut spare, mut missing) = (Vec::new(), Vec::new());
    for slice in &present {
        if !groups.contains_key(&ports_in(slice)) {
            spare.push((*slice).clone());
        }
    }
    for (ports, mut left) in groups {
        let of_group: Vec<&EndpointSlice> = present.iter().filter(|slice| ports_in(slice) == ports).copied().collect();
        let placeholder = left.is_empty();
        let mut slices: Vec<(&EndpointSlice, Vec<Endpoint>)> = Vec::new();
        for slice in of_group {
            let mut kept = Vec::new();
            for known in slice.endpoints.iter().flatten() {
                if let Some(at) = left.iter().position(|wanted| identity(wanted) == identity(known)) {
                    kept.push(left.remove(at));
                }
            }
            slices.push((slice, kept));
        }
        for (_, kept) in slices.iter_mut().filter(|(_, kept)| !kept.is_empty()) {
            let room = MOST.saturating_sub(kept.len()).min(left.len());
            kept.extend(left.drain(..room));
        }
        let mut placed = placeholder && slices.is_empty();
        for (slice, mut kept) in slices {
            if kept.is_empty() {
                let room = MOST.min(left.len());
                kept.extend(left.drain(..room));
            }
            if kept.is_empty() && (!placeholder || placed) {
                spare.push(slice.clone());
            } else {
                placed = true;
                plan.update.push(filled(service, family, slice.clone(), &ports, kept));
            }
        }
        if placeholder && present.iter().all(|slice| ports_in(slice) != ports) {
            missing.push((ports.clone(), Vec::new()));
        }
        while !left.is_empty() {
            let room = MOST.min(left.len());
            missing.push((ports.clone(), left.drain(..room).collect()));
        }
    }
    for (ports, endpoints) in missing {
        match spare.pop() {
            Some(slice) => plan.update.push(filled(service, family, slice, &ports, endpoints)),
            None => plan.create.push(filled(service, family, EndpointSlice::default(), &ports, endpoints)),
        }
    }
    plan.delete.append(&mut spare);
}

/// A slice with this content, and everything else that it should have.
fn filled(
    service: &Service,
    family: &str,
    mut slice: EndpointSlice,
    ports: &Ports,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let meta = &service.metadata;
    if slice.metadata.name.is_none() {
        slice.metadata = ObjectMeta {
            generate_name: Some(format!("{}-", pods::name(meta))),
            namespace: meta.namespace.clone(),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Service".to_owned(),
                name: pods::name(meta).to_owned(),
                uid: pods::uid(meta).to_owned(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        };
    }
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS_LABEL);
    labels.insert(SERVICE_NAME.to_owned(), pods::name(meta).to_owned());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    slice.metadata.labels = Some(labels);
    slice.address_type = family.to_owned();
    slice.endpoints = Some(endpoints);
    // A slice that has these ports already keeps them as they are written.
    if ports_in(&slice) != *ports || slice.ports.is_none() {
        let port =
            |(name, port, protocol, app_protocol): &(String, Option<i32>, String, Option<String>)| EndpointPort {
                name: Some(name.clone()),
                port: *port,
                protocol: Some(protocol.clone()),
                app_protocol: app_protocol.clone(),
            };
        slice.ports = Some(ports.iter().map(port).collect());
    }
    slice
}
