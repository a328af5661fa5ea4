//! Validation of the remaining kinds.

use super::IMMUTABLE;
use super::common::{Errors, NON_NEGATIVE, immutable, non_negative, one_of, required_name};
use crate::catalogue::UpdateOf;
use crate::field::{FieldError, Path};
use crate::names;
use crate::value::{has, int, list, map, text, truth};
use base64::Engine as _;
use serde_json::Value;

/// Most bytes of data in a ConfigMap or Secret.
const MAX_DATA: usize = 1024 * 1024;
/// Highest priority that users may give.
const MAX_PRIORITY: i64 = 1_000_000_000;

const SPEC: Path<'static> = Path::new("spec");

/// A Namespace.
pub fn namespace(object: &Value, errors: &mut Errors) {
    let path = SPEC.child("finalizers");
    for (i, finalizer) in list(&object["spec"], "finalizers").iter().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        let check = names::qualified_name(name);
        errors.extend(check.iter().map(|e| FieldError::invalid(&path.index(i), name, e)));
        if check.is_empty() && !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(&path.index(i), name, detail));
        }
    }
}

/// A Node.
pub fn node(object: &Value, errors: &mut Errors) {
    let path = SPEC.child("taints");
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (i, taint) in list(&object["spec"], "taints").iter().enumerate() {
        let at = path.index(i);
        let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        errors.extend(names::qualified_name(key).iter().map(|e| FieldError::invalid(&at.child("key"), key, e)));
        errors.extend(names::label_value(value).iter().map(|e| FieldError::invalid(&at.child("value"), value, e)));
        one_of(taint, &at, "effect", &["NoExecute", "NoSchedule", "PreferNoSchedule"], errors);
        if seen.contains(&(key, effect)) {
            let detail = "taints must be unique by key and effect pair";
            let mut error = FieldError::duplicate(&at, taint.clone());
            error.body = format!("{}: {detail}", error.body);
            errors.push(error);
        }
        seen.push((key, effect));
    }
    let ranges = SPEC.child("podCIDRs");
    for (i, range) in list(&object["spec"], "podCIDRs").iter().enumerate() {
        super::ingress::cidr(range.as_str().unwrap_or_default(), &ranges.index(i), errors);
    }
}

/// A change of a Node.
pub fn node_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    let (new, old) = (text(&new["spec"], "podCIDR"), text(&old["spec"], "podCIDR"));
    if !old.is_empty() && new != old {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(FieldError::forbidden(&SPEC.child("podCIDRs"), detail));
    }
}

fn keys(object: &Value, key: &str, errors: &mut Errors) -> usize {
    let path = Path::new(key);
    let mut size = 0;
    for (name, value) in map(object, key) {
        errors
            .extend(names::config_map_key(name).iter().map(|e| FieldError::invalid(&path.key(name), name.as_str(), e)));
        let text = value.as_str().unwrap_or_default();
        size += if key == "data" && !has(object, "type") { text.len() } else { text.len() / 4 * 3 };
    }
    size
}

/// A ConfigMap.
pub fn config_map(object: &Value, errors: &mut Errors) {
    let mut size = keys(object, "data", errors);
    for key in map(object, "binaryData").keys() {
        if map(object, "data").contains_key(key) {
            let detail = "duplicate of key present in data";
            errors.push(FieldError::invalid(&Path::new("binaryData").key(key), key.as_str(), detail));
        }
    }
    size += keys(object, "binaryData", errors);
    if size > MAX_DATA {
        errors.push(FieldError::too_long(&Path::ROOT, MAX_DATA));
    }
}

/// A Secret.
pub fn secret(object: &Value, errors: &mut Errors) {
    if keys(object, "data", errors) > MAX_DATA {
        errors.push(FieldError::too_long(&Path::new("data"), MAX_DATA));
    }
    let data = map(object, "data");
    let path = Path::new("data");
    let needed: &[&str] = match text(object, "type") {
        "kubernetes.io/service-account-token" => {
            let account = "kubernetes.io/service-account.name";
            if text(&object["metadata"]["annotations"], account).is_empty() {
                let metadata = Path::new("metadata");
                let annotations = metadata.child("annotations");
                errors.push(FieldError::required(&annotations.key(account), ""));
            }
            &[]
        }
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/basic-auth" if !data.contains_key("username") && !data.contains_key("password") => {
            &["username", "password"]
        }
        _ => &[],
    };
    for key in needed {
        match data.get(*key).and_then(Value::as_str) {
            None => errors.push(FieldError::required(&path.key(key), "")),
            Some(encoded) if key.starts_with(".docker") => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
                if let Err(error) = crate::decode::from_json(&bytes) {
                    errors.push(FieldError::invalid(&path.key(key), "<secret contents redacted>", &error.to_string()));
                }
            }
            Some(_) => {}
        }
    }
}

