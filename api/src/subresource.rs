//! Bodies of sub-resources that are not the object itself: Scale, Binding and Eviction.

use crate::catalogue::Resource;
use crate::field::{FieldError, Path};
use crate::selector::LabelSelector;
use crate::status::Status;
use crate::{names, value};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The `autoscaling/v1` Scale of a Deployment, ReplicaSet or ReplicationController.
pub fn scale(object: &Value) -> Value {
    let mut metadata = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        value::copy(&mut metadata, &object["metadata"], key);
    }
    let selector = &object["spec"]["selector"];
    let is_object = selector.get("matchLabels").is_some_and(Value::is_object)
        || selector.get("matchExpressions").is_some_and(Value::is_array);
    let selector = if is_object {
        LabelSelector::from_object(selector)
    } else {
        LabelSelector::from_map(value::map(&object["spec"], "selector"))
    };
    let mut status = json!({"replicas": value::int(&object["status"], "replicas").unwrap_or(0)});
    if let Ok(selector) = selector.map(|s| s.to_string()) {
        value::set_default_text(&mut status, "selector", &selector);
    }
    let mut spec = json!({});
    value::copy(&mut spec, &object["spec"], "replicas");
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// Checks a Scale and writes its replicas into the object. Answers with fields that a Scale does not have.
///
/// # Errors
/// 400 for a body that is no Scale, 422 for invalid replicas, 409 for another resourceVersion or uid.
pub fn apply_scale(resource: &Resource, object: &mut Value, mut scale: Value) -> Result<Vec<String>, Status> {
    let mut unknown = Vec::new();
    if let Some(id) = resource.schemas.find("io.k8s.api.autoscaling.v1.Scale") {
        let conform = resource.schemas.conform(id, &mut scale);
        unknown = conform.map_err(|e| Status::cannot_be_handled("Scale", "v1", &e.to_string()))?.unknown;
    }
    let name = value::text(&object["metadata"], "name").to_owned();
    let given = &scale["metadata"];
    if value::text(given, "name") != name {
        let errors = [FieldError::invalid(
            &Path::new("metadata.name"),
            value::text(given, "name"),
            "must match the name of the object",
        )];
        return Err(Status::invalid("autoscaling", "Scale", &name, &errors));
    }
    let uid = value::text(&object["metadata"], "uid");
    if !value::text(given, "uid").is_empty() && value::text(given, "uid") != uid {
        return Err(Status::uid_mismatch(&resource.group, &resource.plural, object, value::text(given, "uid")));
    }
    let version = value::text(given, "resourceVersion");
    if !version.is_empty() && version != value::text(&object["metadata"], "resourceVersion") {
        return Err(Status::modified(&resource.group, &resource.plural, &name));
    }
    let replicas = value::int(&scale["spec"], "replicas").unwrap_or(0);
    if replicas < 0 {
        let errors = [FieldError::invalid(&Path::new("spec.replicas"), replicas, "must be greater than or equal to 0")];
        return Err(Status::invalid("autoscaling", "Scale", &name, &errors));
    }
    if let Some(spec) = value::object_mut(object, "spec") {
        value::set(spec, "replicas", replicas);
    }
    Ok(unknown)
}

/// Checks a Binding and binds a pod: `spec.nodeName`, annotations of the binding and the PodScheduled condition.
///
/// # Errors
/// 422 for a bad target; 409 for a pod that is bound or being deleted, or another uid.
pub fn apply_binding(pod: &mut Value, binding: &Value, now: Timestamp) -> Result<(), Status> {
    let name = value::text(&pod["metadata"], "name").to_owned();
    let target = &binding["target"];
    let (kind, node) = (value::text(target, "kind"), value::text(target, "name"));
    let path = Path::new("target");
    let mut errors = Vec::new();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(&path.child("kind"), kind, &["Node", "<empty>"]));
    }
    if node.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "Binding", &name, &errors));
    }
    let conflict = |why: String| Err(Status::conflict("", "pods/binding", &name, &why));
    let (wanted, uid) = (value::text(&binding["metadata"], "uid"), value::text(&pod["metadata"], "uid"));
    if !wanted.is_empty() && wanted != uid {
        return conflict(format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"));
    }
    if value::has(&pod["metadata"], "deletionTimestamp") {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let bound = value::text(&pod["spec"], "nodeName");
    if !bound.is_empty() {
        return conflict(format!("pod {name} is already assigned to node {}", crate::field::quote(bound)));
    }
    if !value::list(&pod["spec"], "schedulingGates").is_empty() {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    if let Some(spec) = value::object_mut(pod, "spec") {
        value::set(spec, "nodeName", node);
    }
    for (key, text) in value::map(&binding["metadata"], "annotations") {
        let annotations = value::object_mut(pod, "metadata").and_then(|m| value::object_mut(m, "annotations"));
        if let Some(annotations) = annotations {
            value::set(annotations, key, text.clone());
        }
    }
    scheduled(pod, now);
    Ok(())
}

fn scheduled(pod: &mut Value, now: Timestamp) {
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": Value::Null,
        "lastTransitionTime": crate::time::seconds(now),
    });
    set_condition(pod, condition);
}

/// Says on a pod that it is being evicted; one of which that is known already stays as it is.
pub fn disrupt(pod: &mut Value, now: Timestamp) {
    let (reason, message) = ("EvictionByEvictionAPI", "Eviction API: evicting");
    let known = |c: &Value| {
        value::text(c, "type") == "DisruptionTarget"
            && value::text(c, "status") == "True"
            && value::text(c, "reason") == reason
    };
    if value::list(&pod["status"], "conditions").iter().any(known) {
        return;
    }
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "lastProbeTime": Value::Null,
        "lastTransitionTime": crate::time::seconds(now), "reason": reason, "message": message,
    });
    set_condition(pod, condition);
}

fn set_condition(pod: &mut Value, condition: Value) {
    let Some(status) = value::object_mut(pod, "status") else { return };
    value::set_default(status, "conditions", Vec::<Value>::new());
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|c| c["type"] == condition["type"]) {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

/// Whether a name is one that a path segment may carry.
pub fn valid_path_name(name: &str) -> bool {
    !name.is_empty() && names::path_segment_name(name, false).is_empty()
}
