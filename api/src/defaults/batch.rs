//! Defaults of DaemonSets, StatefulSets, Jobs, CronJobs and HorizontalPodAutoscalers.

use super::pod;
use crate::value::{has, int, items_mut, list, map, object_mut, set, set_default, set_default_text, text};
use serde_json::{Value, json};

/// Defaults of a DaemonSet.
pub fn daemon_set(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    if let Some(template) = spec.get_mut("template") {
        pod::template(template);
    }
    if let Some(strategy) = object_mut(spec, "updateStrategy") {
        set_default_text(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = object_mut(strategy, "rollingUpdate")
        {
            set_default(rolling, "maxUnavailable", 1);
            set_default(rolling, "maxSurge", 0);
        }
    }
    set_default(spec, "revisionHistoryLimit", 10);
}

/// Defaults of a StatefulSet.
pub fn stateful_set(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    if let Some(template) = spec.get_mut("template") {
        pod::template(template);
    }
    set_default_text(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = object_mut(spec, "updateStrategy") {
        set_default_text(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = object_mut(strategy, "rollingUpdate")
        {
            set_default(rolling, "partition", 0);
        }
    }
    if let Some(retention) = object_mut(spec, "persistentVolumeClaimRetentionPolicy") {
        set_default_text(retention, "whenDeleted", "Retain");
        set_default_text(retention, "whenScaled", "Retain");
    }
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    for claim in items_mut(spec, "volumeClaimTemplates").filter(|claim| claim.is_object()) {
        set(claim, "apiVersion", "v1");
        set(claim, "kind", "PersistentVolumeClaim");
        super::storage::persistent_volume_claim(claim);
    }
}

/// Defaults of a Job.
pub fn job(object: &mut Value) {
    let labels = map(&object["spec"]["template"]["metadata"], "labels").clone();
    if !labels.is_empty()
        && map(&object["metadata"], "labels").is_empty()
        && let Some(metadata) = object_mut(object, "metadata")
    {
        set(metadata, "labels", labels);
    }
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    if let Some(template) = spec.get_mut("template") {
        pod::template(template);
    }
    if !has(spec, "completions") && !has(spec, "parallelism") {
        set(spec, "completions", 1);
    }
    set_default(spec, "parallelism", 1);
    let limit = if has(spec, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
    set_default(spec, "backoffLimit", limit);
    set_default_text(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    set_default(spec, "manualSelector", false);
    let replacement = if has(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    set_default_text(spec, "podReplacementPolicy", replacement);
    if let Some(policy) = spec.get_mut("podFailurePolicy") {
        for rule in items_mut(policy, "rules") {
            items_mut(rule, "onPodConditions").for_each(|pattern| set_default_text(pattern, "status", "True"));
        }
    }
}

/// Defaults of a CronJob.
pub fn cron_job(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    set_default_text(spec, "concurrencyPolicy", "Allow");
    set_default(spec, "suspend", false);
    set_default(spec, "successfulJobsHistoryLimit", 3);
    set_default(spec, "failedJobsHistoryLimit", 1);
    if let Some(template) = spec.pointer_mut("/jobTemplate/spec/template") {
        pod::template(template);
    }
}

/// Defaults of a HorizontalPodAutoscaler of v1; what it aims at by default is set when it is stored.
pub fn autoscaler_v1(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) {
        set_default(spec, "minReplicas", 1);
    }
}

/// Defaults of a HorizontalPodAutoscaler of v2.
pub fn autoscaler_v2(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    set_default(spec, "minReplicas", 1);
    if list(spec, "metrics").is_empty() {
        set(spec, "metrics", json!([cpu(80)]));
    }
    let Some(behavior) = spec.get_mut("behavior").filter(|b| b.is_object()) else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    if let Some(up) = object_mut(behavior, "scaleUp") {
        set_default(up, "stabilizationWindowSeconds", 0);
        scaling(up, json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, percent]));
    }
    if let Some(down) = object_mut(behavior, "scaleDown") {
        scaling(down, json!([percent]));
    }
}

fn scaling(rules: &mut Value, policies: Value) {
    set_default_text(rules, "selectPolicy", "Max");
    set_default(rules, "policies", policies);
}

/// The metric that aims at a part of the requested CPU, in percent.
pub fn cpu(percent: i64) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

/// The percentage of a metric that [`cpu`] could have made.
pub fn cpu_percent(metric: &Value) -> Option<i64> {
    let resource = &metric["resource"];
    let is_cpu = metric["type"] == "Resource" && resource["name"] == "cpu";
    int(&resource["target"], "averageUtilization").filter(|_| is_cpu)
}
