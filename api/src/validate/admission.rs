//! Validation of admission webhooks and policies, and of devices. Expressions are not compiled: nothing evaluates them yet.

use super::common::{Errors, immutable, label_selector, one_of, required_name};
use super::webhook;
use crate::catalogue::UpdateOf;
use crate::field::{FieldError, Path};
use crate::names;
use crate::value::{has, int, list, text};
use serde_json::Value;

const SPEC: Path<'static> = Path::new("spec");
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];

/// A ValidatingWebhookConfiguration.
pub fn validating_webhooks(object: &Value, errors: &mut Errors) {
    webhooks(object, false, errors);
}

/// A MutatingWebhookConfiguration.
pub fn mutating_webhooks(object: &Value, errors: &mut Errors) {
    webhooks(object, true, errors);
}

fn webhooks(object: &Value, mutating: bool, errors: &mut Errors) {
    let within = Path::new("webhooks");
    let mut seen: Vec<&str> = Vec::new();
    for (i, hook) in list(object, "webhooks").iter().enumerate() {
        let at = within.index(i);
        let name = text(hook, "name");
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(&at.child("name"), name));
        }
        seen.push(name);
        qualified(name, &at.child("name"), errors);
        rules(hook, "rules", &at, errors);
        one_of(hook, &at, "failurePolicy", &["Fail", "Ignore"], errors);
        one_of(hook, &at, "matchPolicy", &["Equivalent", "Exact"], errors);
        one_of(hook, &at, "sideEffects", SIDE_EFFECTS, errors);
        if mutating {
            one_of(hook, &at, "reinvocationPolicy", &["IfNeeded", "Never"], errors);
        }
        if let Some(seconds) = int(hook, "timeoutSeconds").filter(|seconds| !(1..=30).contains(seconds)) {
            let detail = "the timeout value must be between 1 and 30 seconds";
            errors.push(FieldError::invalid(&at.child("timeoutSeconds"), seconds, detail));
        }
        for key in ["namespaceSelector", "objectSelector"] {
            label_selector(&hook[key], &at.child(key), errors);
        }
        webhook::review_versions(hook, "admissionReviewVersions", &at, errors);
        webhook::client(&hook["clientConfig"], &at.child("clientConfig"), errors);
        conditions(hook, &at, errors);
    }
}

fn qualified(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let check = names::dns1123_subdomain(name);
    errors.extend(check.iter().map(|e| FieldError::invalid(path, name, e)));
    if name.split('.').count() < 3 {
        errors.push(FieldError::invalid(
            path,
            name,
            "should be a domain with at least three segments separated by dots",
        ));
    }
}

fn rules(holder: &Value, key: &str, path: &Path<'_>, errors: &mut Errors) {
    let within = path.child(key);
    for (i, rule) in list(holder, key).iter().enumerate() {
        let at = within.index(i);
        for part in ["operations", "apiGroups", "apiVersions", "resources"] {
            let (given, path) = (list(rule, part), at.child(part));
            if given.is_empty() {
                errors.push(FieldError::required(&path, ""));
            }
            let wild = given.iter().any(|one| one == "*");
            if wild && given.len() > 1 && part != "resources" {
                let detail = "if '*' is present, must not specify other operations";
                let detail = detail.replace(
                    "operations",
                    match part {
                        "operations" => "operations",
                        "apiGroups" => "API groups",
                        _ => "API versions",
                    },
                );
                errors.push(FieldError::invalid(&path, given.to_vec(), &detail));
            }
            if part == "operations" {
                for (j, operation) in given.iter().filter_map(Value::as_str).enumerate() {
                    if !OPERATIONS.contains(&operation) {
                        errors.push(FieldError::not_supported(&path.index(j), operation, OPERATIONS));
                    }
                }
            }
        }
        let scope = text(rule, "scope");
        if has(rule, "scope") && !SCOPES.contains(&scope) {
            errors.push(FieldError::not_supported(&at.child("scope"), scope, SCOPES));
        }
    }
}

fn conditions(holder: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (given, within) = (list(holder, "matchConditions"), path.child("matchConditions"));
    if given.len() > 64 {
        errors.push(FieldError::too_many(&within, given.len(), 64));
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, condition) in given.iter().enumerate() {
        let (at, name) = (within.index(i), text(condition, "name"));
        if text(condition, "expression").trim().is_empty() {
            errors.push(FieldError::required(&at.child("expression"), ""));
        }
        required_name(condition, &at, "name", names::qualified_name, errors);
        if seen.contains(&name) && !name.is_empty() {
            errors.push(FieldError::duplicate(&at.child("name"), name));
        }
        seen.push(name);
    }
}

fn constraints(resources: &Value, path: &Path<'_>, needed: bool, errors: &mut Errors) {
    one_of(resources, path, "matchPolicy", &["Equivalent", "Exact"], errors);
    for key in ["namespaceSelector", "objectSelector"] {
        label_selector(&resources[key], &path.child(key), errors);
    }
    rules(resources, "resourceRules", path, errors);
    rules(resources, "excludeResourceRules", path, errors);
    if needed && list(resources, "resourceRules").is_empty() {
        errors.push(FieldError::required(&path.child("resourceRules"), ""));
    }
}

