//! OpenAPI documents, made when asked and meant to be dropped or cached by the caller.

use crate::catalogue::Catalogue;
use serde_json::{Value, json};

/// The index at `/openapi/v3`.
pub fn v3_index(_catalogue: &Catalogue) -> Value {
    json!({"paths": {}})
}

/// The document of a group and version (`""` and `v1` for core).
pub fn v3_document(_catalogue: &Catalogue, _group: &str, _version: &str) -> Option<Value> {
    None
}

/// The document at `/openapi/v2`.
pub fn v2_document(_catalogue: &Catalogue) -> Value {
    json!({"swagger": "2.0"})
}

/// The same as gnostic's protobuf, `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`.
pub fn v2_protobuf(_catalogue: &Catalogue) -> Vec<u8> {
    Vec::new()
}
