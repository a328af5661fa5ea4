//! Validation of containers.

use super::common::{Errors, non_negative, one_of, port, port_or_name, required_name};
use crate::field::{FieldError, Path};
use crate::value::{at, has, int, list, map, text, truth};
use crate::{Quantity, names};
use serde_json::Value;

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: &[&str] = &["FallbackToLogsOnError", "File"];
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of pods that there are, and that no variable shows.
const OTHER_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];

/// What of the pod a container is checked against.
pub(super) struct Pod<'a> {
    pub volumes: Vec<&'a str>,
    pub host_network: bool,
}

/// Checks what every container has, of whichever list.
pub(super) fn container(container: &Value, path: &Path<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    required_name(container, path, "name", names::dns1123_label, errors);
    let image = text(container, "image");
    if image.is_empty() {
        errors.push(FieldError::required(&path.child("image"), ""));
    } else if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(&path.child("image"), image, detail));
    }
    one_of(container, path, "terminationMessagePolicy", MESSAGE_POLICIES, errors);
    one_of(container, path, "imagePullPolicy", PULL_POLICIES, errors);
    ports(container, &path.child("ports"), pod.host_network, errors);
    environment(list(container, "env"), &path.child("env"), errors);
    env_from(list(container, "envFrom"), &path.child("envFrom"), errors);
    mounts(container, &path.child("volumeMounts"), pod, errors);
    resources(&container["resources"], &path.child("resources"), errors);
    security(&container["securityContext"], &path.child("securityContext"), errors);
    lifecycle(container, path, errors);
}

fn lifecycle(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if has(container, key) {
            probe(&container[key], &path.child(key), key != "readinessProbe", errors);
        }
    }
    let lifecycle = path.child("lifecycle");
    for key in ["postStart", "preStop"] {
        let hook = at(container, &["lifecycle", key]);
        if hook.is_object() {
            handler(hook, &lifecycle.child(key), &["exec", "httpGet", "tcpSocket", "sleep"], errors);
        }
    }
}

fn ports(container: &Value, path: &Path<'_>, host_network: bool, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, one) in list(container, "ports").iter().enumerate() {
        let at = path.index(i);
        let name = text(one, "name");
        if !name.is_empty() {
            let check = names::port_name(name);
            errors.extend(check.iter().map(|e| FieldError::invalid(&at.child("name"), name, e)));
            if seen.contains(&name) {
                errors.push(FieldError::duplicate(&at.child("name"), name));
            }
            seen.push(name);
        }
        let number = int(one, "containerPort").unwrap_or(0);
        let host = int(one, "hostPort").unwrap_or(0);
        if number == 0 {
            errors.push(FieldError::required(&at.child("containerPort"), ""));
        } else {
            port(number, &at.child("containerPort"), errors);
        }
        if host != 0 {
            port(host, &at.child("hostPort"), errors);
        }
        if host_network && host != number {
            let detail = "must match `hostPort` when `hostNetwork` is true";
            errors.push(FieldError::invalid(&at.child("containerPort"), number, detail));
        }
        one_of(one, &at, "protocol", PROTOCOLS, errors);
    }
}

fn environment(variables: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for (i, variable) in variables.iter().enumerate() {
        let at = path.index(i);
        required_name(variable, &at, "name", names::env_var_name, errors);
        let Some(source) = variable.get("valueFrom").filter(|s| s.is_object()) else { continue };
        let from = at.child("valueFrom");
        let given = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
        let given: Vec<&&str> = given.iter().filter(|key| has(source, key)).collect();
        if given.is_empty() {
            let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
            errors.push(FieldError::invalid(&from, "", detail));
        } else if !text(variable, "value").is_empty() {
            errors.push(FieldError::invalid(&from, "", "may not be specified when `value` is not empty"));
        } else if given.len() > 1 {
            errors.push(FieldError::invalid(&from, "", "may not have more than one field specified at a time"));
        }
        if has(source, "fieldRef") {
            field_ref(&source["fieldRef"], &from.child("fieldRef"), errors);
        }
        for key in ["configMapKeyRef", "secretKeyRef"] {
            if has(source, key) {
                let reference = from.child(key);
                if text(&source[key], "name").is_empty() {
                    errors.push(FieldError::required(&reference.child("name"), ""));
                }
                required_name(&source[key], &reference, "key", names::config_map_key, errors);
            }
        }
    }
}

fn field_ref(reference: &Value, path: &Path<'_>, errors: &mut Errors) {
    let field = text(reference, "fieldPath");
    let subscripted =
        ["metadata.labels['", "metadata.annotations['"].iter().any(|p| field.starts_with(p) && field.ends_with("']"));
    if text(reference, "apiVersion").is_empty() {
        errors.push(FieldError::required(&path.child("apiVersion"), ""));
    } else if field.is_empty() {
        errors.push(FieldError::required(&path.child("fieldPath"), ""));
    } else if !subscripted && !ENV_FIELDS.contains(&field) && !OTHER_FIELDS.contains(&field) {
        let detail = format!("error converting fieldPath: field label not supported: {field}");
        errors.push(FieldError::invalid(&path.child("fieldPath"), field, &detail));
    } else if !subscripted && !ENV_FIELDS.contains(&field) {
        errors.push(FieldError::not_supported(&path.child("fieldPath"), field, ENV_FIELDS));
    }
}

