//! Validation of kinds that have no stable version.

use super::common::{Errors, immutable, one_of, required_name};
use crate::catalogue::UpdateOf;
use crate::field::{FieldError, Path};
use crate::names;
use crate::value::{list, text};
use serde_json::Value;

const SPEC: Path<'static> = Path::new("spec");
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// A ClusterTrustBundle: certificates, and a name that tells whose.
pub fn trust_bundle(object: &Value, errors: &mut Errors) {
    let (name, signer) = (text(&object["metadata"], "name"), text(&object["spec"], "signerName"));
    let metadata = Path::new("metadata");
    if signer.is_empty() {
        if name.contains(':') {
            let detail = "ClusterTrustBundle without signer name must not have \":\" in its name";
            errors.push(FieldError::invalid(&metadata.child("name"), name, detail));
        }
    } else {
        let prefix = format!("{}:", signer.replace('/', ":"));
        if !name.starts_with(&prefix) {
            let shown = crate::field::quote(&prefix);
            let detail = format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}");
            errors.push(FieldError::invalid(&metadata.child("name"), name, &detail.replace(&shown, &prefix)));
        }
    }
    let bundle = text(&object["spec"], "trustBundle");
    let at = SPEC.child("trustBundle");
    if bundle.trim().is_empty() {
        errors.push(FieldError::invalid_as_a_whole(&at, "at least one trust anchor must be provided"));
    } else if !bundle.contains("-----BEGIN CERTIFICATE-----") || !bundle.contains("-----END CERTIFICATE-----") {
        errors.push(FieldError::invalid_as_a_whole(&at, "entry 0 does not parse as PEM"));
    }
}

/// A change of a ClusterTrustBundle: whose it is stays.
pub fn trust_bundle_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    let key = "signerName";
    immutable(&new["spec"][key], &old["spec"][key], &SPEC.child(key), errors);
}

/// A change of what is asked for once.
pub fn fixed_spec(new: &Value, old: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    if of == UpdateOf::Main {
        immutable(&new["spec"], &old["spec"], &SPEC, errors);
    }
}

/// A LeaseCandidate.
pub fn lease_candidate(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    required_name(spec, &SPEC, "leaseName", names::dns1123_subdomain, errors);
    for key in ["binaryVersion", "strategy"] {
        if text(spec, key).is_empty() {
            errors.push(FieldError::required(&SPEC.child(key), ""));
        }
    }
}

/// A DeviceTaintRule.
pub fn taint_rule(object: &Value, errors: &mut Errors) {
    let (taint, at) = (&object["spec"]["taint"], SPEC.child("taint"));
    required_name(taint, &at, "key", names::qualified_name, errors);
    one_of(taint, &at, "effect", EFFECTS, errors);
}

/// A ResourcePoolStatusRequest.
pub fn pool_status_request(object: &Value, errors: &mut Errors) {
    required_name(&object["spec"], &SPEC, "driver", names::dns1123_subdomain, errors);
}

/// A Workload.
pub fn workload(object: &Value, errors: &mut Errors) {
    let (templates, within) = (list(&object["spec"], "podGroupTemplates"), SPEC.child("podGroupTemplates"));
    if templates.is_empty() {
        errors.push(FieldError::required(&within, ""));
    }
    for (i, template) in templates.iter().enumerate() {
        required_name(template, &within.index(i), "name", names::dns1123_label, errors);
        if templates[..i].iter().any(|other| other["name"] == template["name"]) {
            errors.push(FieldError::duplicate(&within.index(i), text(template, "name")));
        }
    }
}

/// A StorageVersionMigration.
pub fn migration(object: &Value, errors: &mut Errors) {
    let at = SPEC.child("resource");
    if text(&object["spec"]["resource"], "resource").is_empty() {
        errors.push(FieldError::required(&at.child("resource"), "resource is required"));
    }
}
