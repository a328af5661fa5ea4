//! The sub-resource `scale`: how many replicas an object asks for, in a form that is the same for all kinds.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use trireme_api::FieldValidation;
use trireme_api::field::{FieldError, Path};
use trireme_api::status::Status;
use trireme_api::{decode, subresource, table, value};

use super::ctx::Ctx;
use super::update::{self, Current, Next, Written};
use super::{apply, encode, subresources};
use crate::error::ApiResult;
use crate::request::accept::Shape;
use crate::response;

const VERSION: &str = "autoscaling/v1";

/// GET, PUT and PATCH of `…/scale`.
pub(crate) async fn scale(ctx: &Ctx, bytes: &Bytes) -> ApiResult<Response<Body>> {
    let written = match ctx.info.verb.as_str() {
        "get" => {
            let object = ctx.current(ctx.name(), true).await?;
            return shown(ctx, &ctx.bare(&object)?);
        }
        "update" => {
            let (scale, duplicates) = subresources::body_and_duplicates(ctx, bytes)?;
            if value::text(&scale, "kind") != "Scale" && !value::text(&scale, "kind").is_empty() {
                return Err(Status::bad_request(format!("expected a Scale, got {}", value::text(&scale, "kind"))));
            }
            update::write_object(ctx, |current| scaled(ctx, current, scale.clone(), &duplicates)).await?
        }
        _ if apply::is_apply(ctx) => applied(ctx, bytes).await?,
        _ => {
            let kind = update::patch_kind(ctx)?;
            let change = decode::from_json(bytes).map_err(|e| Status::bad_request(e.to_string()))?;
            update::write_object(ctx, |current| {
                let mut scale = subresource::scale(&current.object);
                let plain =
                    if kind.starts_with("application/strategic") { "application/merge-patch+json" } else { kind };
                update::patched_by(ctx, plain, &mut scale, &change.value)?;
                scaled(ctx, current, scale, &change.duplicates)
            })
            .await?
        }
    };
    let object = match written {
        Written::Stored(object) => ctx.bare(&object)?,
        Written::Dry(object) => object,
    };
    shown(ctx, &object)
}

/// The object's Scale in the client's shape.
fn shown(ctx: &Ctx, object: &Value) -> ApiResult<Response<Body>> {
    let scale = subresource::scale(object);
    let shown = match ctx.accept.shape {
        Shape::Native => scale,
        Shape::Metadata => table::partial_metadata(&scale),
        Shape::Table => {
            let options = table::Options { include_object: encode::include_object(ctx)?, ..table::Options::default() };
            table::printed(&table::Printer::SCALE, &[scale], jiff::Timestamp::now(), &options)
        }
    };
    response::value(StatusCode::OK, ctx.accept.encoding, &shown)
}

fn scaled(ctx: &Ctx, current: &Current<'_>, scale: Value, duplicates: &[String]) -> ApiResult<Next> {
    let mut new = current.object.clone();
    let text = scale.to_string();
    let unknown = subresource::apply_scale(&ctx.resource, &mut new, scale).map_err(|e| misfit(ctx, &text, e))?;
    let findings = decode::findings(duplicates, &unknown);
    match ctx.field_validation()? {
        FieldValidation::Strict if !findings.is_empty() => {
            let why = format!("strict decoding error: {}", findings.join(", "));
            return Err(misfit(ctx, &text, Status::cannot_be_handled("Scale", "v1", &why)));
        }
        FieldValidation::Warn => findings.into_iter().for_each(|finding| ctx.warn(finding)),
        _ => {}
    }
    Ok(Next::tracked(new))
}

/// What a patch makes is refused as the patch.
fn misfit(ctx: &Ctx, scale: &str, status: Status) -> Status {
    let why = status.message.strip_prefix(r#"Scale in version "v1" cannot be handled as a Scale: "#);
    match why.filter(|_| ctx.info.verb == "patch") {
        Some(why) => Status::invalid("", "", "", &[FieldError::invalid(&Path::new("patch"), scale, why)]),
        None => status,
    }
}

/// A Scale that is applied: its replicas are the object's.
async fn applied(ctx: &Ctx, bytes: &Bytes) -> ApiResult<Written> {
    let (manager, force) = apply::applier(ctx)?;
    let mut scale =
        decode::from_yaml(bytes).map_err(|e| Status::bad_request(format!("error decoding YAML: {e}")))?.value;
    if value::text(&scale, "kind") != "Scale" {
        return Err(Status::bad_request(format!("expected a Scale, got {:?}", value::text(&scale, "kind"))));
    }
    apply::check_version(&scale, VERSION)?;
    if trireme_api::apply::take(&mut scale).is_some_and(|list| !list.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let schemas = &ctx.resource.schemas;
    if let Some(id) = schemas.find("io.k8s.api.autoscaling.v1.Scale") {
        let names =
            format!("{}/{}; {VERSION}, Kind=Scale", ctx.info.namespace.as_deref().unwrap_or_default(), ctx.name());
        let typed = apply::typed(schemas, id, &mut scale);
        typed.map_err(|e| Status::bad_request(format!("failed to create typed patch object ({names}): {e}")))?;
    }
    if let Some(metadata) = value::object_mut(&mut scale, "metadata") {
        value::set_default_text(metadata, "name", ctx.name());
    }
    let mut part = json!({
        "apiVersion": ctx.resource.api_version(), "kind": ctx.resource.kind, "metadata": {"name": ctx.name()},
    });
    if let Some(replicas) = scale["spec"].get("replicas") {
        part["spec"] = json!({"replicas": replicas});
    }
    update::write_object(ctx, |current| {
        let next =
            apply::merged(ctx, current, manager, &part, force).map_err(|status| in_scales_version(ctx, status))?;
        let mut scale = scale.clone();
        let replicas = value::int(&next.object["spec"], "replicas").unwrap_or(0);
        if let Some(spec) = value::object_mut(&mut scale, "spec") {
            value::set(spec, "replicas", replicas);
        }
        let mut object = next.object;
        subresource::apply_scale(&ctx.resource, &mut object, scale)?;
        Ok(Next { object, ..next })
    })
    .await
}

/// Conflicts name the version of what the request is about.
fn in_scales_version(ctx: &Ctx, mut status: Status) -> Status {
    let (own, scales) = (format!(" using {}", ctx.resource.api_version()), format!(" using {VERSION}"));
    status.message = status.message.replace(&own, &scales);
    for cause in status.details.iter_mut().flat_map(|details| &mut details.causes) {
        cause.message = cause.message.replace(&own, &scales);
    }
    status
}
