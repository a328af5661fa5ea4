//! Validation of volumes, claims and the storage group.

use super::common::{
    Errors, immutable, label_selector, non_negative_quantity, optional_name, positive_quantity, required_name,
};
use crate::catalogue::UpdateOf;
use crate::field::{FieldError, Path};
use crate::value::{copy, has, list, map, text};
use crate::{Quantity, names};
use serde_json::Value;

const SPEC: Path<'static> = Path::new("spec");
const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
/// Sources of volumes, with the field that each cannot be without.
const SOURCES: [(&str, &str); 22] = [
    ("awsElasticBlockStore", "volumeID"),
    ("azureDisk", "diskName"),
    ("azureFile", "secretName"),
    ("cephfs", ""),
    ("cinder", "volumeID"),
    ("csi", "driver"),
    ("fc", ""),
    ("flexVolume", "driver"),
    ("flocker", ""),
    ("gcePersistentDisk", "pdName"),
    ("glusterfs", "endpoints"),
    ("hostPath", "path"),
    ("iscsi", "targetPortal"),
    ("local", "path"),
    ("nfs", "server"),
    ("photonPersistentDisk", "pdID"),
    ("portworxVolume", "volumeID"),
    ("quobyte", "registry"),
    ("rbd", "image"),
    ("scaleIO", "gateway"),
    ("storageos", ""),
    ("vsphereVolume", "volumePath"),
];
/// Bytes of all parameters of a class.
const MAX_PARAMETERS: usize = 256 * 1024;

fn supported(value: &Value, path: &Path<'_>, key: &str, known: &[&str], errors: &mut Errors) {
    let given = text(value, key);
    if has(value, key) && !known.contains(&given) {
        errors.push(FieldError::not_supported(&path.child(key), given, known));
    }
}

fn access_modes(spec: &Value, path: &Path<'_>, missing: &str, errors: &mut Errors) {
    let (modes, at) = (list(spec, "accessModes"), path.child("accessModes"));
    if modes.is_empty() {
        errors.push(FieldError::required(&at, missing));
    }
    for mode in modes.iter().filter_map(Value::as_str).filter(|mode| !MODES.contains(mode)) {
        errors.push(FieldError::not_supported(&at, mode, MODES));
    }
    let single = modes.iter().filter(|mode| **mode == "ReadWriteOncePod").count();
    if single > 0 && single < modes.len() {
        errors.push(FieldError::forbidden(&at, "may not use ReadWriteOncePod with other access modes"));
    }
}

/// A PersistentVolume.
pub fn persistent_volume(object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    access_modes(spec, &SPEC, "", errors);
    let (capacity, at) = (map(spec, "capacity"), SPEC.child("capacity"));
    if capacity.is_empty() {
        errors.push(FieldError::required(&at, ""));
    }
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        errors.push(FieldError::not_supported(&at, spec["capacity"].clone(), &["storage"]));
    }
    capacity.iter().for_each(|(name, amount)| positive_quantity(amount, &at.key(name), errors));
    let policy = "persistentVolumeReclaimPolicy";
    supported(spec, &SPEC, policy, &["Delete", "Recycle", "Retain"], errors);
    let given: Vec<&(&str, &str)> = SOURCES.iter().filter(|(source, _)| has(spec, source)).collect();
    if given.is_empty() {
        errors.push(FieldError::required(&SPEC, "must specify a volume type"));
    }
    for (source, _) in given.iter().skip(1) {
        errors.push(FieldError::forbidden(&SPEC.child(source), "may not specify more than 1 volume type"));
    }
    if let Some((source, needed)) = given.first().filter(|(_, needed)| !needed.is_empty())
        && text(&spec[*source], needed).is_empty()
    {
        errors.push(FieldError::required(&SPEC.child(source).child(needed), ""));
    }
    if has(spec, "csi") && text(&spec["csi"], "volumeHandle").is_empty() {
        errors.push(FieldError::required(&SPEC.child("csi").child("volumeHandle"), ""));
    }
    if has(spec, "local") && !has(spec, "nodeAffinity") {
        errors.push(FieldError::required(&Path::new("metadata.annotations"), "Local volume requires node affinity"));
    }
    if text(&spec["hostPath"], "path").split('/').any(|part| part == "..") {
        let (path, at) = (text(&spec["hostPath"], "path"), SPEC.child("hostPath"));
        errors.push(FieldError::invalid(&at.child("path"), path, "must not contain '..'"));
    }
    if text(&spec["hostPath"], "path") == "/" && text(spec, policy) == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden(&SPEC.child(policy), detail));
    }
    optional_name(spec, &SPEC, "storageClassName", names::dns1123_subdomain, errors);
    supported(spec, &SPEC, "volumeMode", VOLUME_MODES, errors);
}

