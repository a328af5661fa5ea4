//! Validation of certificate requests and of extensions of the API.

use super::common::{Errors, immutable, one_of};
use super::{pem, webhook};
use crate::catalogue::UpdateOf;
use crate::field::{FieldError, Path};
use crate::names;
use crate::value::{has, int, list, text, truth};
use base64::Engine as _;
use serde_json::{Value, json};

const SPEC: Path<'static> = Path::new("spec");
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// A CertificateSigningRequest.
pub fn signing_request(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    let bytes = base64::engine::general_purpose::STANDARD.decode(text(spec, "request")).unwrap_or_default();
    if let Err(why) = pem::request(&bytes) {
        errors.push(FieldError::invalid(&SPEC.child("request"), text(spec, "request"), &why));
    }
    let (usages, at) = (list(spec, "usages"), SPEC.child("usages"));
    if usages.is_empty() {
        errors.push(FieldError::required(&at, "usages is required"));
    }
    for (i, usage) in usages.iter().filter_map(Value::as_str).enumerate() {
        if !USAGES.contains(&usage) {
            errors.push(FieldError::not_supported(&at.index(i), usage, USAGES));
        }
        if usages[..i].iter().any(|other| other == usage) {
            errors.push(FieldError::duplicate(&at.index(i), usage));
        }
    }
    signer(text(spec, "signerName"), &SPEC.child("signerName"), errors);
    if let Some(seconds) = int(spec, "expirationSeconds").filter(|seconds| *seconds < 600) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid(&SPEC.child("expirationSeconds"), seconds, detail));
    }
}

fn signer(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.is_empty() && !rest.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(path, name, detail));
        return;
    };
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, domain, detail));
    }
    for check in [names::dns1123_subdomain(domain), names::dns1123_subdomain(rest)] {
        errors.extend(check.iter().map(|e| FieldError::invalid(path, name, e)));
    }
}

/// A change of a CertificateSigningRequest: what was decided and issued stays.
pub fn signing_request_update(new: &Value, old: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    let path = Path::new("status");
    let within = path.child("conditions");
    let (after, before) = (list(&new["status"], "conditions"), list(&old["status"], "conditions"));
    for (i, condition) in after.iter().enumerate() {
        let (at, kind) = (within.index(i), text(condition, "type"));
        if kind.is_empty() {
            errors.push(FieldError::required(&at.child("type"), ""));
        }
        if matches!(kind, "Approved" | "Denied" | "Failed") && text(condition, "status") != "True" {
            errors.push(FieldError::not_supported(&at.child("status"), text(condition, "status"), &["True"]));
        }
        if after[..i].iter().any(|other| text(other, "type") == kind) {
            errors.push(FieldError::duplicate(&at.child("type"), kind));
        }
    }
    let both = |kind: &str| after.iter().any(|c| text(c, "type") == kind);
    if both("Approved") && both("Denied") {
        errors.push(FieldError::invalid(&within, "Denied", "Approved and Denied conditions are mutually exclusive"));
    }
    for kind in ["Approved", "Denied", "Failed"] {
        if before.iter().any(|c| text(c, "type") == kind) && !both(kind) && of != UpdateOf::Main {
            let detail = format!("updates may not remove a condition of type {}", crate::field::quote(kind));
            errors.push(FieldError::forbidden(&within, &detail));
        }
    }
    let (issued, held) = (text(&new["status"], "certificate"), text(&old["status"], "certificate"));
    if of == UpdateOf::Status && !held.is_empty() && issued != held {
        let detail = "updates may not change or remove existing certificate content";
        errors.push(FieldError::forbidden(&path.child("certificate"), detail));
    }
    if of == UpdateOf::Status && !issued.is_empty() && issued != held {
        let bytes = base64::engine::general_purpose::STANDARD.decode(issued).unwrap_or_default();
        if let Err(why) = pem::certificates(&bytes) {
            errors.push(FieldError::invalid(&path.child("certificate"), "<certificate data>", &why));
        }
    }
}

/// A CustomResourceDefinition.
pub fn custom_resource_definition(object: &Value, errors: &mut Errors) {
    let (spec, names_of) = (&object["spec"], &object["spec"]["names"]);
    let (name, group, plural) = (text(&object["metadata"], "name"), text(spec, "group"), text(names_of, "plural"));
    if name != format!("{plural}.{group}") {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid(&Path::new("metadata").child("name"), name, detail));
    }
    let at = SPEC.child("group");
    if group.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else {
        let check = names::dns1123_subdomain(group);
        errors.extend(check.iter().map(|e| FieldError::invalid(&at, group, e)));
        if !group.contains('.') {
            errors.push(FieldError::invalid(&at, group, "should be a domain with at least one dot"));
        }
    }
    one_of(spec, &SPEC, "scope", &["Cluster", "Namespaced"], errors);
    versions(spec, errors);
    let at = SPEC.child("names");
    for key in ["plural", "singular", "kind", "listKind"] {
        let given = text(names_of, key);
        let check = names::dns1035_label(&given.to_lowercase());
        if given.is_empty() && matches!(key, "plural" | "kind") {
            errors.push(FieldError::required(&at.child(key), ""));
        } else if !given.is_empty() {
            errors.extend(check.iter().map(|e| FieldError::invalid(&at.child(key), given, e)));
        }
    }
    if !text(names_of, "kind").is_empty() && text(names_of, "kind") == text(names_of, "listKind") {
        let detail = "kind and listKind may not be the same";
        errors.push(FieldError::invalid(&at.child("listKind"), text(names_of, "listKind"), detail));
    }
    let conversion = SPEC.child("conversion");
    one_of(&spec["conversion"], &conversion, "strategy", &["None", "Webhook"], errors);
    conversion_webhook(&spec["conversion"], &conversion, errors);
}

