//! Values of selectable fields.

use serde_json::Value;
use trireme_api::catalogue::{Resource, Text};

/// Names and values.
pub(crate) type Fields = Box<[(Text, Box<str>)]>;

/// The non-empty selectable fields of a stored object.
pub(crate) fn selectable(resource: &Resource, object: &Value) -> Fields {
    resource
        .fields
        .iter()
        .filter_map(|field| {
            let value = resource.field(object, field);
            // The names of built-in kinds' fields are no copies.
            (!value.is_empty()).then(|| (field.clone(), value.into()))
        })
        .collect()
}