/// A change of a PersistentVolume.
pub fn persistent_volume_update(new: &Value, old: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    if of != UpdateOf::Main {
        return;
    }
    let (new, old) = (&new["spec"], &old["spec"]);
    let unset = |object: &Value, source: &str| {
        // Secrets for the expansion of a volume may come later.
        let mut source = object[source].clone();
        crate::value::remove(&mut source, "controllerExpandSecretRef");
        crate::value::remove(&mut source, "nodeExpandSecretRef");
        source
    };
    if SOURCES.iter().any(|(source, _)| unset(new, source) != unset(old, source)) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        errors.push(FieldError::forbidden(&SPEC.child("persistentvolumesource"), detail));
    }
    immutable(&new["volumeMode"], &old["volumeMode"], &SPEC.child("volumeMode"), errors);
    if has(old, "nodeAffinity") {
        immutable(&new["nodeAffinity"], &old["nodeAffinity"], &SPEC.child("nodeAffinity"), errors);
    }
}

/// A PersistentVolumeClaim.
pub fn persistent_volume_claim(object: &Value, errors: &mut Errors) {
    claim_spec(&object["spec"], &SPEC, errors);
}

fn claim_spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    access_modes(spec, path, "at least 1 access mode is required", errors);
    if has(spec, "selector") {
        label_selector(&spec["selector"], &path.child("selector"), errors);
    }
    let resources = path.child("resources");
    match map(&spec["resources"], "requests").get("storage") {
        None => errors.push(FieldError::required(&resources.key("storage"), "")),
        Some(amount) => positive_quantity(amount, &resources.key("storage"), errors),
    }
    for key in ["storageClassName", "volumeAttributesClassName"] {
        optional_name(spec, path, key, names::dns1123_subdomain, errors);
    }
    supported(spec, path, "volumeMode", VOLUME_MODES, errors);
    for key in ["dataSource", "dataSourceRef"] {
        let at = path.child(key);
        for needed in ["name", "kind"] {
            if has(spec, key) && text(&spec[key], needed).is_empty() {
                errors.push(FieldError::required(&at.child(needed), ""));
            }
        }
        let source = &spec[key];
        if has(spec, key) && text(source, "apiGroup").is_empty() && text(source, "kind") != "PersistentVolumeClaim" {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.push(FieldError::invalid(&at, text(source, "kind"), detail));
        }
    }
}

/// A change of a PersistentVolumeClaim.
pub fn persistent_volume_claim_update(new: &Value, old: &Value, of: UpdateOf<'_>, errors: &mut Errors) {
    if of != UpdateOf::Main {
        return;
    }
    // Down to what the volume has: so one takes back an expansion that failed.
    let held = map(&old["status"], "capacity").get("storage").and_then(Quantity::from_value);
    let held = held.or(Some(Quantity::ZERO));
    let bound = text(&old["status"], "phase") == "Bound";
    let (new, old) = (&new["spec"], &old["spec"]);
    let request = |spec: &Value| map(&spec["resources"], "requests").get("storage").and_then(Quantity::from_value);
    let mut munged = new.clone();
    if text(old, "volumeName").is_empty() {
        // The name of the volume may be given once.
        copy(&mut munged, old, "volumeName");
    }
    if bound && let Some(requests) = munged.pointer_mut("/resources/requests") {
        copy(requests, &old["resources"]["requests"], "storage");
        copy(&mut munged, old, "volumeAttributesClassName");
    }
    // A class that was kept in an annotation may move into its field.
    if !has(old, "storageClassName") {
        copy(&mut munged, old, "storageClassName");
    }
    if munged != *old {
        let detail =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(FieldError::forbidden(&SPEC, detail));
    }
    if request(new) < request(old) && request(new) <= held {
        let path = Path::new("spec.resources.requests.storage");
        errors.push(FieldError::forbidden(&path, "field can not be less than status.capacity"));
    }
    immutable(&new["volumeMode"], &old["volumeMode"], &SPEC.child("volumeMode"), errors);
}

