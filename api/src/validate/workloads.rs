//! Validation of controllers of pods.

use super::common::{
    Errors, immutable, int_or_percent, int_or_percent_of_all, is_zero, label_selector, non_negative, one_of,
};
use super::pod::template;
use crate::catalogue::UpdateOf;
use crate::field::{FieldError, Path};
use crate::intstr::IntOrString;
use crate::selector::LabelSelector;
use crate::value::{has, int, list, map, text};
use serde_json::{Map, Value, json};

const SPEC: Path<'static> = Path::new("spec");

/// Checks a template against the selector that must match it.
fn pod_template(spec: &Value, selector: Option<&LabelSelector>, kind: &str, errors: &mut Errors) {
    let path = SPEC.child("template");
    let pod = &spec["template"];
    if !pod.is_object() {
        errors.push(FieldError::required(&path, ""));
        return;
    }
    let labels = map(&pod["metadata"], "labels");
    if selector.is_some_and(|s| !s.is_everything() && !s.matches(labels)) {
        let metadata = path.child("metadata");
        let detail = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(&metadata.child("labels"), Value::Object(labels.clone()), detail));
    }
    // What a stateful set claims is mounted as if it were among its volumes.
    let claims = list(spec, "volumeClaimTemplates").iter().map(|claim| text(&claim["metadata"], "name"));
    let names: Vec<&str> = list(&pod["spec"], "volumes").iter().map(|volume| text(volume, "name")).collect();
    let claims: Vec<Value> =
        claims.filter(|name| !names.contains(name)).map(|name| json!({"name": name, "emptyDir": {}})).collect();
    if claims.is_empty() {
        template(pod, &path, errors);
    } else {
        let mut pod = pod.clone();
        let mut volumes = list(&pod["spec"], "volumes").to_vec();
        volumes.extend(claims);
        pod["spec"]["volumes"] = Value::Array(volumes);
        template(&pod, &path, errors);
    }
    let inner = path.child("spec");
    let policy = text(&pod["spec"], "restartPolicy");
    if !matches!(policy, "" | "Always") {
        errors.push(FieldError::not_supported(&inner.child("restartPolicy"), policy, &["Always"]));
    }
    if has(&pod["spec"], "activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(FieldError::forbidden(&inner.child("activeDeadlineSeconds"), &detail));
    }
}

/// A ReplicationController.
pub fn replication_controller(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    non_negative(spec, &SPEC, &["minReadySeconds", "replicas"], errors);
    let labels: &Map<String, Value> = map(spec, "selector");
    if labels.is_empty() {
        errors.push(FieldError::required(&SPEC.child("selector"), ""));
    }
    pod_template(spec, LabelSelector::from_map(labels).ok().as_ref(), "ReplicationController", errors);
}

fn selector(spec: &Value, kind: &str, errors: &mut Errors) -> Option<LabelSelector> {
    let path = SPEC.child("selector");
    let selector = &spec["selector"];
    if !selector.is_object() {
        errors.push(FieldError::required(&path, ""));
        return None;
    }
    label_selector(selector, &path, errors);
    let parsed = LabelSelector::from_object(selector).ok()?;
    if parsed.is_everything() {
        let detail = format!("empty selector is invalid for {kind}");
        errors.push(FieldError::invalid(&path, selector.clone(), &detail));
    }
    Some(parsed)
}

/// A ReplicaSet.
pub fn replica_set(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    non_negative(spec, &SPEC, &["replicas", "minReadySeconds"], errors);
    let selector = selector(spec, "deployment", errors);
    pod_template(spec, selector.as_ref(), "ReplicaSet", errors);
}

/// A Deployment.
pub fn deployment(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    non_negative(spec, &SPEC, &["replicas"], errors);
    let selector = selector(spec, "deployment", errors);
    pod_template(spec, selector.as_ref(), "ReplicaSet", errors);
    strategy(&spec["strategy"], &SPEC.child("strategy"), errors);
    non_negative(spec, &SPEC, &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"], errors);
    let least = int(spec, "minReadySeconds").unwrap_or(0);
    if let Some(deadline) = int(spec, "progressDeadlineSeconds").filter(|d| *d <= least) {
        let detail = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid(&SPEC.child("progressDeadlineSeconds"), deadline, detail));
    }
}

