//! Preparation of single kinds.

use crate::catalogue::UpdateOf;
use crate::defaults::pod::qos_class;
use crate::value::{copy, has, int, list, object_mut, set, set_default, set_default_text, text};
use serde_json::{Value, json};

/// The finalizer that keeps a namespace until its contents are gone.
pub const NAMESPACE_FINALIZER: &str = "kubernetes";

/// A new Pod is pending, and gets what upstream's admission plugins for service accounts and priorities set.
pub fn create_pod(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").filter(|s| s.is_object()) else { return };
    set_default_text(spec, "serviceAccountName", "default");
    let account = text(spec, "serviceAccountName").to_owned();
    set(spec, "serviceAccount", account);
    if text(spec, "priorityClassName").is_empty() {
        set_default(spec, "priority", 0);
        set_default(spec, "preemptionPolicy", "PreemptLowerPriority");
    }
    let class = qos_class(spec);
    set(pod, "status", json!({"phase": "Pending", "qosClass": class}));
}

/// How long new pods stay on a node that is not ready, or unreachable, unless they say so themselves: what upstream's
/// admission plugin `DefaultTolerationSeconds` sets.
pub fn tolerate_lost_nodes(pod: &mut Value, not_ready: i64, unreachable: i64) {
    let Some(spec) = pod.get_mut("spec").filter(|s| s.is_object()) else { return };
    tolerate(spec, "node.kubernetes.io/not-ready", not_ready);
    tolerate(spec, "node.kubernetes.io/unreachable", unreachable);
}

fn tolerate(spec: &mut Value, key: &str, seconds: i64) {
    let covers = |t: &Value| {
        matches!(text(t, "key"), k if k == key || k.is_empty()) && matches!(text(t, "effect"), "" | "NoExecute")
    };
    if list(spec, "tolerations").iter().any(covers) {
        return;
    }
    set_default(spec, "tolerations", Vec::<Value>::new());
    if let Some(tolerations) = spec["tolerations"].as_array_mut() {
        tolerations.push(json!({
            "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds,
        }));
    }
}

/// Whoever writes a pod's status changes neither its owners nor its class, nor what selectors and finalizers go by.
pub fn update_pod(pod: &mut Value, old: &Value, of: UpdateOf<'_>) {
    match of {
        UpdateOf::Other("ephemeralcontainers") => keep_but(pod, old, &["ephemeralContainers"]),
        UpdateOf::Other("resize") => resize_pod(pod, old),
        _ => {}
    }
    if of != UpdateOf::Status {
        return;
    }
    if let Some(metadata) = object_mut(pod, "metadata") {
        for key in ["ownerReferences", "labels", "finalizers"] {
            copy(metadata, &old["metadata"], key);
        }
    }
    if let Some(status) = object_mut(pod, "status")
        && text(status, "qosClass").is_empty()
    {
        copy(status, &old["status"], "qosClass");
    }
}

/// Only some fields of a pod's spec are written, and of the rest nothing.
fn keep_but(pod: &mut Value, old: &Value, written: &[&str]) {
    let given = pod["spec"].clone();
    copy(pod, old, "spec");
    copy(pod, old, "status");
    if let Some(spec) = object_mut(pod, "spec") {
        written.iter().for_each(|key| copy(spec, &given, key));
    }
}

/// A resize writes requests, limits and resize policies of the containers that there are.
fn resize_pod(pod: &mut Value, old: &Value) {
    let given = pod["spec"].clone();
    keep_but(pod, old, &[]);
    for key in ["containers", "initContainers"] {
        for container in crate::value::items_mut(&mut pod["spec"], key) {
            if let Some(wanted) = list(&given, key).iter().find(|wanted| wanted["name"] == container["name"]) {
                copy(container, wanted, "resources");
                copy(container, wanted, "resizePolicy");
            }
        }
    }
}

/// A new Namespace is active and has the finalizer.
pub fn create_namespace(namespace: &mut Value) {
    set(namespace, "status", json!({"phase": "Active"}));
    if let Some(spec) = object_mut(namespace, "spec") {
        set_default(spec, "finalizers", Vec::<Value>::new());
        if let Some(finalizers) = spec["finalizers"].as_array_mut()
            && !finalizers.iter().any(|f| f == NAMESPACE_FINALIZER)
        {
            finalizers.push(NAMESPACE_FINALIZER.into());
        }
    }
}