fn parameters(object: &Value, needed: bool, errors: &mut Errors) {
    let (given, path) = (map(object, "parameters"), Path::new("parameters"));
    if given.len() > 512 {
        errors.push(FieldError::too_many(&path, given.len(), 512));
    }
    if given.is_empty() && needed {
        errors.push(FieldError::required(&path, "must contain at least one key/value pair"));
    }
    let mut size = 0;
    for (key, value) in given {
        if key.is_empty() {
            errors.push(FieldError::invalid(&path, "", "field can not be empty."));
        }
        size += key.len() + value.as_str().unwrap_or_default().len();
    }
    if size > MAX_PARAMETERS {
        errors.push(FieldError::too_long(&path, MAX_PARAMETERS));
    }
}

/// A StorageClass.
pub fn storage_class(object: &Value, errors: &mut Errors) {
    let provisioner = text(object, "provisioner");
    let at = Path::new("provisioner");
    if provisioner.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else {
        let check = names::qualified_name(&provisioner.to_lowercase());
        errors.extend(check.iter().map(|e| FieldError::invalid(&at, provisioner, e)));
    }
    parameters(object, false, errors);
    supported(object, &Path::ROOT, "reclaimPolicy", &["Delete", "Retain"], errors);
    supported(object, &Path::ROOT, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"], errors);
    let topologies = Path::new("allowedTopologies");
    for (i, term) in list(object, "allowedTopologies").iter().enumerate() {
        let at = topologies.index(i);
        let within = at.child("matchLabelExpressions");
        for (j, expression) in list(term, "matchLabelExpressions").iter().enumerate() {
            let at = within.index(j);
            let key = text(expression, "key");
            errors.extend(names::qualified_name(key).iter().map(|e| FieldError::invalid(&at.child("key"), key, e)));
            if list(expression, "values").is_empty() {
                errors.push(FieldError::required(&at.child("values"), ""));
            }
        }
    }
}

/// A change of a StorageClass.
pub fn storage_class_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    fixed(new, old, &["parameters", "provisioner", "reclaimPolicy"], errors);
    let key = "volumeBindingMode";
    immutable(&new[key], &old[key], &Path::new(key), errors);
}

fn driver_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    if name.len() > 63 {
        errors.push(FieldError::too_long(path, 63));
    }
    let check = names::dns1123_subdomain(&name.to_lowercase());
    errors.extend(check.iter().map(|e| FieldError::invalid(path, name, e)));
}

/// A VolumeAttachment.
pub fn volume_attachment(object: &Value, errors: &mut Errors) {
    let (spec, source) = (&object["spec"], &object["spec"]["source"]);
    driver_name(text(spec, "attacher"), &SPEC.child("attacher"), errors);
    let at = SPEC.child("source");
    let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (has(source, "inlineVolumeSpec"), source.get("persistentVolumeName").and_then(Value::as_str)) {
        (false, None) => errors.push(FieldError::required(&at, detail)),
        (true, Some(_)) => errors.push(FieldError::forbidden(&at, detail)),
        (false, Some("")) => {
            let detail = "must specify non empty persistentVolumeName";
            errors.push(FieldError::required(&at.child("persistentVolumeName"), detail));
        }
        _ => {}
    }
    required_name(spec, &SPEC, "nodeName", names::dns1123_subdomain, errors);
}

/// A change of a VolumeAttachment.
pub fn volume_attachment_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    immutable(&new["spec"], &old["spec"], &SPEC, errors);
}

/// A CSIDriver.
pub fn csi_driver(object: &Value, errors: &mut Errors) {
    let (spec, metadata) = (&object["spec"], Path::new("metadata"));
    driver_name(text(&object["metadata"], "name"), &metadata.child("name"), errors);
    supported(spec, &SPEC, "fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"], errors);
    let within = SPEC.child("tokenRequests");
    let mut seen: Vec<&str> = Vec::new();
    for (i, request) in list(spec, "tokenRequests").iter().enumerate() {
        let (at, audience) = (within.index(i), text(request, "audience"));
        if seen.contains(&audience) {
            errors.push(FieldError::duplicate(&at.child("audience"), audience));
        }
        seen.push(audience);
        if let Some(seconds) = crate::value::int(request, "expirationSeconds").filter(|seconds| *seconds < 600) {
            let detail = "may not specify a duration less than 10 minutes";
            errors.push(FieldError::invalid(&at.child("expirationSeconds"), seconds, detail));
        }
        if let Some(seconds) = crate::value::int(request, "expirationSeconds").filter(|seconds| *seconds > 1 << 32) {
            let detail = "may not specify a duration larger than 2^32 seconds";
            errors.push(FieldError::invalid(&at.child("expirationSeconds"), seconds, detail));
        }
    }
    let at = SPEC.child("volumeLifecycleModes");
    for mode in list(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str) {
        if !matches!(mode, "Ephemeral" | "Persistent") {
            errors.push(FieldError::not_supported(&at, mode, &["Ephemeral", "Persistent"]));
        }
    }
}

