//! Server-side apply, and who owns which fields of an object.
//!
//! Owners are kept for an object from the first time that it is applied: before that nothing is noted of its fields, and
//! whatever it has then is owned by `before-first-apply`.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, header};
use serde_json::{Value, json};
use trireme_api::apply::{self, ApplyError, FieldSet, Write};
use trireme_api::field::{FieldError, Path};
use trireme_api::schema::TypeId;
use trireme_api::status::Status;
use trireme_api::{decode, value};

use super::ctx::{Ctx, text_at};
use super::{create, options, update};
use crate::error::{ApiResult, corrupt};
use crate::request::accept;

/// The content type of what is applied.
pub(super) const APPLY: &str = "application/apply-patch+yaml";
/// Tries while others create or delete the object.
const ATTEMPTS: usize = 8;

/// Whether a request applies.
pub(super) fn is_apply(ctx: &Ctx) -> bool {
    ctx.info.verb == "patch" && accept::content_type(&ctx.headers) == APPLY
}

/// PATCH with a configuration to apply; creates what is not there.
pub(super) async fn apply(ctx: &Ctx, bytes: &Bytes) -> ApiResult<Response<Body>> {
    let manager = ctx.query.get("fieldManager").unwrap_or_default();
    if manager.is_empty() {
        let error = FieldError::required(&Path::new("fieldManager"), "is required for apply patch");
        options::refuse("PatchOptions", &[error])?;
    }
    let force = ctx.query.option_flag("force").unwrap_or_default();
    let applied = configuration(ctx, bytes)?;
    for _ in 0..ATTEMPTS {
        let written = update::write(ctx, |current| {
            with_write(ctx, manager, |write| {
                let done = apply::apply(write, current, &applied, force).map_err(|e| e.status())?;
                done.map_or_else(|| Ok(current.clone()), |object| fit(ctx, object))
            })
        });
        match written.await {
            Err(status) if status.code == 404 && ctx.subresource().is_none() => {}
            answer => return answer,
        }
        if !matches!(text_at(&applied, &["metadata", "resourceVersion"]), "" | "0") {
            // Of an object that is gone.
            return Err(Status::modified(ctx.group(), ctx.plural(), ctx.name()));
        }
        let object = with_write(ctx, manager, |write| {
            let nothing = json!({
                "apiVersion": applied["apiVersion"], "kind": applied["kind"], "metadata": {"name": ctx.name()},
            });
            let done = apply::apply(write, &nothing, &applied, force).map_err(|e| e.status())?;
            fit(ctx, done.unwrap_or(nothing))
        })?;
        match create::store(ctx, object).await {
            Err(status) if status.reason == trireme_api::status::Reason::AlreadyExists => {}
            answer => return answer,
        }
    }
    Err(Status::modified(ctx.group(), ctx.plural(), ctx.name()))
}

