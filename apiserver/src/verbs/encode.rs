//! Objects and lists in the shape and encoding that the client asked for.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};
use trireme_api::status::Status;
use trireme_api::table::{self, IncludeObject, Options};

use super::ctx::Ctx;
use crate::error::{ApiResult, corrupt};
use crate::request::accept::{Encoding, Shape};
use crate::response;
use crate::storage::object::Object;

/// Metadata of a list.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListMeta {
    pub(crate) revision: u64,
    pub(crate) next: Option<String>,
    pub(crate) remaining: Option<u64>,
}

impl ListMeta {
    fn map(&self) -> Map<String, Value> {
        let mut meta = Map::new();
        meta.insert("resourceVersion".into(), self.revision.to_string().into());
        if let Some(next) = &self.next {
            meta.insert("continue".into(), next.as_str().into());
        }
        if let Some(remaining) = self.remaining {
            meta.insert("remainingItemCount".into(), remaining.into());
        }
        meta
    }
}

/// One object of the cache.
pub(crate) fn object(ctx: &Ctx, code: StatusCode, object: &Object) -> ApiResult<Response<Body>> {
    if ctx.accept.shape == Shape::Native && !ctx.resource.converts() {
        let stored = if ctx.accept.managers { object.stored.clone() } else { object.stored.bare() };
        return response::encoded(code, ctx.accept.encoding, stored.json(object.revision));
    }
    value(ctx, code, ctx.served(object)?)
}

/// One object as a value, in the request's version.
pub(crate) fn value(ctx: &Ctx, code: StatusCode, mut object: Value) -> ApiResult<Response<Body>> {
    if !ctx.accept.managers {
        trireme_api::apply::take(&mut object);
    }
    let shown = shaped(ctx, object)?;
    response::value(code, ctx.accept.encoding, &shown)
}

/// An object in the client's shape.
pub(crate) fn shaped(ctx: &Ctx, object: Value) -> ApiResult<Value> {
    match ctx.accept.shape {
        Shape::Native => Ok(object),
        Shape::Table => {
            let mut meta = Map::new();
            meta.insert("resourceVersion".into(), object["metadata"]["resourceVersion"].clone());
            rows(ctx, &[object], meta, true)
        }
        Shape::Metadata => Ok(table::partial_metadata(&object)),
    }
}

/// A Table of objects.
pub(crate) fn rows(ctx: &Ctx, objects: &[Value], meta: Map<String, Value>, columns: bool) -> ApiResult<Value> {
    let include = ctx.query.get("includeObject").unwrap_or_default();
    let include_object = IncludeObject::parse(include).ok_or_else(|| {
        Status::bad_request(format!("unrecognized includeObject value: {include:?}, must be None, Metadata or Object"))
    })?;
    let options = Options { include_object, no_columns: !columns, list_metadata: meta, version: String::new() };
    Ok(table::table(&ctx.resource, objects, jiff::Timestamp::now(), &options))
}

/// A list, in bounded memory: items of the native shape are slices of what the cache holds.
pub(crate) fn list(ctx: &Ctx, objects: &[Arc<Object>], meta: &ListMeta) -> ApiResult<Response<Body>> {
    let native = ctx.accept.shape == Shape::Native;
    if native && ctx.accept.encoding == Encoding::Json && !ctx.resource.converts() {
        return Ok(spliced(ctx, objects, meta));
    }
    let mut items = Vec::with_capacity(objects.len());
    for object in objects {
        items.push(ctx.served(object)?);
    }
    let list = match ctx.accept.shape {
        Shape::Table => rows(ctx, &items, meta.map(), true)?,
        Shape::Native => json!({
            "kind": ctx.resource.list_kind,
            "apiVersion": ctx.resource.api_version(),
            "metadata": Value::Object(meta.map()),
            "items": items,
        }),
        Shape::Metadata => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": Value::Object(meta.map()),
            "items": items.iter().map(table::partial_metadata).collect::<Vec<_>>(),
        }),
    };
    match ctx.accept.encoding {
        Encoding::Json => {
            let body = Bytes::from(serde_json::to_vec(&list).map_err(corrupt)?);
            Ok(response::pieces(StatusCode::OK, vec![body], ctx.gzip))
        }
        Encoding::Yaml => response::value(StatusCode::OK, Encoding::Yaml, &list),
    }
}

fn spliced(ctx: &Ctx, objects: &[Arc<Object>], meta: &ListMeta) -> Response<Body> {
    let head = format!(
        "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{},\"items\":[",
        json!(ctx.resource.list_kind),
        json!(ctx.resource.api_version()),
        Value::Object(meta.map())
    );
    let mut pieces = Vec::with_capacity(objects.len() * 4 + 2);
    pieces.push(Bytes::from(head));
    for (i, object) in objects.iter().enumerate() {
        if i > 0 {
            pieces.push(Bytes::from_static(b","));
        }
        let stored = if ctx.accept.managers { &object.stored } else { &object.stored.bare() };
        pieces.extend(stored.pieces(object.revision));
    }
    pieces.push(Bytes::from_static(b"]}\n"));
    response::pieces(StatusCode::OK, pieces, ctx.gzip)
}
