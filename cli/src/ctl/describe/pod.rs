//! Pods.

use serde_json::Value;

use super::super::time;
use super::template::{self, Containers};
use super::volumes::volumes;
use super::writer::{Page, items, or_none, plain, some};

/// A pod.
pub fn describe(page: &mut Page, pod: &Value) {
    let (metadata, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    page.named(pod);
    page.field_some(0, "Priority", &spec["priority"]);
    page.field_some(0, "Priority Class Name", &spec["priorityClassName"]);
    page.field_some(0, "Runtime Class Name", &spec["runtimeClassName"]);
    page.field_some(0, "Service Account", &spec["serviceAccountName"]);
    match spec["nodeName"].as_str().filter(|node| !node.is_empty()) {
        Some(node) => page.field(0, "Node", &format!("{node}/{}", plain(&status["hostIP"]))),
        None => page.field(0, "Node", "<none>"),
    }
    if let Some(start) = status["startTime"].as_str() {
        page.field(0, "Start Time", &time::long(start));
    }
    page.marked(pod);
    let has_ended = matches!(status["phase"].as_str(), Some("Failed" | "Succeeded"));
    match metadata["deletionTimestamp"].as_str().filter(|_| !has_ended) {
        Some(deleted) => {
            page.field(0, "Status", &format!("Terminating (lasts {})", time::age(Some(deleted), page.now)));
            page.field(0, "Termination Grace Period", &format!("{}s", plain(&metadata["deletionGracePeriodSeconds"])));
        }
        None => page.field(0, "Status", &plain(&status["phase"])),
    }
    page.field_some(0, "Reason", &status["reason"]);
    page.field_some(0, "Message", &status["message"]);
    template::seccomp(page, 0, 0, &spec["securityContext"]);
    page.field(0, "IP", &plain(&status["podIP"]));
    if some(&status["podIPs"]) {
        page.line(0, "IPs:");
        items(&status["podIPs"]).for_each(|entry| page.field(1, "IP", &plain(&entry["ip"])));
    } else {
        page.field(0, "IPs", "<none>");
    }
    page.controller(pod);
    page.field_some(0, "NominatedNodeName", &status["nominatedNodeName"]);
    if spec["resources"].is_object() {
        page.line(0, "Resources:");
        template::amounts(page, 1, "Limits", &spec["resources"]["limits"]);
        template::amounts(page, 1, "Requests", &spec["resources"]["requests"]);
    }
    containers(page, "Init Containers", pod, "initContainers", "initContainerStatuses");
    containers(page, "Containers", pod, "containers", "containerStatuses");
    containers(page, "Ephemeral Containers", pod, "ephemeralContainers", "ephemeralContainerStatuses");
    gates(page, &spec["readinessGates"], &status["conditions"]);
    conditions(page, &status["conditions"]);
    volumes(page, &spec["volumes"], 0);
    page.field(0, "QoS Class", &or_none(&status["qosClass"]));
    page.labels("Node-Selectors", &spec["nodeSelector"]);
    tolerations(page, &spec["tolerations"], "");
    template::spread(page, &spec["topologySpreadConstraints"], "");
}

fn containers(page: &mut Page, name: &str, pod: &Value, specs: &str, statuses: &str) {
    let (specs, statuses) = (&pod["spec"][specs], &pod["status"][statuses]);
    if some(specs) {
        page.line(0, &format!("{name}:"));
        let statuses = Some(statuses);
        template::containers(page, &Containers { specs, statuses, indent: "  ", pod: Some(pod) });
    }
}

fn gates(page: &mut Page, gates: &Value, conditions: &Value) {
    if !some(gates) {
        return;
    }
    page.line(0, "Readiness Gates:");
    page.line(1, "Type\tStatus");
    for gate in items(gates) {
        let kind = &gate["conditionType"];
        let status = items(conditions).find(|condition| condition["type"] == *kind);
        let status = status.map_or("<none>".to_owned(), |condition| plain(&condition["status"]));
        page.line(1, &format!("{} \t{status} ", plain(kind)));
    }
}

fn conditions(page: &mut Page, conditions: &Value) {
    if !some(conditions) {
        return;
    }
    page.line(0, "Conditions:");
    page.line(1, "Type\tStatus");
    for condition in items(conditions) {
        page.line(1, &format!("{} \t{} ", plain(&condition["type"]), plain(&condition["status"])));
    }
}

/// `Tolerations:`, one a line.
pub fn tolerations(page: &mut Page, tolerations: &Value, before: &str) {
    let mut lines: Vec<String> = items(tolerations).map(toleration).collect();
    lines.sort();
    page.multiline(before, "Tolerations", "\t", lines);
}

fn toleration(toleration: &Value) -> String {
    let mut text = plain(&toleration["key"]);
    let (value, effect) = (plain(&toleration["value"]), plain(&toleration["effect"]));
    if !value.is_empty() {
        text.push_str(&format!("={value}"));
    }
    if !effect.is_empty() {
        text.push_str(&format!(":{effect}"));
    }
    if toleration["operator"] == "Exists" && value.is_empty() {
        let gap = if text.is_empty() { "" } else { " " };
        text.push_str(&format!("{gap}op=Exists"));
    }
    if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
        text.push_str(&format!(" for {seconds}s"));
    }
    text
}
