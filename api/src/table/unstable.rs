//! Columns and cells of kinds that have no stable version.

use super::columns::{AGE, NAME, text as column};
use super::{Column, age, name, or};
use crate::status::qualified;
use crate::value::{list, text};
use jiff::Timestamp;
use serde_json::Value;

/// Versions of a StorageVersion that are shown.
const SHOWN: usize = 3;

pub(super) const TRUST_BUNDLE: &[Column] =
    &[NAME, column("SignerName", "signerName indicates the associated signer, if any.")];

pub(super) fn trust_bundle(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(object), or(text(&object["spec"], "signerName"), "<none>")]
}

pub(super) const POD_CERTIFICATE: &[Column] = &[
    NAME,
    column("PodName", "podName is the name of the pod into which the certificate will be mounted."),
    column("ServiceAccountName", "serviceAccountName is the name of the service account the pod is running as."),
    column("NodeName", "nodeName is the name of the node the pod is assigned to."),
    column("SignerName", "signerName indicates the requested signer."),
    column("State", "Whether the certificate is issued, denied, failed or still to come"),
];

pub(super) fn pod_certificate(object: &Value, _: Timestamp) -> Vec<Value> {
    let mut states = list(&object["status"], "conditions").iter().map(|condition| text(condition, "type"));
    let state = states.rfind(|kind| matches!(*kind, "Denied" | "Failed" | "Issued"));
    let mut cells = vec![name(object)];
    cells.extend(
        ["podName", "serviceAccountName", "nodeName", "signerName"].map(|key| text(&object["spec"], key).into()),
    );
    cells.push(state.unwrap_or("Pending").into());
    cells
}

pub(super) const LEASE_CANDIDATE: &[Column] = &[
    NAME,
    column("LeaseName", "LeaseName is the name of the lease for which this candidate is contending."),
    column("BinaryVersion", ""),
    column("EmulationVersion", ""),
    AGE,
];

pub(super) fn lease_candidate(object: &Value, now: Timestamp) -> Vec<Value> {
    let [lease, binary, emulation] =
        ["leaseName", "binaryVersion", "emulationVersion"].map(|key| text(&object["spec"], key).into());
    vec![name(object), lease, binary, emulation, age(object, now)]
}

pub(super) const MIGRATION: &[Column] = &[NAME, column("Resource", "Fully qualified resource to migrate")];

pub(super) fn migration(object: &Value, _: Timestamp) -> Vec<Value> {
    let resource = &object["spec"]["resource"];
    vec![name(object), qualified(text(resource, "group"), text(resource, "resource")).into()]
}

pub(super) const STORAGE_VERSION: &[Column] = &[
    NAME,
    column(
        "CommonEncodingVersion",
        "If all API server instances agree on the same encoding storage version, then this field is set to that version. Otherwise this field is left empty. API servers should finish updating its storageVersionStatus entry before serving write operations, so that this field will be in sync with the reality.",
    ),
    column("StorageVersions", "The reported versions per API server instance."),
    AGE,
];

pub(super) fn storage_version(object: &Value, now: Timestamp) -> Vec<Value> {
    let versions = list(&object["status"], "storageVersions");
    let shown = versions.iter().take(SHOWN);
    let shown = shown.map(|one| format!("{}={}", text(one, "apiServerID"), text(one, "encodingVersion")));
    let mut shown = shown.collect::<Vec<_>>().join(",");
    if versions.len() > SHOWN {
        shown.push_str(&format!(" + {} more...", versions.len() - SHOWN));
    }
    let common = or(text(&object["status"], "commonEncodingVersion"), "<unset>");
    vec![name(object), common, shown.into(), age(object, now)]
}