/// Who converts between versions, if a webhook does.
fn conversion_webhook(conversion: &Value, path: &Path<'_>, errors: &mut Errors) {
    let given = &conversion["webhook"];
    if text(conversion, "strategy") != "Webhook" {
        let detail = "should not be set when strategy is not set to Webhook";
        for (key, shown) in
            [("clientConfig", "webhookClientConfig"), ("conversionReviewVersions", "conversionReviewVersions")]
        {
            if has(given, key) {
                errors.push(FieldError::forbidden(&path.child(shown), detail));
            }
        }
        return;
    }
    if !given["clientConfig"].is_object() {
        let detail = "required when strategy is set to Webhook";
        errors.push(FieldError::required(&path.child("webhookClientConfig"), detail));
        return;
    }
    webhook::client(&given["clientConfig"], &path.child("webhookClientConfig"), errors);
    webhook::review_versions(given, "conversionReviewVersions", path, errors);
}

fn versions(spec: &Value, errors: &mut Errors) {
    let (versions, at) = (list(spec, "versions"), SPEC.child("versions"));
    let mut seen: Vec<&str> = Vec::new();
    for (i, version) in versions.iter().enumerate() {
        let (at, name) = (at.index(i), text(version, "name"));
        let check = names::dns1035_label(name);
        errors.extend(check.iter().map(|e| FieldError::invalid(&at.child("name"), name, e)));
        if seen.contains(&name) {
            errors.push(FieldError::invalid(
                &SPEC.child("versions"),
                versions.to_vec(),
                "must contain unique version names",
            ));
        }
        seen.push(name);
        let schema = at.child("schema");
        let root = &version["schema"]["openAPIV3Schema"];
        if !root.is_object() {
            errors.push(FieldError::required(&schema.child("openAPIV3Schema"), "schemas are required"));
        } else if text(root, "type") != "object" {
            let at = schema.child("openAPIV3Schema");
            if text(root, "type").is_empty() {
                errors.push(FieldError::required(&at.child("type"), "must not be empty at the root"));
            } else {
                let detail = "must be object at the root";
                errors.push(FieldError::invalid(&at.child("type"), text(root, "type"), detail));
            }
        }
    }
    if versions.iter().filter(|version| truth(version, "storage")).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(&at, versions.to_vec(), detail));
    }
}

/// A change of a CustomResourceDefinition: what objects are stored under stays.
pub fn custom_resource_definition_update(new: &Value, old: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    if of != UpdateOf::Main {
        return;
    }
    immutable(&new["spec"]["group"], &old["spec"]["group"], &SPEC.child("group"), errors);
    let established = list(&old["status"], "conditions")
        .iter()
        .any(|c| text(c, "type") == "Established" && text(c, "status") == "True");
    if established {
        immutable(&new["spec"]["scope"], &old["spec"]["scope"], &SPEC.child("scope"), errors);
        let at = SPEC.child("names");
        let kind = |object: &Value| object["spec"]["names"]["kind"].clone();
        immutable(&kind(new), &kind(old), &at.child("kind"), errors);
    }
    let known: Vec<&str> = list(&new["spec"], "versions").iter().map(|version| text(version, "name")).collect();
    let status = Path::new("status");
    let at = status.child("storedVersions");
    for (i, stored) in list(&new["status"], "storedVersions").iter().filter_map(Value::as_str).enumerate() {
        if !known.contains(&stored) {
            let detail = "missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions";
            let detail = detail.replace("v1", stored);
            errors.push(FieldError::invalid(&at.index(i), stored, &detail));
        }
    }
}

/// An APIService.
pub fn api_service(object: &Value, errors: &mut Errors) {
    let (spec, name) = (&object["spec"], text(&object["metadata"], "name"));
    let (group, version) = (text(spec, "group"), text(spec, "version"));
    let wanted = format!("{version}.{group}");
    if name != wanted {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {}", crate::field::quote(&wanted));
        errors.push(FieldError::invalid(&Path::new("metadata").child("name"), name, &detail));
    }
    if !group.is_empty() {
        let check = names::dns1123_subdomain(group);
        errors.extend(check.iter().map(|e| FieldError::invalid(&SPEC.child("group"), group, e)));
    }
    if group.is_empty() && version != "v1" {
        let detail = "only v1 may have an empty group and it better be legacy kube";
        errors.push(FieldError::required(&SPEC.child("group"), detail));
    }
    let check = names::dns1035_label(version);
    errors.extend(check.iter().map(|e| FieldError::invalid(&SPEC.child("version"), version, e)));
    for (key, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let given = int(spec, key).unwrap_or(0);
        if given <= 0 || given > most {
            let detail = format!("must be positive and less than {most}");
            errors.push(FieldError::invalid(&SPEC.child(key), given, &detail));
        }
    }
    let (insecure, bundle) = (truth(spec, "insecureSkipTLSVerify"), text(spec, "caBundle"));
    if !spec["service"].is_object() {
        if !bundle.is_empty() {
            let detail = "local APIServices may not have a caBundle";
            errors.push(FieldError::invalid(&SPEC.child("caBundle"), format!("{} bytes", bundle.len()), detail));
        }
        if insecure {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(FieldError::invalid(&SPEC.child("insecureSkipTLSVerify"), true, detail));
        }
        return;
    }
    let at = SPEC.child("service");
    for key in ["namespace", "name"] {
        if text(&spec["service"], key).is_empty() {
            errors.push(FieldError::required(&at.child(key), ""));
        }
    }
    if insecure && !bundle.is_empty() {
        let detail = "may not be true if caBundle is present";
        errors.push(FieldError::invalid(&SPEC.child("insecureSkipTLSVerify"), json!(true), detail));
    }
}
