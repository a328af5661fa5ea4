//! Cells of roles, network policies, certificates, flow control, admission, devices and extensions.

use super::workloads::count;
use super::{age, name, or};
use crate::selector::LabelSelector;
use crate::time::human_duration;
use crate::value::{has, int, list, text};
use jiff::Timestamp;
use serde_json::Value;

/// Hosts of an Ingress that are shown, and the room for its addresses.
const HOSTS: usize = 3;
const ADDRESS_WIDTH: usize = 16;

/// A RoleBinding or ClusterRoleBinding.
pub(super) fn role_binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = &object["roleRef"];
    let of = |kind: &str| -> Value {
        let subjects = list(object, "subjects").iter().filter(|subject| text(subject, "kind") == kind);
        let texts = subjects.map(|subject| match kind {
            "ServiceAccount" => format!("{}/{}", text(subject, "namespace"), text(subject, "name")),
            _ => text(subject, "name").to_owned(),
        });
        texts.collect::<Vec<_>>().join(", ").into()
    };
    let role = format!("{}/{}", text(role, "kind"), text(role, "name"));
    vec![name(object), role.into(), age(object, now), of("User"), of("Group"), of("ServiceAccount")]
}

pub(super) fn ingress(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let hosts: Vec<&str> =
        list(spec, "rules").iter().map(|rule| text(rule, "host")).filter(|host| !host.is_empty()).collect();
    let shown = match hosts.len() {
        0 => "*".to_owned(),
        more if more > HOSTS => format!("{} + {} more...", hosts[..HOSTS].join(","), more - HOSTS),
        _ => hosts.join(","),
    };
    let entries = list(&object["status"]["loadBalancer"], "ingress").iter();
    let addresses: Vec<&str> =
        entries.map(|e| if has(e, "ip") { text(e, "ip") } else { text(e, "hostname") }).collect();
    let mut addresses = addresses.join(",");
    if addresses.len() > ADDRESS_WIDTH && addresses.is_char_boundary(ADDRESS_WIDTH - 3) {
        addresses.truncate(ADDRESS_WIDTH - 3);
        addresses.push_str("...");
    }
    let ports = if list(spec, "tls").is_empty() { "80" } else { "80, 443" };
    let class = or(text(spec, "ingressClassName"), "<none>");
    vec![name(object), class, shown.into(), addresses.into(), ports.into(), age(object, now)]
}

pub(super) fn ingress_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, parameters) = (&object["spec"], &object["spec"]["parameters"]);
    let shown = match parameters.is_object() {
        true => {
            let kind = crate::status::qualified(text(parameters, "apiGroup"), text(parameters, "kind"));
            format!("{kind}/{}", text(parameters, "name"))
        }
        false => "<none>".to_owned(),
    };
    vec![name(object), text(spec, "controller").into(), shown.into(), age(object, now)]
}

pub(super) fn network_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    let selector = match LabelSelector::from_object(&object["spec"]["podSelector"]) {
        Ok(selector) if selector.is_everything() => "<none>".to_owned(),
        Ok(selector) => selector.to_string(),
        Err(error) => error.to_string(),
    };
    vec![name(object), selector.into(), age(object, now)]
}

pub(super) fn ip_address(object: &Value, now: Timestamp) -> Vec<Value> {
    let parent = &object["spec"]["parentRef"];
    let mut parts = vec![crate::status::qualified(text(parent, "group"), text(parent, "resource"))];
    parts.extend(
        [text(parent, "namespace"), text(parent, "name")].iter().filter(|p| !p.is_empty()).map(|p| p.to_string()),
    );
    vec![name(object), or(&parts.join("/"), "<none>"), age(object, now)]
}

pub(super) fn service_cidr(object: &Value, now: Timestamp) -> Vec<Value> {
    let cidrs: Vec<&str> = list(&object["spec"], "cidrs").iter().filter_map(Value::as_str).collect();
    vec![name(object), cidrs.join(",").into(), age(object, now)]
}

