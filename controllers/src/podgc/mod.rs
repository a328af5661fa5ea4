//! Pod garbage: pods on nodes that do not exist any more, pods that were deleted before they were bound, and the
//! oldest of those that have ended, when there are too many.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use serde_json::json;
use trireme_client::informer::ObjectKey;

use crate::pods;
use crate::runtime::{Context, Next, ReconcileError, Reconciler, Runner, is_not_found};

/// How long a node must be gone before its pods are: it may only be registering anew.
const QUARANTINE: Duration = Duration::from_secs(40);

struct PodGarbage {
    context: Context,
    missing: Mutex<HashMap<String, Instant>>,
}

/// The loop that clears pods away.
pub(crate) async fn run(context: Context) {
    let informers = context.informers.clone();
    let (on_node, all) = (informers.pods.clone(), informers.pods.clone());
    let all = move || all.list().iter().map(|pod| ObjectKey::of(&pod.metadata)).collect();
    let config = context.config.clone();
    let garbage = PodGarbage { context, missing: Mutex::new(HashMap::new()) };
    Runner::new(garbage, config.concurrency, config.resync_period, all)
        .on_change(&informers.pods, |old: Option<&Pod>, new| {
            let state = |pod: &Pod| {
                let node = pods::node_of(pod).map(str::to_owned);
                (node, pods::is_terminal(pod), pod.metadata.deletion_timestamp.is_some())
            };
            let news = new.filter(|new| old.map(state) != Some(state(new)));
            news.map(|pod| ObjectKey::of(&pod.metadata)).into_iter().collect()
        })
        .on_change(&informers.nodes, move |old: Option<&Node>, new| {
            let Some(gone) = old.filter(|_| new.is_none()) else { return Vec::new() };
            let pods = on_node.on_node(pods::name(&gone.metadata));
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
    /// It has ended, and there may be too many of those.
    Ended,
}

fn judge(pod: &Pod, node_exists: impl Fn(&str) -> bool) -> Verdict {
    match pods::node_of(pod) {
        None if pod.metadata.deletion_timestamp.is_some() => Verdict::NeverBound,
        Some(node) if !node_exists(node) => Verdict::NodeMissing(node.to_owned()),
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
        match judge(&pod, |node| informers.nodes.find("", node).is_some()) {
            Verdict::Keep => {
                if let Some(node) = pods::node_of(&pod) {
                    self.missing.lock().remove(node);
                }
                Ok(Next::Done)
            }
            Verdict::NeverBound => self.remove(&pod).await,
            Verdict::NodeMissing(node) => {
                let since = *self.missing.lock().entry(node.clone()).or_insert_with(Instant::now);
                let left = QUARANTINE.saturating_sub(since.elapsed());
                if !left.is_zero() {
                    return Ok(Next::After(left));
                }
                let api: Api<Node> = Api::all(self.context.client.clone());
                if api.get_opt(&node).await?.is_some() {
                    return Ok(Next::Done);
                }
                self.fail(&pod).await?;
                self.remove(&pod).await
            }
            Verdict::Ended => self.limit().await,
        }
    }
}

impl PodGarbage {
    /// Those who count on the pod must see that it has ended, also if a finalizer keeps it.
    async fn fail(&self, pod: &Pod) -> Result<(), ReconcileError> {
        if pods::is_terminal(pod) {
            return Ok(());
        }
        let meta = &pod.metadata;
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), pods::namespace(meta));
        let patch = Patch::Strategic(json!({
            "metadata": {"uid": meta.uid},
            "status": {"phase": "Failed", "conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists", "lastTransitionTime": jiff::Timestamp::now().to_string(),
            }]},
        }));
        match api.patch_status(pods::name(meta), &PatchParams::default(), &patch).await {
            Ok(_) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
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
    use super::*;

    #[test]
    fn judges() {
        let cases = [
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
            assert_eq!(judge(&pod, |node| node == "n1"), want, "{node} {phase} {deleting}");
        }
    }
}
