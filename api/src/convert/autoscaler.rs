//! HorizontalPodAutoscalers of v1 and v2. They are stored as v2; what v1 has no fields for is in upstream's annotations,
//! so that nothing is lost when a client reads and writes v1.

use crate::defaults::batch::{cpu, cpu_percent};
use crate::value::{copy, has, int, list, map, object_mut, remove, set, text};
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
/// What an autoscaler aims at that does not say.
const DEFAULT_UTILIZATION: i64 = 80;

/// Takes one of the annotations away and reads it; what is no JSON is lost, as upstream.
fn take(object: &mut Value, key: &str) -> Option<Value> {
    let annotations = object.get_mut("metadata")?.get_mut("annotations")?;
    let text = remove(annotations, key)?;
    if annotations.as_object().is_some_and(Map::is_empty) {
        remove(&mut object["metadata"], "annotations");
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn annotate(object: &mut Value, key: &str, value: &Value) {
    if let Some(annotations) = object_mut(object, "metadata").and_then(|m| object_mut(m, "annotations")) {
        set(annotations, key, value.to_string());
    }
}

fn items(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// From v1 to v2.
pub fn to_v2(object: &mut Value) {
    let others = items(take(object, METRICS));
    let (behavior, current) = (take(object, BEHAVIOR), items(take(object, CURRENT)));
    let conditions = take(object, CONDITIONS);
    set(object, "apiVersion", "autoscaling/v2");
    if let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) {
        let aim = remove(spec, "targetCPUUtilizationPercentage").as_ref().and_then(Value::as_i64);
        let mut metrics: Vec<Value> = aim.map(cpu).into_iter().collect();
        metrics.extend(others.iter().map(|metric| convert(metric, true, true)));
        if metrics.is_empty() {
            metrics.push(cpu(DEFAULT_UTILIZATION));
        }
        set(spec, "metrics", metrics);
        if let Some(behavior) = behavior.filter(Value::is_object) {
            set(spec, "behavior", behavior);
        }
    }
    let Some(status) = object.get_mut("status").filter(|status| status.is_object()) else { return };
    let percent = remove(status, "currentCPUUtilizationPercentage").as_ref().and_then(Value::as_i64);
    let mut metrics: Vec<Value> = current.iter().map(|metric| convert(metric, true, false)).collect();
    if let Some(percent) = percent.filter(|_| metrics.is_empty()) {
        metrics
            .push(json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}));
    }
    let metrics = if metrics.is_empty() { Value::Null } else { Value::Array(metrics) };
    set(status, "currentMetrics", metrics);
    if let Some(conditions) = conditions.filter(Value::is_array) {
        set(status, "conditions", conditions);
    }
}

/// From v2 to v1.
pub fn to_v1(object: &mut Value) {
    set(object, "apiVersion", "autoscaling/v1");
    let (metrics, behavior) = match object.get_mut("spec").filter(|spec| spec.is_object()) {
        Some(spec) => (items(remove(spec, "metrics")), remove(spec, "behavior")),
        None => (Vec::new(), None),
    };
    if let Some(percent) = metrics.iter().find_map(cpu_percent) {
        set(&mut object["spec"], "targetCPUUtilizationPercentage", percent);
    }
    let others: Vec<Value> =
        metrics.iter().filter(|m| cpu_percent(m).is_none()).map(|m| convert(m, false, true)).collect();
    let (current, conditions) = match object.get_mut("status").filter(|status| status.is_object()) {
        Some(status) => {
            let current = items(remove(status, "currentMetrics"));
            let is_cpu = |m: &&Value| m["type"] == "Resource" && m["resource"]["name"] == "cpu";
            let percent = current.iter().filter(is_cpu);
            let percent = percent.filter_map(|m| int(&m["resource"]["current"], "averageUtilization")).next();
            if let Some(percent) = percent {
                set(status, "currentCPUUtilizationPercentage", percent);
            }
            if !has(status, "currentReplicas") {
                set(status, "currentReplicas", 0);
            }
            (current, items(remove(status, "conditions")))
        }
        None => (Vec::new(), Vec::new()),
    };
    if !others.is_empty() {
        annotate(object, METRICS, &others.into());
    }
    if !current.is_empty() {
        let current: Vec<Value> = current.iter().map(|metric| convert(metric, false, false)).collect();
        annotate(object, CURRENT, &current.into());
    }
    if let Some(behavior) = behavior.filter(|b| b.as_object().is_some_and(|b| !b.is_empty())) {
        annotate(object, BEHAVIOR, &behavior);
    }
    if !conditions.is_empty() {
        annotate(object, CONDITIONS, &conditions.into());
    }
}

/// One metric, of the spec or of the status, in the other version's form.
fn convert(metric: &Value, to_v2: bool, of_spec: bool) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (kind, source) in metric.as_object().into_iter().flatten().filter(|(key, _)| *key != "type") {
        let source = match (kind.as_str(), to_v2) {
            ("resource" | "containerResource", true) => resource_to_v2(source, of_spec),
            ("resource" | "containerResource", false) => resource_to_v1(source, of_spec),
            (_, true) => metric_to_v2(kind, source, of_spec),
            (_, false) => metric_to_v1(kind, source, of_spec),
        };
        set(&mut out, kind, source);
    }
    out
}

/// The names of a field in v1: of a spec `targetValue`, of a status `currentValue`.
fn named(of_spec: bool, rest: &str) -> String {
    format!("{}{rest}", if of_spec { "target" } else { "current" })
}

