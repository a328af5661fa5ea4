//! Pod garbage: pods on nodes that do not exist any more, pods that end on nodes that are out of service, pods that were
//! deleted before they were bound, and the oldest of those that have ended, when there are too many.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Preconditions};
use parking_lot::Mutex;
use trireme_client::informer::ObjectKey;

use crate::pods;
use crate::runtime::{Context, Next, ReconcileError, Reconciler, Runner, is_not_found};

/// How long a node must be missing before its pods go, unless it was seen to be deleted: it may not be known yet.
const QUARANTINE: Duration = Duration::from_secs(40);
/// By this taint an operator says that a node is down for certain.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

struct PodGarbage {
    context: Context,
    missing: Arc<Mutex<MissingNodes>>,
}

/// Nodes that are not there and have pods nevertheless.
#[derive(Debug, Default)]
struct MissingNodes(HashMap<String, Missing>);

impl MissingNodes {
    /// A node was deleted. Those without pods, before or by now, are nobody's concern.
    fn deleted(&mut self, node: &str, has_pods: impl Fn(&str) -> bool) {
        self.0.insert(node.to_owned(), Missing::Deleted);
        self.0.retain(|node, _| has_pods(node));
    }

    /// A node is there, or has no pods any more.
    fn forget(&mut self, node: &str) {
        self.0.remove(node);
    }

    /// How long the pods of a node that is found missing may stay.
    fn left(&mut self, node: &str) -> Duration {
        match self.0.entry(node.to_owned()).or_insert_with(|| Missing::Since(Instant::now())) {
            Missing::Deleted => Duration::ZERO,
            Missing::Since(since) => QUARANTINE.saturating_sub(since.elapsed()),
        }
    }
}

/// What is known of a node that is not there.
#[derive(Clone, Copy, Debug)]
enum Missing {
    /// It was deleted; nothing has to be waited for.
    Deleted,
    /// It was found missing then.
    Since(Instant),
}

/// The loop that clears pods away.
pub(crate) async fn run(context: Context) {
    let informers = context.informers.clone();
    let (on_node, all) = (informers.pods.clone(), informers.pods.clone());
    let all = move || all.list().iter().map(|pod| ObjectKey::of(&pod.metadata)).collect();
    let config = context.config.clone();
    let missing: Arc<Mutex<MissingNodes>> = Arc::default();
    let (nodes, left, others) = (missing.clone(), missing.clone(), informers.pods.clone());
    let garbage = PodGarbage { context, missing };
    Runner::new(garbage, &config, all)
        .on_change(&informers.pods, move |old: Option<&Pod>, new| {
            if let (Some(node), None) = (old.and_then(pods::node_of), new)
                && others.on_node(node).is_empty()
            {
                left.lock().forget(node);
            }
            let state = |pod: &Pod| {
                let node = pods::node_of(pod).map(str::to_owned);
                (node, pods::is_terminal(pod), pod.metadata.deletion_timestamp.is_some())
            };
            let news = new.filter(|new| old.map(state) != Some(state(new)));
            news.map(|pod| ObjectKey::of(&pod.metadata)).into_iter().collect()
        })
        .on_change(&informers.nodes, move |old: Option<&Node>, new| {
            let node = match (old, new) {
                (Some(gone), None) => {
                    let has_pods = |node: &str| !on_node.on_node(node).is_empty();
                    nodes.lock().deleted(pods::name(&gone.metadata), has_pods);
                    gone
                }
                (old, Some(node)) => {
                    nodes.lock().forget(pods::name(&node.metadata));
                    if !is_out_of_service(node) || old.is_some_and(is_out_of_service) {
                        return Vec::new();
                    }
                    node
                }
                (None, None) => return Vec::new(),
            };
            let pods = on_node.on_node(pods::name(&node.metadata));
            pods.iter().map(|pod| ObjectKey::of(&pod.metadata)).collect()
        })
        .run()
        .await;
}

/// What is to be done about a pod.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// It was deleted before it was bound.
    NeverBound,
    /// There is no node of that name.
    NodeMissing(String),
    /// It is to end on a node that is known to be down.
    NodeDown,
    /// It has ended, and there may be too many of those.
    Ended,
}

