//! Cells of the remaining kinds.

use super::{age, name};
use crate::time::{age as age_of, human_duration, of};
use crate::value::{has, int, list, map, text, truth};
use jiff::Timestamp;
use serde_json::Value;

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

pub(super) fn name_and_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

pub(super) fn node(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = &object["status"];
    let info = &status["nodeInfo"];
    let or = |text: &str, other: &str| Value::from(if text.is_empty() { other } else { text });
    let address = |kind: &str| {
        let found = list(status, "addresses").iter().find(|a| text(a, "type") == kind);
        or(found.map_or("", |a| text(a, "address")), "<none>")
    };
    vec![
        name(object),
        node_status(object).into(),
        roles(object).into(),
        age(object, now),
        text(info, "kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        or(text(info, "osImage"), "<unknown>"),
        or(text(info, "kernelVersion"), "<unknown>"),
        or(text(info, "containerRuntimeVersion"), "<unknown>"),
    ]
}

fn node_status(node: &Value) -> String {
    let ready = list(&node["status"], "conditions").iter().find(|c| text(c, "type") == "Ready");
    let mut out = match ready.map(|c| text(c, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if truth(&node["spec"], "unschedulable") {
        out.push_str(",SchedulingDisabled");
    }
    out
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = map(&node["metadata"], "labels")
        .iter()
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) if !role.is_empty() => Some(role),
            _ if key == ROLE_LABEL => value.as_str().filter(|v| !v.is_empty()),
            _ => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".into() } else { roles.join(",") }
}

pub(super) fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(&object["status"], "phase").into(), age(object, now)]
}

pub(super) fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "type").into(), map(object, "data").len().into(), age(object, now)]
}

pub(super) fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), (map(object, "data").len() + map(object, "binaryData").len()).into(), age(object, now)]
}

pub(super) fn service_account(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), list(object, "secrets").len().into(), age(object, now)]
}

pub(super) fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(&object["spec"], "holderIdentity").into(), age(object, now)]
}

pub(super) fn priority_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        int(object, "value").unwrap_or(0).into(),
        truth(object, "globalDefault").into(),
        age(object, now),
        text(object, "preemptionPolicy").into(),
    ]
}

pub(super) fn runtime_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "handler").into(), age(object, now)]
}

/// Events of both groups: fields under either name.
pub(super) fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let either = |core: &str, new: &str| {
        object.get(core).filter(|v| !v.is_null()).or_else(|| object.get(new)).unwrap_or(&Value::Null).clone()
    };
    let involved = either("involvedObject", "regarding");
    let (first, last, source) = (
        either("firstTimestamp", "deprecatedFirstTimestamp"),
        either("lastTimestamp", "deprecatedLastTimestamp"),
        either("source", "deprecatedSource"),
    );
    let series = &object["series"];
    let since = |time: &Value| age_of(time, now);
    let first_seen = if of(&first).is_some() { since(&first) } else { since(&object["eventTime"]) };
    let series_count = int(series, "count");
    let mut last_seen = if of(&last).is_some() { since(&last) } else { first_seen.clone() };
    let mut count = int(object, "count").or_else(|| int(object, "deprecatedCount")).unwrap_or(0);
    if let Some(times) = series_count {
        last_seen = match of(&series["lastObservedTime"]) {
            Some(then) => human_duration(now.as_second() - then.as_second()),
            None => last_seen,
        };
        count = times;
    } else if count == 0 {
        count = 1;
    }
    let kind = text(&involved, "kind").to_lowercase();
    let target = if text(&involved, "name").is_empty() { kind } else { format!("{kind}/{}", text(&involved, "name")) };
    let message = either("message", "note");
    vec![
        last_seen.into(),
        text(object, "type").into(),
        text(object, "reason").into(),
        target.into(),
        text(&involved, "fieldPath").into(),
        event_source(object, &source).into(),
        message.as_str().unwrap_or_default().trim().into(),
        first_seen.into(),
        count.into(),
        name(object),
    ]
}

fn event_source(event: &Value, source: &Value) -> String {
    let component = [text(source, "component"), text(event, "reportingComponent"), text(event, "reportingController")];
    let component = component.into_iter().find(|c| !c.is_empty()).unwrap_or_default();
    let host = [text(source, "host"), text(event, "reportingInstance")].into_iter().find(|h| !h.is_empty());
    match host.filter(|_| has(source, "component") || has(source, "host")) {
        Some(host) => format!("{component}, {host}"),
        None => component.to_owned(),
    }
}
