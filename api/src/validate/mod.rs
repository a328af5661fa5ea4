//! Validation with upstream's messages: metadata for every kind, and a file for each family of kinds.

pub mod admission;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
mod common;
mod container;
mod cron;
pub mod flow;
pub mod ingress;
pub mod metadata;
pub mod network;
pub mod objects;
mod pem;
pub mod pod;
pub mod quota;
pub mod rbac;
pub mod storage;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_kinds;
pub mod unstable;
pub mod warnings;
mod webhook;
pub mod workloads;

use crate::catalogue::{Resource, UpdateOf};
use crate::field::FieldError;
use serde_json::Value;

/// Message of a field that may not change.
pub const IMMUTABLE: &str = "field is immutable";

pub(crate) fn create(resource: &Resource, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata::create(resource, object, &mut errors);
    (resource.hooks.validate)(object, &mut errors);
    (resource.hooks.validate_new)(object, &mut errors);
    errors
}

pub(crate) fn update(resource: &Resource, object: &Value, old: &Value, of: UpdateOf<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata::update(resource, object, old, &mut errors);
    if of == UpdateOf::Main {
        (resource.hooks.validate)(object, &mut errors);
    }
    (resource.hooks.validate_update)(object, old, of, &mut errors);
    errors
}