fn strategy(strategy: &Value, path: &Path<'_>, errors: &mut Errors) {
    one_of(strategy, path, "type", &["Recreate", "RollingUpdate"], errors);
    let rolling = &strategy["rollingUpdate"];
    let at = path.child("rollingUpdate");
    match text(strategy, "type") {
        "Recreate" if rolling.is_object() => {
            errors.push(FieldError::forbidden(&at, "may not be specified when strategy `type` is 'Recreate'"));
        }
        "RollingUpdate" if !rolling.is_object() => {
            errors.push(FieldError::required(&at, "this should be defaulted and never be nil"));
        }
        "RollingUpdate" => {
            let unavailable = int_or_percent(&rolling["maxUnavailable"], &at.child("maxUnavailable"), errors);
            let surge = int_or_percent(&rolling["maxSurge"], &at.child("maxSurge"), errors);
            let zero = |value: &Option<IntOrString>| {
                value.as_ref().is_some_and(|v| matches!(v, IntOrString::Int(0)) || v.percent() == Some(0))
            };
            if zero(&unavailable) && zero(&surge) {
                let given = rolling["maxUnavailable"].clone();
                let detail = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(&at.child("maxUnavailable"), given, detail));
            }
            if let Some(percent) = unavailable.as_ref().and_then(IntOrString::percent).filter(|p| *p > 100) {
                let given = format!("{percent}%");
                errors.push(FieldError::invalid(&at.child("maxUnavailable"), given, "must not be greater than 100%"));
            }
        }
        _ => {}
    }
}

/// A DaemonSet.
pub fn daemon_set(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    let selector = selector(spec, "daemonset", errors);
    pod_template(spec, selector.as_ref(), "DaemonSet", errors);
    non_negative(spec, &SPEC, &["minReadySeconds"], errors);
    let (update, at) = (&spec["updateStrategy"], SPEC.child("updateStrategy"));
    match text(update, "type") {
        "OnDelete" => {}
        "RollingUpdate" => daemon_roll(&update["rollingUpdate"], &at.child("rollingUpdate"), errors),
        _ => errors.push(FieldError::not_supported(&at, update.clone(), &["OnDelete", "RollingUpdate"])),
    }
    non_negative(spec, &SPEC, &["revisionHistoryLimit"], errors);
}

fn daemon_roll(rolling: &Value, path: &Path<'_>, errors: &mut Errors) {
    if !rolling.is_object() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let (unavailable, surge) = (path.child("maxUnavailable"), path.child("maxSurge"));
    int_or_percent_of_all(&rolling["maxUnavailable"], &unavailable, errors);
    int_or_percent_of_all(&rolling["maxSurge"], &surge, errors);
    match (is_zero(&rolling["maxUnavailable"]), is_zero(&rolling["maxSurge"])) {
        (false, false) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.push(FieldError::invalid(&surge, rolling["maxSurge"].clone(), detail));
        }
        (true, true) => errors.push(FieldError::required(&unavailable, "cannot be 0 when maxSurge is 0")),
        _ => {}
    }
}

/// A StatefulSet.
pub fn stateful_set(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    let management = text(spec, "podManagementPolicy");
    if !matches!(management, "OrderedReady" | "Parallel") {
        let detail = "must be 'OrderedReady' or 'Parallel'";
        errors.push(FieldError::invalid(&SPEC.child("podManagementPolicy"), management, detail));
    }
    stateful_update_strategy(&spec["updateStrategy"], &SPEC.child("updateStrategy"), errors);
    let retention = SPEC.child("persistentVolumeClaimRetentionPolicy");
    for key in ["whenDeleted", "whenScaled"] {
        let given = text(&spec["persistentVolumeClaimRetentionPolicy"], key);
        if !matches!(given, "" | "Delete" | "Retain") {
            errors.push(FieldError::not_supported(&retention.child(key), given, &["Retain", "Delete"]));
        }
    }
    non_negative(spec, &SPEC, &["replicas", "minReadySeconds", "revisionHistoryLimit"], errors);
    non_negative(&spec["ordinals"], &SPEC.child("ordinals"), &["start"], errors);
    let selector = selector(spec, "statefulset", errors);
    pod_template(spec, selector.as_ref(), "StatefulSet", errors);
}

