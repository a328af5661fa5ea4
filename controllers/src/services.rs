//! What Endpoints and EndpointSlice controllers share: which pods stand behind a service, and on which ports.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use trireme_client::informer::{Informers, ObjectKey};

use crate::pods;

pub(crate) const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// The selector of a service whose endpoints are kept for it; none for those kept by hand.
pub(crate) fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    let external = spec.type_.as_deref() == Some("ExternalName");
    spec.selector.as_ref().filter(|selector| !external && !selector.is_empty())
}

/// The pods that a service selects.
pub(crate) fn selected(informers: &Informers, service: &Service) -> Vec<Arc<Pod>> {
    let Some(selector) = selector(service) else { return Vec::new() };
    let mut pods = informers.pods.in_namespace(pods::namespace(&service.metadata));
    pods.retain(|pod| selects(selector, pod));
    pods
}

fn selects(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    let labels = pods::labels(&pod.metadata);
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The services that a change from one pod to the other concerns.
pub(crate) fn concerned(informers: &Informers, old: Option<&Pod>, new: Option<&Pod>) -> Vec<ObjectKey> {
    if let (Some(old), Some(new)) = (old, new)
        && !matters(old, new)
    {
        return Vec::new();
    }
    let Some(pod) = new.or(old) else { return Vec::new() };
    let services = informers.services.in_namespace(pods::namespace(&pod.metadata));
    let selecting = services.iter().filter(|service| {
        selector(service).is_some_and(|selector| {
            old.is_some_and(|pod| selects(selector, pod)) || new.is_some_and(|pod| selects(selector, pod))
        })
    });
    selecting.map(|service| ObjectKey::of(&service.metadata)).collect()
}

/// Whether what differs between two states of a pod can show in endpoints.
fn matters(old: &Pod, new: &Pod) -> bool {
    let ip = |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let facts = |pod: &Pod| (pods::is_ready(pod), pods::is_terminal(pod), pod.metadata.deletion_timestamp.is_some());
    old.metadata.uid != new.metadata.uid
        || old.metadata.labels != new.metadata.labels
        || ip(old) != ip(new)
        || facts(old) != facts(new)
        || pods::node_of(old) != pods::node_of(new)
}

/// Whether pods that are not ready count as ready.
pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

/// Whether a service has no address of its own.
pub(crate) fn is_headless(service: &Service) -> bool {
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or("");
    address.is_empty() || address == "None"
}

/// The ports of a service.
pub(crate) fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or(&[])
}

/// The port of a pod that a port of a service leads to.
pub(crate) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        Some(IntOrString::Int(number)) if *number != 0 => Some(*number),
        Some(IntOrString::String(name)) if !name.is_empty() => named_port(pod, name, protocol(port)),
        _ => Some(port.port),
    }
}

/// The protocol of a port.
pub(crate) fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(sidecar);
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let mut matching = ports
        .filter(|port| port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or("TCP") == protocol);
    matching.next().map(|port| port.container_port)
}

/// The addresses of a pod.
pub(crate) fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let many = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in status.pod_ip.as_deref().into_iter().chain(many) {
        addresses.extend(text.parse::<IpAddr>().ok().filter(|address| !addresses.contains(address)));
    }
    addresses
}

/// The name under which a pod is known in its service's domain.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let here = spec.subdomain.as_deref() == service.metadata.name.as_deref();
    spec.hostname.clone().filter(|hostname| here && !hostname.is_empty())
}

/// A reference to a pod.
pub(crate) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}
