//! The node lifecycle: a node that is silent for too long counts as unreachable; nodes get the taints of their
//! state; pods that do not tolerate them have to go when their time is over.
//!
//! Silence is measured by this process's own clock from when it last saw the lease or the heartbeat change, so no
//! two clocks are compared, and a new leader begins counting anew.
//!
//! When nodes are lost in numbers, it is more likely the network than the nodes: then pods are taken away slowly, or
//! not at all (see `zones`).

mod eviction;
mod plan;
mod zones;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use parking_lot::Mutex;
use trireme_client::events::EventType;
use trireme_client::informer::ObjectKey;

use crate::pods;
use crate::runtime::{Context, Next, Part, ReconcileError, Reconciler, Runner, Writer};
use zones::{Evict, Zones};

struct Lifecycle {
    context: Context,
    heard: Mutex<HashMap<ObjectKey, Heard>>,
    zones: Mutex<Zones>,
}

/// The last sign of life of a node, and when it was first seen.
struct Heard {
    uid: Option<String>,
    sign: (Option<Timestamp>, Option<Timestamp>),
    at: Instant,
}

const LEASES: &str = "kube-node-lease";

/// The loop that watches over nodes, and the one that evicts pods.
pub(crate) async fn run(context: Context) {
    let informers = context.informers.clone();
    let (all, others) = (informers.nodes.clone(), informers.nodes.clone());
    let all = move || all.list().iter().map(|node| ObjectKey::of(&node.metadata)).collect();
    let config = context.config.clone();
    let evictions = eviction::run(context.clone());
    let zones = Mutex::new(Zones::default());
    let lifecycle = Lifecycle { context, heard: Mutex::new(HashMap::new()), zones };
    let nodes = Runner::new(lifecycle, &config, all)
        .on_change(&informers.nodes, move |old: Option<&Node>, new| {
            let own = new.or(old).map(|node| ObjectKey::of(&node.metadata));
            if old.map(plan::readiness) == new.map(plan::readiness) {
                return own.into_iter().collect();
            }
            // What may happen to a lost node depends on how many there are.
            let lost = others.list().into_iter().filter(|node| plan::readiness(node) != "True");
            lost.map(|node| ObjectKey::of(&node.metadata)).chain(own).collect()
        })
        .on(&informers.node_leases, |lease: &Lease| vec![ObjectKey::new("", pods::name(&lease.metadata))]);
    tokio::join!(nodes.run(), evictions);
}

impl Reconciler for Lifecycle {
    type Key = ObjectKey;
    const NAME: &'static str = "node-lifecycle";

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ReconcileError> {
        let nodes = &self.context.informers.nodes;
        let Some(node) = nodes.get(&key) else {
            if let Some(known) = self.heard.lock().remove(&key) {
                self.tell(&key.name, known.uid.as_deref(), "RemovingNode", "Removing Node");
            }
            return Ok(Next::Done);
        };
        let left = self.listen(&key, &node);
        let writer = Writer::new(&self.context.client, nodes);
        let mut current = Node::clone(&node);
        if left.is_zero() {
            let silent = plan::silent(&current, Timestamp::now());
            if let Some(written) = writer.update(Part::Status, &current, &silent).await? {
                let message = format!("Node {} status is now: NodeNotReady", key.name);
                self.context.recorder.record(&*node, EventType::Normal, "NodeNotReady", &message);
                current = written;
            }
        }
        let evict = self.may_evict(&current);
        let tainted = plan::tainted(&current, evict == Evict::Now, Timestamp::now());
        if let Some(written) = writer.update(Part::Main, &current, &tainted).await? {
            self.tell_of_taints(&current, &written);
        }
        // An agent that says itself that its node is not ready still tells the truth about its pods.
        if left.is_zero() {
            self.mark_pods(&key.name).await?;
        }
        let later = match evict {
            Evict::Later(wait) => Some(wait),
            Evict::Now | Evict::Never => None,
        };
        Ok(later.into_iter().chain(Some(left).filter(|left| !left.is_zero())).min().map_or(Next::Done, Next::After))
    }
}

impl Lifecycle {
    /// Notes the node's last sign of life; gives how long it may still be silent.
    fn listen(&self, key: &ObjectKey, node: &Node) -> Duration {
        let lease = self.context.informers.node_leases.find(LEASES, &key.name);
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0));
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
        let heartbeat = ready.and_then(|ready| ready.last_heartbeat_time.as_ref().map(|time| time.0));
        let sign = (renewed, heartbeat);
        let uid = node.metadata.uid.clone();
        let mut heard = self.heard.lock();
        let known = heard.entry(key.clone()).or_insert_with(|| {
            self.tell(&key.name, uid.as_deref(), "RegisteredNode", "Registered Node");
            Heard { uid: uid.clone(), sign, at: Instant::now() }
        });
        if known.sign != sign || known.uid != uid {
            *known = Heard { uid, sign, at: Instant::now() };
        }
        self.context.config.node_monitor_grace_period.saturating_sub(known.at.elapsed())
    }

    /// Tells of a node that came or went.
    fn tell(&self, name: &str, uid: Option<&str>, reason: &str, what: &str) {
        let preposition = if reason == "RemovingNode" { "from" } else { "in" };
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(name.to_owned()),
            uid: uid.map(str::to_owned),
            ..ObjectReference::default()
        };
        let message = format!("Node {name} event: {what} {name} {preposition} Controller");
        self.context.recorder.record_for(about, EventType::Normal, reason, &message);
    }

    /// Whether pods may be taken away from a node, if it is lost.
    fn may_evict(&self, node: &Node) -> Evict {
        if !matches!(plan::readiness(node), "False" | "Unknown") {
            return Evict::Never;
        }
        let mut nodes = self.context.informers.nodes.list();
        nodes.retain(|other| other.metadata.name != node.metadata.name);
        let survey = zones::survey(nodes.iter().map(|other| &**other).chain([node]));
        self.zones.lock().may_evict(node, &survey, &self.context.config, Instant::now())
    }

    fn tell_of_taints(&self, before: &Node, after: &Node) {
        if plan::is_losing_pods(after) && !plan::is_losing_pods(before) {
            let name = pods::name(&after.metadata);
            tracing::info!(
                node = name,
                ready = plan::readiness(after),
                "its pods have to go when they do not tolerate it longer"
            );
        }
    }

    /// Pods on a silent node count as not ready, whatever they last said: services must not lead there. The agent
    /// says anew what they are when it is back.
    async fn mark_pods(&self, node: &str) -> Result<(), ReconcileError> {
        let informer = &self.context.informers.pods;
        let writer = Writer::new(&self.context.client, informer);
        for pod in informer.on_node(node).into_iter().filter(|pod| pods::is_ready(pod)) {
            let mut marked = Pod::clone(&pod);
            let conditions = marked.status.as_mut().and_then(|status| status.conditions.as_mut());
            for ready in conditions.into_iter().flatten().filter(|condition| condition.type_ == "Ready") {
                ready.status = "False".to_owned();
                ready.last_transition_time =
                    Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()));
            }
            writer.update(Part::Status, &*pod, &marked).await?;
            self.context.recorder.record(&*pod, EventType::Warning, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }
}
