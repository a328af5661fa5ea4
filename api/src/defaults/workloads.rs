//! Defaults of ReplicationControllers, ReplicaSets, Deployments and PodTemplates.

use super::pod;
use crate::value::{map, object_mut, set, set_default, set_default_text, text};
use serde_json::Value;

fn spec_and_template(object: &mut Value) -> Option<&mut Value> {
    let spec = object.get_mut("spec").filter(|s| s.is_object())?;
    if let Some(template) = spec.get_mut("template") {
        pod::template(template);
    }
    set_default(spec, "replicas", 1);
    Some(spec)
}

/// Defaults of a ReplicationController: labels and selector come from the template.
pub fn replication_controller(object: &mut Value) {
    let labels = map(&object["spec"]["template"]["metadata"], "labels").clone();
    if !labels.is_empty() {
        if map(&object["metadata"], "labels").is_empty()
            && let Some(metadata) = object_mut(object, "metadata")
        {
            set(metadata, "labels", labels.clone());
        }
        if map(&object["spec"], "selector").is_empty()
            && let Some(spec) = object_mut(object, "spec")
        {
            set(spec, "selector", labels);
        }
    }
    spec_and_template(object);
}

/// Defaults of a ReplicaSet.
pub fn replica_set(object: &mut Value) {
    spec_and_template(object);
}

/// Defaults of a Deployment.
pub fn deployment(object: &mut Value) {
    let Some(spec) = spec_and_template(object) else { return };
    if let Some(strategy) = object_mut(spec, "strategy") {
        set_default_text(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = object_mut(strategy, "rollingUpdate")
        {
            set_default(rolling, "maxUnavailable", "25%");
            set_default(rolling, "maxSurge", "25%");
        }
    }
    set_default(spec, "revisionHistoryLimit", 10);
    set_default(spec, "progressDeadlineSeconds", 600);
}

/// Defaults of a PodTemplate.
pub fn pod_template(object: &mut Value) {
    if let Some(template) = object.get_mut("template") {
        pod::template(template);
    }
}
