//! get and list.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use trireme_api::status::Status;
use trireme_raftstore::{Consistency, KeyRange, RangeRequest, Revision, StoreError};

use super::ctx::Ctx;
use super::encode::{self, ListMeta};
use super::filter::Filter;
use super::node_secrets;
use crate::error::{ApiResult, corrupt, store_status};
use crate::storage::keys;
use crate::storage::object::Object;

/// How long a read waits for a resourceVersion that has not happened yet.
const FUTURE_WAIT: Duration = Duration::from_secs(3);
/// Keys read from the store at once for an old page.
const CHUNK: usize = 500;

/// GET of one object.
pub(crate) async fn get(ctx: &Ctx) -> ApiResult<Response<Body>> {
    node_secrets::admit(ctx).await?;
    let object = match revision_parameter(ctx)? {
        None => ctx.current(ctx.name(), true).await?,
        Some(revision) => {
            not_older_than(ctx, revision).await?;
            ctx.current(ctx.name(), false).await?
        }
    };
    encode::object(ctx, StatusCode::OK, &object)
}

/// The resourceVersion parameter; `None` asks for the newest state.
pub(crate) fn revision_parameter(ctx: &Ctx) -> ApiResult<Option<Revision>> {
    match ctx.query.get("resourceVersion") {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!("Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"))
        }),
    }
}

/// Waits until the caches are at least that new; 504 for a revision that nobody has written.
pub(crate) async fn not_older_than(ctx: &Ctx, revision: Revision) -> ApiResult<()> {
    let feed = &ctx.server.inner.feed;
    feed.wait(revision, FUTURE_WAIT).await.map_err(|now| match now {
        0 => Status::too_many_requests("storage is (re)initializing", 1),
        now => Status::too_large_resource_version(revision, now),
    })
}

/// Where a list continues.
struct Continue {
    /// `None`: the newest state, although that is not consistent with the pages before.
    revision: Option<Revision>,
    start: String,
}

impl Continue {
    fn parse(text: &str) -> ApiResult<Self> {
        let bad = || Status::bad_request("continue key is not valid");
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| bad())?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        let revision = token["rv"].as_i64().ok_or_else(bad)?;
        let start = token["start"].as_str().ok_or_else(bad)?.to_owned();
        Ok(Self { revision: u64::try_from(revision).ok().filter(|r| *r > 0), start })
    }

    fn token(revision: i64, after: &str) -> String {
        let token = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": format!("{after}\u{0}")});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }
}

/// How a list reads.
enum Mode {
    /// From the cache.
    Cache,
    /// From the store at a revision.
    At(Revision),
}

/// GET of a collection.
pub(crate) async fn list(ctx: &Ctx) -> ApiResult<Response<Body>> {
    let filter = Filter::of(ctx)?;
    let limit = ctx.query.integer("limit").map_err(Status::bad_request)?.unwrap_or(0).max(0) as usize;
    if let Some(token) = ctx.query.get("continue") {
        if ctx.query.get("resourceVersion").is_some_and(|rv| rv != "0") {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let token = Continue::parse(token)?;
        return match token.revision {
            Some(revision) => old_page(ctx, &filter, limit, revision, &token.start).await,
            None => {
                ctx.server.barrier().await?;
                cached_page(ctx, &filter, limit, &token.start)
            }
        };
    }
    match list_mode(ctx, limit).await? {
        Mode::Cache => cached_page(ctx, &filter, limit, ""),
        Mode::At(revision) => old_page(ctx, &filter, limit, revision, "").await,
    }
}

async fn list_mode(ctx: &Ctx, limit: usize) -> ApiResult<Mode> {
    let revision = revision_parameter(ctx)?;
    let rule = ctx.query.get("resourceVersionMatch");
    match (revision, rule) {
        (None, _) => {
            ctx.server.barrier().await?;
            Ok(Mode::Cache)
        }
        (Some(revision), Some("Exact")) => Ok(Mode::At(revision)),
        (Some(revision), None) if revision > 0 && limit > 0 => Ok(Mode::At(revision)),
        (Some(revision), _) => {
            not_older_than(ctx, revision).await?;
            Ok(Mode::Cache)
        }
    }
}

/// A page (or everything) of the current state; it comes from the cache.
fn cached_page(ctx: &Ctx, filter: &Filter, limit: usize, start: &str) -> ApiResult<Response<Body>> {
    let before = ctx.server.inner.feed.revision();
    let snapshot = ctx.cache.snapshot(&filter.part, |o| &*o.key >= start && filter.matches(o));
    let revision = before.max(snapshot.last);
    let mut objects = snapshot.objects;
    let mut meta = ListMeta { revision, ..ListMeta::default() };
    if limit > 0 && objects.len() > limit {
        let rest = objects.len() - limit;
        objects.truncate(limit);
        meta.next = objects.last().map(|last| Continue::token(revision as i64, &last.key));
        meta.remaining = (!filter.selects()).then_some(rest as u64);
    }
    encode::list(ctx, &objects, &meta)
}

/// A page of an older state; it comes from the store's history.
async fn old_page(
    ctx: &Ctx,
    filter: &Filter,
    limit: usize,
    revision: Revision,
    start: &str,
) -> ApiResult<Response<Body>> {
    let scope = match &filter.part.namespace {
        Some(namespace) => format!("{}{namespace}/", ctx.cache.prefix),
        None => ctx.cache.prefix.clone(),
    };
    let end = keys::prefix_end(scope.as_bytes());
    let mut from = Bytes::from(scope.clone()).max(ctx.cache.store_key(start));
    let mut objects: Vec<Arc<Object>> = Vec::new();
    let mut meta = ListMeta { revision, ..ListMeta::default() };
    loop {
        let request = RangeRequest {
            range: KeyRange::Range { start: from.clone(), end: end.clone() },
            revision: Some(revision),
            limit: CHUNK,
            consistency: Consistency::Linearizable,
            keys_only: false,
        };
        let page = ctx.server.inner.store.range(request).await.map_err(|e| page_error(&e, start))?;
        let total = page.kvs.len();
        for (i, kv) in page.kvs.iter().enumerate() {
            if limit > 0 && objects.len() == limit {
                meta.next = objects.last().map(|last| Continue::token(revision as i64, &last.key));
                let rest = page.count.saturating_sub(i as u64);
                meta.remaining = (!filter.selects()).then_some(rest);
                return encode::list(ctx, &objects, &meta);
            }
            let suffix = String::from_utf8_lossy(&kv.key[ctx.cache.prefix.len()..]);
            let object = Object::read(&ctx.cache.resource, Arc::from(&*suffix), &kv.value, kv.mod_revision);
            let object = object.map_err(corrupt)?;
            if filter.matches(&object) {
                objects.push(Arc::new(object));
            }
        }
        match page.kvs.last() {
            Some(last) if page.more && total > 0 => from = Bytes::from([&last.key[..], &[0]].concat()),
            _ => return encode::list(ctx, &objects, &meta),
        }
    }
}

/// 410 with a token that continues from the newest state, as upstream offers it.
fn page_error(error: &StoreError, start: &str) -> Status {
    if !matches!(error, StoreError::Compacted { .. }) || start.is_empty() {
        return store_status(error);
    }
    Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You must start a new list \
         without the continue parameter.",
    )
}
