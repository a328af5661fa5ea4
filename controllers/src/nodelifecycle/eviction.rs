//! Deletes pods from nodes whose taints they do not tolerate, or not any longer.

use std::collections::HashSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use trireme_client::events::EventType;
use trireme_client::informer::ObjectKey;

use super::plan::{Stay, stay};
use crate::pods;
use crate::runtime::{Context, Next, ReconcileError, Reconciler, Runner, Writer};

struct Eviction {
    context: Context,
    /// Pods whose time runs.
    marked: Mutex<HashSet<ObjectKey>>,
}

pub(super) async fn run(context: Context) {
    let informers = context.informers.clone();
    let (on_node, all) = (informers.pods.clone(), informers.pods.clone());
    let all = move || all.list().iter().map(|pod| ObjectKey::of(&pod.metadata)).collect();
    let config = context.config.clone();
    Runner::new(Eviction { context, marked: Mutex::default() }, &config, all)
        .on_change(&informers.pods, |old: Option<&Pod>, new| {
            let bound = new.filter(|new| old.and_then(pods::node_of) != pods::node_of(new));
            bound.map(|pod| ObjectKey::of(&pod.metadata)).into_iter().collect()
        })
        .on_change(&informers.nodes, move |old: Option<&Node>, new| {
            let taints = |node: Option<&Node>| node.and_then(|node| node.spec.as_ref()?.taints.clone());
            let Some(node) = new.filter(|_| taints(old) != taints(new)) else { return Vec::new() };
            let pods = on_node.on_node(pods::name(&node.metadata));
            pods.iter().map(|pod| ObjectKey::of(&pod.metadata)).collect()
        })
        .run()
        .await;
}

impl Reconciler for Eviction {
    type Key = ObjectKey;
    const NAME: &'static str = "taint-eviction";

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ReconcileError> {
        let informers = &self.context.informers;
        let Some(pod) = informers.pods.get(&key).filter(|pod| pods::is_active(pod)) else {
            self.marked.lock().remove(&key);
            return Ok(Next::Done);
        };
        let Some(node) = pods::node_of(&pod).and_then(|name| informers.nodes.find("", name)) else {
            return Ok(Next::Done);
        };
        let tell = |message: &str| {
            self.context.recorder.record(&*pod, EventType::Normal, "TaintManagerEviction", message);
        };
        match stay(&pod, &node, Timestamp::now()) {
            Stay::Ever => {
                if self.marked.lock().remove(&key) {
                    tell(&format!("Cancelling deletion of Pod {key}"));
                }
                Ok(Next::Done)
            }
            Stay::For(left) => {
                self.marked.lock().insert(key);
                Ok(Next::After(left))
            }
            Stay::Over => {
                tell(&format!("Marking for deletion Pod {key}"));
                let why = ("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint");
                pods::tell_disruption(&self.context.client, &pod, why).await?;
                Writer::new(&self.context.client, &informers.pods).delete(&*pod).await?;
                self.marked.lock().remove(&key);
                Ok(Next::Done)
            }
        }
    }
}
