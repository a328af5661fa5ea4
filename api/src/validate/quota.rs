//! Validation of ResourceQuotas and LimitRanges.

use super::common::{Errors, non_negative_quantity};
use crate::catalogue::UpdateOf;
use crate::field::{FieldError, Path};
use crate::value::{list, map, text};
use crate::{Quantity, names};
use serde_json::{Map, Value};

const SPEC: Path<'static> = Path::new("spec");
const QUOTA_NAMES: &[&str] = &[
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
/// What is counted, not measured.
const COUNTED: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
const CONFLICTS: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["NotTerminating", "Terminating"]];
const LIMITED: &[&str] = &["cpu", "ephemeral-storage", "memory", "storage"];

fn quota_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    errors.extend(names::qualified_name(name).iter().map(|e| FieldError::invalid(path, name, e)));
    let huge = name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
    if !name.contains('/') && !QUOTA_NAMES.contains(&name) && !huge {
        errors.push(FieldError::invalid(path, name, "must be a standard resource for quotas"));
    }
}

fn amounts(amounts: &Map<String, Value>, path: &Path<'_>, errors: &mut Errors) {
    for (name, amount) in amounts {
        let at = path.key(name);
        quota_name(name, &at, errors);
        non_negative_quantity(amount, &at, errors);
        let counted = COUNTED.contains(&name.as_str()) || name.starts_with("count/");
        if counted && Quantity::from_value(amount).is_some_and(|q| !q.is_whole()) {
            errors.push(FieldError::invalid(&at, amount.clone(), "must be an integer"));
        }
    }
}

/// Whether a scope says anything about a resource.
fn concerns(scope: &str, name: &str) -> bool {
    let compute = matches!(name, "cpu" | "memory" | "pods" | "ephemeral-storage")
        || name.starts_with("requests.") && name != "requests.storage"
        || name.starts_with("limits.");
    match scope {
        "BestEffort" => name == "pods" || name == "count/pods",
        "VolumeAttributesClass" => name == "persistentvolumeclaims" || name.contains("storage"),
        _ => compute || name.contains('/') || name.contains("hugepages-"),
    }
}

/// A ResourceQuota.
pub fn resource_quota(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    let hard = map(spec, "hard");
    amounts(hard, &SPEC.child("hard"), errors);
    let at = SPEC.child("scopes");
    let given = list(spec, "scopes");
    let invalid = |detail: &str| FieldError::invalid(&at, given.to_vec(), detail);
    for scope in given.iter().filter_map(Value::as_str) {
        if !SCOPES.contains(&scope) {
            errors.push(invalid("unsupported scope"));
        }
        if hard.keys().any(|name| !concerns(scope, name)) {
            errors.push(invalid("unsupported scope applied to resource"));
        }
    }
    if CONFLICTS.iter().any(|pair| pair.iter().all(|scope| given.iter().any(|g| g == scope))) {
        errors.push(invalid("conflicting scopes"));
    }
    let selector = SPEC.child("scopeSelector");
    let within = selector.child("matchExpressions");
    for (i, expression) in list(&spec["scopeSelector"], "matchExpressions").iter().enumerate() {
        scope_expression(expression, &within.index(i), errors);
    }
}