fn policy(object: &Value, rules: &str, errors: &mut Errors) {
    let spec = &object["spec"];
    one_of(spec, &SPEC, "failurePolicy", &["Fail", "Ignore"], errors);
    if has(spec, "paramKind") {
        let at = SPEC.child("paramKind");
        for key in ["apiVersion", "kind"] {
            if text(&spec["paramKind"], key).is_empty() {
                errors.push(FieldError::required(&at.child(key), ""));
            }
        }
    }
    let at = SPEC.child("matchConstraints");
    if has(spec, "matchConstraints") {
        constraints(&spec["matchConstraints"], &at, true, errors);
    } else {
        errors.push(FieldError::required(&at, ""));
    }
    conditions(spec, &SPEC, errors);
    let at = SPEC.child(rules);
    if list(spec, rules).is_empty() && list(spec, "auditAnnotations").is_empty() {
        let detail = match rules {
            "validations" => "validations or auditAnnotations must be specified",
            _ => "mutations must contain at least one item",
        };
        errors.push(FieldError::required(&at, detail));
    }
    let variables = SPEC.child("variables");
    for (i, variable) in list(spec, "variables").iter().enumerate() {
        let at = variables.index(i);
        for key in ["name", "expression"] {
            if text(variable, key).trim().is_empty() {
                errors.push(FieldError::required(&at.child(key), &format!("{key} is not specified")));
            }
        }
    }
}

/// A ValidatingAdmissionPolicy.
pub fn validating_policy(object: &Value, errors: &mut Errors) {
    policy(object, "validations", errors);
    let within = SPEC.child("validations");
    for (i, validation) in list(&object["spec"], "validations").iter().enumerate() {
        if text(validation, "expression").trim().is_empty() {
            errors.push(FieldError::required(&within.index(i).child("expression"), "expression is not specified"));
        }
        let reason = text(validation, "reason");
        let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
        if has(validation, "reason") && !reasons.contains(&reason) {
            errors.push(FieldError::not_supported(&within.index(i).child("reason"), reason, &reasons));
        }
    }
}

/// A MutatingAdmissionPolicy.
pub fn mutating_policy(object: &Value, errors: &mut Errors) {
    policy(object, "mutations", errors);
    let spec = &object["spec"];
    one_of(spec, &SPEC, "reinvocationPolicy", &["IfNeeded", "Never"], errors);
    let within = SPEC.child("mutations");
    for (i, mutation) in list(spec, "mutations").iter().enumerate() {
        let at = within.index(i);
        one_of(mutation, &at, "patchType", &["ApplyConfiguration", "JSONPatch"], errors);
        let field = match text(mutation, "patchType") {
            "ApplyConfiguration" => "applyConfiguration",
            "JSONPatch" => "jsonPatch",
            _ => continue,
        };
        if text(&mutation[field], "expression").trim().is_empty() {
            let at = at.child(field);
            errors.push(FieldError::required(&at.child("expression"), "expression is not specified"));
        }
    }
}

fn binding(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    required_name(spec, &SPEC, "policyName", names::dns1123_subdomain, errors);
    if has(spec, "matchResources") {
        constraints(&spec["matchResources"], &SPEC.child("matchResources"), false, errors);
    }
    if !has(spec, "paramRef") {
        return;
    }
    let (reference, at) = (&spec["paramRef"], SPEC.child("paramRef"));
    match (text(reference, "name").is_empty(), has(reference, "selector")) {
        (false, true) => {
            errors.push(FieldError::forbidden(&at.child("name"), "name and selector are mutually exclusive"));
        }
        (true, false) => errors.push(FieldError::required(&at, "one of name or selector must be specified")),
        _ => {}
    }
    one_of(reference, &at, "parameterNotFoundAction", &["Allow", "Deny"], errors);
}

/// A ValidatingAdmissionPolicyBinding.
pub fn validating_policy_binding(object: &Value, errors: &mut Errors) {
    binding(object, errors);
    let (actions, at) = (list(&object["spec"], "validationActions"), SPEC.child("validationActions"));
    if actions.is_empty() {
        errors.push(FieldError::required(&at, "at least one validation action is required"));
    }
    for (i, action) in actions.iter().filter_map(Value::as_str).enumerate() {
        if !matches!(action, "Audit" | "Deny" | "Warn") {
            errors.push(FieldError::not_supported(&at.index(i), action, &["Audit", "Deny", "Warn"]));
        }
        if actions[..i].iter().any(|other| other == action) {
            errors.push(FieldError::duplicate(&at.index(i), action));
        }
    }
    let given = |wanted: &str| actions.iter().any(|action| action == wanted);
    if given("Deny") && given("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(FieldError::invalid(&at, actions.to_vec(), detail));
    }
}

/// A MutatingAdmissionPolicyBinding.
pub fn mutating_policy_binding(object: &Value, errors: &mut Errors) {
    binding(object, errors);
}

