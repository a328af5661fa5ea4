//! The scheduler without its surroundings: events and the time in, decisions out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use trireme_client::informer::{Change, Notice, ObjectKey};

use crate::Config;
use crate::affinity::allowed;
use crate::filter::{Refusal, explain, filter};
use crate::queue::{Queue, Waits};
use crate::score::score;
use crate::state::{Cluster, PodInfo, bound_to, is_terminal};

/// What to do about one pod.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Bind it; `bound` or `not_bound` must follow.
    Bind {
        /// The pod.
        pod: Arc<PodInfo>,
        /// The node found for it.
        node: String,
    },
    /// Tell that no node can take it.
    Unschedulable {
        /// The pod.
        pod: Arc<PodInfo>,
        /// Why, in upstream's words.
        message: String,
    },
}

/// The engine.
pub(crate) struct Engine {
    name: String,
    cluster: Cluster,
    queue: Queue,
    turn: usize,
}

impl Engine {
    pub(crate) fn new(config: &Config) -> Self {
        let waits = Waits {
            initial: config.initial_backoff,
            max: config.max_backoff,
            unschedulable: config.unschedulable_retry,
        };
        Self { name: config.scheduler_name.clone(), cluster: Cluster::default(), queue: Queue::new(waits), turn: 0 }
    }

    /// Hears of pods.
    pub(crate) fn pods(&mut self, notice: Notice<Pod>, now: Instant) {
        match notice {
            Notice::Change(Change { old, new }) => {
                let old = old.and_then(|pod| pod.metadata.uid.clone());
                let uid = new.as_ref().and_then(|pod| pod.metadata.uid.clone());
                if let Some(gone) = old.filter(|old| uid.as_ref() != Some(old)) {
                    self.pod_gone(&gone, now);
                }
                if let Some(pod) = new {
                    self.pod(pod, now);
                }
            }
            Notice::Resync(all) => {
                let there: BTreeSet<&str> = all.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
                let known = self.queue.uids().chain(self.cluster.placed());
                let gone: Vec<String> = known.filter(|uid| !there.contains(uid.as_str())).cloned().collect();
                gone.iter().for_each(|uid| self.pod_gone(uid, now));
                all.into_iter().for_each(|pod| self.pod(pod, now));
            }
        }
    }

