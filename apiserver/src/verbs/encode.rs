//! Objects in the shape and encoding that the client asked for.

use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::{Map, Value};
use trireme_api::status::Status;
use trireme_api::table::{self, IncludeObject, Options};

use super::ctx::Ctx;
use crate::error::ApiResult;
use crate::request::accept::Shape;
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
    pub(crate) fn map(&self) -> Map<String, Value> {
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
        let json = object.stored.json(object.revision, ctx.accept.managers);
        return response::encoded(code, ctx.accept.encoding, json);
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
    let include_object = include_object(ctx)?;
    let options = Options { include_object, no_columns: !columns, list_metadata: meta, version: String::new() };
    Ok(table::table(&ctx.resource, objects, jiff::Timestamp::now(), &options))
}

/// What the rows of a Table carry.
pub(crate) fn include_object(ctx: &Ctx) -> ApiResult<IncludeObject> {
    let include = ctx.query.get("includeObject").unwrap_or_default();
    IncludeObject::parse(include).ok_or_else(|| {
        Status::bad_request(format!("unrecognized includeObject value: {include:?}, must be None, Metadata or Object"))
    })
}
