//! The verbs on resources: one path for every kind of the catalogue.

mod access_review;
mod admission;
mod apply;
mod create;
pub(crate) mod ctx;
mod delete;
mod encode;
mod eviction;
mod filter;
mod made;
mod node_secrets;
mod options;
mod owners;
mod read;
mod scale;
mod services;
mod store;
mod stream;
mod subresources;
mod token;
mod update;
mod view;
mod walk;
mod watch;

use axum::body::Body;
use http::{Request, Response};
use parking_lot::Mutex;
use trireme_api::catalogue::Resource;
use trireme_api::status::Status;
use trireme_raftstore::Revision;

use crate::error::ApiResult;
use crate::identity::Caller;
use crate::request::info::RequestInfo;
use crate::request::query::Query;
use crate::request::{accept, body};
use crate::server::ApiServer;
use crate::{proxy, response};
use ctx::Ctx;

/// On answers that are possibly old: the revision that they show.
pub(crate) const STALE_HEADER: &str = "trireme-stale-revision";

/// Answers a request for a resource.
pub(crate) async fn dispatch(
    server: &ApiServer,
    request: Request<Body>,
    query: Query,
    info: RequestInfo,
    caller: Caller,
) -> ApiResult<Response<Body>> {
    if access_review::GROUPS.contains(&info.group.as_str()) {
        return access_review::review(server, request, &info, &caller).await;
    }
    let resource = server.inner.catalogue.resource(&info.group, &info.version, &info.resource);
    let resource = resource.ok_or_else(Status::unknown_resource)?;
    check(&resource, &info)?;
    if info.subresource == "proxy" {
        return proxy::forward::serve(server, request, &info).await;
    }
    let storage = &resource.storage;
    // What is not stored has no cache of its own; a Binding is about a pod.
    let (group, plural) = if resource.is_stored() { (&*storage.group, &*storage.plural) } else { ("", "pods") };
    let cache = server.inner.feed.cache(group, plural).cloned();
    let cache = cache.ok_or_else(Status::unknown_resource)?;
    if proxy::is_proxied(&info) {
        return proxy::serve(server, request, &query, &info, &cache).await;
    }
    let (parts, request_body) = request.into_parts();
    let mut ctx = Ctx {
        server: server.clone(),
        accept: accept::negotiate(&parts.headers)?,
        gzip: accept::accepts_gzip(&parts.headers),
        note: parts.extensions.get().cloned().unwrap_or_default(),
        headers: parts.headers,
        info,
        query,
        caller,
        resource,
        cache,
        warnings: Mutex::default(),
    };
    options::check(&ctx)?;
    if ctx.info.verb == "watch" {
        let label = staleness(&ctx);
        let mut answer = watch::watch(ctx).await?;
        label_stale(&mut answer, label);
        return Ok(answer);
    }
    let bytes = body::read(&ctx.headers, request_body, server.inner.config.limits.body_bytes).await?;
    let bytes = body::normalize(&mut ctx.headers, bytes)?;
    let bound = if ctx.plural() == "bindings" { made::bind_by_name(&mut ctx, &bytes) } else { Ok(()) };
    let acted = match bound {
        Ok(()) => act(&ctx, &bytes).await,
        Err(status) => Err(status),
    };
    let mut answer = match acted {
        Ok(answer) => answer,
        Err(status) => response::status(&status),
    };
    response::add_warnings(&mut answer, &ctx.warnings.lock());
    if answer.status().is_success() && ctx.query.get("resourceVersion").is_some() {
        label_stale(&mut answer, staleness(&ctx));
    }
    Ok(answer)
}

/// The revision of what this master can show, if it has lost the others: nobody knows what they have acknowledged since.
fn staleness(ctx: &Ctx) -> Option<Revision> {
    let reading = matches!(ctx.info.verb.as_str(), "get" | "list" | "watch");
    (reading && !ctx.server.inner.store.in_contact()).then(|| ctx.server.inner.feed.revision())
}

/// Says on an answer that it is possibly old: to people by a warning, to programs by a header.
fn label_stale(answer: &mut Response<Body>, label: Option<Revision>) {
    let Some(revision) = label else { return };
    let why =
        format!("this master has no quorum: this is what it had at revision {revision}, which may be out of date");
    response::add_warnings(answer, &[why]);
    answer.headers_mut().insert(STALE_HEADER, http::HeaderValue::from(revision));
}

async fn act(ctx: &Ctx, bytes: &bytes::Bytes) -> ApiResult<Response<Body>> {
    match (ctx.info.subresource.as_str(), ctx.info.verb.as_str()) {
        ("", _) if ctx.plural() == "componentstatuses" => made::component_statuses(ctx).await,
        ("" | "status" | "approval" | "ephemeralcontainers" | "resize", "get") => read::get(ctx).await,
        ("", "list") => read::list(ctx).await,
        ("", "create") => create::create(ctx, bytes).await,
        ("" | "status" | "finalize" | "approval" | "ephemeralcontainers" | "resize", "update") => {
            update::update(ctx, bytes).await
        }
        ("" | "status" | "approval" | "ephemeralcontainers" | "resize", "patch") if apply::is_apply(ctx) => {
            apply::apply(ctx, bytes).await
        }
        ("" | "status" | "approval" | "ephemeralcontainers" | "resize", "patch") => update::patch(ctx, bytes).await,
        ("", "delete") => delete::delete(ctx, bytes).await,
        ("", "deletecollection") => delete::delete_collection(ctx, bytes).await,
        ("scale", "get" | "update" | "patch") => scale::scale(ctx, bytes).await,
        ("binding", "create") => subresources::binding(ctx, bytes).await,
        ("token", "create") => token::create(ctx, bytes).await,
        ("eviction", "create") => eviction::evict(ctx, bytes).await,
        _ => Err(Status::method_not_supported()),
    }
}

/// 404 for paths that do not exist, 405 for verbs that the resource does not have.
fn check(resource: &Resource, info: &RequestInfo) -> ApiResult<()> {
    let named = info.name.is_some();
    let all_namespaces = matches!(info.verb.as_str(), "list" | "watch" | "deletecollection" | "create");
    let misplaced = match (resource.namespaced(), &info.namespace) {
        (true, None) => named || !all_namespaces,
        (true, Some(_)) => false,
        (false, namespace) => namespace.is_some(),
    };
    if misplaced || !info.trailing.is_empty() && info.subresource != "proxy" {
        return Err(Status::unknown_resource());
    }
    if !info.subresource.is_empty() {
        let sub = resource.subresource(&info.subresource).ok_or_else(Status::unknown_resource)?;
        let verb = if info.verb == "watch" { "get" } else { info.verb.as_str() };
        // What a proxied server understands is its own business.
        if info.subresource != "proxy" && !sub.verbs.iter().any(|v| v == verb) {
            return Err(Status::method_not_supported());
        }
        return Ok(());
    }
    let needs_namespace = matches!(info.verb.as_str(), "create" | "deletecollection") && resource.namespaced();
    let needs_name = matches!(info.verb.as_str(), "update" | "patch");
    let known = resource.has_verb(&info.verb) && !(info.verb == "create" && named) && (named || !needs_name);
    if !known || needs_namespace && info.namespace.is_none() {
        return Err(Status::method_not_supported());
    }
    Ok(())
}
