//! What several controllers ask of pods.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

/// The phase a pod reports.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("")
}

/// Whether a pod has ended for good.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether a pod counts as a replica: neither ended nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// The node a pod is bound to, if any.
pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// A condition of a pod.
pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Whether a pod is ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Since when a pod is ready.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// How long until a pod has been ready for `min_ready_seconds`: zero if it is available, none if it is not ready.
pub(crate) fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    if !is_ready(pod) {
        return None;
    }
    let wanted = i64::from(min_ready_seconds.max(0));
    if wanted == 0 {
        return Some(Duration::ZERO);
    }
    let ready = ready_since(pod)?.duration_since(now).as_secs_f64() + wanted as f64;
    Some(Duration::from_secs_f64(ready.max(0.0)))
}

/// Notes on a pod that is about to be deleted through no fault of its own why that is.
pub(crate) async fn tell_disruption(client: &Client, pod: &Pod, why: (&str, &str)) -> Result<(), kube::Error> {
    patch_status(client, pod, json!({"conditions": [disruption(why)]})).await
}

/// Says that a pod has failed, since nobody else is there to say so, and why if it was disrupted.
pub(crate) async fn fail(client: &Client, pod: &Pod, why: Option<(&str, &str)>) -> Result<(), kube::Error> {
    let mut status = json!({"phase": "Failed"});
    if let Some(why) = why {
        status["conditions"] = json!([disruption(why)]);
    }
    patch_status(client, pod, status).await
}

fn disruption((reason, message): (&str, &str)) -> Value {
    let now = format!("{:.0}", Timestamp::now());
    json!({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": now})
}

async fn patch_status(client: &Client, pod: &Pod, status: Value) -> Result<(), kube::Error> {
    let meta = &pod.metadata;
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace(meta));
    let patch = Patch::Strategic(json!({"metadata": {"uid": meta.uid}, "status": status}));
    match api.patch_status(name(meta), &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(drop),
    }
}

/// The owner that controls an object.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// The labels of an object, empty if it has none.
pub(crate) fn labels(meta: &ObjectMeta) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    meta.labels.as_ref().unwrap_or(&NONE)
}

/// The name of an object.
pub(crate) fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or("")
}

/// The namespace of an object.
pub(crate) fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or("")
}

/// The uid of an object.
pub(crate) fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or("")
}
