//! The Endpoints object that a service should have. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::pods;
use crate::services::{
    HEADLESS_LABEL, addresses, hostname, is_headless, ports, protocol, publishes_not_ready, reference, target_port,
};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";

const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// The most addresses one object holds; slices have them all.
const MOST: usize = 1000;

/// Ports in a form that can be ordered: name, number, protocol, application protocol.
type Port = (String, i32, String, Option<String>);

/// Whether this controller made the object. What people or other programs made, by hand before its Service exists, as a
/// lock, or as the list of masters, is theirs.
pub(super) fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|by| by == CONTROLLER)
}

/// The wanted object, starting from the present one.
pub(super) fn wanted(service: &Service, selected: &[Arc<Pod>], present: Option<&Endpoints>) -> Endpoints {
    let mut endpoints = present.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS_LABEL);
    }
    endpoints.metadata.labels = Some(labels);
    let mut subsets = subsets(service, selected);
    let annotations = endpoints.metadata.annotations.get_or_insert_default();
    if truncate(&mut subsets) {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    if annotations.is_empty() {
        endpoints.metadata.annotations = None;
    }
    endpoints.subsets = (!subsets.is_empty()).then_some(subsets);
    endpoints
}

/// Addresses grouped by the ports they serve.
fn subsets(service: &Service, selected: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    type Sides = (Vec<EndpointAddress>, Vec<EndpointAddress>);
    let mut groups: BTreeMap<Vec<Port>, Sides> = BTreeMap::new();
    for pod in selected {
        if pods::is_terminal(pod) || pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let Some(ip) = addresses(pod).first().copied() else { continue };
        let Some(ports) = ports_of(service, pod) else { continue };
        let address = EndpointAddress {
            ip: ip.to_string(),
            hostname: hostname(service, pod),
            node_name: pods::node_of(pod).map(str::to_owned),
            target_ref: Some(reference(pod)),
        };
        let (ready, not_ready) = groups.entry(ports).or_default();
        if publishes_not_ready(service) || pods::is_ready(pod) {
            ready.push(address);
        } else {
            not_ready.push(address);
        }
    }
    groups.into_iter().map(|(ports, (ready, not_ready))| subset(ports, ready, not_ready)).collect()
}

/// The ports at which a pod serves the service; none if it has not one of them.
fn ports_of(service: &Service, pod: &Pod) -> Option<Vec<Port>> {
    if ports(service).is_empty() {
        // Only a service without an address can do without ports.
        return is_headless(service).then(Vec::new);
    }
    let found = ports(service).iter().filter_map(|port| {
        let number = target_port(pod, port)?;
        let name = port.name.clone().unwrap_or_default();
        Some((name, number, protocol(port).to_owned(), port.app_protocol.clone()))
    });
    let mut found: Vec<Port> = found.collect();
    found.sort();
    (!found.is_empty()).then_some(found)
}

fn subset(ports: Vec<Port>, ready: Vec<EndpointAddress>, not_ready: Vec<EndpointAddress>) -> EndpointSubset {
    let sorted = |mut addresses: Vec<EndpointAddress>| {
        addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
        (!addresses.is_empty()).then_some(addresses)
    };
    let ports: Vec<EndpointPort> = ports
        .into_iter()
        .map(|(name, port, protocol, app_protocol)| EndpointPort {
            name: Some(name).filter(|name| !name.is_empty()),
            port,
            protocol: Some(protocol),
            app_protocol,
        })
        .collect();
    EndpointSubset {
        addresses: sorted(ready),
        not_ready_addresses: sorted(not_ready),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

/// Cuts what is too much, ready addresses last. Tells whether there was any.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let mut room = MOST;
    let mut cut = false;
    let mut keep = |addresses: &mut Option<Vec<EndpointAddress>>| {
        if let Some(all) = addresses {
            cut |= all.len() > room;
            all.truncate(room);
            room -= all.len();
        }
        *addresses = addresses.take().filter(|all| !all.is_empty());
    };
    subsets.iter_mut().for_each(|subset| keep(&mut subset.addresses));
    subsets.iter_mut().for_each(|subset| keep(&mut subset.not_ready_addresses));
    cut
}
