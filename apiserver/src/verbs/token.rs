//! `serviceaccounts/NAME/token`: a token for an account, for so long, for somebody, bound to a pod, a secret or a node.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use trireme_api::field::{FieldError, Path};
use trireme_api::status::Status;
use trireme_api::value::{self, int, list, text};

use super::ctx::{Ctx, text_at};
use super::subresources;
use crate::error::{ApiResult, corrupt};
use crate::response;
use crate::tokens::jwt::{Claims, Private, Reference};
use crate::tokens::user_name;

const KIND: &str = "TokenRequest";
const DEFAULT_LIFE: i64 = 3600;
const MIN_LIFE: i64 = 600;
const MAX_LIFE: i64 = 1 << 32;

/// POST of a TokenRequest.
pub(crate) async fn create(ctx: &Ctx, bytes: &Bytes) -> ApiResult<Response<Body>> {
    let mut request = subresources::body(ctx, bytes)?;
    subresources::check_kind(&request, KIND)?;
    let schemas = ctx.server.inner.catalogue.schemas();
    if let Some(kind) = schemas.find("io.k8s.api.authentication.v1.TokenRequest") {
        schemas.conform(kind, &mut request).map_err(|e| Status::bad_request(e.to_string()))?;
    }
    let account = ctx.current(ctx.name(), true).await?.value().map_err(corrupt)?;
    let namespace = text_at(&account, &["metadata", "namespace"]).to_owned();
    complete(ctx, &mut request, &namespace)?;
    validate(&request["spec"])?;
    let private = bound(ctx, &request["spec"], &account, &namespace)?;
    let now = Timestamp::now();
    let life = int(&request["spec"], "expirationSeconds").unwrap_or(DEFAULT_LIFE);
    let most = ctx.server.config().max_token_life.and_then(|most| i64::try_from(most.as_secs()).ok());
    let life = match most.filter(|most| life > *most) {
        Some(most) => {
            ctx.warn(format!("requested expiration of {life} seconds shortened to {most} seconds"));
            value::set(&mut request["spec"], "expirationSeconds", most);
            most
        }
        None => life,
    };
    let (iat, tokens) = (now.as_second(), &ctx.server.inner.tokens);
    let aud = list(&request["spec"], "audiences").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let claims = Claims {
        aud,
        exp: iat + life,
        iat,
        iss: tokens.issuer.clone(),
        jti: uuid::Uuid::new_v4().to_string(),
        sub: user_name(&namespace, &private.serviceaccount.name),
        private,
        nbf: iat,
    };
    let token = tokens.signer.sign(&claims).map_err(Status::internal)?;
    let until = Timestamp::from_second(claims.exp).map_err(Status::internal)?;
    let status = json!({"token": token, "expirationTimestamp": trireme_api::time::seconds(until)});
    value::set(&mut request, "status", status);
    value::set(&mut request["metadata"], "creationTimestamp", trireme_api::time::seconds(now));
    response::value(StatusCode::CREATED, ctx.accept.encoding, &request)
}

/// Fills in what the request leaves to the path and to defaults.
fn complete(ctx: &Ctx, request: &mut Value, namespace: &str) -> ApiResult<()> {
    for (key, wanted) in [("name", ctx.name()), ("namespace", namespace)] {
        let given = text_at(request, &["metadata", key]);
        if !given.is_empty() && given != wanted {
            let why = format!("metadata.{key} {given:?} does not match the {key} of the service account, {wanted:?}");
            return Err(Status::bad_request(why));
        }
    }
    value::set(request, "kind", KIND);
    value::set(request, "apiVersion", "authentication.k8s.io/v1");
    value::remove(request, "status");
    if let Some(metadata) = value::object_mut(request, "metadata") {
        value::set(metadata, "name", ctx.name());
        value::set(metadata, "namespace", namespace);
    }
    if let Some(spec) = value::object_mut(request, "spec") {
        value::set_default(spec, "expirationSeconds", DEFAULT_LIFE);
        if list(spec, "audiences").is_empty() {
            value::set(spec, "audiences", ctx.server.inner.tokens.audiences.as_slice());
        }
    }
    Ok(())
}

