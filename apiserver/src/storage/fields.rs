//! Values of selectable fields.

use serde_json::Value;
use trireme_api::catalogue::Resource;

/// The non-empty selectable fields of a stored object.
pub(crate) fn selectable(resource: &Resource, object: &Value) -> Vec<(Box<str>, Box<str>)> {
    resource
        .fields
        .iter()
        .filter_map(|field| {
            let value = resource.field(object, field);
            (!value.is_empty()).then(|| (field.as_ref().into(), value.into()))
        })
        .collect()
}