fn scope_expression(expression: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (scope, operator) = (text(expression, "scopeName"), text(expression, "operator"));
    let values = list(expression, "values");
    if !SCOPES.contains(&scope) {
        errors.push(FieldError::invalid(&path.child("scopeName"), scope, "unsupported scope"));
    }
    let by_value = matches!(scope, "PriorityClass" | "VolumeAttributesClass");
    if !by_value && operator != "Exists" {
        let detail = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(FieldError::invalid(&path.child("operator"), operator, detail));
    }
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(FieldError::required(&path.child("values"), detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(FieldError::invalid(&path.child("values"), values.to_vec(), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
}

/// A change of a ResourceQuota.
pub fn resource_quota_update(new: &Value, old: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    if of == UpdateOf::Status {
        let path = Path::new("status");
        for key in ["hard", "used"] {
            amounts(map(&new["status"], key), &path.child(key), errors);
        }
        return;
    }
    let sorted = |object: &Value| {
        let mut scopes: Vec<String> =
            list(&object["spec"], "scopes").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        scopes.sort();
        scopes
    };
    if sorted(new) != sorted(old) {
        errors.push(FieldError::invalid(&SPEC.child("scopes"), new["spec"]["scopes"].clone(), super::IMMUTABLE));
    }
}

/// A LimitRange.
pub fn limit_range(object: &Value, errors: &mut Errors) {
    let within = SPEC.child("limits");
    let mut seen: Vec<&str> = Vec::new();
    for (i, limit) in list(&object["spec"], "limits").iter().enumerate() {
        let at = within.index(i);
        let kind = text(limit, "type");
        errors.extend(names::qualified_name(kind).iter().map(|e| FieldError::invalid(&at.child("type"), kind, e)));
        if !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") {
            let detail = "must be a standard limit type or fully qualified";
            errors.push(FieldError::invalid(&at.child("type"), kind, detail));
        }
        if seen.contains(&kind) {
            errors.push(FieldError::duplicate(&at.child("type"), kind));
        }
        seen.push(kind);
        limit_names(limit, kind, &at, errors);
        let (min, max) = (map(limit, "min"), map(limit, "max"));
        if kind == "PersistentVolumeClaim" && !min.contains_key("storage") && !max.contains_key("storage") {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            errors.push(FieldError::required(&at.child("limits"), detail));
        }
        limit_amounts(limit, &at, errors);
    }
}

fn limit_names(limit: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    for key in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let at = path.child(key);
        let given = map(limit, key);
        if kind == "Pod" && key.starts_with("default") {
            if !given.is_empty() {
                errors.push(FieldError::forbidden(&at, "may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for name in given.keys() {
            let at = at.key(name);
            errors.extend(names::qualified_name(name).iter().map(|e| FieldError::invalid(&at, name.as_str(), e)));
            let known = LIMITED.contains(&name.as_str()) || name.starts_with("hugepages-");
            if !name.contains('/') && !known {
                let detail = match kind {
                    "Pod" | "Container" => "must be a standard resource for containers",
                    _ => "must be a standard resource type or fully qualified",
                };
                errors.push(FieldError::invalid(&at, name.as_str(), detail));
            }
        }
    }
}

fn limit_amounts(limit: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut names: Vec<&String> = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"]
        .iter()
        .flat_map(|k| map(limit, k).keys())
        .collect();
    names.sort();
    names.dedup();
    for name in names {
        let amount = |key: &str| map(limit, key).get(name.as_str()).and_then(Quantity::from_value);
        // Of each pair the first may not be above the second: where the error is, and what it says.
        for (low, high, at, says) in [
            ("min", "max", "min", "min value {a} is greater than max value {b}"),
            ("min", "defaultRequest", "defaultRequest", "min value {a} is greater than default request value {b}"),
            ("defaultRequest", "max", "defaultRequest", "default request value {a} is greater than max value {b}"),
            (
                "defaultRequest",
                "default",
                "defaultRequest",
                "default request value {a} is greater than default limit value {b}",
            ),
            ("min", "default", "default", "min value {a} is greater than default value {b}"),
            ("default", "max", "default", "default value {a} is greater than max value {b}"),
        ] {
            let (Some(a), Some(b)) = (amount(low), amount(high)) else { continue };
            if a > b {
                let detail = says.replace("{a}", &a.to_string()).replace("{b}", &b.to_string());
                // Upstream shows the lower of a minimum and a default, else what the path names.
                let shown = if (low, at) == ("min", "defaultRequest") { b } else { a };
                errors.push(FieldError::invalid(&path.child(at).key(name), shown.to_string(), &detail));
            }
        }
        let one = Quantity::whole(1, crate::quantity::Format::DecimalSi);
        if let Some(ratio) = amount("maxLimitRequestRatio").filter(|ratio| *ratio < one) {
            let at = path.child("maxLimitRequestRatio");
            let detail = format!("ratio {ratio} is less than 1");
            errors.push(FieldError::invalid(&at.key(name), ratio.to_string(), &detail));
        }
    }
}
