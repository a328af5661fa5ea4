//! Patches made and applied on this side.

use serde_json::{Value, json};

use super::apply::shape::Shape;
use super::errors::{CtlError, Result};
use super::mutate::{JSON_PATCH, MERGE, STRATEGIC};
use super::targets::Target;

/// Applies a JSON merge patch.
pub fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    if let Some(map) = into.as_object_mut() {
        for (key, value) in patch {
            if value.is_null() {
                map.remove(key);
            } else {
                merge(map.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

/// The patch between two versions of an object, with its media type.
pub fn difference(target: &Target, before: &Value, after: &Value) -> Result<(Value, &'static str)> {
    match Shape::of_resource(&target.resource) {
        Some(shape) => super::apply::diff::two_way(before, after, &shape)
            .map(|patch| (patch, STRATEGIC))
            .map_err(|reason| CtlError::plain(format!("creating patch for {}: {reason}", target.label()))),
        None => Ok((super::apply::diff::three_way_plain(before, after, before), MERGE)),
    }
}

/// The object with a patch applied here, without the server.
pub fn patched(target: &Target, object: &Value, kind: &str, patch: &Value) -> Result<Value> {
    let mut object = object.clone();
    let built_in = || {
        let resource = &target.resource;
        trireme_api::Catalogue::builtin().by_kind(&resource.group, &resource.version, &resource.kind)
    };
    let outcome = match (kind, built_in()) {
        (JSON_PATCH, _) => trireme_api::patch::json_patch(&mut object, patch),
        (STRATEGIC, Some(resource)) => trireme_api::patch::strategic_merge_patch(&resource, &mut object, patch),
        _ => trireme_api::patch::merge_patch(&mut object, patch),
    };
    outcome.map_err(|error| CtlError::plain(error.to_string()))?;
    Ok(object)
}
