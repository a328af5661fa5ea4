//! Validation of pods and pod templates.

use super::common::{Errors, one_of, optional_name, required_name};
use super::container::{self, Pod};
use super::metadata::{annotations, labels};
use crate::catalogue::UpdateOf;
use crate::field::{FieldError, Path};
use crate::names;
use crate::value::{has, int, list, map, text, truth};
use serde_json::Value;

const SPEC: Path<'static> = Path::new("spec");
const RESTART_POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
const DNS_POLICIES: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const TAINT_EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "PreferNoSchedule"];
/// What a pod's update may change.
const MUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A whole Pod.
pub fn pod(pod: &Value, errors: &mut Errors) {
    pod_spec(&pod["spec"], &SPEC, errors);
    let fresh = text(&pod["metadata"], "resourceVersion").is_empty();
    if fresh && !list(&pod["spec"], "ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden(&SPEC.child("ephemeralContainers"), "cannot be set on create"));
    }
}

/// A template with its labels.
pub fn template(template: &Value, path: &Path<'_>, errors: &mut Errors) {
    let metadata = &template["metadata"];
    labels(map(metadata, "labels"), &path.child("labels"), errors);
    annotations(map(metadata, "annotations"), &path.child("annotations"), errors);
    pod_spec(&template["spec"], &path.child("spec"), errors);
    if !list(&template["spec"], "ephemeralContainers").is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(&path.child("spec").child("ephemeralContainers"), detail));
    }
}

fn pod_spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let pod = Pod {
        volumes: volumes(list(spec, "volumes"), &path.child("volumes"), errors),
        host_network: truth(spec, "hostNetwork"),
    };
    containers(spec, path, &pod, errors);
    one_of(spec, path, "restartPolicy", RESTART_POLICIES, errors);
    one_of(spec, path, "dnsPolicy", DNS_POLICIES, errors);
    if text(spec, "dnsPolicy") == "None" && list(&spec["dnsConfig"], "nameservers").is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(&path.child("dnsConfig"), detail));
    }
    labels(map(spec, "nodeSelector"), &path.child("nodeSelector"), errors);
    tolerations(list(spec, "tolerations"), &path.child("tolerations"), errors);
    for (key, rule) in [
        ("serviceAccountName", names::dns1123_subdomain as fn(&str) -> Vec<String>),
        ("nodeName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
        ("priorityClassName", names::dns1123_subdomain),
        ("runtimeClassName", names::dns1123_subdomain),
    ] {
        optional_name(spec, path, key, rule, errors);
    }
    if let Some(seconds) = int(spec, "activeDeadlineSeconds").filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(&path.child("activeDeadlineSeconds"), seconds, detail));
    }
    super::common::non_negative(spec, path, &["terminationGracePeriodSeconds"], errors);
    security(spec, path, errors);
    container::resources(&spec["resources"], &path.child("resources"), errors);
}

fn security(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    if truth(spec, "hostPID") && truth(spec, "shareProcessNamespace") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(&path.child("shareProcessNamespace"), true, detail));
    }
    let context = path.child("securityContext");
    for key in ["runAsUser", "runAsGroup", "fsGroup"] {
        if let Some(id) = int(&spec["securityContext"], key).filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
            let detail = "must be between 0 and 2147483647, inclusive";
            errors.push(FieldError::invalid(&context.child(key), id, detail));
        }
    }
}

fn containers(spec: &Value, path: &Path<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    if list(spec, "containers").is_empty() {
        errors.push(FieldError::required(&path.child("containers"), ""));
    }
    let mut seen: Vec<&str> = Vec::new();
    for key in ["containers", "initContainers", "ephemeralContainers"] {
        let within = path.child(key);
        for (i, one) in list(spec, key).iter().enumerate() {
            let at = within.index(i);
            container::container(one, &at, pod, errors);
            let name = text(one, "name");
            if !name.is_empty() && seen.contains(&name) {
                errors.push(FieldError::duplicate(&at.child("name"), name));
            }
            seen.push(name);
            if key == "initContainers" {
                init_container(one, &at, errors);
            }
        }
    }
}

fn init_container(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    match text(container, "restartPolicy") {
        "Always" => return,
        "" => {}
        other => errors.push(FieldError::not_supported(&path.child("restartPolicy"), other, &["Always"])),
    }
    for key in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if has(container, key) {
            let detail = "may not be set for init containers without restartPolicy=Always";
            errors.push(FieldError::forbidden(&path.child(key), detail));
        }
    }
}

