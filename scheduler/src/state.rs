//! What the scheduler knows of pods and nodes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use trireme_client::informer::ObjectKey;

use crate::affinity::Terms;
use crate::resources::{Resources, requests_of, scored_requests_of};

/// A port of the node that a pod takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub(crate) address: String,
    pub(crate) protocol: String,
    pub(crate) port: i32,
}

impl HostPort {
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        let any = |address: &str| address.is_empty() || address == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.address) || any(&other.address) || self.address == other.address)
    }
}

/// A pod with what scheduling asks of it worked out once.
#[derive(Debug)]
pub(crate) struct PodInfo {
    pub(crate) key: ObjectKey,
    pub(crate) uid: String,
    pub(crate) pod: Arc<Pod>,
    pub(crate) requests: Resources,
    pub(crate) scored: Resources,
    pub(crate) ports: Vec<HostPort>,
    pub(crate) priority: i32,
    pub(crate) controller: Option<String>,
    pub(crate) terms: Terms,
}

impl PodInfo {
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        let owners = pod.metadata.owner_references.iter().flatten();
        let controller = owners.clone().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone());
        Self {
            key: ObjectKey::of(&pod.metadata),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            requests: requests_of(&pod),
            scored: scored_requests_of(&pod),
            ports: host_ports(&pod),
            priority: pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0),
            controller,
            terms: Terms::of(&pod),
            pod,
        }
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            Some(HostPort {
                address: port.host_ip.clone().unwrap_or_default(),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: number,
            })
        })
        .collect()
}

/// The node a pod is bound to, if any.
pub(crate) fn bound_to(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether a pod has ended and takes nothing from its node any more.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// A node and what is on it. The object may be missing while pods are still bound to it.
#[derive(Debug, Default)]
pub(crate) struct NodeInfo {
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) allocatable: Resources,
    pub(crate) requested: Resources,
    pub(crate) scored: Resources,
    pub(crate) pods: HashMap<String, Arc<PodInfo>>,
}

impl NodeInfo {
    fn add(&mut self, pod: &Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.scored.add(&pod.scored);
        self.pods.insert(pod.uid.clone(), pod.clone());
    }

    fn remove(&mut self, uid: &str) {
        if let Some(pod) = self.pods.remove(uid) {
            self.requested.subtract(&pod.requests);
            self.scored.subtract(&pod.scored);
        }
    }
}

struct Placed {
    node: String,
    assumed: bool,
}

/// All nodes, what is placed on them, and the services by which pods are spread.
#[derive(Default)]
pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<String, NodeInfo>,
    placed: HashMap<String, Placed>,
    /// Placed pods that want others to stay away, by uid.
    picky: HashMap<String, Arc<PodInfo>>,
    services: HashMap<ObjectKey, Arc<Service>>,
}

impl Cluster {
    /// Takes a node as it is now.
    pub(crate) fn set_node(&mut self, node: Arc<Node>) {
        let info = self.nodes.entry(node.metadata.name.clone().unwrap_or_default()).or_default();
        let status = node.status.as_ref();
        let list = status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        info.allocatable = Resources::from_list(list);
        info.node = Some(node);
    }

    /// Takes a node away; what is bound to it stays accounted for.
    pub(crate) fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            info.node = None;
            info.allocatable = Resources::default();
        }
        self.drop_if_empty(name);
    }

    /// Places a pod, taking it from wherever it was. Gives the node it was on if that is another one.
    pub(crate) fn place(&mut self, pod: &Arc<PodInfo>, node: &str, assumed: bool) -> Option<String> {
        let before = self.displace(&pod.uid);
        self.nodes.entry(node.to_owned()).or_default().add(pod);
        if !pod.terms.apart.is_empty() {
            self.picky.insert(pod.uid.clone(), pod.clone());
        }
        self.placed.insert(pod.uid.clone(), Placed { node: node.to_owned(), assumed });
        before.filter(|before| before != node)
    }

    /// Takes a pod from its node. Gives the node.
    pub(crate) fn displace(&mut self, uid: &str) -> Option<String> {
        let node = self.placed.remove(uid)?.node;
        self.picky.remove(uid);
        if let Some(info) = self.nodes.get_mut(&node) {
            info.remove(uid);
        }
        self.drop_if_empty(&node);
        Some(node)
    }

    fn drop_if_empty(&mut self, name: &str) {
        if self.nodes.get(name).is_some_and(|info| info.node.is_none() && info.pods.is_empty()) {
            self.nodes.remove(name);
        }
    }

    /// Whether a pod is placed.
    pub(crate) fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    /// Whether a pod is placed and not yet seen bound.
    pub(crate) fn is_assumed(&self, uid: &str) -> bool {
        self.placed.get(uid).is_some_and(|placed| placed.assumed)
    }

    /// The pods that are placed, by uid.
    pub(crate) fn placed(&self) -> impl Iterator<Item = &String> {
        self.placed.keys()
    }

    /// The placed pods that want others to stay away, with their nodes.
    pub(crate) fn picky(&self) -> impl Iterator<Item = (&NodeInfo, &PodInfo)> {
        self.picky.values().filter_map(|pod| Some((self.nodes.get(&self.placed.get(&pod.uid)?.node)?, &**pod)))
    }

    /// Takes a service as it is now, or its absence.
    pub(crate) fn set_service(&mut self, key: ObjectKey, service: Option<Arc<Service>>) {
        match service {
            Some(service) => self.services.insert(key, service),
            None => self.services.remove(&key),
        };
    }

    /// Forgets all services.
    pub(crate) fn clear_services(&mut self) {
        self.services.clear();
    }

    /// The selectors of the services that select this pod.
    pub(crate) fn selectors_of(&self, pod: &PodInfo) -> Vec<&BTreeMap<String, String>> {
        let services = self.services.iter().filter(|(key, _)| key.namespace == pod.key.namespace);
        let selectors = services.filter_map(|(_, service)| service.spec.as_ref()?.selector.as_ref());
        selectors.filter(|selector| !selector.is_empty() && selects(selector, &pod.pod)).collect()
    }
}

/// Whether a pod has all these labels.
pub(crate) fn selects(selector: &BTreeMap<String, String>, pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}
