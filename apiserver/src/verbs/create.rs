//! create.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use rand::Rng;
use serde_json::Value;
use trireme_api::apply::Managers;
use trireme_api::catalogue::NewObject;
use trireme_api::status::Status;
use trireme_raftstore::{Compare, Op};

use super::ctx::{Ctx, text_at};
use super::owners::{self, Owners};
use super::store::{self, Change, Guard, Outcome};
use super::{admission, apply, encode, services};
use crate::error::{ApiResult, corrupt};
use crate::request::accept::{self, Encoding};
use crate::storage::keys;

/// Tries with other generated names, addresses or ports before giving up.
const ATTEMPTS: usize = 16;

/// POST of an object.
pub(crate) async fn create(ctx: &Ctx, bytes: &Bytes) -> ApiResult<Response<Body>> {
    let mut object = decode(ctx, bytes)?;
    if !text_at(&object, &["metadata", "resourceVersion"]).is_empty() {
        return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
    }
    check_namespace(ctx, &mut object)?;
    store(ctx, object, Owners::Tracked).await
}

/// Stores a new object.
pub(super) async fn store(ctx: &Ctx, mut object: Value, owners: Owners) -> ApiResult<Response<Body>> {
    let dry_run = ctx.dry_run();
    let brought = trireme_api::apply::take(&mut object);
    ctx.resource.default(&mut object);
    let managers = match owners {
        Owners::Tracked => apply::tracked_from_the_first(ctx, &object, brought.as_ref()),
        Owners::Kept => Managers::default(),
        Owners::These(managers) => managers,
    };
    let managers = managers.to_text();
    let named = !text_at(&object, &["metadata", "name"]).is_empty();
    let is_service = ctx.resource.group.is_empty() && ctx.plural() == "services";
    for attempt in 1.. {
        // Who has a name and is given nothing is tried once.
        let again = !named || is_service;
        let mut candidate = if again { object.clone() } else { std::mem::take(&mut object) };
        prepare(ctx, &mut candidate)?;
        let name = text_at(&candidate, &["metadata", "name"]).to_owned();
        let mut change = Change::new(ctx);
        let suffix = ctx.suffix(&name);
        let key = ctx.cache.store_key(&suffix);
        change.guard(Guard::Object, Compare::Absent(key));
        if let Some(namespace) = ctx.info.namespace.as_deref().filter(|_| ctx.resource.namespaced()) {
            change.guard(Guard::Namespace, store::namespace_active(namespace));
        }
        let mut extra = Vec::new();
        if is_service {
            services::allocate(ctx, &mut candidate, None, &mut change, &mut extra)?;
        }
        admission::validate_create(ctx, &candidate)?;
        let value = store::encode(ctx, &candidate, Some(&managers))?;
        change.op(store::put(ctx, &suffix, value.clone()));
        if ctx.resource.group.is_empty() && ctx.plural() == "namespaces" {
            let key = keys::namespace_active(&name);
            change.op(Op::Put { key, value: Bytes::new(), expires_at_ms: None });
        }
        extra.into_iter().for_each(|op| change.op(op));
        if dry_run {
            owners::show(&mut candidate, &managers);
            return dry(ctx, &name, candidate).await;
        }
        match change.commit(ctx).await? {
            Outcome::Done(revision) => {
                ctx.note.named(&name);
                let object = store::committed(&suffix, &value, revision)?;
                return encode::object(ctx, StatusCode::CREATED, &object);
            }
            Outcome::Broken(Guard::Namespace) => return Err(store::namespace_error(ctx, &name).await),
            Outcome::Broken(Guard::Object) => {
                if named {
                    return Err(Status::already_exists(ctx.group(), ctx.plural(), &name));
                }
                if attempt >= ATTEMPTS {
                    return Err(Status::generate_name_conflict(ctx.group(), ctx.plural(), &name));
                }
            }
            Outcome::Broken(guard) => services::retry(ctx, &object, &guard, attempt < ATTEMPTS).await?,
        }
    }
    unreachable!("the loop returns")
}