pub(super) fn signing_request(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let duration = int(spec, "expirationSeconds").map(human_duration);
    let kinds: Vec<&str> = list(status, "conditions").iter().map(|c| text(c, "type")).collect();
    let mut condition = match (kinds.contains(&"Denied"), kinds.contains(&"Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if kinds.contains(&"Failed") {
        condition.push_str(",Failed");
    }
    if !text(status, "certificate").is_empty() {
        condition.push_str(",Issued");
    }
    vec![
        name(object),
        age(object, now),
        or(text(spec, "signerName"), "<none>"),
        text(spec, "username").into(),
        duration.unwrap_or_else(|| "<none>".into()).into(),
        condition.into(),
    ]
}

pub(super) fn flow_schema(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let dangling = list(&object["status"], "conditions").iter().find(|c| text(c, "type") == "Dangling");
    vec![
        name(object),
        or(text(&spec["priorityLevelConfiguration"], "name"), "<none>"),
        count(spec, "matchingPrecedence").to_string().into(),
        or(text(&spec["distinguisherMethod"], "type"), "<none>"),
        age(object, now),
        dangling.map_or("?", |condition| text(condition, "status")).into(),
    ]
}

pub(super) fn priority_level(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let none = || Value::from("<none>");
    let number = |of: &Value, key: &str| int(of, key).map_or_else(none, Value::from);
    let (limited, exempt) = (&spec["limited"], &spec["exempt"]);
    let queuing = &limited["limitResponse"]["queuing"];
    let shares = if limited.is_object() { limited } else { exempt };
    vec![
        name(object),
        text(spec, "type").into(),
        number(shares, "nominalConcurrencyShares"),
        number(queuing, "queues"),
        number(queuing, "handSize"),
        number(queuing, "queueLengthLimit"),
        age(object, now),
    ]
}

/// A configuration of webhooks.
pub(super) fn webhooks(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), list(object, "webhooks").len().into(), age(object, now)]
}

fn policy(object: &Value, rules: &str, now: Timestamp) -> Vec<Value> {
    let (spec, kind) = (&object["spec"], &object["spec"]["paramKind"]);
    let parameters = match kind.is_object() {
        true => format!("{}/{}", text(kind, "apiVersion"), text(kind, "kind")),
        false => "<unset>".to_owned(),
    };
    vec![name(object), list(spec, rules).len().into(), parameters.into(), age(object, now)]
}

pub(super) fn validating_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    policy(object, "validations", now)
}

pub(super) fn mutating_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    policy(object, "mutations", now)
}

/// A binding of an admission policy.
pub(super) fn policy_binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, reference) = (&object["spec"], &object["spec"]["paramRef"]);
    let parameters = match (reference.is_object(), text(reference, "name"), text(reference, "namespace")) {
        (false, ..) => "<unset>".to_owned(),
        (true, "", _) => "*".to_owned(),
        (true, name, "") => name.to_owned(),
        (true, name, namespace) => format!("{namespace}/{name}"),
    };
    vec![name(object), text(spec, "policyName").into(), parameters.into(), age(object, now)]
}

pub(super) fn resource_claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = &object["status"];
    let mut states = Vec::new();
    if has(&object["metadata"], "deletionTimestamp") {
        states.push("deleted");
    }
    match status.get("allocation").filter(|a| a.is_object()) {
        None => {
            if !has(&object["metadata"], "deletionTimestamp") {
                states.push("pending");
            }
        }
        Some(_) => states.push("allocated"),
    }
    states.extend((!list(status, "reservedFor").is_empty()).then_some("reserved"));
    vec![name(object), states.join(",").into(), age(object, now)]
}

pub(super) fn resource_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let node = or(text(spec, "nodeName"), "<unset>");
    vec![name(object), node, text(spec, "driver").into(), text(&spec["pool"], "name").into(), age(object, now)]
}

pub(super) fn api_service(object: &Value, now: Timestamp) -> Vec<Value> {
    let service = &object["spec"]["service"];
    let shown = match service.is_object() {
        true => format!("{}/{}", text(service, "namespace"), text(service, "name")),
        false => "Local".to_owned(),
    };
    let condition = list(&object["status"], "conditions").iter().find(|c| text(c, "type") == "Available");
    let available = match condition.map(|c| (text(c, "status"), text(c, "reason"))) {
        None => "Unknown".to_owned(),
        Some(("True", _)) => "True".to_owned(),
        Some((status, reason)) => format!("{status} ({reason})"),
    };
    vec![name(object), shown.into(), available.into(), age(object, now)]
}