fn claim(devices: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (requests, within) = (list(devices, "requests"), path.child("requests"));
    if requests.len() > 32 {
        errors.push(FieldError::too_many(&within, requests.len(), 32));
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, one) in requests.iter().enumerate() {
        let (at, name) = (within.index(i), text(one, "name"));
        required_name(one, &at, "name", names::dns1123_label, errors);
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(&at.child("name"), name));
        }
        seen.push(name);
        match (has(one, "exactly"), list(one, "firstAvailable").is_empty()) {
            (true, false) | (false, true) => {
                let detail = "exactly one of `exactly` or `firstAvailable` is required";
                match has(one, "exactly") {
                    true => errors.push(FieldError::invalid(&at, one.clone(), detail)),
                    false => errors.push(FieldError::required(&at, detail)),
                }
            }
            (true, true) => request(&one["exactly"], &at.child("exactly"), errors),
            (false, false) => {
                let within = at.child("firstAvailable");
                for (j, sub) in list(one, "firstAvailable").iter().enumerate() {
                    required_name(sub, &within.index(j), "name", names::dns1123_label, errors);
                    request(sub, &within.index(j), errors);
                }
            }
        }
    }
}

fn request(request: &Value, path: &Path<'_>, errors: &mut Errors) {
    required_name(request, path, "deviceClassName", names::dns1123_subdomain, errors);
    let (mode, count) = (text(request, "allocationMode"), int(request, "count").unwrap_or(0));
    match mode {
        "All" if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(&path.child("count"), count, detail));
        }
        "ExactCount" if count <= 0 => {
            errors.push(FieldError::invalid(&path.child("count"), count, "must be greater than zero"));
        }
        "All" | "ExactCount" => {}
        other => {
            let at = path.child("allocationMode");
            errors.push(FieldError::not_supported(&at, other, &["All", "ExactCount"]));
        }
    }
    selectors(request, path, errors);
}

fn selectors(holder: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (given, within) = (list(holder, "selectors"), path.child("selectors"));
    if given.len() > 32 {
        errors.push(FieldError::too_many(&within, given.len(), 32));
    }
    for (i, selector) in given.iter().enumerate() {
        if text(&selector["cel"], "expression").is_empty() {
            errors.push(FieldError::required(&within.index(i).child("cel"), ""));
        }
    }
}

/// A ResourceClaim.
pub fn resource_claim(object: &Value, errors: &mut Errors) {
    claim(&object["spec"]["devices"], &SPEC.child("devices"), errors);
}

/// A change of a ResourceClaim.
pub fn resource_claim_update(new: &Value, old: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    if of == UpdateOf::Main {
        immutable(&new["spec"], &old["spec"], &SPEC, errors);
    }
}

/// A ResourceClaimTemplate.
pub fn resource_claim_template(object: &Value, errors: &mut Errors) {
    let inner = SPEC.child("spec");
    claim(&object["spec"]["spec"]["devices"], &inner.child("devices"), errors);
}

/// A change of a ResourceClaimTemplate.
pub fn template_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    immutable(&new["spec"], &old["spec"], &SPEC, errors);
}

/// A DeviceClass.
pub fn device_class(object: &Value, errors: &mut Errors) {
    selectors(&object["spec"], &SPEC, errors);
}

/// A ResourceSlice.
pub fn resource_slice(object: &Value, errors: &mut Errors) {
    let (spec, pool) = (&object["spec"], SPEC.child("pool"));
    required_name(spec, &SPEC, "driver", names::dns1123_subdomain, errors);
    if text(&spec["pool"], "name").is_empty() {
        errors.push(FieldError::required(&pool.child("name"), ""));
    }
    if int(&spec["pool"], "resourceSliceCount").unwrap_or(0) <= 0 {
        let count = int(&spec["pool"], "resourceSliceCount").unwrap_or(0);
        errors.push(FieldError::invalid(&pool.child("resourceSliceCount"), count, "must be greater than zero"));
    }
    let given: Vec<&str> = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"]
        .into_iter()
        .filter(|key| has(spec, key) && spec[*key] != false)
        .collect();
    let detail = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match given.len() {
        0 => errors.push(FieldError::required(&SPEC, detail)),
        1 => {}
        _ => errors.push(FieldError::invalid(&SPEC, given.join(", "), detail)),
    }
    let (devices, within) = (list(spec, "devices"), SPEC.child("devices"));
    if devices.len() > 128 {
        errors.push(FieldError::too_many(&within, devices.len(), 128));
    }
    for (i, device) in devices.iter().enumerate() {
        required_name(device, &within.index(i), "name", names::dns1123_label, errors);
        if devices[..i].iter().any(|other| other["name"] == device["name"]) {
            errors.push(FieldError::duplicate(&within.index(i), text(device, "name")));
        }
    }
}

/// A change of a ResourceSlice.
pub fn resource_slice_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    let (new, old, pool) = (&new["spec"], &old["spec"], SPEC.child("pool"));
    immutable(&new["driver"], &old["driver"], &SPEC.child("driver"), errors);
    immutable(&new["pool"]["name"], &old["pool"]["name"], &pool.child("name"), errors);
    immutable(&new["nodeName"], &old["nodeName"], &SPEC.child("nodeName"), errors);
}
