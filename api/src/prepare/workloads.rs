//! Preparation of controllers of pods, of autoscalers and of budgets.

use crate::catalogue::UpdateOf;
use crate::value::{object_mut, set, set_default, text, truth};
use serde_json::{Value, json};

/// Where upstream keeps how often a DaemonSet's template changed.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
/// Labels by which the pods of a job are known, newer ones and older.
const JOB_UID: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const JOB_NAME: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];

fn template_generation(object: &mut Value, number: i64) {
    if let Some(annotations) = object_mut(object, "metadata").and_then(|m| object_mut(m, "annotations")) {
        set(annotations, TEMPLATE_GENERATION, number.to_string());
    }
}

/// A new DaemonSet runs nowhere.
pub fn create_daemon_set(object: &mut Value) {
    template_generation(object, 1);
    let zero =
        json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0});
    set(object, "status", zero);
}

/// Each change of a DaemonSet's template is counted.
pub fn update_daemon_set(object: &mut Value, old: &Value, of: UpdateOf<'_>) {
    if of != UpdateOf::Main {
        return;
    }
    let before = text(&old["metadata"]["annotations"], TEMPLATE_GENERATION).parse().unwrap_or(0);
    let changed = object["spec"]["template"] != old["spec"]["template"];
    template_generation(object, before + i64::from(changed));
}

/// A new StatefulSet has no pods.
pub fn create_stateful_set(object: &mut Value) {
    set(object, "status", json!({"replicas": 0, "availableReplicas": 0}));
}

/// A new Job knows its pods by its uid, unless the user chose the selector.
pub fn create_job(job: &mut Value) {
    set(job, "status", json!({}));
    let (uid, name) = (text(&job["metadata"], "uid").to_owned(), text(&job["metadata"], "name").to_owned());
    let Some(spec) = job.get_mut("spec").filter(|spec| spec.is_object() && !truth(spec, "manualSelector")) else {
        return;
    };
    let template = object_mut(spec, "template").and_then(|template| object_mut(template, "metadata"));
    if let Some(labels) = template.and_then(|metadata| object_mut(metadata, "labels")) {
        for key in JOB_NAME {
            set_default(labels, key, name.as_str());
        }
        for key in JOB_UID {
            set_default(labels, key, uid.as_str());
        }
    }
    if let Some(labels) = object_mut(spec, "selector").and_then(|selector| object_mut(selector, "matchLabels")) {
        set_default(labels, JOB_UID[1], uid);
    }
}

/// A new autoscaler has seen nothing.
pub fn create_autoscaler(object: &mut Value) {
    set(object, "status", json!({"currentReplicas": 0, "desiredReplicas": 0}));
}

/// The same in v2, whose metrics are always written.
pub fn create_autoscaler_v2(object: &mut Value) {
    set(object, "status", json!({"desiredReplicas": 0, "currentMetrics": null}));
}

/// A new budget allows nothing until its controller has counted.
pub fn create_budget(object: &mut Value) {
    let zero = json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
    set(object, "status", zero);
}
