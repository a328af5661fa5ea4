//! Validation of `metadata`, of labels and of annotations.

use super::IMMUTABLE;
use crate::catalogue::Resource;
use crate::field::{FieldError, Path};
use crate::{names, value};
use serde_json::{Map, Value};

/// All annotations of an object together.
const MAX_ANNOTATIONS: usize = 256 * 1024;

pub(super) fn create(resource: &Resource, object: &Value, errors: &mut Vec<FieldError>) {
    let metadata = &object["metadata"];
    let path = Path::new("metadata");
    let (name, base) = (value::text(metadata, "name"), value::text(metadata, "generateName"));
    if !base.is_empty() {
        let check = (resource.hooks.name)(base, true);
        errors.extend(check.iter().map(|e| FieldError::invalid(&path.child("generateName"), base, e)));
    }
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), "name or generateName is required"));
    } else {
        let check = (resource.hooks.name)(name, false);
        errors.extend(check.iter().map(|e| FieldError::invalid(&path.child("name"), name, e)));
    }
    namespace(resource, metadata, &path, errors);
    common(resource, metadata, &path, errors);
}

fn namespace(resource: &Resource, metadata: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let namespace = value::text(metadata, "namespace");
    let path = path.child("namespace");
    match (resource.namespaced(), namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required(&path, "")),
        (true, false) => {
            let check = names::label_name(namespace, false);
            errors.extend(check.iter().map(|e| FieldError::invalid(&path, namespace, e)));
        }
        (false, true) => {}
        (false, false) => errors.push(FieldError::forbidden(&path, "not allowed on this type")),
    }
}

fn common(resource: &Resource, metadata: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    labels(value::map(metadata, "labels"), &path.child("labels"), errors);
    annotations(value::map(metadata, "annotations"), &path.child("annotations"), errors);
    owners(value::list(metadata, "ownerReferences"), &path.child("ownerReferences"), errors);
    for (i, finalizer) in value::list(metadata, "finalizers").iter().enumerate() {
        finalizer_name(resource, finalizer.as_str().unwrap_or_default(), &path.child("finalizers").index(i), errors);
    }
}

/// Finalizers that need no domain.
const STANDARD_FINALIZERS: [&str; 3] = ["foregroundDeletion", "kubernetes", "orphan"];
/// Groups of servers that upstream adds to its own, which ask for less.
const EXTENSIONS: [&str; 2] = ["apiextensions.k8s.io", "apiregistration.k8s.io"];

fn finalizer_name(resource: &Resource, name: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let check = names::qualified_name(name);
    errors.extend(check.iter().map(|e| FieldError::invalid(path, name, e)));
    let own = name.contains('/') || STANDARD_FINALIZERS.contains(&name) || EXTENSIONS.contains(&&*resource.group);
    if check.is_empty() && !own {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(path, name, detail));
    }
}

/// Checks labels.
pub fn labels(labels: &Map<String, Value>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (key, value) in labels {
        let value = value.as_str().unwrap_or_default();
        let check = names::qualified_name(key);
        errors.extend(check.iter().map(|e| FieldError::invalid(path, key.as_str(), e)));
        let check = names::label_value(value);
        errors.extend(check.iter().map(|e| FieldError::invalid(&path.key(key), value, e)));
    }
}

/// Checks annotations.
pub fn annotations(annotations: &Map<String, Value>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut size = 0;
    for (key, value) in annotations {
        // Annotation keys may have upper case prefixes.
        let check = names::qualified_name(&key.to_lowercase());
        errors.extend(check.iter().map(|e| FieldError::invalid(path, key.as_str(), e)));
        size += key.len() + value.as_str().unwrap_or_default().len();
    }
    if size > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long(path, MAX_ANNOTATIONS));
    }
}

fn owners(owners: &[Value], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut controller = "";
    for (i, owner) in owners.iter().enumerate() {
        let at = path.index(i);
        let version = value::text(owner, "apiVersion");
        if names::split_api_version(version).is_none_or(|(_, v)| v.is_empty()) {
            errors.push(FieldError::invalid(&at.child("apiVersion"), version, "version must not be empty"));
        }
        for key in ["kind", "name", "uid"] {
            if value::text(owner, key).is_empty() {
                errors.push(FieldError::invalid(&at.child(key), "", &format!("{key} must not be empty")));
            }
        }
        if value::truth(owner, "controller") {
            let name = value::text(owner, "name");
            if !controller.is_empty() {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {controller} and {name}"
                );
                errors.push(FieldError::invalid(path, Value::Array(owners.to_vec()), &detail));
            }
            controller = name;
        }
    }
}

pub(super) fn update(resource: &Resource, object: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let (new_meta, old_meta) = (&object["metadata"], &old["metadata"]);
    let path = Path::new("metadata");
    for key in ["name", "namespace", "uid", "creationTimestamp"] {
        let (new, old) = (value::text(new_meta, key), value::text(old_meta, key));
        if new != old {
            errors.push(FieldError::invalid(&path.child(key), new, IMMUTABLE));
        }
    }
    if value::has(old_meta, "deletionTimestamp") {
        let had = value::list(old_meta, "finalizers");
        let added: Vec<&str> =
            value::list(new_meta, "finalizers").iter().filter(|f| !had.contains(f)).filter_map(Value::as_str).collect();
        if !added.is_empty() {
            let list: Vec<String> = added.iter().map(|f| crate::field::quote(f)).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                list.join(", ")
            );
            errors.push(FieldError::forbidden(&path.child("finalizers"), &detail));
        }
    }
    namespace(resource, new_meta, &path, errors);
    common(resource, new_meta, &path, errors);
}