fn volumes<'a>(volumes: &'a [Value], path: &Path<'_>, errors: &mut Errors) -> Vec<&'a str> {
    let mut seen: Vec<&str> = Vec::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = path.index(i);
        required_name(volume, &at, "name", names::dns1123_label, errors);
        let name = text(volume, "name");
        if !name.is_empty() && seen.contains(&name) {
            errors.push(FieldError::duplicate(&at.child("name"), name));
        }
        seen.push(name);
        let sources = volume.as_object().into_iter().flatten().filter(|(key, v)| *key != "name" && !v.is_null());
        let sources: Vec<&String> = sources.map(|(key, _)| key).collect();
        if sources.is_empty() {
            errors.push(FieldError::required(&at, "must specify a volume type"));
        }
        for extra in sources.iter().skip(1) {
            errors.push(FieldError::forbidden(&at.child(extra), "may not specify more than 1 volume type"));
        }
        for (source, key) in [
            ("hostPath", "path"),
            ("configMap", "name"),
            ("secret", "secretName"),
            ("persistentVolumeClaim", "claimName"),
        ] {
            if has(volume, source) && text(&volume[source], key).is_empty() {
                errors.push(FieldError::required(&at.child(source).child(key), ""));
            }
        }
    }
    seen
}

fn tolerations(tolerations: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let at = path.index(i);
        optional_name(toleration, &at, "key", names::qualified_name, errors);
        let (key, operator, value) = (text(toleration, "key"), text(toleration, "operator"), text(toleration, "value"));
        if key.is_empty() && operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&at.child("operator"), operator, detail));
        }
        if has(toleration, "tolerationSeconds") && text(toleration, "effect") != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&at.child("effect"), text(toleration, "effect"), detail));
        }
        match operator {
            "" | "Equal" => {
                let check = names::label_value(value);
                errors.extend(check.iter().map(|e| FieldError::invalid(&at.child("operator"), value, e)));
            }
            "Exists" if value.is_empty() => {}
            "Exists" => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(FieldError::invalid(&at.child("operator"), value, detail));
            }
            other => errors.push(FieldError::not_supported(&at.child("operator"), other, &["Equal", "Exists"])),
        }
        super::common::optional_one_of(toleration, &at, "effect", TAINT_EFFECTS, errors);
    }
}

/// A change of a Pod.
pub fn update(new: &Value, old: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    match of {
        UpdateOf::Other("ephemeralcontainers") => return ephemeral_update(new, old, errors),
        UpdateOf::Other("resize") => return resize(new, old, errors),
        UpdateOf::Main => {}
        _ => return,
    }
    let (new, old) = (&new["spec"], &old["spec"]);
    for (key, what) in [("containers", "containers"), ("initContainers", "init containers")] {
        if list(new, key).len() != list(old, key).len() {
            let detail = format!("pod updates may not add or remove {what}");
            errors.push(FieldError::forbidden(&SPEC.child(key), &detail));
            return;
        }
    }
    deadline(new, old, errors);
    let mut munged = new.clone();
    if grown(list(new, "tolerations"), list(old, "tolerations")) {
        crate::value::copy(&mut munged, old, "tolerations");
    } else {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(&SPEC.child("tolerations"), detail));
    }
    let gates = (list(new, "schedulingGates"), list(old, "schedulingGates"));
    if let Some(gate) = gates.0.iter().find(|gate| !gates.1.contains(gate)) {
        let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", text(gate, "name"));
        errors.push(FieldError::forbidden(&SPEC.child("schedulingGates"), &detail));
    }
    let mut keep = vec!["activeDeadlineSeconds", "schedulingGates"];
    if !gates.1.is_empty() {
        // A pod that waits at a gate may still get narrower placement.
        keep.extend(["nodeSelector", "affinity"]);
    }
    if int(old, "terminationGracePeriodSeconds").is_some_and(|s| s < 0) && munged["terminationGracePeriodSeconds"] == 1
    {
        keep.push("terminationGracePeriodSeconds");
    }
    keep.iter().for_each(|key| crate::value::copy(&mut munged, old, key));
    for key in ["containers", "initContainers"] {
        let old = list(old, key);
        for (container, old) in crate::value::items_mut(&mut munged, key).zip(old) {
            crate::value::copy(container, old, "image");
        }
    }
    if munged != *old {
        let detail = format!("{MUTABLE}\n{}", difference(&munged, old));
        errors.push(FieldError::forbidden(&SPEC, &detail));
    }
}

