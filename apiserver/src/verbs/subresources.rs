//! Sub-resources with bodies of their own: binding, and what the others share.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use trireme_api::status::Status;
use trireme_api::{decode, subresource, value};

use super::ctx::{Ctx, text_at};
use super::owners::Owners;
use super::update::{self, Next};
use crate::error::{ApiResult, corrupt};
use crate::request::accept::{self, Encoding};
use crate::response;

/// POST of a Binding to `pods/NAME/binding`, or to `bindings` with the pod's name in its metadata.
pub(crate) async fn binding(ctx: &Ctx, bytes: &Bytes) -> ApiResult<Response<Body>> {
    let binding = body(ctx, bytes)?;
    check_kind(&binding, "Binding")?;
    check_name(ctx, &binding)?;
    let written = update::write_object(ctx, |current| {
        let mut pod = current.object.clone();
        subresource::apply_binding(&mut pod, &binding, jiff::Timestamp::now())?;
        Ok(Next { object: pod, owners: Owners::Kept })
    });
    written.await?;
    created(ctx)
}

/// A body of whatever kind.
pub(crate) fn body(ctx: &Ctx, bytes: &Bytes) -> ApiResult<Value> {
    Ok(body_and_duplicates(ctx, bytes)?.0)
}

/// A body of whatever kind, and which of its fields it has twice.
pub(super) fn body_and_duplicates(ctx: &Ctx, bytes: &Bytes) -> ApiResult<(Value, Vec<String>)> {
    let decoded = match accept::body_encoding(&ctx.headers)? {
        Encoding::Json => decode::from_json(bytes),
        Encoding::Yaml => decode::from_yaml(bytes),
    };
    let decode::Decoded { value, duplicates } = decoded.map_err(|e| Status::bad_request(e.to_string()))?;
    if value.is_object() {
        return Ok((value, duplicates));
    }
    Err(Status::bad_request(format!("the body must be an object, not {}", corrupt_kind(&value))))
}

fn corrupt_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Array(_) => "an array",
        _ => "a scalar",
    }
}

pub(super) fn check_kind(object: &Value, kind: &str) -> ApiResult<()> {
    match value::text(object, "kind") {
        given if given == kind || given.is_empty() => Ok(()),
        other => Err(Status::bad_request(format!("expected {kind}, got {other}"))),
    }
}

fn check_name(ctx: &Ctx, object: &Value) -> ApiResult<()> {
    let given = text_at(object, &["metadata", "name"]);
    if given.is_empty() || given == ctx.name() {
        return Ok(());
    }
    let why = format!("name in URL does not match name in {} object", value::text(object, "kind"));
    Err(Status::bad_request(why))
}

/// The answer to what has been done.
pub(super) fn created(ctx: &Ctx) -> ApiResult<Response<Body>> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    let answer = serde_json::to_vec(&status).map_err(corrupt)?;
    response::encoded(StatusCode::CREATED, ctx.accept.encoding, answer.into())
}