/// Only the finalize sub-resource changes a namespace's finalizers, and it changes nothing else.
pub fn update_namespace(namespace: &mut Value, old: &Value, of: UpdateOf<'_>) {
    copy(namespace, old, if matches!(of, UpdateOf::Other(_)) { "status" } else { "spec" });
}

/// An empty status that shows no replicas.
pub fn create_scaled(object: &mut Value) {
    set(object, "status", json!({"replicas": 0}));
}

/// An empty status.
pub fn create_with_status(object: &mut Value) {
    set(object, "status", json!({}));
}

/// A new Service has no load balancer; its address lists agree with the single fields.
pub fn create_service(service: &mut Value) {
    set(service, "status", json!({"loadBalancer": {}}));
    if let Some(spec) = service.get_mut("spec").filter(|s| s.is_object()) {
        cluster_ips(spec);
        if text(spec, "type") != "ExternalName" {
            set_default(spec, "ipFamilies", json!(["IPv4"]));
            set_default_text(spec, "ipFamilyPolicy", "SingleStack");
        }
    }
}

fn cluster_ips(spec: &mut Value) {
    let (one, first) = (text(spec, "clusterIP").to_owned(), list(spec, "clusterIPs").first().cloned());
    match (one.is_empty(), first) {
        (false, None) => set(spec, "clusterIPs", json!([one])),
        (true, Some(first)) => set(spec, "clusterIP", first),
        _ => {}
    }
}

/// What was allocated for a Service stays when an update does not mention it.
pub fn update_service(service: &mut Value, old: &Value, of: UpdateOf<'_>) {
    let old_spec = &old["spec"];
    let Some(spec) = service.get_mut("spec").filter(|s| s.is_object() && of == UpdateOf::Main) else { return };
    let (kind, old_kind) = (text(spec, "type").to_owned(), text(old_spec, "type"));
    let needs_ip = |kind: &str| kind != "ExternalName";
    if needs_ip(&kind) && needs_ip(old_kind) {
        if text(spec, "clusterIP").is_empty() && list(spec, "clusterIPs").is_empty() {
            copy(spec, old_spec, "clusterIP");
            copy(spec, old_spec, "clusterIPs");
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if !has(spec, key) {
                copy(spec, old_spec, key);
            }
        }
    }
    if needs_ip(&kind) {
        cluster_ips(spec);
    } else if needs_ip(old_kind) {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if spec[key] == old_spec[key] {
                crate::value::remove(spec, key);
            }
        }
    }
    if old_kind == "LoadBalancer" && kind != old_kind {
        for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if spec[key] == old_spec[key] {
                crate::value::remove(spec, key);
            }
        }
    }
    let has_node_ports = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    if has_node_ports(&kind) && has_node_ports(old_kind) {
        node_ports(spec, old_spec);
        if int(spec, "healthCheckNodePort").unwrap_or(0) == 0 && text(spec, "externalTrafficPolicy") == "Local" {
            copy(spec, old_spec, "healthCheckNodePort");
        }
    } else if !has_node_ports(&kind) && has_node_ports(old_kind) {
        release_node_ports(spec, old_spec);
    }
}

/// Ports keep their node ports: by protocol and port number.
fn node_ports(spec: &mut Value, old_spec: &Value) {
    let used: Vec<i64> = list(spec, "ports").iter().filter_map(|p| int(p, "nodePort")).filter(|p| *p != 0).collect();
    for port in crate::value::items_mut(spec, "ports") {
        if int(port, "nodePort").unwrap_or(0) != 0 {
            continue;
        }
        let same = |old: &&Value| old["protocol"] == port["protocol"] && old["port"] == port["port"];
        let node_port = list(old_spec, "ports").iter().find(same).and_then(|old| int(old, "nodePort"));
        if let Some(node_port) = node_port.filter(|p| *p != 0 && !used.contains(p)) {
            set(port, "nodePort", node_port);
        }
    }
}

/// A service that turns into one without node ports drops those that it had, unless they were changed.
fn release_node_ports(spec: &mut Value, old_spec: &Value) {
    let old: Vec<i64> = list(old_spec, "ports").iter().filter_map(|p| int(p, "nodePort")).collect();
    for port in crate::value::items_mut(spec, "ports") {
        if int(port, "nodePort").is_some_and(|p| old.contains(&p)) {
            crate::value::remove(port, "nodePort");
        }
    }
    if spec["externalTrafficPolicy"] == old_spec["externalTrafficPolicy"] && list(spec, "externalIPs").is_empty() {
        crate::value::remove(spec, "externalTrafficPolicy");
    }
    crate::value::remove(spec, "healthCheckNodePort");
}