/// A change of a ConfigMap or Secret that may have been made immutable, and of a Secret's type.
pub fn data_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    if has(old, "type") || has(new, "type") {
        immutable(&new["type"], &old["type"], &Path::new("type"), errors);
    }
    if !truth(old, "immutable") {
        return;
    }
    let detail = "field is immutable when `immutable` is set";
    if !truth(new, "immutable") {
        errors.push(FieldError::forbidden(&Path::new("immutable"), detail));
    }
    for key in ["data", "binaryData"] {
        if map(new, key) != map(old, key) {
            errors.push(FieldError::forbidden(&Path::new(key), detail));
        }
    }
}

/// An Event of the core group.
pub fn core_event(object: &Value, errors: &mut Errors) {
    event_namespace(object, "involvedObject", errors);
}

/// An Event of `events.k8s.io`.
pub fn event(object: &Value, errors: &mut Errors) {
    event_namespace(object, "regarding", errors);
    if !has(object, "eventTime") {
        return;
    }
    let root = Path::ROOT;
    required_name(object, &root, "reportingController", names::qualified_name, errors);
    for (key, max) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
        let given = text(object, key);
        if given.is_empty() {
            errors.push(FieldError::required(&root.child(key), ""));
        } else if given.len() > max {
            let detail = format!("can have at most {max} characters");
            errors.push(FieldError::invalid(&root.child(key), given, &detail));
        }
    }
    if text(object, "note").len() > 1024 {
        errors.push(FieldError::invalid(&root.child("note"), "", "can have at most 1024 characters"));
    }
    let kind = text(object, "type");
    if !matches!(kind, "Normal" | "Warning") {
        errors.push(FieldError::invalid(&root.child("type"), "", &format!("has invalid value: {kind}")));
    }
}

fn event_namespace(object: &Value, key: &str, errors: &mut Errors) {
    let own = text(&object["metadata"], "namespace");
    let about = text(&object[key], "namespace");
    let path = Path::new("involvedObject");
    if about.is_empty() {
        if !matches!(own, "" | "default") {
            let detail = "does not match event.namespace";
            errors.push(FieldError::invalid(&path.child("namespace"), about, detail));
        }
    } else if about != own {
        errors.push(FieldError::invalid(&path.child("namespace"), about, "does not match event.namespace"));
    }
}

/// A Lease.
pub fn lease(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    if let Some(seconds) = int(spec, "leaseDurationSeconds").filter(|s| *s <= 0) {
        errors.push(FieldError::invalid(&SPEC.child("leaseDurationSeconds"), seconds, "must be greater than 0"));
    }
    non_negative(spec, &SPEC, &["leaseTransitions"], errors);
}

/// A PriorityClass.
pub fn priority_class(object: &Value, errors: &mut Errors) {
    let name = text(&object["metadata"], "name");
    let value = int(object, "value").unwrap_or(0);
    let system = [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
    if name.starts_with("system-") && !system.contains(&(name, value)) {
        let metadata = Path::new("metadata");
        let detail = "priority class names with 'system-' prefix are reserved for system use only";
        errors.push(FieldError::forbidden(&metadata.child("name"), detail));
    } else if !name.starts_with("system-") && value > MAX_PRIORITY {
        let detail = format!("maximum allowed value of a user defined priority is {MAX_PRIORITY}");
        errors.push(FieldError::forbidden(&Path::new("value"), &detail));
    }
    one_of(object, &Path::ROOT, "preemptionPolicy", &["Never", "PreemptLowerPriority"], errors);
}

/// A change of a PriorityClass.
pub fn priority_class_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    if int(new, "value") != int(old, "value") {
        errors.push(FieldError::forbidden(&Path::new("value"), "may not be changed in an update."));
    }
    immutable(&new["preemptionPolicy"], &old["preemptionPolicy"], &Path::new("preemptionPolicy"), errors);
}

/// A RuntimeClass.
pub fn runtime_class(object: &Value, errors: &mut Errors) {
    let handler = text(object, "handler");
    let check = names::dns1123_label(handler);
    errors.extend(check.iter().map(|e| FieldError::invalid(&Path::new("handler"), handler, e)));
}

/// A change of a RuntimeClass.
pub fn runtime_class_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    if new["handler"] != old["handler"] {
        errors.push(FieldError::invalid(&Path::new("handler"), new["handler"].clone(), IMMUTABLE));
    }
}

/// Replicas of a Scale.
pub fn scale_replicas(replicas: i64, errors: &mut Errors) {
    if replicas < 0 {
        errors.push(FieldError::invalid(&SPEC.child("replicas"), replicas, NON_NEGATIVE));
    }
}
