//! Validation of HorizontalPodAutoscalers (both versions) and PodDisruptionBudgets.

use super::common::{Errors, conditions, int_or_percent_of_all, label_selector, non_negative};
use crate::catalogue::UpdateOf;
use crate::field::{FieldError, Path};
use crate::names;
use crate::value::{has, int, list, text};
use crate::{Quantity, value};
use serde_json::Value;

const SPEC: Path<'static> = Path::new("spec");
/// Types of metrics with the field that each has.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
const MAX_WINDOW: i64 = 3600;
const MAX_PERIOD: i64 = 1800;

fn bounds(spec: &Value, errors: &mut Errors) {
    let (least, most) = (int(spec, "minReplicas"), int(spec, "maxReplicas").unwrap_or(0));
    if let Some(least) = least.filter(|least| *least < 1) {
        let detail = "must be greater than or equal to 1";
        errors.push(FieldError::invalid(&SPEC.child("minReplicas"), least, detail));
    }
    if most < 1 {
        errors.push(FieldError::invalid(&SPEC.child("maxReplicas"), most, "must be greater than 0"));
    }
    if least.is_some_and(|least| most < least) {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid(&SPEC.child("maxReplicas"), most, detail));
    }
    reference(&spec["scaleTargetRef"], &SPEC.child("scaleTargetRef"), errors);
}

fn reference(target: &Value, path: &Path<'_>, errors: &mut Errors) {
    for key in ["kind", "name"] {
        let given = text(target, key);
        if given.is_empty() {
            errors.push(FieldError::required(&path.child(key), ""));
        }
        let check = names::path_segment_name(given, false);
        errors.extend(check.iter().map(|e| FieldError::invalid(&path.child(key), given, e)));
    }
    let version = text(target, "apiVersion");
    if names::split_api_version(version).is_none() {
        let detail = format!("unexpected GroupVersion string: {version}");
        errors.push(FieldError::invalid(&path.child("apiVersion"), version, &detail));
    }
}

/// A HorizontalPodAutoscaler of v1.
pub fn v1(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    bounds(spec, errors);
    if let Some(target) = int(spec, "targetCPUUtilizationPercentage").filter(|target| *target < 1) {
        let metrics = SPEC.child("metrics");
        let first = metrics.index(0);
        let resource = first.child("resource");
        let inner = resource.child("target");
        errors.push(FieldError::invalid(&inner.child("averageUtilization"), target, "must be greater than 0"));
    }
}

/// A HorizontalPodAutoscaler of v2.
pub fn v2(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    bounds(spec, errors);
    let within = SPEC.child("metrics");
    for (i, metric) in list(spec, "metrics").iter().enumerate() {
        source(metric, &within.index(i), errors);
    }
    let behavior = SPEC.child("behavior");
    for key in ["scaleUp", "scaleDown"] {
        if has(&spec["behavior"], key) {
            rules(&spec["behavior"][key], &behavior.child(key), errors);
        }
    }
}

fn source(metric: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kind = text(metric, "type");
    if kind.is_empty() {
        errors.push(FieldError::required(&path.child("type"), "must specify a metric source type"));
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind).map(|(_, field)| *field);
    if expected.is_none() {
        errors.push(FieldError::not_supported(&path.child("type"), kind, &SOURCES.map(|(name, _)| name)));
    }
    let present: Vec<&str> = SOURCES.iter().map(|(_, field)| *field).filter(|field| has(metric, field)).collect();
    if let Some(first) = present.first() {
        one_source(first, &metric[*first], &path.child(first), errors);
    }
    if let Some(expected) = expected.filter(|expected| !present.contains(expected)) {
        let detail = "must populate information for the given metric source";
        errors.push(FieldError::required(&path.child(expected), detail));
    }
    if present.len() != 1 || present.first().copied() != expected {
        for extra in present.iter().filter(|field| Some(**field) != expected) {
            errors.push(FieldError::forbidden(&path.child(extra), "must populate the given metric source only"));
        }
    }
}

