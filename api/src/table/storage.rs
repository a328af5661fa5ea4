//! Cells of quotas, volumes, claims and the storage group, and of ComponentStatus.

use super::{age, name, or};
use crate::Quantity;
use crate::value::{has, list, map, text, truth};
use jiff::Timestamp;
use serde_json::Value;

const DEFAULT_CLASS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// Where the class of a volume or claim was before it had a field.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const MODES: [(&str, &str); 4] =
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];

/// Name and time of creation, of kinds without a printer of their own.
pub(super) fn name_and_creation(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(object), text(&object["metadata"], "creationTimestamp").into()]
}

pub(super) fn resource_quota(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = &object["status"];
    let (hard, used) = (map(status, "hard"), map(status, "used"));
    let mut names: Vec<&String> = hard.keys().collect();
    names.sort();
    let amount = |value: Option<&Value>| value.and_then(Quantity::from_value).unwrap_or(Quantity::ZERO);
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for key in names {
        let shown = format!("{key}: {}/{}", amount(used.get(key)), amount(hard.get(key)));
        if key.starts_with("limits") { limits.push(shown) } else { requests.push(shown) }
    }
    vec![name(object), requests.join(", ").into(), limits.join(", ").into(), age(object, now)]
}

fn access_modes(of: &Value) -> String {
    let given = list(of, "accessModes");
    let short = MODES.iter().filter(|(mode, _)| given.iter().any(|g| g == mode)).map(|(_, short)| *short);
    short.collect::<Vec<_>>().join(",")
}

fn class(object: &Value) -> &str {
    match text(&object["metadata"]["annotations"], CLASS) {
        "" => text(&object["spec"], "storageClassName"),
        class => class,
    }
}

fn storage(amounts: &Value) -> String {
    amounts.get("storage").and_then(Quantity::from_value).map_or_else(String::new, |q| q.to_string())
}

pub(super) fn persistent_volume(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let claim = match spec.get("claimRef").filter(|claim| claim.is_object()) {
        Some(claim) => format!("{}/{}", text(claim, "namespace"), text(claim, "name")),
        None => String::new(),
    };
    let phase = if has(&object["metadata"], "deletionTimestamp") { "Terminating" } else { text(status, "phase") };
    vec![
        name(object),
        storage(&spec["capacity"]).into(),
        access_modes(spec).into(),
        text(spec, "persistentVolumeReclaimPolicy").into(),
        phase.into(),
        claim.into(),
        class(object).into(),
        or(text(spec, "volumeAttributesClassName"), "<unset>"),
        text(status, "reason").into(),
        age(object, now),
        or(text(spec, "volumeMode"), "<unset>"),
    ]
}

pub(super) fn persistent_volume_claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let phase = if has(&object["metadata"], "deletionTimestamp") { "Terminating" } else { text(status, "phase") };
    let bound = !text(spec, "volumeName").is_empty();
    let (capacity, modes) =
        if bound { (storage(&status["capacity"]), access_modes(status)) } else { Default::default() };
    vec![
        name(object),
        phase.into(),
        text(spec, "volumeName").into(),
        capacity.into(),
        modes.into(),
        class(object).into(),
        or(text(spec, "volumeAttributesClassName"), "<unset>"),
        age(object, now),
        or(text(spec, "volumeMode"), "<unset>"),
    ]
}

pub(super) fn component_status(object: &Value, _: Timestamp) -> Vec<Value> {
    let healthy = list(object, "conditions").iter().find(|c| text(c, "type") == "Healthy");
    let healthy = healthy.unwrap_or(&Value::Null);
    let status = match text(healthy, "status") {
        "True" => "Healthy",
        "False" => "Unhealthy",
        _ => "Unknown",
    };
    vec![name(object), status.into(), text(healthy, "message").into(), text(healthy, "error").into()]
}

pub(super) fn storage_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let annotations = &object["metadata"]["annotations"];
    let mut shown = text(&object["metadata"], "name").to_owned();
    if DEFAULT_CLASS.iter().any(|key| text(annotations, key) == "true") {
        shown.push_str(" (default)");
    }
    vec![
        shown.into(),
        text(object, "provisioner").into(),
        or(text(object, "reclaimPolicy"), "Delete"),
        or(text(object, "volumeBindingMode"), "Immediate"),
        truth(object, "allowVolumeExpansion").into(),
        age(object, now),
    ]
}

pub(super) fn volume_attachment(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    vec![
        name(object),
        text(spec, "attacher").into(),
        text(&spec["source"], "persistentVolumeName").into(),
        text(spec, "nodeName").into(),
        truth(&object["status"], "attached").into(),
        age(object, now),
    ]
}

pub(super) fn csi_driver(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let join = |texts: Vec<&str>, none: &str| or(&texts.join(","), none);
    let modes = list(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
    let audiences = list(spec, "tokenRequests").iter().map(|request| text(request, "audience")).collect();
    vec![
        name(object),
        spec.get("attachRequired").and_then(Value::as_bool).unwrap_or(true).into(),
        truth(spec, "podInfoOnMount").into(),
        truth(spec, "storageCapacity").into(),
        join(audiences, "<unset>"),
        truth(spec, "requiresRepublish").into(),
        join(modes, "<none>"),
        age(object, now),
    ]
}

pub(super) fn csi_node(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), list(&object["spec"], "drivers").len().into(), age(object, now)]
}

pub(super) fn csi_storage_capacity(object: &Value, _: Timestamp) -> Vec<Value> {
    let capacity = object.get("capacity").and_then(Quantity::from_value);
    let capacity = capacity.map_or_else(|| "<unset>".to_owned(), |q| q.to_string());
    vec![name(object), text(object, "storageClassName").into(), capacity.into()]
}

pub(super) fn volume_attributes_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let annotations = &object["metadata"]["annotations"];
    let mut shown = text(&object["metadata"], "name").to_owned();
    if text(annotations, "volumeattributesclass.alpha.kubernetes.io/is-default-class") == "true" {
        shown.push_str(" (default)");
    }
    vec![shown.into(), text(object, "driverName").into(), age(object, now)]
}