fn validate(spec: &Value) -> ApiResult<()> {
    let path = Path::new("spec");
    let life = int(spec, "expirationSeconds").unwrap_or(DEFAULT_LIFE);
    let why = match life {
        short if short < MIN_LIFE => "may not specify a duration less than 10 minutes",
        long if long > MAX_LIFE => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    let error = FieldError::invalid(&path.child("expirationSeconds"), life, why);
    Err(Status::invalid("authentication.k8s.io", KIND, "", &[error]))
}

fn reference(object: &Value) -> Reference {
    let part = |key: &str| text_at(object, &["metadata", key]).to_owned();
    Reference { name: part("name"), uid: part("uid") }
}

/// An object that the caches have; the request has waited for everything acknowledged before it.
fn found(ctx: &Ctx, plural: &str, namespace: Option<&str>, name: &str) -> ApiResult<Value> {
    let cache = ctx.server.inner.feed.cache("", plural).ok_or_else(Status::unknown_resource)?;
    let object = cache.get(&crate::storage::keys::suffix(namespace, name));
    object.ok_or_else(|| Status::not_found("", plural, name))?.value().map_err(corrupt)
}

/// What the token is about and bound to. An agent gets tokens only for pods on its node.
fn bound(ctx: &Ctx, spec: &Value, account: &Value, namespace: &str) -> ApiResult<Private> {
    let mut private = Private {
        namespace: namespace.to_owned(),
        node: None,
        pod: None,
        secret: None,
        serviceaccount: reference(account),
    };
    let wanted = &spec["boundObjectRef"];
    let (kind, name) = (text(wanted, "kind"), text(wanted, "name"));
    let caller = ctx.caller.user.node_name().filter(|_| !crate::authz::unlimited(&ctx.caller.user));
    if caller.is_some() && (kind != "Pod" || !wanted.is_object()) {
        return Err(refused(ctx, "node requested token not bound to a pod"));
    }
    if !wanted.is_object() {
        return Ok(private);
    }
    let object = match (text(wanted, "apiVersion"), kind) {
        ("v1", "Pod") => {
            let pod = found(ctx, "pods", Some(namespace), name)?;
            if text(&pod["spec"], "serviceAccountName") != private.serviceaccount.name {
                let account = &private.serviceaccount.name;
                let why = format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                );
                return Err(Status::bad_request(why));
            }
            let node = text(&pod["spec"], "nodeName");
            admit(ctx, caller, spec, &pod)?;
            private.node = found(ctx, "nodes", None, node).ok().as_ref().map(reference);
            private.pod = Some(reference(&pod));
            pod
        }
        ("v1", "Secret") => {
            let secret = found(ctx, "secrets", Some(namespace), name)?;
            private.secret = Some(reference(&secret));
            secret
        }
        ("v1", "Node") => {
            let node = found(ctx, "nodes", None, name)?;
            private.node = Some(reference(&node));
            node
        }
        (version, kind) => {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let why = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(Status::bad_request(why.replace("type /", "type ")));
        }
    };
    let (given, uid) = (text(wanted, "uid"), text_at(&object, &["metadata", "uid"]));
    if !given.is_empty() && given != uid {
        let why = format!(
            "the UID in the bound object reference ({given}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", kind, name, &why));
    }
    Ok(private)
}

fn refused(ctx: &Ctx, why: &str) -> Status {
    ctx.note.decided(false);
    Status::forbidden("", "serviceaccounts", ctx.name(), why)
}

/// Keeps an agent to the pods on its node and to the audiences that they ask for.
fn admit(ctx: &Ctx, node: Option<&str>, spec: &Value, pod: &Value) -> ApiResult<()> {
    let Some(node) = node else { return Ok(()) };
    if text(&spec["boundObjectRef"], "uid").is_empty() {
        return Err(refused(ctx, "node requested token with a pod binding without a uid"));
    }
    if text(&pod["spec"], "nodeName") != node {
        return Err(refused(ctx, "node requested token bound to a pod scheduled on a different node"));
    }
    let volumes = list(&pod["spec"], "volumes").iter();
    let asked: Vec<&str> = volumes
        .flat_map(|volume| list(&volume["projected"], "sources"))
        .map(|source| text(&source["serviceAccountToken"], "audience"))
        .collect();
    let own = &ctx.server.inner.tokens.audiences;
    for audience in list(spec, "audiences").iter().filter_map(Value::as_str) {
        if !asked.contains(&audience) && !own.iter().any(|one| one == audience) {
            return Err(refused(ctx, &format!("audience {audience:?} not found in pod spec volume")));
        }
    }
    Ok(())
}