fn resource_to_v2(source: &Value, of_spec: bool) -> Value {
    let mut values = json!({});
    if let Some(percent) = int(source, &named(of_spec, "AverageUtilization")) {
        set(&mut values, "averageUtilization", percent);
    }
    if let Some(amount) = source.get(named(of_spec, "AverageValue")) {
        set(&mut values, "averageValue", amount.clone());
    }
    if of_spec {
        let kind = if has(&values, "averageUtilization") { "Utilization" } else { "AverageValue" };
        set(&mut values, "type", kind);
    }
    let mut out = json!({"name": source["name"]});
    copy(&mut out, source, "container");
    set(&mut out, if of_spec { "target" } else { "current" }, values);
    out
}

fn resource_to_v1(source: &Value, of_spec: bool) -> Value {
    let values = &source[if of_spec { "target" } else { "current" }];
    let mut out = json!({"name": source["name"]});
    copy(&mut out, source, "container");
    if let Some(percent) = int(values, "averageUtilization") {
        set(&mut out, &named(of_spec, "AverageUtilization"), percent);
    }
    if let Some(amount) = values.get("averageValue") {
        set(&mut out, &named(of_spec, "AverageValue"), amount.clone());
    }
    out
}

/// Where v1 keeps the average of a kind of metric.
fn average_name(kind: &str, of_spec: bool) -> String {
    if kind == "object" { "averageValue".to_owned() } else { named(of_spec, "AverageValue") }
}

fn metric_to_v2(kind: &str, source: &Value, of_spec: bool) -> Value {
    let mut identity = json!({"name": text(source, "metricName")});
    let selector = if kind == "external" { "metricSelector" } else { "selector" };
    if let Some(selector) = source.get(selector).filter(|s| s.is_object()) {
        set(&mut identity, "selector", selector.clone());
    }
    let mut values = json!({});
    // A value that v1 always writes says nothing beside an average.
    let average = source.get(average_name(kind, of_spec)).filter(|v| !v.is_null());
    let value = source.get(named(of_spec, "Value")).filter(|v| !v.is_null() && (average.is_none() || *v != "0"));
    if let Some(value) = value {
        set(&mut values, "value", value.clone());
    }
    if let Some(average) = average {
        set(&mut values, "averageValue", average.clone());
    }
    if of_spec {
        set(&mut values, "type", if average.is_some() { "AverageValue" } else { "Value" });
    }
    let mut out = json!({"metric": identity});
    set(&mut out, if of_spec { "target" } else { "current" }, values);
    if let Some(target) = source.get("target").filter(|target| kind == "object" && target.is_object()) {
        set(&mut out, "describedObject", target.clone());
    }
    out
}

fn metric_to_v1(kind: &str, source: &Value, of_spec: bool) -> Value {
    let values = &source[if of_spec { "target" } else { "current" }];
    let mut out = json!({});
    if kind == "object" {
        copy_as(&mut out, source, "describedObject", "target");
    }
    set(&mut out, "metricName", text(&source["metric"], "name"));
    copy_as(&mut out, values, "value", &named(of_spec, "Value"));
    if kind == "object" && !has(values, "value") {
        set(&mut out, &named(of_spec, "Value"), "0");
    }
    copy_as(&mut out, values, "averageValue", &average_name(kind, of_spec));
    let selector = if kind == "external" { "metricSelector" } else { "selector" };
    if !map(&source["metric"], "selector").is_empty()
        || !list(&source["metric"]["selector"], "matchExpressions").is_empty()
    {
        copy_as(&mut out, &source["metric"], "selector", selector);
    }
    out
}

fn copy_as(to: &mut Value, from: &Value, key: &str, name: &str) {
    if let Some(value) = from.get(key).filter(|v| !v.is_null()) {
        set(to, name, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2() -> Value {
        json!({
            "kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v2", "metadata": {"name": "h"},
            "spec": {
                "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}, "minReplicas": 1, "maxReplicas": 5,
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
                    {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
                    {"type": "Pods", "pods": {"metric": {"name": "q", "selector": {"matchLabels": {"a": "b"}}}, "target": {"type": "AverageValue", "averageValue": "3"}}},
                    {"type": "Object", "object": {"metric": {"name": "r"}, "target": {"type": "Value", "value": "2"},
                        "describedObject": {"kind": "Service", "name": "s", "apiVersion": "v1"}}},
                    {"type": "External", "external": {"metric": {"name": "e"}, "target": {"type": "AverageValue", "averageValue": "7"}}},
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
            },
            "status": {"currentReplicas": 2, "desiredReplicas": 2,
                "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 55, "averageValue": "55m"}}}]},
        })
    }

    #[test]
    fn nothing_is_lost_through_v1() {
        let mut object = v2();
        to_v1(&mut object);
        assert_eq!(object["apiVersion"], "autoscaling/v1");
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 60);
        assert_eq!(object["status"]["currentCPUUtilizationPercentage"], 55);
        assert!(object["spec"].get("metrics").is_none() && object["spec"].get("behavior").is_none());
        let annotations = map(&object["metadata"], "annotations");
        assert_eq!(annotations.len(), 4);
        let metrics: Value =
            serde_json::from_str(annotations[METRICS].as_str().unwrap_or_default()).unwrap_or_default();
        assert_eq!(
            metrics[0],
            json!({"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}})
        );
        assert_eq!(metrics[1]["pods"]["metricName"], "q");
        assert_eq!(metrics[2]["object"]["targetValue"], "2");
        to_v2(&mut object);
        assert_eq!(object, v2());
    }

    #[test]
    fn an_autoscaler_that_does_not_say_aims_at_80_percent() {
        let mut object = json!({"apiVersion": "autoscaling/v1", "metadata": {"name": "h"}, "spec": {"maxReplicas": 3}});
        to_v2(&mut object);
        assert_eq!(object["spec"]["metrics"], json!([cpu(80)]));
        to_v1(&mut object);
        assert_eq!(object["spec"]["targetCPUUtilizationPercentage"], 80);
    }
}
