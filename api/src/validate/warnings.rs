//! Warnings that upstream gives for valid but doubtful objects.

use crate::value::{has, list, map, text};
use serde_json::Value;

/// A Pod.
pub fn pod(new: &Value, old: Option<&Value>, warnings: &mut Vec<String>) {
    if old.is_none() {
        pod_spec(&new["spec"], "spec", warnings);
    }
}

/// A kind with `spec.template`.
pub fn template(new: &Value, old: Option<&Value>, warnings: &mut Vec<String>) {
    let spec = &new["spec"]["template"]["spec"];
    if old.is_none_or(|old| old["spec"]["template"]["spec"] != *spec) {
        pod_spec(spec, "spec.template.spec", warnings);
    }
}

fn pod_spec(spec: &Value, path: &str, warnings: &mut Vec<String>) {
    if text(spec, "nodeName").is_empty() {
        for key in map(spec, "nodeSelector").keys() {
            if let Some(newer) = deprecated_label(key) {
                warnings.push(format!("{path}.nodeSelector[{key}]: deprecated since v1.14; use \"{newer}\" instead"));
            }
        }
    }
    for key in ["containers", "initContainers"] {
        for (i, container) in list(spec, key).iter().enumerate() {
            let mut seen: Vec<&str> = Vec::new();
            for (j, variable) in list(container, "env").iter().enumerate() {
                let name = text(variable, "name");
                if seen.contains(&name) {
                    warnings.push(format!(
                        "{path}.{key}[{i}].env[{j}]: hides previous definition of \"{name}\", which may be dropped when using apply"
                    ));
                }
                seen.push(name);
            }
            duplicate_ports(container, &format!("{path}.{key}[{i}]"), warnings);
        }
    }
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        if has(volume, "gitRepo") {
            warnings
                .push(format!("{path}.volumes[{i}].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"));
        }
    }
    if text(spec, "terminationGracePeriodSeconds").starts_with('-') {
        warnings.push(format!(
            "{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
}

fn duplicate_ports(container: &Value, path: &str, warnings: &mut Vec<String>) {
    let ports = list(container, "ports");
    for (i, port) in ports.iter().enumerate() {
        let same =
            |other: &Value| other["containerPort"] == port["containerPort"] && other["protocol"] == port["protocol"];
        if let Some(first) = ports[..i].iter().position(same) {
            warnings.push(format!("{path}.ports[{i}]: duplicate port definition with {path}.ports[{first}]"));
        }
    }
}

fn deprecated_label(key: &str) -> Option<&'static str> {
    match key {
        "beta.kubernetes.io/arch" => Some("kubernetes.io/arch"),
        "beta.kubernetes.io/os" => Some("kubernetes.io/os"),
        "failure-domain.beta.kubernetes.io/region" => Some("topology.kubernetes.io/region"),
        "failure-domain.beta.kubernetes.io/zone" => Some("topology.kubernetes.io/zone"),
        "beta.kubernetes.io/instance-type" => Some("node.kubernetes.io/instance-type"),
        _ => None,
    }
}

/// Endpoints, whose API upstream deprecates.
pub fn endpoints(_: &Value, _: Option<&Value>, warnings: &mut Vec<String>) {
    warnings.push("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".into());
}

/// A Service.
pub fn service(new: &Value, _: Option<&Value>, warnings: &mut Vec<String>) {
    let spec = &new["spec"];
    if !list(spec, "externalIPs").is_empty() && text(spec, "type") == "ExternalName" {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
}