/// What is applied, checked as far as it can be without the object.
fn configuration(ctx: &Ctx, bytes: &Bytes) -> ApiResult<Value> {
    let decoded = decode::from_yaml(bytes).map_err(|e| Status::bad_request(format!("error decoding YAML: {e}")))?;
    let mut applied = decoded.value;
    if !applied.is_object() {
        return Err(Status::bad_request("error decoding YAML: the configuration must be an object"));
    }
    for key in ["apiVersion", "kind"] {
        if value::text(&applied, key).is_empty() {
            return Err(Status::bad_request(format!("error converting to typed: {key} must be set")));
        }
    }
    if value::text(&applied["metadata"], "name").is_empty()
        && let Some(metadata) = value::object_mut(&mut applied, "metadata")
    {
        value::set(metadata, "name", ctx.name());
    }
    update::check_identity(ctx, &applied)?;
    if value::has(&applied["metadata"], "managedFields") {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    create::check_namespace(ctx, &mut applied)?;
    let found = ctx.resource.conform(&mut applied);
    let found = found.map_err(|e| Status::bad_request(format!("{}{e}", prefix(ctx))))?;
    // Whatever the request says of unknown fields: nobody can own them.
    if let Some(field) = found.unknown.first() {
        return Err(Status::bad_request(format!("{}.{field}: field not declared in schema", prefix(ctx))));
    }
    match decoded.duplicates.first() {
        Some(field) => Err(Status::bad_request(format!("error decoding YAML: duplicate field {field:?}"))),
        None => Ok(applied),
    }
}

fn prefix(ctx: &Ctx) -> String {
    let (namespace, version) = (ctx.info.namespace.as_deref().unwrap_or_default(), ctx.resource.api_version());
    let (name, kind) = (ctx.name(), &ctx.resource.kind);
    format!("failed to create typed patch object ({namespace}/{name}; {version}, Kind={kind}): ")
}

fn fit(ctx: &Ctx, object: Value) -> ApiResult<Value> {
    Ok(decode::fit(&ctx.resource, object, &[], ctx.field_validation()?)?.object)
}

/// Notes who changed what, if the object has owners. What it is given in the place of owners counts as upstream has it.
pub(super) fn track(ctx: &Ctx, old: &Value, new: &mut Value) -> ApiResult<()> {
    if !old["metadata"]["managedFields"].is_array() {
        if let Some(metadata) = new.get_mut("metadata") {
            value::remove(metadata, "managedFields");
        }
        return Ok(());
    }
    let agent = ctx.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("unknown");
    let agent: String = agent.split('/').next().unwrap_or_default().chars().take(options::MANAGER).collect();
    let manager = ctx.query.get("fieldManager").filter(|name| !name.is_empty()).unwrap_or(&agent);
    // Only what is stored can be malformed here.
    with_write(ctx, manager, |write| apply::update(write, old, new).map_err(corrupt))
}

/// What the write is to the owners of fields.
fn with_write<T>(ctx: &Ctx, manager: &str, work: impl FnOnce(&Write<'_>) -> T) -> T {
    let resource = &ctx.resource;
    let catalogue = &ctx.server.inner.catalogue;
    let convert = |object: &Value, version: &str| -> Option<(Value, TypeId)> {
        let (group, name) = version.split_once('/').unwrap_or(("", version));
        let from = catalogue.by_kind_of(object)?;
        let to = catalogue.by_kind(group, name, &resource.kind)?;
        if to.storage != from.storage {
            return None;
        }
        let mut object = object.clone();
        from.to_storage(&mut object);
        to.from_storage(&mut object);
        decode::with_type(&to, &mut object);
        Some((object, to.root))
    };
    let now = trireme_api::time::seconds(jiff::Timestamp::now());
    let (version, ignored) = (resource.api_version(), ignored(ctx));
    let write = Write {
        schemas: &resource.schemas,
        root: resource.root,
        version: &version,
        manager,
        subresource: ctx.subresource().unwrap_or_default(),
        now: &now,
        ignored: &ignored,
        convert: &convert,
    };
    work(&write)
}

/// What a write through this path does not change: the status, or all but the status.
fn ignored(ctx: &Ctx) -> FieldSet {
    match ctx.subresource() {
        None if ctx.resource.has_status() => FieldSet::of_fields(&["status"]),
        Some("status") => {
            let fields = &ctx.resource.schemas.get(ctx.resource.root).properties;
            let others = fields.iter().map(|p| &*p.name).filter(|name| !["metadata", "status"].contains(name));
            others.fold(FieldSet::default(), |set, name| set.union(&FieldSet::of_fields(&[name])))
        }
        _ => FieldSet::default(),
    }
}

/// The answer to what cannot be applied.
trait Answer {
    fn status(&self) -> Status;
}

impl Answer for ApplyError {
    fn status(&self) -> Status {
        match self {
            Self::Malformed(why) => Status::bad_request(why.clone()),
            Self::Conflicts(conflicts) => {
                let causes = conflicts.iter().map(|c| (format!("conflict with {}", c.manager), c.field.clone()));
                Status::apply_conflict(self.to_string(), causes)
            }
        }
    }
}