fn one_source(kind: &str, source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let target = path.child("target");
    if matches!(kind, "resource" | "containerResource") {
        if text(source, "name").is_empty() {
            errors.push(FieldError::required(&path.child("name"), "must specify a resource name"));
        }
        if kind == "containerResource" && text(source, "container").is_empty() {
            errors.push(FieldError::required(&path.child("container"), "must specify a container name"));
        }
    } else {
        let metric = path.child("metric");
        let name = text(&source["metric"], "name");
        if name.is_empty() {
            errors.push(FieldError::required(&metric.child("name"), "must specify a metric name"));
        } else {
            let check = names::path_segment_name(name, false);
            errors.extend(check.iter().map(|e| FieldError::invalid(&metric.child("name"), name, e)));
        }
        if has(&source["metric"], "selector") {
            label_selector(&source["metric"]["selector"], &metric.child("selector"), errors);
        }
    }
    if kind == "object" {
        reference(&source["describedObject"], &path.child("describedObject"), errors);
    }
    goal(&source["target"], &target, errors);
    let (value, average, utilization) = (
        has(&source["target"], "value"),
        has(&source["target"], "averageValue"),
        has(&source["target"], "averageUtilization"),
    );
    match kind {
        "resource" | "containerResource" => match (average, utilization) {
            (false, false) => {
                let detail = "must set either a target raw value or a target utilization";
                errors.push(FieldError::required(&target.child("averageUtilization"), detail));
            }
            (true, true) => {
                let detail = "may not set both a target raw value and a target utilization";
                errors.push(FieldError::forbidden(&target.child("averageValue"), detail));
            }
            _ => {}
        },
        "pods" if !average => {
            let detail = "must specify a positive target averageValue";
            errors.push(FieldError::required(&target.child("averageValue"), detail));
        }
        "object" | "external" if !value && !average => {
            let detail = "must set either a target value or averageValue";
            let detail = if kind == "external" {
                "must set either a target value for metric or a per-pod target"
            } else {
                detail
            };
            errors.push(FieldError::required(&target.child("averageValue"), detail));
        }
        "external" if value && average => {
            let detail = "may not set both a target value for metric and a per-pod target";
            errors.push(FieldError::forbidden(&target.child("value"), detail));
        }
        _ => {}
    }
}

fn goal(target: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kind = text(target, "type");
    if kind.is_empty() {
        errors.push(FieldError::required(&path.child("type"), "must specify a metric target type"));
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(&path.child("type"), kind, detail));
    }
    for key in ["value", "averageValue"] {
        let given = target.get(key).and_then(Quantity::from_value);
        if given.is_some_and(|q| q.is_zero() || q.is_negative()) {
            errors.push(FieldError::invalid(&path.child(key), target[key].clone(), "must be positive"));
        }
    }
    if let Some(percent) = int(target, "averageUtilization").filter(|percent| *percent < 1) {
        errors.push(FieldError::invalid(&path.child("averageUtilization"), percent, "must be greater than 0"));
    }
}

fn rules(rules: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(window) = int(rules, "stabilizationWindowSeconds") {
        let at = path.child("stabilizationWindowSeconds");
        if window < 0 {
            errors.push(FieldError::invalid(&at, window, "must be greater than or equal to zero"));
        }
        if window > MAX_WINDOW {
            let detail = format!("must be less than or equal to {MAX_WINDOW}");
            errors.push(FieldError::invalid(&at, window, &detail));
        }
    }
    let select = text(rules, "selectPolicy");
    if has(rules, "selectPolicy") && !matches!(select, "Disabled" | "Max" | "Min") {
        errors.push(FieldError::not_supported(&path.child("selectPolicy"), select, &["Disabled", "Max", "Min"]));
    }
    let within = path.child("policies");
    if list(rules, "policies").is_empty() {
        errors.push(FieldError::required(&within, "must specify at least one Policy"));
    }
    for (i, policy) in list(rules, "policies").iter().enumerate() {
        let at = within.index(i);
        let kind = text(policy, "type");
        if !matches!(kind, "Percent" | "Pods") {
            errors.push(FieldError::not_supported(&at.child("type"), kind, &["Percent", "Pods"]));
        }
        for key in ["value", "periodSeconds"] {
            let given = int(policy, key).unwrap_or(0);
            if given <= 0 {
                errors.push(FieldError::invalid(&at.child(key), given, "must be greater than zero"));
            }
        }
        if let Some(period) = int(policy, "periodSeconds").filter(|period| *period > MAX_PERIOD) {
            let detail = format!("must be less than or equal to {MAX_PERIOD}");
            errors.push(FieldError::invalid(&at.child("periodSeconds"), period, &detail));
        }
    }
    super::common::non_negative_quantity(&rules["tolerance"], &path.child("tolerance"), errors);
}

/// A change of an autoscaler's status.
pub fn update(new: &Value, _: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    if of == UpdateOf::Status {
        non_negative(&new["status"], &Path::new("status"), &["currentReplicas", "desiredReplicas"], errors);
    }
}

/// A PodDisruptionBudget.
pub fn disruption_budget(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    if has(spec, "minAvailable") && has(spec, "maxUnavailable") {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid(&SPEC, spec.clone(), detail));
    }
    for key in ["minAvailable", "maxUnavailable"] {
        int_or_percent_of_all(&spec[key], &SPEC.child(key), errors);
    }
    label_selector(&spec["selector"], &SPEC.child("selector"), errors);
    let policy = text(spec, "unhealthyPodEvictionPolicy");
    if has(spec, "unhealthyPodEvictionPolicy") && !matches!(policy, "AlwaysAllow" | "IfHealthyBudget") {
        let at = SPEC.child("unhealthyPodEvictionPolicy");
        errors.push(FieldError::not_supported(&at, policy, &["AlwaysAllow", "IfHealthyBudget"]));
    }
}

/// A change of a PodDisruptionBudget.
pub fn disruption_budget_update(new: &Value, _: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    if of != UpdateOf::Status {
        return;
    }
    let (status, path) = (&new["status"], Path::new("status"));
    conditions(value::list(status, "conditions"), &path.child("conditions"), errors);
    let counts = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
    non_negative(status, &path, &counts, errors);
}
