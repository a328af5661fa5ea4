//! Server-side apply, and who owns which fields of an object.

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};
use trireme_api::apply::{self, ApplyError, FieldSet, Managers, Write};
use trireme_api::field::{FieldError, Path};
use trireme_api::schema::{Schemas, TypeId};
use trireme_api::status::{Reason, Status};
use trireme_api::{decode, value};

use super::ctx::{Ctx, text_at};
use super::owners::{self, Owners};
use super::update::{Current, Next};
use super::{create, options, update};
use crate::error::ApiResult;
use crate::request::accept;

/// The content type of what is applied.
pub(super) const APPLY: &str = "application/apply-patch+yaml";
/// Tries while others create or delete the object.
const ATTEMPTS: usize = 8;

/// Whether a request applies.
pub(super) fn is_apply(ctx: &Ctx) -> bool {
    ctx.info.verb == "patch" && accept::content_type(&ctx.headers) == APPLY
}

/// Who applies, which has to be said, and whether conflicts are overruled.
pub(super) fn applier(ctx: &Ctx) -> ApiResult<(&str, bool)> {
    let manager = ctx.query.get("fieldManager").unwrap_or_default();
    if manager.is_empty() {
        let error = FieldError::required(&Path::new("fieldManager"), "is required for apply patch");
        options::refuse("PatchOptions", &[error])?;
    }
    Ok((manager, ctx.query.option_flag("force").unwrap_or_default()))
}

/// PATCH with a configuration to apply; creates what is not there.
pub(super) async fn apply(ctx: &Ctx, bytes: &Bytes) -> ApiResult<Response<Body>> {
    let (manager, force) = applier(ctx)?;
    let applied = configuration(ctx, bytes)?;
    for _ in 0..ATTEMPTS {
        let written = update::write(ctx, |current| merged(ctx, current, manager, &applied, force));
        match written.await {
            Err(status) if status.code == 404 && ctx.subresource().is_none() => {}
            answer => return answer,
        }
        if !matches!(text_at(&applied, &["metadata", "resourceVersion"]), "" | "0") {
            // Of an object that is gone.
            return Err(Status::modified(ctx.group(), ctx.plural(), ctx.name()));
        }
        let uid = text_at(&applied, &["metadata", "uid"]);
        if !uid.is_empty() {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Status::conflict(ctx.group(), ctx.plural(), ctx.name(), &why));
        }
        let nothing = json!({
            "apiVersion": applied["apiVersion"], "kind": applied["kind"], "metadata": {"name": ctx.name()},
        });
        let done = with_write(ctx, manager, &ignored(ctx), |write| {
            apply::apply(write, &nothing, Managers::default(), &applied, force).map_err(|e| e.status())
        })?;
        let (object, managers) = done.unwrap_or((nothing, Managers::default()));
        match create::store(ctx, fit(ctx, object)?, Owners::These(managers)).await {
            Err(status) if status.reason == Reason::AlreadyExists => {}
            answer => return answer,
        }
    }
    Err(Status::modified(ctx.group(), ctx.plural(), ctx.name()))
}

