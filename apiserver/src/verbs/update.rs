//! update and patch, of objects and of the sub-resources that write them.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::Value;
use trireme_api::apply::Managers;
use trireme_api::field::{FieldError, Path};
use trireme_api::status::Status;
use trireme_api::{decode, patch};
use trireme_raftstore::Op;

use super::ctx::{Ctx, text_at};
use super::owners::Owners;
use super::store::{self, Change, Guard, Outcome};
use super::{admission, apply, create, delete, encode, owners, services};
use crate::error::ApiResult;
use crate::request::accept;
use crate::storage::keys;
use crate::storage::object::Object;

/// Tries after others changed the object in between.
const ATTEMPTS: usize = 8;
const PATCH_TYPES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];
/// All that objects take, as upstream lists it.
const ALL_PATCH_TYPES: [&str; 4] = [PATCH_TYPES[0], PATCH_TYPES[1], PATCH_TYPES[2], apply::APPLY];
/// Kinds that upstream does not let be updated without a resourceVersion.
const CONDITIONAL_ONLY: [&str; 3] = ["leases", "endpointslices", "certificatesigningrequests"];

/// PUT of an object or its status (or `finalize`).
pub(crate) async fn update(ctx: &Ctx, bytes: &Bytes) -> ApiResult<Response<Body>> {
    let mut object = create::decode(ctx, bytes)?;
    check_name(ctx, &object)?;
    create::check_namespace(ctx, &mut object)?;
    let version = text_at(&object, &["metadata", "resourceVersion"]);
    if matches!(version, "" | "0") && CONDITIONAL_ONLY.contains(&ctx.plural()) {
        let metadata = Path::new("metadata");
        let version: Value = version.parse::<u64>().unwrap_or(0).into();
        let error = FieldError::invalid(&metadata.child("resourceVersion"), version, "must be specified for an update");
        return Err(Status::invalid(ctx.group(), &ctx.resource.kind, ctx.name(), &[error]));
    }
    write(ctx, |_| Ok(Next::tracked(object.clone()))).await
}

/// PATCH.
pub(crate) async fn patch(ctx: &Ctx, bytes: &Bytes) -> ApiResult<Response<Body>> {
    let kind = patch_kind(ctx)?;
    let decoded = decode::from_json(bytes).map_err(|e| Status::bad_request(e.to_string()))?;
    let whole = owners::concerns(kind, &decoded.value);
    write(ctx, |current| {
        let patched = || {
            let mut object = if whole { ctx.full(current.stored)? } else { current.object.clone() };
            patched_by(ctx, kind, &mut object, &decoded.value)?;
            ApiResult::Ok(object)
        };
        let (object, validation) = (patched()?, ctx.field_validation()?);
        let again = || patched().unwrap_or_default();
        let again: Option<&dyn Fn() -> Value> = if kind == PATCH_TYPES[2] { None } else { Some(&again) };
        let admitted = decode::fit_patched(&ctx.resource, object, &decoded, again, validation)?;
        admitted.warnings.into_iter().for_each(|w| ctx.warn(w));
        let mut object = admitted.object;
        check_name(ctx, &object)?;
        create::check_namespace(ctx, &mut object)?;
        Ok(Next::tracked(object))
    })
    .await
}

/// The kind of patch by its content type; 415 for others.
pub(crate) fn patch_kind(ctx: &Ctx) -> ApiResult<&'static str> {
    let given = accept::content_type(&ctx.headers);
    PATCH_TYPES.into_iter().find(|t| *t == given).ok_or_else(|| Status::unsupported_media_type(&ALL_PATCH_TYPES))
}

/// Applies a patch to a value.
pub(crate) fn patched_by(ctx: &Ctx, kind: &str, target: &mut Value, change: &Value) -> ApiResult<()> {
    let result = match kind {
        "application/json-patch+json" => patch::json_patch(target, change),
        "application/merge-patch+json" => patch::merge_patch(target, change),
        _ => patch::strategic_merge_patch(&ctx.resource, target, change),
    };
    result.map_err(|e| e.status(&ctx.resource, ctx.name()))
}