/// Whether an operator has said that a node is down, and nothing speaks against it.
fn is_out_of_service(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    !ready && taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

fn judge(pod: &Pod, node: impl Fn(&str) -> Option<Arc<Node>>) -> Verdict {
    let Some(name) = pods::node_of(pod) else {
        let deleted = pod.metadata.deletion_timestamp.is_some();
        return if deleted { Verdict::NeverBound } else { Verdict::Keep };
    };
    match node(name) {
        None => Verdict::NodeMissing(name.to_owned()),
        Some(node) if pod.metadata.deletion_timestamp.is_some() && is_out_of_service(&node) => Verdict::NodeDown,
        _ if pods::is_terminal(pod) && pod.metadata.deletion_timestamp.is_none() => Verdict::Ended,
        _ => Verdict::Keep,
    }
}

impl Reconciler for PodGarbage {
    type Key = ObjectKey;
    const NAME: &'static str = "pod-garbage";

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ReconcileError> {
        let informers = &self.context.informers;
        let Some(pod) = informers.pods.get(&key) else { return Ok(Next::Done) };
        match judge(&pod, |node| informers.nodes.find("", node)) {
            Verdict::Keep => {
                if let Some(node) = pods::node_of(&pod) {
                    self.missing.lock().forget(node);
                }
                Ok(Next::Done)
            }
            Verdict::NeverBound => self.remove(&pod).await,
            Verdict::NodeMissing(node) => {
                let left = self.missing.lock().left(&node);
                if !left.is_zero() {
                    return Ok(Next::After(left));
                }
                let api: Api<Node> = Api::all(self.context.client.clone());
                if api.get_opt(&node).await?.is_some() {
                    return Ok(Next::Done);
                }
                let told = Some(("DeletionByPodGC", "PodGC: node no longer exists"));
                self.fail(&pod, told).await?;
                self.remove(&pod).await
            }
            Verdict::NodeDown => {
                self.fail(&pod, None).await?;
                self.remove(&pod).await
            }
            Verdict::Ended => self.limit().await,
        }
    }
}

impl PodGarbage {
    /// Those who count on the pod must see that it has ended, also if a finalizer keeps it.
    async fn fail(&self, pod: &Pod, disruption: Option<(&str, &str)>) -> Result<(), ReconcileError> {
        if pods::is_terminal(pod) {
            return Ok(());
        }
        let client = &self.context.client;
        pods::fail(client, pod, disruption).await.map_err(Into::into)
    }

    /// Deletes a pod at once: there is nobody who could end it first.
    async fn remove(&self, pod: &Pod) -> Result<Next, ReconcileError> {
        let meta = &pod.metadata;
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), pods::namespace(meta));
        let preconditions = Preconditions { uid: meta.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }.grace_period(0);
        match api.delete(pods::name(meta), &params).await {
            Err(error) if !is_not_found(&error) => Err(error.into()),
            _ => Ok(Next::Done),
        }
    }

    /// Deletes the oldest of the pods that have ended, as far as there are too many.
    async fn limit(&self) -> Result<Next, ReconcileError> {
        let most = self.context.config.terminated_pod_threshold;
        let informer = &self.context.informers.pods;
        if most == 0 || informer.len() <= most {
            return Ok(Next::Done);
        }
        let mut ended: Vec<Arc<Pod>> = informer.list();
        ended.retain(|pod| pods::is_terminal(pod) && pod.metadata.deletion_timestamp.is_none());
        ended.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        for pod in ended.iter().take(ended.len().saturating_sub(most)) {
            self.remove(pod).await?;
        }
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn only_missing_nodes_with_pods_are_remembered() {
        let mut missing = MissingNodes::default();
        missing.deleted("empty", |_| false);
        assert!(missing.0.is_empty());
        missing.deleted("full", |node| node == "full");
        assert_eq!(missing.left("full"), Duration::ZERO);
        assert!(missing.left("unknown") > QUARANTINE / 2);
        missing.deleted("other", |node| node == "unknown");
        assert_eq!(missing.0.keys().collect::<Vec<_>>(), ["unknown"]);
        missing.forget("unknown");
        assert!(missing.0.is_empty());
    }

    #[test]
    fn judges() {
        let node = |name: &str, ready: &str, taint: &str| -> Node {
            serde_json::from_value(json!({
                "metadata": {"name": name}, "spec": {"taints": [{"key": taint, "effect": "NoExecute"}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        let nodes =
            [node("n1", "True", OUT_OF_SERVICE), node("down", "Unknown", OUT_OF_SERVICE), node("lost", "Unknown", "x")];
        let cases = [
            ("down", "Running", true, Verdict::NodeDown),
            ("down", "Running", false, Verdict::Keep),
            ("lost", "Running", true, Verdict::Keep),
            ("n1", "Running", true, Verdict::Keep),
            ("n1", "Running", false, Verdict::Keep),
            ("", "Pending", false, Verdict::Keep),
            ("", "Pending", true, Verdict::NeverBound),
            ("gone", "Running", false, Verdict::NodeMissing("gone".to_owned())),
            ("gone", "Running", true, Verdict::NodeMissing("gone".to_owned())),
            ("n1", "Succeeded", false, Verdict::Ended),
            ("n1", "Failed", true, Verdict::Keep),
        ];
        for (node, phase, deleting, want) in cases {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z")},
                "spec": {"nodeName": node, "containers": []}, "status": {"phase": phase},
            }))
            .unwrap();
            let find = |name: &str| nodes.iter().find(|node| pods::name(&node.metadata) == name).cloned().map(Arc::new);
            assert_eq!(judge(&pod, find), want, "{node} {phase} {deleting}");
        }
    }
}