/// A change of a CSIDriver.
pub fn csi_driver_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    // Upstream's message has another word than the field.
    for (key, shown) in [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")] {
        immutable(&new["spec"][key], &old["spec"][key], &SPEC.child(shown), errors);
    }
}

/// A CSINode.
pub fn csi_node(object: &Value, errors: &mut Errors) {
    let within = SPEC.child("drivers");
    let mut seen: Vec<&str> = Vec::new();
    for (i, driver) in list(&object["spec"], "drivers").iter().enumerate() {
        let at = within.index(i);
        let (name, id) = (text(driver, "name"), text(driver, "nodeID"));
        driver_name(name, &at.child("name"), errors);
        if id.is_empty() {
            errors.push(FieldError::required(&at.child("nodeID"), ""));
        } else if id.len() > 192 {
            errors.push(FieldError::invalid(&at.child("nodeID"), id, "must be 192 characters or less"));
        }
        if let Some(count) = crate::value::int(&driver["allocatable"], "count").filter(|count| *count < 0) {
            let allocatable = at.child("allocatable");
            errors.push(FieldError::invalid(&allocatable.child("count"), count, super::common::NON_NEGATIVE));
        }
        let keys = at.child("topologyKeys");
        for (j, key) in list(driver, "topologyKeys").iter().enumerate() {
            let key = key.as_str().unwrap_or_default();
            errors.extend(names::qualified_name(key).iter().map(|e| FieldError::invalid(&keys.index(j), key, e)));
        }
        if seen.contains(&name) {
            errors.push(FieldError::duplicate(&at.child("name"), name));
        }
        seen.push(name);
    }
}

/// A change of a CSINode: drivers come and go, but do not change.
pub fn csi_node_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    let within = SPEC.child("drivers");
    let bare = |driver: &Value| {
        let mut driver = driver.clone();
        crate::value::remove(&mut driver, "allocatable");
        driver
    };
    for (i, driver) in list(&new["spec"], "drivers").iter().enumerate() {
        let before = list(&old["spec"], "drivers").iter().find(|old| old["name"] == driver["name"]);
        if before.is_some_and(|before| bare(before) != bare(driver)) {
            errors.push(FieldError::invalid(&within.index(i), driver.clone(), super::IMMUTABLE));
        }
    }
}

/// A CSIStorageCapacity.
pub fn csi_storage_capacity(object: &Value, errors: &mut Errors) {
    let root = Path::ROOT;
    required_name(object, &root, "storageClassName", names::dns1123_subdomain, errors);
    if has(object, "nodeTopology") {
        label_selector(&object["nodeTopology"], &root.child("nodeTopology"), errors);
    }
    for key in ["capacity", "maximumVolumeSize"] {
        non_negative_quantity(&object[key], &root.child(key), errors);
    }
}

/// A change of a CSIStorageCapacity.
pub fn csi_storage_capacity_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    for key in ["nodeTopology", "storageClassName"] {
        immutable(&new[key], &old[key], &Path::new(key), errors);
    }
}

/// A VolumeAttributesClass.
pub fn volume_attributes_class(object: &Value, errors: &mut Errors) {
    driver_name(text(object, "driverName"), &Path::new("driverName"), errors);
    parameters(object, true, errors);
}

/// A change of a VolumeAttributesClass.
pub fn volume_attributes_class_update(new: &Value, old: &Value, _: UpdateOf<'_>, errors: &mut Errors) {
    fixed(new, old, &["driverName", "parameters"], errors);
}

fn fixed(new: &Value, old: &Value, keys: &[&str], errors: &mut Errors) {
    for key in keys.iter().filter(|key| new[**key] != old[**key]) {
        errors.push(FieldError::forbidden(&Path::new(key), &format!("updates to {key} are forbidden.")));
    }
}