/// Ephemeral containers are added, never changed or taken away.
fn ephemeral_update(new: &Value, old: &Value, errors: &mut Errors) {
    pod_spec(&new["spec"], &SPEC, errors);
    let path = SPEC.child("ephemeralContainers");
    let given = list(&new["spec"], "ephemeralContainers");
    for before in list(&old["spec"], "ephemeralContainers") {
        let name = text(before, "name");
        let what = match given.iter().find(|one| text(one, "name") == name) {
            None => "removed",
            Some(one) if one != before => "changed",
            Some(_) => continue,
        };
        let detail = format!("existing ephemeral containers {} may not be {what}\n", crate::field::quote(name));
        errors.push(FieldError::forbidden(&path, &detail));
    }
    let containers = list(&new["spec"], "containers");
    for (i, one) in given.iter().enumerate() {
        let at = path.index(i);
        for key in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resizePolicy"] {
            if has(one, key) {
                errors.push(FieldError::forbidden(&at.child(key), "cannot be set for an Ephemeral Container"));
            }
        }
        if !map(one, "resources").is_empty() {
            errors.push(FieldError::forbidden(&at.child("resources"), "cannot be set for an Ephemeral Container"));
        }
        let target = text(one, "targetContainerName");
        if !target.is_empty() && !containers.iter().any(|container| text(container, "name") == target) {
            errors.push(FieldError::not_found(&at.child("targetContainerName"), target));
        }
    }
}

/// A resize changes amounts of CPU and memory, but not the class of service.
fn resize(new: &Value, old: &Value, errors: &mut Errors) {
    pod_spec(&new["spec"], &SPEC, errors);
    if crate::defaults::pod::qos_class(&new["spec"]) != crate::defaults::pod::qos_class(&old["spec"]) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(&SPEC, crate::defaults::pod::qos_class(&new["spec"]), detail));
    }
    for key in ["containers", "initContainers"] {
        let within = SPEC.child(key);
        for (i, (after, before)) in list(&new["spec"], key).iter().zip(list(&old["spec"], key)).enumerate() {
            let at = within.index(i);
            for kind in ["requests", "limits"] {
                let amounts = |container: &Value| {
                    let mut amounts = map(&container["resources"], kind).clone();
                    amounts.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
                    amounts
                };
                if amounts(after) != amounts(before) {
                    let detail = "only cpu and memory resources are mutable";
                    errors.push(FieldError::forbidden(&at.child("resources").child(kind), detail));
                }
            }
        }
    }
}

fn deadline(new: &Value, old: &Value, errors: &mut Errors) {
    let path = SPEC.child("activeDeadlineSeconds");
    match (int(new, "activeDeadlineSeconds"), int(old, "activeDeadlineSeconds")) {
        (Some(new), Some(old)) if new > old => {
            let detail = "must be less than or equal to previous value";
            errors.push(FieldError::invalid(&path, new, detail));
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(FieldError::invalid(&path, Value::Null, detail));
        }
        _ => {}
    }
}

/// Whether every old toleration is there still, perhaps with other seconds.
fn grown(new: &[Value], old: &[Value]) -> bool {
    let bare = |toleration: &Value| {
        let mut bare = toleration.clone();
        crate::value::remove(&mut bare, "tolerationSeconds");
        bare
    };
    old.iter().all(|old| new.iter().any(|new| bare(new) == bare(old)))
}

/// The fields that differ, for the message.
fn difference(new: &Value, old: &Value) -> String {
    let keys = map_keys(new).chain(map_keys(old).filter(|key| new.get(*key).is_none()));
    let changed = keys.filter(|key| new.get(*key) != old.get(*key));
    let show = |value: Option<&Value>| value.map_or_else(|| "(unset)".to_owned(), ToString::to_string);
    let lines: Vec<String> =
        changed.map(|key| format!("- {key}: {}\n+ {key}: {}", show(old.get(key)), show(new.get(key)))).collect();
    lines.join("\n")
}

fn map_keys(value: &Value) -> impl Iterator<Item = &str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str())
}
