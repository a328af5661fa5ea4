//! Defaults of Services, Endpoints and EndpointSlices.

use crate::value::{has, items_mut, list, object_mut, set_default, set_default_text, text};
use serde_json::Value;

/// Three hours.
const AFFINITY_SECONDS: i64 = 10_800;

/// Defaults of a Service.
pub fn service(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    set_default_text(spec, "sessionAffinity", "None");
    if text(spec, "sessionAffinity") == "ClientIP" {
        let client = object_mut(spec, "sessionAffinityConfig").and_then(|c| object_mut(c, "clientIP"));
        if let Some(client) = client {
            set_default(client, "timeoutSeconds", AFFINITY_SECONDS);
        }
    }
    set_default_text(spec, "type", "ClusterIP");
    for port in items_mut(spec, "ports") {
        set_default_text(port, "protocol", "TCP");
        let number = port["port"].clone();
        let target = &port["targetPort"];
        if target.is_null() || target == 0 || target == "" {
            crate::value::set(port, "targetPort", number);
        }
    }
    let kind = text(spec, "type").to_owned();
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !list(spec, "externalIPs").is_empty());
    if external {
        set_default_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        set_default_text(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" && !has(spec, "allocateLoadBalancerNodePorts") {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// Defaults of Endpoints.
pub fn endpoints(object: &mut Value) {
    for subset in items_mut(object, "subsets") {
        for port in items_mut(subset, "ports") {
            set_default_text(port, "protocol", "TCP");
        }
    }
}

/// Defaults of an EndpointSlice.
pub fn endpoint_slice(object: &mut Value) {
    for port in items_mut(object, "ports") {
        set_default(port, "name", "");
        set_default_text(port, "protocol", "TCP");
    }
}
