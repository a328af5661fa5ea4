//! Cells of DaemonSets, StatefulSets, Jobs, CronJobs, HorizontalPodAutoscalers and PodDisruptionBudgets.

use super::workloads::{containers, count, labels, selector};
use super::{age, name, or};
use crate::time::{human_duration, of};
use crate::value::{has, int, list, map, text};
use jiff::Timestamp;
use serde_json::Value;

/// Most metrics of an autoscaler that are shown.
const METRICS: usize = 2;

pub(super) fn daemon_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = containers(&spec["template"]);
    vec![
        name(object),
        count(status, "desiredNumberScheduled"),
        count(status, "currentNumberScheduled"),
        count(status, "numberReady"),
        count(status, "updatedNumberScheduled"),
        count(status, "numberAvailable"),
        labels(map(&spec["template"]["spec"], "nodeSelector")).into(),
        age(object, now),
        names,
        images,
        selector(object),
    ]
}

pub(super) fn stateful_set(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = containers(&spec["template"]);
    let ready = format!("{}/{}", count(status, "readyReplicas"), count(spec, "replicas"));
    vec![name(object), ready.into(), age(object, now), names, images]
}

pub(super) fn job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let succeeded = count(status, "succeeded");
    let completions = match (int(spec, "completions"), int(spec, "parallelism").unwrap_or(0)) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let duration = of(&status["startTime"]).map(|start| {
        let end = of(&status["completionTime"]).unwrap_or(now);
        human_duration(end.as_second() - start.as_second())
    });
    let [names, images] = containers(&spec["template"]);
    vec![
        name(object),
        job_status(object).into(),
        completions.into(),
        duration.unwrap_or_default().into(),
        age(object, now),
        names,
        images,
        selector(object),
    ]
}

fn job_status(job: &Value) -> &'static str {
    let conditions = list(&job["status"], "conditions");
    let holds = |kind: &str| conditions.iter().any(|c| text(c, "type") == kind && text(c, "status") == "True");
    match () {
        () if holds("Complete") => "Complete",
        () if holds("Failed") => "Failed",
        () if has(&job["metadata"], "deletionTimestamp") => "Terminating",
        () if holds("Suspended") => "Suspended",
        () if holds("FailureTarget") => "FailureTarget",
        () if holds("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

pub(super) fn cron_job(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let template = &spec["jobTemplate"];
    let last = of(&status["lastScheduleTime"]).map(|then| human_duration(now.as_second() - then.as_second()));
    let suspend = match spec.get("suspend").and_then(Value::as_bool) {
        None => "<unset>",
        Some(true) => "True",
        Some(false) => "False",
    };
    let [names, images] = containers(&template["spec"]["template"]);
    let chosen = if template["spec"]["selector"].is_object() { selector(template) } else { "<none>".into() };
    vec![
        name(object),
        text(spec, "schedule").into(),
        or(text(spec, "timeZone"), "<none>"),
        suspend.into(),
        list(status, "active").len().into(),
        last.unwrap_or_else(|| "<none>".into()).into(),
        age(object, now),
        names,
        images,
        chosen,
    ]
}

/// An autoscaler of v2, as which all are printed.
pub(super) fn autoscaler(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let target = &spec["scaleTargetRef"];
    let least = int(spec, "minReplicas").map_or_else(|| "<unset>".to_owned(), |least| least.to_string());
    vec![
        name(object),
        format!("{}/{}", text(target, "kind"), text(target, "name")).into(),
        metrics(list(spec, "metrics"), list(status, "currentMetrics")).into(),
        least.into(),
        count(spec, "maxReplicas"),
        count(status, "currentReplicas"),
        age(object, now),
    ]
}

/// The same of v1.
pub(super) fn autoscaler_v1(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut object = object.clone();
    crate::convert::autoscaler::to_v2(&mut object);
    autoscaler(&object, now)
}

fn metrics(wanted: &[Value], seen: &[Value]) -> String {
    if wanted.is_empty() {
        return "<none>".into();
    }
    let shown: Vec<String> = wanted
        .iter()
        .zip((0..).map(|i| seen.get(i).unwrap_or(&Value::Null)))
        .take(METRICS)
        .map(|(wanted, seen)| metric(wanted, seen))
        .collect();
    match wanted.len() {
        more if more > METRICS => format!("{} + {} more...", shown.join(", "), more - METRICS),
        _ => shown.join(", "),
    }
}

fn metric(wanted: &Value, seen: &Value) -> String {
    let (kind, resource) = match text(wanted, "type") {
        "External" => ("external", false),
        "Pods" => ("pods", false),
        "Object" => ("object", false),
        "Resource" => ("resource", true),
        "ContainerResource" => ("containerResource", true),
        _ => return "<unknown type>".into(),
    };
    let (target, current) = (&wanted[kind]["target"], &seen[kind]["current"]);
    let amount = |of: &Value, key: &str| of.get(key).and_then(crate::Quantity::from_value).map(|q| q.to_string());
    let percent = |of: &Value| int(of, "averageUtilization").map(|percent| format!("{percent}%"));
    let or = |found: Option<String>, other: &str| found.unwrap_or_else(|| other.to_owned());
    let average = amount(target, "averageValue");
    if resource {
        let name = text(&wanted[kind], "name");
        return match average {
            Some(wanted) => format!("{name}: {}/{wanted}", or(amount(current, "averageValue"), "<unknown>")),
            None => format!("{name}: {}/{}", or(percent(current), "<unknown>"), or(percent(target), "<auto>")),
        };
    }
    match average {
        Some(wanted) => {
            let mark = if kind == "pods" { "" } else { " (avg)" };
            format!("{}/{wanted}{mark}", or(amount(current, "averageValue"), "<unknown>"))
        }
        None => format!("{}/{}", or(amount(current, "value"), "<unknown>"), or(amount(target, "value"), "0")),
    }
}

pub(super) fn disruption_budget(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let bound = |key: &str| match crate::intstr::IntOrString::from_value(&spec[key]) {
        Some(bound) => bound.to_string(),
        None => "N/A".to_owned(),
    };
    vec![
        name(object),
        bound("minAvailable").into(),
        bound("maxUnavailable").into(),
        count(&object["status"], "disruptionsAllowed"),
        age(object, now),
    ]
}