fn env_from(sources: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for (i, source) in sources.iter().enumerate() {
        let at = path.index(i);
        let given: Vec<&str> = ["configMapRef", "secretRef"].into_iter().filter(|key| has(source, key)).collect();
        match given.as_slice() {
            [] => errors.push(FieldError::invalid(&at, "", "must specify one of: `configMapRef` or `secretRef`")),
            [one] if text(&source[*one], "name").is_empty() => {
                errors.push(FieldError::required(&at.child(one).child("name"), ""));
            }
            [_] => {}
            _ => errors.push(FieldError::invalid(&at, "", "may not have more than one field specified at a time")),
        }
    }
}

fn mounts(container: &Value, path: &Path<'_>, pod: &Pod<'_>, errors: &mut Errors) {
    let mut paths: Vec<&str> = Vec::new();
    for (i, mount) in list(container, "volumeMounts").iter().enumerate() {
        let at = path.index(i);
        let (name, mount_path) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        } else if !pod.volumes.contains(&name) {
            errors.push(FieldError::not_found(&at.child("name"), name));
        }
        if mount_path.is_empty() {
            errors.push(FieldError::required(&at.child("mountPath"), ""));
        } else if paths.contains(&mount_path) {
            errors.push(FieldError::invalid(&at.child("mountPath"), mount_path, "must be unique"));
        }
        paths.push(mount_path);
        let sub = text(mount, "subPath");
        if sub.starts_with('/') {
            errors.push(FieldError::invalid(&at.child("subPath"), sub, "must be a relative path"));
        }
        if sub.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(&at.child("subPath"), sub, "must not contain '..'"));
        }
        if !sub.is_empty() && !text(mount, "subPathExpr").is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(&at.child("subPathExpr"), text(mount, "subPathExpr"), detail));
        }
    }
}

/// Checks requests and limits.
pub(super) fn resources(resources: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (limits, requests) = (map(resources, "limits"), map(resources, "requests"));
    for (key, amounts) in [("limits", limits), ("requests", requests)] {
        let within = path.child(key);
        for (name, amount) in amounts {
            let at = within.key(name);
            let check = names::qualified_name(name);
            errors.extend(check.iter().map(|e| FieldError::invalid(&at, name.as_str(), e)));
            let known = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage" | "storage");
            if !known && !name.contains('/') && !name.starts_with("hugepages-") && check.is_empty() {
                let detail = "must be a standard resource type or fully qualified";
                errors.push(FieldError::invalid(&at, name.as_str(), detail));
            }
            let Some(quantity) = Quantity::from_value(amount) else { continue };
            if quantity.is_negative() {
                errors.push(FieldError::invalid(&at, amount.clone(), super::common::NON_NEGATIVE));
            }
            if name.contains('/') && !quantity.is_whole() {
                errors.push(FieldError::invalid(&at, amount.clone(), "must be an integer"));
            }
        }
    }
    for (name, request) in requests {
        let (Some(wanted), Some(limit)) =
            (Quantity::from_value(request), limits.get(name).and_then(Quantity::from_value))
        else {
            continue;
        };
        if wanted > limit {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(&path.child("requests"), request.clone(), &detail));
        } else if name.contains('/') && wanted != limit {
            let detail = format!("must be equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(&path.child("requests"), request.clone(), &detail));
        }
    }
}

fn security(context: &Value, path: &Path<'_>, errors: &mut Errors) {
    for key in ["runAsUser", "runAsGroup"] {
        if let Some(id) = int(context, key).filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
            let detail = "must be between 0 and 2147483647, inclusive";
            errors.push(FieldError::invalid(&path.child(key), id, detail));
        }
    }
    if truth(context, "privileged") && context["allowPrivilegeEscalation"] == false {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.push(FieldError::invalid(path, context.clone(), detail));
    }
}

fn probe(probe: &Value, path: &Path<'_>, once: bool, errors: &mut Errors) {
    handler(probe, path, &["exec", "httpGet", "tcpSocket", "grpc"], errors);
    let keys = ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
    non_negative(probe, path, &keys, errors);
    if let Some(threshold) = int(probe, "successThreshold").filter(|n| once && *n != 1) {
        errors.push(FieldError::invalid(&path.child("successThreshold"), threshold, "must be 1"));
    }
    if let Some(grace) = int(probe, "terminationGracePeriodSeconds").filter(|n| *n <= 0) {
        let detail = "must be greater than 0";
        errors.push(FieldError::invalid(&path.child("terminationGracePeriodSeconds"), grace, detail));
    }
}

fn handler(handler: &Value, path: &Path<'_>, kinds: &[&str], errors: &mut Errors) {
    let given: Vec<&&str> = kinds.iter().filter(|key| has(handler, key)).collect();
    if given.is_empty() {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
    for key in given.iter().skip(1) {
        errors.push(FieldError::forbidden(&path.child(key), "may not specify more than 1 handler type"));
    }
    let Some(kind) = given.first() else { return };
    let (action, at) = (&handler[**kind], path.child(kind));
    match **kind {
        "exec" if list(action, "command").is_empty() => errors.push(FieldError::required(&at.child("command"), "")),
        "httpGet" => {
            if text(action, "path").is_empty() {
                errors.push(FieldError::required(&at.child("path"), ""));
            }
            port_or_name(&action["port"], &at.child("port"), errors);
            one_of(action, &at, "scheme", &["HTTP", "HTTPS"], errors);
        }
        "tcpSocket" => port_or_name(&action["port"], &at.child("port"), errors),
        "grpc" => port(int(action, "port").unwrap_or(0), &at.child("port"), errors),
        _ => {}
    }
}