fn stateful_update_strategy(strategy: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (rolling, at) = (&strategy["rollingUpdate"], path.child("rollingUpdate"));
    match text(strategy, "type") {
        "" => errors.push(FieldError::required(path, "")),
        "OnDelete" if rolling.is_object() => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(FieldError::invalid(&at, rolling.clone(), detail));
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            non_negative(rolling, &at, &["partition"], errors);
            if has(rolling, "maxUnavailable") {
                let at = at.child("maxUnavailable");
                int_or_percent_of_all(&rolling["maxUnavailable"], &at, errors);
                if is_zero(&rolling["maxUnavailable"]) {
                    errors.push(FieldError::invalid(&at, rolling["maxUnavailable"].clone(), "cannot be 0"));
                }
            }
        }
        _ => {
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(FieldError::invalid(path, strategy.clone(), detail));
        }
    }
}

/// A change of a StatefulSet.
pub fn stateful_set_update(new: &Value, old: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    const MUTABLE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    if of == UpdateOf::Main {
        let mut wanted = new["spec"].clone();
        MUTABLE.iter().for_each(|key| crate::value::copy(&mut wanted, &old["spec"], key));
        if wanted != old["spec"] {
            let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
            errors.push(FieldError::forbidden(&SPEC, detail));
        }
        return;
    }
    if of != UpdateOf::Status {
        return;
    }
    let (status, path) = (&new["status"], Path::new("status"));
    let counts = ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    non_negative(status, &path, &counts, errors);
    non_negative(status, &path, &["observedGeneration", "collisionCount"], errors);
    let count = |key: &str| int(status, key).unwrap_or(0);
    for (key, bound) in [
        ("readyReplicas", "replicas"),
        ("currentReplicas", "replicas"),
        ("updatedReplicas", "replicas"),
        ("availableReplicas", "replicas"),
        ("availableReplicas", "readyReplicas"),
    ] {
        if count(key) > count(bound) {
            let detail = format!("cannot be greater than status.{bound}");
            errors.push(FieldError::invalid(&path.child(key), count(key), &detail));
        }
    }
}

/// A change of a DaemonSet.
pub fn daemon_set_update(new: &Value, old: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    match of {
        UpdateOf::Main => {
            immutable(&new["spec"]["selector"], &old["spec"]["selector"], &SPEC.child("selector"), errors);
        }
        UpdateOf::Status => {
            let keys = [
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
                "collisionCount",
            ];
            non_negative(&new["status"], &Path::new("status"), &keys, errors);
        }
        UpdateOf::Other(_) => {}
    }
}

/// A change of a ReplicaSet or Deployment.
pub fn selector_update(new: &Value, old: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    if of == UpdateOf::Main {
        immutable(&new["spec"]["selector"], &old["spec"]["selector"], &SPEC.child("selector"), errors);
    }
    status(new, of, errors);
}

/// Counts in a status are not negative.
pub fn status_update(new: &Value, _: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    status(new, of, errors);
}

fn status(new: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    if of == UpdateOf::Status {
        let keys = ["observedGeneration", "replicas", "updatedReplicas", "readyReplicas", "availableReplicas"];
        non_negative(&new["status"], &Path::new("status"), &keys, errors);
    }
}

/// A PodTemplate.
pub fn template_object(object: &Value, errors: &mut Errors) {
    template(&object["template"], &Path::new("template"), errors);
}

/// A ControllerRevision.
pub fn controller_revision(object: &Value, errors: &mut Errors) {
    if !has(object, "data") {
        errors.push(FieldError::required(&Path::new("data"), "data is mandatory"));
    }
    non_negative(object, &Path::ROOT, &["revision"], errors);
}

/// A change of a ControllerRevision.
pub fn controller_revision_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    immutable(&new["data"], &old["data"], &Path::new("data"), errors);
}
