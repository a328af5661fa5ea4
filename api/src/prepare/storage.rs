//! Preparation of volumes, claims, certificate requests and extensions.

use crate::catalogue::UpdateOf;
use crate::value::{copy, list, set, text, truth};
use serde_json::{Value, json};

/// A new PersistentVolume is pending, from the time of its creation on.
pub fn create_volume(object: &mut Value) {
    let now = object["metadata"]["creationTimestamp"].clone();
    set(object, "status", json!({"phase": "Pending", "lastPhaseTransitionTime": now}));
}

/// A new PersistentVolumeClaim is pending.
pub fn create_claim(object: &mut Value) {
    set(object, "status", json!({"phase": "Pending"}));
}

/// A new VolumeAttachment is not attached.
pub fn create_attachment(object: &mut Value) {
    set(object, "status", json!({"attached": false}));
}

/// A new Ingress has no load balancer.
pub fn create_ingress(object: &mut Value) {
    set(object, "status", json!({"loadBalancer": {}}));
}

/// Who asks for a certificate is what the server knows of the caller, not what the request says.
pub fn create_signing_request(object: &mut Value) {
    set(object, "status", json!({}));
    if let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) {
        for key in ["username", "uid", "groups", "extra"] {
            crate::value::remove(spec, key);
        }
    }
}

/// Puts the caller, as `authentication.k8s.io/v1` writes users, into a new CertificateSigningRequest.
pub fn sign_request(object: &mut Value, user: &Value) {
    if let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) {
        copy(spec, user, "username");
        copy(spec, user, "uid");
        copy(spec, user, "groups");
        copy(spec, user, "extra");
    }
}

/// What is asked for stays; approval writes the decision alone, status everything but the decision.
pub fn update_signing_request(object: &mut Value, old: &Value, of: UpdateOf<'_>) {
    copy(object, old, "spec");
    let decision = |c: &Value| matches!(text(c, "type"), "Approved" | "Denied");
    match of {
        UpdateOf::Other("approval") => {
            let conditions = object["status"]["conditions"].clone();
            copy(object, old, "status");
            if let Some(status) = crate::value::object_mut(object, "status") {
                set(status, "conditions", conditions);
                if status["conditions"].is_null() {
                    crate::value::remove(status, "conditions");
                }
            }
        }
        UpdateOf::Status => {
            let mut conditions: Vec<Value> =
                list(&object["status"], "conditions").iter().filter(|c| !decision(c)).cloned().collect();
            conditions.extend(list(&old["status"], "conditions").iter().filter(|c| decision(c)).cloned());
            if let Some(status) = crate::value::object_mut(object, "status") {
                set(status, "conditions", conditions.clone());
                if conditions.is_empty() {
                    crate::value::remove(status, "conditions");
                }
            }
        }
        _ => {}
    }
}

/// A new CustomResourceDefinition has accepted no names; its stored version is the one that it says.
pub fn create_definition(object: &mut Value) {
    let stored: Vec<Value> = list(&object["spec"], "versions")
        .iter()
        .filter(|version| truth(version, "storage"))
        .map(|version| version["name"].clone())
        .collect();
    let status = json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored});
    set(object, "status", status);
}

/// A version that becomes the one to be stored is kept in mind.
pub fn update_definition(object: &mut Value, old: &Value, of: UpdateOf<'_>) {
    if of != UpdateOf::Main || !old["status"].is_object() {
        return;
    }
    let stored = list(&object["spec"], "versions").iter().find(|version| truth(version, "storage"));
    let Some(name) = stored.map(|version| version["name"].clone()) else { return };
    if !list(&object["status"], "storedVersions").contains(&name)
        && let Some(versions) = object.pointer_mut("/status/storedVersions").and_then(Value::as_array_mut)
    {
        versions.push(name);
    }
}

/// An APIService that this server answers itself is available; of others nothing is known.
pub fn create_api_service(object: &mut Value) {
    let local = !object["spec"]["service"].is_object();
    let status = match local {
        true => json!({"conditions": [{
            "type": "Available", "status": "True", "reason": "Local", "message": "Local APIServices are always available",
            "lastTransitionTime": object["metadata"]["creationTimestamp"],
        }]}),
        false => json!({}),
    };
    set(object, "status", status);
}