/// A patch may not turn the object into another one.
pub(super) fn check_identity(ctx: &Ctx, object: &Value) -> ApiResult<()> {
    let (group, version, kind) = trireme_api::names::type_of(object).unwrap_or_default();
    if (group, version, kind) != (ctx.group(), ctx.resource.version.as_ref(), ctx.resource.kind.as_ref()) {
        let given = text_at(object, &["apiVersion"]);
        return Err(Status::bad_request(format!(
            "the API version in the data ({given}, Kind={kind}) does not match the expected API version ({}, Kind={})",
            ctx.resource.api_version(),
            ctx.resource.kind
        )));
    }
    check_name(ctx, object)
}

/// The name in the body has to be the one in the path.
fn check_name(ctx: &Ctx, object: &Value) -> ApiResult<()> {
    match text_at(object, &["metadata", "name"]) {
        "" => {
            let name = ctx.name();
            let why = format!("the name of the object ({name} based on URL) was undeterminable: name must be provided");
            Err(Status::bad_request(why))
        }
        given if given != ctx.name() => {
            let why = format!("the name of the object ({given}) does not match the name on the URL ({})", ctx.name());
            Err(Status::bad_request(why))
        }
        _ => Ok(()),
    }
}

/// What a change sees of the object.
pub(crate) struct Current<'a> {
    /// In the request's version with its resourceVersion, without managers.
    pub(crate) object: Value,
    pub(crate) stored: &'a Object,
}

/// What a change makes of it.
pub(crate) struct Next {
    pub(crate) object: Value,
    pub(crate) owners: Owners,
}

impl Next {
    /// What the writer has changed is the writer's.
    pub(crate) fn tracked(object: Value) -> Self {
        Self { object, owners: Owners::Tracked }
    }
}