    fn pod(&mut self, pod: Arc<Pod>, now: Instant) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if is_terminal(&pod) {
            self.pod_gone(&uid, now);
        } else if let Some(node) = bound_to(&pod).map(str::to_owned) {
            self.queue.remove(&uid);
            let known = self.cluster.is_placed(&uid);
            if let Some(left) = self.cluster.place(&Arc::new(PodInfo::new(pod)), &node, false) {
                self.freed(&left, now);
            }
            if !known {
                self.rearranged(now);
            }
        } else if !self.is_ours(&pod) {
            self.pod_gone(&uid, now);
        } else {
            // Also while it is being bound: if that fails, it is tried again as it is now.
            self.queue.put(Arc::new(PodInfo::new(pod)), now);
        }
    }

    /// Whether a pod without a node is for this scheduler to place now.
    fn is_ours(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let scheduler = spec.scheduler_name.as_deref().filter(|name| !name.is_empty());
        let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        scheduler.unwrap_or("default-scheduler") == self.name && pod.metadata.deletion_timestamp.is_none() && !gated
    }

    fn pod_gone(&mut self, uid: &str, now: Instant) {
        self.queue.remove(uid);
        if let Some(node) = self.cluster.displace(uid) {
            self.freed(&node, now);
        }
    }

    /// Hears of nodes.
    pub(crate) fn nodes(&mut self, notice: Notice<Node>, now: Instant) {
        match notice {
            Notice::Change(Change { new: Some(node), .. }) => self.node(node, now),
            Notice::Change(Change { old: Some(node), new: None }) => {
                self.cluster.remove_node(node.metadata.name.as_deref().unwrap_or(""));
            }
            Notice::Change(Change { old: None, new: None }) => {}
            Notice::Resync(all) => {
                let there: BTreeSet<&str> = all.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
                let known = self.cluster.nodes.keys();
                let gone: Vec<String> = known.filter(|name| !there.contains(name.as_str())).cloned().collect();
                gone.iter().for_each(|name| self.cluster.remove_node(name));
                all.into_iter().for_each(|node| self.node(node, now));
            }
        }
    }

    fn node(&mut self, node: Arc<Node>, now: Instant) {
        let name = node.metadata.name.clone().unwrap_or_default();
        self.cluster.set_node(node);
        self.freed(&name, now);
    }

    /// Hears of services, by which pods are spread.
    pub(crate) fn services(&mut self, notice: Notice<Service>) {
        match notice {
            Notice::Change(Change { old, new }) => {
                if let Some(service) = new.as_ref().or(old.as_ref()) {
                    self.cluster.set_service(ObjectKey::of(&service.metadata), new.clone());
                }
            }
            Notice::Resync(all) => {
                self.cluster.clear_services();
                for service in all {
                    self.cluster.set_service(ObjectKey::of(&service.metadata), Some(service));
                }
            }
        }
    }

    /// A node came, changed, or has more room: pods that it can take now are tried again.
    fn freed(&mut self, node: &str, now: Instant) {
        self.rearranged(now);
        let Some(info) = self.cluster.nodes.get(node) else { return };
        for pod in self.queue.stuck() {
            if filter(&pod, info).is_ok() && allowed(&pod, info, &self.cluster).is_ok() {
                self.queue.wake(&pod.uid, now);
            }
        }
    }

    /// Pods came or went: those that want to be with or without others may have a place now, on any node.
    fn rearranged(&mut self, now: Instant) {
        for pod in self.queue.stuck().iter().filter(|pod| !pod.terms.is_empty()) {
            let mut nodes = self.cluster.nodes.values();
            if nodes.any(|info| filter(pod, info).is_ok() && allowed(pod, info, &self.cluster).is_ok()) {
                self.queue.wake(&pod.uid, now);
            }
        }
    }

    /// Decides about the next pod; none when nothing is to be decided now.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Decision> {
        let pod = self.queue.next(now)?;
        let mut possible: Vec<&str> = Vec::new();
        let mut refusals: Vec<Refusal> = Vec::new();
        for (name, info) in self.cluster.nodes.iter().filter(|(_, info)| info.node.is_some()) {
            match filter(&pod, info).and_then(|()| allowed(&pod, info, &self.cluster)) {
                Ok(()) => possible.push(name),
                Err(refusal) => refusals.push(refusal),
            }
        }
        if possible.is_empty() {
            self.queue.unschedulable(&pod.uid, now);
            return Some(Decision::Unschedulable { pod, message: explain(&refusals) });
        }
        let scores = score(&pod, &self.cluster, &possible);
        let best = scores.iter().copied().max().unwrap_or(0);
        let tied: Vec<&str> = possible.iter().zip(&scores).filter(|(_, s)| **s == best).map(|(n, _)| *n).collect();
        let node = tied[self.turn % tied.len()].to_owned();
        self.turn = self.turn.wrapping_add(1);
        self.cluster.place(&pod, &node, true);
        self.rearranged(now);
        Some(Decision::Bind { pod, node })
    }

    /// A binding was refused or its outcome is not known: the pod is tried again unless it is seen bound or gone.
    pub(crate) fn not_bound(&mut self, pod: &PodInfo, now: Instant) {
        if self.cluster.is_assumed(&pod.uid) {
            if let Some(node) = self.cluster.displace(&pod.uid) {
                self.freed(&node, now);
            }
            self.queue.failed(&pod.uid, now);
        }
    }

    /// A pod is not there any more.
    pub(crate) fn vanished(&mut self, pod: &PodInfo, now: Instant) {
        if self.cluster.is_assumed(&pod.uid) {
            self.pod_gone(&pod.uid, now);
        }
    }

    /// When to call `next` again although nothing was heard.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.queue.next_due()
    }

    /// What became known about nodes, for tests and logs.
    #[cfg(test)]
    pub(crate) fn pods_on(&self, node: &str) -> usize {
        self.cluster.nodes.get(node).map_or(0, |info| info.pods.len())
    }
}
