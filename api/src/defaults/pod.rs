//! Defaults of pods, pod templates, containers, probes and volumes.

use crate::value::{has, items_mut, object_mut, set, set_default, set_default_text, text};
use serde_json::{Value, json};

/// Lists of containers in a pod's spec.
pub const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
/// 0644.
const DEFAULT_MODE: i64 = 0o644;

/// Defaults of a Pod, which has more of them than a template.
pub fn pod(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else { return };
    pod_spec(spec);
    set_default(spec, "enableServiceLinks", true);
    let host_network = crate::value::truth(spec, "hostNetwork");
    for list in ["initContainers", "containers"] {
        for container in items_mut(spec, list) {
            if let Some(resources) = object_mut(container, "resources") {
                requests_from_limits(resources);
            }
            if host_network {
                for port in items_mut(container, "ports") {
                    let number = port["containerPort"].clone();
                    if crate::value::int(port, "hostPort").unwrap_or(0) == 0 {
                        set(port, "hostPort", number);
                    }
                }
            }
        }
    }
}

fn requests_from_limits(resources: &mut Value) {
    let limits = crate::value::map(resources, "limits").clone();
    if limits.is_empty() {
        return;
    }
    if let Some(requests) = object_mut(resources, "requests") {
        for (name, limit) in limits {
            set_default(requests, &name, limit);
        }
    }
}

/// Defaults of a template's spec (`spec.template` of workloads, `template` of a PodTemplate).
pub fn template(template: &mut Value) {
    if let Some(spec) = template.get_mut("spec") {
        pod_spec(spec);
    }
}

/// Defaults that pods and templates share.
pub fn pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    set_default_text(spec, "dnsPolicy", "ClusterFirst");
    set_default_text(spec, "restartPolicy", "Always");
    set_default_text(spec, "schedulerName", "default-scheduler");
    set_default(spec, "terminationGracePeriodSeconds", 30);
    set_default(spec, "securityContext", json!({}));
    // The older name of the same field is written beside the newer one.
    let account = [text(spec, "serviceAccountName"), text(spec, "serviceAccount")];
    let account = account.into_iter().find(|name| !name.is_empty()).map(str::to_owned);
    if let Some(account) = account {
        set(spec, "serviceAccountName", account.as_str());
        set(spec, "serviceAccount", account);
    }
    for list in CONTAINER_LISTS {
        items_mut(spec, list).for_each(container);
    }
    items_mut(spec, "volumes").for_each(volume);
}

fn container(container: &mut Value) {
    if !container.is_object() {
        return;
    }
    let policy = if image_tag_is_latest(text(container, "image")) { "Always" } else { "IfNotPresent" };
    set_default_text(container, "imagePullPolicy", policy);
    set_default_text(container, "terminationMessagePath", "/dev/termination-log");
    set_default_text(container, "terminationMessagePolicy", "File");
    set_default(container, "resources", json!({}));
    for port in items_mut(container, "ports") {
        set_default_text(port, "protocol", "TCP");
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = container.get_mut(key).filter(|p| p.is_object()) {
            probe(found);
        }
    }
    if let Some(lifecycle) = container.get_mut("lifecycle") {
        for key in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.get_mut(key) {
                http_get(handler);
            }
        }
    }
    for variable in items_mut(container, "env") {
        if let Some(source) = variable.get_mut("valueFrom") {
            field_ref(source);
        }
    }
}

/// Whether the image's tag is `latest`, said or by having neither tag nor digest.
fn image_tag_is_latest(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    match name.rsplit('/').next().and_then(|last| last.split_once(':')) {
        Some((_, tag)) => tag == "latest",
        None => !digest,
    }
}

fn probe(probe: &mut Value) {
    for (key, default) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if crate::value::int(probe, key).unwrap_or(0) == 0 {
            set(probe, key, default);
        }
    }
    http_get(probe);
    if let Some(grpc) = probe.get_mut("grpc") {
        set_default(grpc, "service", "");
    }
}

fn http_get(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet").filter(|get| get.is_object()) {
        set_default_text(get, "path", "/");
        set_default_text(get, "scheme", "HTTP");
    }
}

fn field_ref(source: &mut Value) {
    if let Some(reference) = source.get_mut("fieldRef") {
        set_default_text(reference, "apiVersion", "v1");
    }
}

fn volume(volume: &mut Value) {
    let Value::Object(map) = volume else { return };
    if map.iter().filter(|(key, value)| *key != "name" && !value.is_null()).count() == 0 {
        set(volume, "emptyDir", json!({}));
    }
    for key in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(key).filter(|s| s.is_object()) {
            set_default(source, "defaultMode", DEFAULT_MODE);
        }
    }
    if let Some(downward) = volume.get_mut("downwardAPI") {
        items_mut(downward, "items").for_each(field_ref);
    }
    if let Some(projected) = volume.get_mut("projected") {
        for source in items_mut(projected, "sources") {
            if let Some(token) = source.get_mut("serviceAccountToken") {
                set_default(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = source.get_mut("downwardAPI") {
                items_mut(downward, "items").for_each(field_ref);
            }
        }
    }
    if let Some(path) = volume.get_mut("hostPath") {
        set_default(path, "type", "");
    }
    if let Some(spec) = volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec") {
        set_default(spec, "volumeMode", "Filesystem");
    }
}

/// The quality of service class of a pod.
pub fn qos_class(spec: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    let pod_level = spec.get("resources").filter(|r| has(r, "requests") || has(r, "limits"));
    let containers = crate::value::list(spec, "containers").iter().chain(crate::value::list(spec, "initContainers"));
    let all: Vec<&Value> = match pod_level {
        Some(resources) => vec![resources],
        None => containers.map(|c| &c["resources"]).collect(),
    };
    for resources in all {
        for name in ["cpu", "memory"] {
            let amount = |key: &str| {
                let found = resources.get(key).and_then(|map| map.get(name));
                found.and_then(crate::Quantity::from_value).filter(|q| !q.is_zero())
            };
            let (request, limit) = (amount("requests"), amount("limits"));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
