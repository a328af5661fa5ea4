//! Defaults of the remaining kinds.

use crate::value::{has, object_mut, set, set_default, set_default_text, text};
use base64::Engine as _;
use serde_json::{Map, Value, json};

/// The label that every namespace carries.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Defaults of a Namespace.
pub fn namespace(object: &mut Value) {
    let name = text(&object["metadata"], "name").to_owned();
    if !name.is_empty()
        && let Some(labels) = object_mut(object, "metadata").and_then(|m| object_mut(m, "labels"))
    {
        set_default(labels, NAMESPACE_NAME_LABEL, name);
    }
    if let Some(status) = object_mut(object, "status") {
        set_default_text(status, "phase", "Active");
    }
}

/// Defaults of a Secret: its type, and `stringData` moved into `data`.
pub fn secret(object: &mut Value) {
    if let Some(Value::Object(strings)) = crate::value::remove(object, "stringData")
        && let Some(data) = object_mut(object, "data")
    {
        for (key, plain) in strings {
            let bytes = plain.as_str().unwrap_or_default().as_bytes();
            set(data, &key, base64::engine::general_purpose::STANDARD.encode(bytes));
        }
    }
    set_default_text(object, "type", "Opaque");
}

/// Defaults of a Node: what is allocatable is the capacity where nothing else is said.
pub fn node(object: &mut Value) {
    if let Some(status) = object.get_mut("status").filter(|s| has(s, "capacity")) {
        let capacity = status["capacity"].clone();
        set_default(status, "allocatable", capacity);
    }
    pod_cidrs(object);
}

/// `spec.podCIDR` and the first of `spec.podCIDRs` are the same.
fn pod_cidrs(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    let (one, many) = (text(spec, "podCIDR").to_owned(), crate::value::list(spec, "podCIDRs").to_vec());
    match (one.is_empty(), many.first()) {
        (false, None) => set(spec, "podCIDRs", json!([one])),
        (true, Some(first)) => set(spec, "podCIDR", first.clone()),
        _ => {}
    }
}

/// Defaults of a core Event: fields that upstream writes even when they are empty.
pub fn core_event(object: &mut Value) {
    for key in ["reportingComponent", "reportingInstance"] {
        set_default(object, key, "");
    }
    for key in ["source", "involvedObject"] {
        set_default(object, key, Value::Object(Map::new()));
    }
    for key in ["firstTimestamp", "lastTimestamp", "eventTime"] {
        set_default(object, key, Value::Null);
    }
}

/// Defaults of a PriorityClass.
pub fn priority_class(object: &mut Value) {
    set_default_text(object, "preemptionPolicy", "PreemptLowerPriority");
}