/// Reads, changes and writes an object, again where others were faster. If what it becomes carries a resourceVersion, the
/// write is conditional on it.
pub(crate) async fn write(ctx: &Ctx, change: impl Fn(&Current<'_>) -> ApiResult<Next>) -> ApiResult<Response<Body>> {
    let object = write_object(ctx, change).await?;
    match object {
        Written::Stored(object) => encode::object(ctx, StatusCode::OK, &object),
        Written::Dry(object) => encode::value(ctx, StatusCode::OK, object),
    }
}

/// What an update led to.
pub(crate) enum Written {
    Stored(std::sync::Arc<Object>),
    Dry(Value),
}

/// [`write`] without the response.
pub(crate) async fn write_object(ctx: &Ctx, change: impl Fn(&Current<'_>) -> ApiResult<Next>) -> ApiResult<Written> {
    let dry_run = ctx.dry_run();
    // The first try takes the cache as it is; whatever goes wrong with it is only believed of fresh state.
    let mut fresh = false;
    for _ in 0..ATTEMPTS {
        let object = match ctx.current(ctx.name(), fresh).await {
            Ok(object) => object,
            Err(_) if !fresh => {
                fresh = true;
                continue;
            }
            Err(status) => return Err(status),
        };
        ctx.warnings.lock().clear();
        let step = match step(ctx, &object, &change) {
            Ok(step) => step,
            Err(_) if !fresh => {
                fresh = true;
                continue;
            }
            Err(status) => return Err(status),
        };
        match step {
            Step::Unchanged if fresh => return Ok(Written::Stored(object)),
            Step::Unchanged => {}
            Step::Write { mut object, managers, .. } if dry_run => {
                owners::show(&mut object, &managers);
                return Ok(Written::Dry(*object));
            }
            Step::Write { object: new, asked, value, change, .. } => match change.commit(ctx).await? {
                Outcome::Done(revision) => {
                    return store::committed(&object.key, &value, revision).map(|o| Written::Stored(o.into()));
                }
                Outcome::Broken(guard @ (Guard::ClusterIp(_) | Guard::NodePort(_))) => {
                    services::retry(ctx, &asked.unwrap_or(new), &guard, true).await?;
                }
                Outcome::Broken(_) => {}
            },
        }
        fresh = true;
    }
    Err(Status::modified(ctx.group(), ctx.plural(), ctx.name()))
}

enum Step {
    /// The write would change nothing.
    Unchanged,
    Write {
        object: Box<Value>,
        /// What a service asked for, before it was given what it left open.
        asked: Option<Box<Value>>,
        /// The text of their list.
        managers: String,
        value: Bytes,
        change: Change,
    },
}

fn step(ctx: &Ctx, stored: &Object, change: impl Fn(&Current<'_>) -> ApiResult<Next>) -> ApiResult<Step> {
    let current = Current { object: ctx.bare(stored)?, stored };
    let old = &current.object;
    let Next { object: mut new, owners } = change(&current)?;
    preconditions(ctx, &new, old)?;
    let brought = trireme_api::apply::take(&mut new);
    ctx.resource.default(&mut new);
    admission::admit_update(ctx, &new, old)?;
    let track = |new: &Value| -> Option<Managers> {
        match &owners {
            Owners::Kept => None,
            Owners::These(managers) => Some(managers.clone()),
            Owners::Tracked if brought.is_none() && same(new, old) => None,
            Owners::Tracked => Some(apply::tracked(ctx, &current, new, brought.as_ref())),
        }
    };
    // What the server makes of an object is nobody's; but what a sub-resource does not write is not changed by it.
    let whole = ctx.subresource().is_none().then(|| track(&new));
    ctx.resource.prepare_update(&mut new, old, ctx.subresource());
    let managers = whole.unwrap_or_else(|| track(&new));
    let mut txn = Change::new(ctx);
    txn.guard(Guard::Object, store::unchanged(ctx, stored));
    let mut extra: Vec<Op> = Vec::new();
    let mut asked = None;
    if ctx.resource.group.is_empty() && ctx.plural() == "services" && ctx.subresource().is_none() {
        asked = Some(Box::new(new.clone()));
        services::allocate(ctx, &mut new, Some(old), &mut txn, &mut extra)?;
    }
    admission::validate_update(ctx, &new, old)?;
    let owned_as_before = managers.as_ref().is_none_or(|managers| managers.same_but_times(&owners::of(stored)));
    if extra.is_empty() && owned_as_before && same(&new, old) && !delete::finished(ctx, &new) {
        return Ok(Step::Unchanged);
    }
    let managers = match managers {
        Some(managers) => managers.to_text(),
        None => String::from_utf8_lossy(stored.stored.managers()).into_owned(),
    };
    let value = store::encode(ctx, &new, Some(&managers))?;
    if delete::finished(ctx, &new) {
        txn.op(Op::Delete { key: ctx.cache.store_key(&stored.key) });
        extra.extend(released(ctx, &new));
    } else {
        txn.op(store::put(ctx, &stored.key, value.clone()));
    }
    extra.into_iter().for_each(|op| txn.op(op));
    Ok(Step::Write { object: Box::new(new), asked, managers, value, change: txn })
}

/// The resourceVersion and the uid that an object carries have to be those of the one that it replaces.
fn preconditions(ctx: &Ctx, new: &Value, old: &Value) -> ApiResult<()> {
    let version = text_at(new, &["metadata", "resourceVersion"]);
    if !matches!(version, "" | "0") && version != text_at(old, &["metadata", "resourceVersion"]) {
        return Err(Status::modified(ctx.group(), ctx.plural(), ctx.name()));
    }
    let (uid, own) = (text_at(new, &["metadata", "uid"]), text_at(old, &["metadata", "uid"]));
    // Of a patched object, validation says that it may not change.
    if !uid.is_empty() && uid != own && ctx.info.verb == "update" {
        return Err(Status::uid_mismatch(ctx.group(), ctx.plural(), old, uid));
    }
    Ok(())
}

/// Whether two objects differ in nothing but the resourceVersion, in whatever order their fields are.
fn same(new: &Value, old: &Value) -> bool {
    let (Some(a), Some(b)) = (new.as_object(), old.as_object()) else { return false };
    a.len() == b.len()
        && a.iter().all(|(key, value)| match (key.as_str(), value.as_object(), b.get(key).and_then(Value::as_object)) {
            ("metadata", Some(x), Some(y)) => {
                let rest =
                    |m: &serde_json::Map<String, Value>| m.len() - usize::from(m.contains_key("resourceVersion"));
                rest(x) == rest(y) && x.iter().all(|(k, v)| k == "resourceVersion" || y.get(k) == Some(v))
            }
            _ => b.get(key) == Some(value),
        })
}

/// Keys besides the object's own that go with it.
pub(crate) fn released(ctx: &Ctx, object: &Value) -> Vec<Op> {
    match (ctx.resource.storage.group.as_ref(), ctx.plural()) {
        ("", "services") => services::release(object),
        ("", "namespaces") => vec![Op::Delete { key: keys::namespace_active(text_at(object, &["metadata", "name"])) }],
        _ => Vec::new(),
    }
}
