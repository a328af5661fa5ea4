//! Defaults of bindings of roles, network policies, flow control, admission, devices and extensions.

use crate::value::{has, items_mut, list, object_mut, set, set_default, set_default_text, text};
use serde_json::{Value, json};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Defaults of a RoleBinding or ClusterRoleBinding.
pub fn role_binding(object: &mut Value) {
    if let Some(role) = object_mut(object, "roleRef") {
        set_default_text(role, "apiGroup", RBAC);
    }
    for subject in items_mut(object, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            set_default_text(subject, "apiGroup", RBAC);
        }
    }
}

/// Defaults of a NetworkPolicy.
pub fn network_policy(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    set_default(spec, "podSelector", json!({}));
    for direction in ["ingress", "egress"] {
        for rule in items_mut(spec, direction) {
            items_mut(rule, "ports").for_each(|port| set_default_text(port, "protocol", "TCP"));
        }
    }
    if list(spec, "policyTypes").is_empty() {
        let mut types = vec!["Ingress"];
        types.extend((!list(spec, "egress").is_empty()).then_some("Egress"));
        set(spec, "policyTypes", types);
    }
}

/// Defaults of an IngressClass.
pub fn ingress_class(object: &mut Value) {
    if let Some(parameters) = object.pointer_mut("/spec/parameters").filter(|p| p.is_object()) {
        set_default_text(parameters, "scope", "Cluster");
    }
}

/// Defaults of a FlowSchema.
pub fn flow_schema(object: &mut Value) {
    let Some(spec) = object_mut(object, "spec") else { return };
    if crate::value::int(spec, "matchingPrecedence").unwrap_or(0) == 0 {
        set(spec, "matchingPrecedence", 1000);
    }
}

/// Defaults of a PriorityLevelConfiguration.
pub fn priority_level(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    match text(spec, "type") {
        "Limited" => {
            let Some(limited) = spec.get_mut("limited").filter(|l| l.is_object()) else { return };
            set_default(limited, "nominalConcurrencyShares", 30);
            set_default(limited, "lendablePercent", 0);
            let queuing = limited.pointer_mut("/limitResponse/queuing").filter(|q| q.is_object());
            if let Some(queuing) = queuing {
                for (key, default) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                    if crate::value::int(queuing, key).unwrap_or(0) == 0 {
                        set(queuing, key, default);
                    }
                }
            }
        }
        "Exempt" => {
            if let Some(exempt) = object_mut(spec, "exempt") {
                set_default(exempt, "nominalConcurrencyShares", 0);
                set_default(exempt, "lendablePercent", 0);
            }
        }
        _ => {}
    }
}

fn rules(holder: &mut Value, key: &str) {
    for rule in items_mut(holder, key) {
        set_default_text(rule, "scope", "*");
    }
}

fn client(config: &mut Value) {
    if let Some(service) = config.get_mut("service").filter(|s| s.is_object()) {
        set_default(service, "port", 443);
    }
}

fn webhook(webhook: &mut Value) {
    set_default_text(webhook, "failurePolicy", "Fail");
    set_default_text(webhook, "matchPolicy", "Equivalent");
    set_default(webhook, "namespaceSelector", json!({}));
    set_default(webhook, "objectSelector", json!({}));
    set_default(webhook, "timeoutSeconds", 10);
    rules(webhook, "rules");
    if let Some(config) = webhook.get_mut("clientConfig") {
        client(config);
    }
}

/// Defaults of a ValidatingWebhookConfiguration.
pub fn validating_webhooks(object: &mut Value) {
    items_mut(object, "webhooks").for_each(webhook);
}

/// Defaults of a MutatingWebhookConfiguration.
pub fn mutating_webhooks(object: &mut Value) {
    for one in items_mut(object, "webhooks") {
        webhook(one);
        set_default_text(one, "reinvocationPolicy", "Never");
    }
}

fn match_resources(holder: &mut Value, key: &str) {
    let Some(resources) = holder.get_mut(key).filter(|m| m.is_object()) else { return };
    set_default_text(resources, "matchPolicy", "Equivalent");
    set_default(resources, "namespaceSelector", json!({}));
    set_default(resources, "objectSelector", json!({}));
    rules(resources, "resourceRules");
    rules(resources, "excludeResourceRules");
}

/// Defaults of a ValidatingAdmissionPolicy or MutatingAdmissionPolicy.
pub fn admission_policy(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    set_default_text(spec, "failurePolicy", "Fail");
    match_resources(spec, "matchConstraints");
}

/// Defaults of the binding of an admission policy.
pub fn admission_policy_binding(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    match_resources(spec, "matchResources");
}

fn device_request(request: &mut Value) {
    set_default_text(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" && crate::value::int(request, "count").unwrap_or(0) == 0 {
        set(request, "count", 1);
    }
    tolerations(request);
}

fn tolerations(request: &mut Value) {
    items_mut(request, "tolerations").for_each(|toleration| set_default_text(toleration, "operator", "Equal"));
}

fn devices(spec: &mut Value) {
    let Some(devices) = spec.get_mut("devices").filter(|d| d.is_object()) else { return };
    for request in items_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly").filter(|e| e.is_object()) {
            device_request(exactly);
        }
        items_mut(request, "firstAvailable").for_each(device_request);
    }
}

/// Defaults of a ResourceClaim.
pub fn resource_claim(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec") {
        devices(spec);
    }
}

/// Defaults of a ResourceClaimTemplate.
pub fn resource_claim_template(object: &mut Value) {
    if let Some(spec) = object.pointer_mut("/spec/spec") {
        devices(spec);
    }
}

/// Defaults of a CustomResourceDefinition.
pub fn custom_resource_definition(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    if let Some(names) = object_mut(spec, "names") {
        let kind = text(names, "kind").to_owned();
        if !kind.is_empty() {
            set_default_text(names, "singular", &kind.to_lowercase());
            set_default_text(names, "listKind", &format!("{kind}List"));
        }
    }
    if !has(spec, "conversion") {
        set(spec, "conversion", json!({"strategy": "None"}));
    }
    if let Some(config) = spec.pointer_mut("/conversion/webhook/clientConfig") {
        client(config);
    }
}

/// Defaults of an APIService.
pub fn api_service(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec") {
        client(spec);
    }
}
