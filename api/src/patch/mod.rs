//! Patches: RFC 6902 (JSON patch), RFC 7386 (merge patch) and strategic merge patch.

mod json;
mod order;
mod strategic;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod tests;

use crate::catalogue::Resource;
use crate::schema::{Schemas, TypeId};
use crate::status::{Cause, Status};
use serde_json::Value;

/// Why a patch does not apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed: 400.
    #[error("{0}")]
    Malformed(String),
    /// It does not fit the object: 422.
    #[error("{0}")]
    Unprocessable(String),
    /// It is too large: 413.
    #[error("{0}")]
    TooLarge(String),
}

impl PatchError {
    /// The Status that a request is answered with.
    pub fn status(&self, resource: &Resource, name: &str) -> Status {
        match self {
            Self::Malformed(text) => Status::bad_request(text.clone()),
            Self::Unprocessable(text) => {
                let mut status = Status::invalid(&resource.group, &resource.kind, name, &[]);
                status.message = format!("the server rejected our request due to an error in our request: {text}");
                // kubectl shows the causes of what is invalid, not the message.
                if let Some(details) = &mut status.details {
                    let cause =
                        Cause { reason: "FieldValueInvalid".into(), message: text.clone(), field: "patch".into() };
                    details.causes.push(cause);
                }
                status
            }
            Self::TooLarge(text) => {
                let mut status = Status::request_entity_too_large(0);
                status.message = text.clone();
                status
            }
        }
    }
}

/// Applies an RFC 6902 patch.
///
/// # Errors
/// If it is malformed, or an operation (a `test` too) fails.
pub fn json_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    json::apply(target, patch)
}

/// Applies an RFC 7386 patch.
///
/// # Errors
/// If the patch is no object.
pub fn merge_patch(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    if !patch.is_object() {
        return Err(json::unreadable(patch, "value of type map[string]interface {}"));
    }
    json_patch::merge(target, patch);
    Ok(())
}

/// Applies a strategic merge patch to an object of a kind.
///
/// # Errors
/// If the patch is malformed or does not fit the object.
pub fn strategic_merge_patch(resource: &Resource, target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    strategic(&resource.schemas, resource.root, target, patch)
}

/// Applies a strategic merge patch to an object of a type.
///
/// # Errors
/// As `strategic_merge_patch`.
pub fn strategic(schemas: &Schemas, root: TypeId, target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    strategic::apply(schemas, root, target, patch)
}
