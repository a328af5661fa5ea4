//! get and list.

use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use trireme_api::status::Status;
use trireme_raftstore::Revision;

use super::ctx::Ctx;
use super::encode::{self, ListMeta};
use super::filter::Filter;
use super::node_secrets;
use super::stream::{self, Items};
use super::walk::Walk;
use crate::error::ApiResult;

/// How long a read waits for a resourceVersion that has not happened yet.
const FUTURE_WAIT: Duration = Duration::from_secs(3);
/// Objects of a page that are held while what follows it is looked for; of a larger page the walk is made twice.
const HELD: usize = 1000;

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

/// GET of a collection.
pub(crate) async fn list(ctx: &Ctx) -> ApiResult<Response<Body>> {
    let filter = Filter::of(ctx)?;
    let limit = ctx.query.integer("limit").map_err(Status::bad_request)?.unwrap_or(0).max(0) as usize;
    let Some(token) = ctx.query.get("continue") else {
        let walk = begin(ctx, &filter, limit).await?;
        let answer = pages(ctx, walk, "", limit, filter.selects()).await;
        return answer.map_err(|status| if status.code == 410 { Status::expired_list() } else { status });
    };
    if ctx.query.get("resourceVersion").is_some_and(|rv| rv != "0") {
        return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
    }
    let Continue { revision, start } = Continue::parse(token)?;
    let walk = match revision {
        Some(revision) => Walk::at(ctx, &filter, revision, &start),
        None => {
            ctx.server.barrier().await?;
            Walk::newest(ctx, &filter, &start)
        }
    };
    pages(ctx, walk, &start, limit, filter.selects()).await.map_err(|status| page_error(status, &start))
}

/// Where a list without a token begins.
async fn begin(ctx: &Ctx, filter: &Filter, limit: usize) -> ApiResult<Walk> {
    let revision = revision_parameter(ctx)?;
    match (revision, ctx.query.get("resourceVersionMatch")) {
        (None, _) => drop(ctx.server.barrier().await?),
        (Some(revision), Some("Exact")) => return Ok(Walk::at(ctx, filter, revision, "")),
        (Some(revision), None) if revision > 0 && limit > 0 => return Ok(Walk::at(ctx, filter, revision, "")),
        (Some(revision), _) => not_older_than(ctx, revision).await?,
    }
    Ok(Walk::newest(ctx, filter, ""))
}

/// Everything, or a page: what comes after it has to be known before its first byte is sent.
async fn pages(ctx: &Ctx, mut walk: Walk, start: &str, limit: usize, selects: bool) -> ApiResult<Response<Body>> {
    let mut meta = ListMeta { revision: walk.revision(), ..ListMeta::default() };
    if limit == 0 {
        return stream::list(ctx, Items::of(walk, usize::MAX), &meta).await;
    }
    let mut held = Vec::new();
    let mut count = 0;
    let mut last = None;
    while count < limit {
        let Some(object) = walk.next().await? else {
            let items = if count <= HELD { Items::held(held) } else { Items::of(walk.again(start), count) };
            return stream::list(ctx, items, &meta).await;
        };
        count += 1;
        last = Some(object.key.clone());
        if count <= HELD {
            held.push(object);
        }
    }
    if let (Some(last), true) = (last, walk.next().await?.is_some()) {
        meta.next = Some(Continue::token(meta.revision as i64, &last));
        meta.remaining = if selects { None } else { Some(walk.rest(&last).await?) };
    }
    let items = if count <= HELD { Items::held(held) } else { Items::of(walk.again(start), count) };
    stream::list(ctx, items, &meta).await
}

/// 410 for somebody who goes on, as upstream has it: with a token that goes on with the newest state.
fn page_error(status: Status, start: &str) -> Status {
    if status.code != 410 || start.is_empty() {
        return status;
    }
    Status::expired_page(Continue::token(-1, start.trim_end_matches('\0')))
}
