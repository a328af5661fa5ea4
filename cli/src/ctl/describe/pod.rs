//! Pods.

use serde_json::Value;

use super::super::time;
use super::template::{self, Containers};
use super::writer::{Page, items, or_none, plain, some};

/// A pod.
pub fn describe(page: &mut Page, pod: &Value) {
    let (metadata, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    page.field(0, "Name", &plain(&metadata["name"]));
    page.field(0, "Namespace", &plain(&metadata["namespace"]));
    page.field(0, "Priority", &spec["priority"].as_i64().unwrap_or_default().to_string());
    page.field_some(0, "Priority Class Name", &spec["priorityClassName"]);
    page.field_some(0, "Runtime Class Name", &spec["runtimeClassName"]);
    page.field(0, "Service Account", &plain(&spec["serviceAccountName"]));
    match spec["nodeName"].as_str().filter(|node| !node.is_empty()) {
        Some(node) => page.field(0, "Node", &format!("{node}/{}", plain(&status["hostIP"]))),
        None => page.field(0, "Node", "<none>"),
    }
    if let Some(start) = status["startTime"].as_str() {
        page.field(0, "Start Time", &time::long(start));
    }
    page.labels("Labels", &metadata["labels"]);
    page.annotations(&metadata["annotations"]);
    match metadata["deletionTimestamp"].as_str() {
        Some(deleted) => {
            page.field(0, "Status", &format!("Terminating (lasts {})", time::age(Some(deleted), page.now)));
            page.field(0, "Termination Grace Period", &format!("{}s", plain(&metadata["deletionGracePeriodSeconds"])));
        }
        None => page.field(0, "Status", &plain(&status["phase"])),
    }
    page.field_some(0, "Reason", &status["reason"]);
    page.field_some(0, "Message", &status["message"]);
    page.field(0, "IP", &plain(&status["podIP"]));
    if some(&status["podIPs"]) {
        page.line(0, "IPs:");
        items(&status["podIPs"]).for_each(|entry| page.field(1, "IP", &plain(&entry["ip"])));
    } else {
        page.field(0, "IPs", "<none>");
    }
    page.controller(pod);
    containers(page, "Init Containers", pod, "initContainers", "initContainerStatuses");
    containers(page, "Containers", pod, "containers", "containerStatuses");
    containers(page, "Ephemeral Containers", pod, "ephemeralContainers", "ephemeralContainerStatuses");
    conditions(page, &status["conditions"]);
    template::volumes(page, &spec["volumes"], 0);
    page.field(0, "QoS Class", &or_none(&status["qosClass"]));
    page.labels("Node-Selectors", &spec["nodeSelector"]);
    tolerations(page, &spec["tolerations"], "");
}

fn containers(page: &mut Page, name: &str, pod: &Value, specs: &str, statuses: &str) {
    let (specs, statuses) = (&pod["spec"][specs], &pod["status"][statuses]);
    if some(specs) {
        page.line(0, &format!("{name}:"));
        let statuses = Some(statuses);
        template::containers(page, &Containers { specs, statuses, indent: "  ", pod: Some(pod) });
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