/// What applying makes of an object.
pub(super) fn merged(ctx: &Ctx, current: &Current<'_>, manager: &str, applied: &Value, force: bool) -> ApiResult<Next> {
    let done = with_write(ctx, manager, &ignored(ctx), |write| {
        apply::apply(write, &current.object, owners::of(current.stored), applied, force).map_err(|e| e.status())
    })?;
    Ok(match done {
        Some((object, managers)) => Next { object: fit(ctx, object)?, owners: Owners::These(managers) },
        None => Next { object: current.object.clone(), owners: Owners::Kept },
    })
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
    check_version(&applied, &ctx.resource.api_version())?;
    if value::text(&applied["metadata"], "name").is_empty()
        && let Some(metadata) = value::object_mut(&mut applied, "metadata")
    {
        value::set(metadata, "name", ctx.name());
    }
    update::check_identity(ctx, &applied)?;
    if apply::take(&mut applied).is_some_and(|list| !list.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    create::check_namespace(ctx, &mut applied)?;
    let typed = typed(&ctx.resource.schemas, ctx.resource.root, &mut applied);
    typed.map_err(|e| Status::bad_request(format!("{}{e}", prefix(ctx))))?;
    match decoded.duplicates.first() {
        Some(field) => Err(Status::bad_request(format!("error decoding YAML: duplicate field {field:?}"))),
        None => Ok(applied),
    }
}

/// What is applied has to be in the version of the request.
pub(super) fn check_version(applied: &Value, version: &str) -> ApiResult<()> {
    let given = value::text(applied, "apiVersion");
    if given == version {
        return Ok(());
    }
    let why = "Incorrect version specified in apply patch. Specified patch version:";
    Err(Status::bad_request(format!("{why} {given}, expected: {version}")))
}

/// Checks types, and that there are no unknown fields: nobody could own them, whatever the request says of them.
pub(super) fn typed(schemas: &Schemas, root: TypeId, applied: &mut Value) -> Result<(), String> {
    let given = applied.clone();
    let found = schemas.conform(root, applied).map_err(|e| e.to_string())?;
    if let Some(field) = found.unknown.first() {
        return Err(format!(".{field}: field not declared in schema"));
    }
    put_back(&given, applied);
    Ok(())
}

/// What is empty or null means something in what is applied: that its field is owned, and is to be so.
fn put_back(given: &Value, applied: &mut Value) {
    match (given, applied) {
        (Value::Object(given), Value::Object(applied)) => {
            for (key, value) in given {
                match applied.get_mut(key) {
                    Some(kept) => put_back(value, kept),
                    None => drop(applied.insert(key.clone(), value.clone())),
                }
            }
        }
        (Value::Array(given), Value::Array(applied)) => {
            given.iter().zip(applied).for_each(|(given, applied)| put_back(given, applied));
        }
        _ => {}
    }
}

fn prefix(ctx: &Ctx) -> String {
    let (namespace, version) = (ctx.info.namespace.as_deref().unwrap_or_default(), ctx.resource.api_version());
    let (name, kind) = (ctx.name(), &ctx.resource.kind);
    // Go shows the empty group too.
    let group = if ctx.resource.group.is_empty() { "/" } else { "" };
    format!("failed to create typed patch object ({namespace}/{name}; {group}{version}, Kind={kind}): ")
}

fn fit(ctx: &Ctx, object: Value) -> ApiResult<Value> {
    Ok(decode::fit(&ctx.resource, object, &[], ctx.field_validation()?)?.object)
}

/// Who owns what after an update of an object. Where that cannot be told, for an object that will be refused, nobody.
pub(super) fn tracked(ctx: &Ctx, current: &Current<'_>, new: &Value, brought: Option<&Value>) -> Managers {
    let ignored = if ctx.subresource().is_none() { ignored(ctx) } else { FieldSet::default() };
    let before = owners::of(current.stored);
    with_write(ctx, &owners::manager(ctx), &ignored, |write| {
        apply::update(write, &current.object, new, before, brought).unwrap_or_default()
    })
}

/// Who owns what of a new object.
pub(super) fn tracked_from_the_first(ctx: &Ctx, new: &Value, brought: Option<&Value>) -> Managers {
    let nothing = Value::Object(Default::default());
    with_write(ctx, &owners::manager(ctx), &ignored(ctx), |write| {
        apply::update(write, &nothing, new, Managers::default(), brought).unwrap_or_default()
    })
}

/// What the write is to the owners of fields.
fn with_write<T>(ctx: &Ctx, manager: &str, ignored: &FieldSet, work: impl FnOnce(&Write<'_>) -> T) -> T {
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
    let version = resource.api_version();
    let write = Write {
        schemas: &resource.schemas,
        root: resource.root,
        version: &version,
        manager,
        subresource: ctx.subresource().unwrap_or_default(),
        now: &now,
        ignored,
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
pub(super) trait Answer {
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