/// What would have been created; checks what the transaction would have checked.
async fn dry(ctx: &Ctx, name: &str, object: Value) -> ApiResult<Response<Body>> {
    ctx.server.barrier().await?;
    if ctx.cache.get(&ctx.suffix(name)).is_some() {
        return Err(Status::already_exists(ctx.group(), ctx.plural(), name));
    }
    if let Some(namespace) = ctx.info.namespace.as_deref().filter(|_| ctx.resource.namespaced()) {
        let found = ctx.server.inner.feed.cache("", "namespaces").and_then(|c| c.get(namespace));
        let Some(found) = found else { return Err(Status::not_found("", "namespaces", namespace)) };
        if !text_at(&found.value().map_err(corrupt)?, &["metadata", "deletionTimestamp"]).is_empty() {
            return Err(Status::namespace_terminating(ctx.group(), ctx.plural(), name, namespace));
        }
    }
    encode::value(ctx, StatusCode::CREATED, object)
}

/// Decodes a body of the resource's own kind.
pub(crate) fn decode(ctx: &Ctx, bytes: &[u8]) -> ApiResult<Value> {
    let encoding = match accept::body_encoding(&ctx.headers)? {
        Encoding::Json => trireme_api::decode::Encoding::Json,
        Encoding::Yaml => trireme_api::decode::Encoding::Yaml,
    };
    let admitted = trireme_api::decode::object(&ctx.resource, bytes, encoding, ctx.field_validation()?)?;
    admitted.warnings.into_iter().for_each(|w| ctx.warn(w));
    Ok(admitted.object)
}

/// The namespace in the body has to be the one in the path, and is filled in from there; objects outside of namespaces
/// lose one that was given.
pub(crate) fn check_namespace(ctx: &Ctx, object: &mut Value) -> ApiResult<()> {
    let given = text_at(object, &["metadata", "namespace"]);
    if !ctx.resource.namespaced() {
        if let Some(metadata) = object.get_mut("metadata").filter(|metadata| metadata.is_object()) {
            trireme_api::value::remove(metadata, "namespace");
        }
        return Ok(());
    }
    let wanted = ctx.info.namespace.as_deref().unwrap_or_default();
    if !given.is_empty() && given != wanted {
        return Err(Status::bad_request(match ctx.info.verb.as_str() {
            "create" => {
                "the namespace of the provided object does not match the namespace sent on the request".to_owned()
            }
            _ => {
                format!("the namespace of the object ({given}) does not match the namespace on the request ({wanted})")
            }
        }));
    }
    if let Some(metadata) = trireme_api::value::object_mut(object, "metadata") {
        trireme_api::value::set(metadata, "namespace", wanted);
    }
    Ok(())
}

fn prepare(ctx: &Ctx, object: &mut Value) -> ApiResult<()> {
    if ctx.resource.group.is_empty() && ctx.plural() == "pods" {
        let config = ctx.server.config();
        let seconds = (config.default_not_ready_toleration_seconds, config.default_unreachable_toleration_seconds);
        trireme_api::prepare::kinds::tolerate_lost_nodes(object, seconds.0.into(), seconds.1.into());
    }
    let uid = uuid::Uuid::new_v4().to_string();
    let suffix = random_suffix();
    let new = NewObject {
        now: jiff::Timestamp::now(),
        uid: &uid,
        name_suffix: &suffix,
        namespace: ctx.info.namespace.as_deref().filter(|_| ctx.resource.namespaced()).unwrap_or_default(),
    };
    ctx.resource.prepare_create(object, &new);
    if ctx.plural() == "certificatesigningrequests" {
        trireme_api::prepare::storage::sign_request(object, &ctx.caller.user.to_value());
    }
    Ok(())
}

fn random_suffix() -> String {
    let alphabet = trireme_api::names::SUFFIX_ALPHABET;
    let mut rng = rand::rng();
    (0..5).map(|_| alphabet[rng.random_range(0..alphabet.len())] as char).collect()
}
