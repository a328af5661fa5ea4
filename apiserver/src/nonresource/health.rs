//! `/healthz`, `/livez` and `/readyz` with their checks.

use std::time::Duration;

use axum::body::Body;
use http::{Response, StatusCode};
use trireme_api::status::Status;

use crate::error::ApiResult;
use crate::request::query::Query;
use crate::response;
use crate::server::ApiServer;

/// A probe that takes longer than a client waits tells nothing.
const CHECK: Duration = Duration::from_secs(3);

/// Result of one check; the error is for the log and for people with access to it.
struct Check {
    name: &'static str,
    result: Result<(), String>,
}

/// Answers a health path, or one check of it.
pub(crate) async fn answer(server: &ApiServer, path: &str, query: &Query) -> ApiResult<Response<Body>> {
    let mut parts = path.trim_start_matches('/').split('/');
    let kind = parts.next().unwrap_or_default();
    let single = parts.next();
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut checks = checks(server, kind).await;
    if let Some(single) = single {
        checks.retain(|c| c.name == single);
        if checks.is_empty() || parts.next().is_some() {
            return Err(Status::unknown_resource());
        }
    }
    let mut lines = String::new();
    let mut failed = false;
    for check in &checks {
        if excluded.contains(&check.name) {
            lines.push_str(&format!("[+]{} excluded: ok\n", check.name));
            continue;
        }
        match &check.result {
            Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name)),
            Err(why) => {
                failed = true;
                lines.push_str(&format!("[-]{} failed: {why}\n", check.name));
            }
        }
    }
    if failed {
        return Ok(response::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{kind} check failed\n")));
    }
    if query.flag("verbose") && single.is_none() {
        return Ok(response::text(StatusCode::OK, format!("{lines}{kind} check passed\n")));
    }
    Ok(response::text(StatusCode::OK, "ok"))
}

async fn checks(server: &ApiServer, kind: &str) -> Vec<Check> {
    let mut checks = vec![Check { name: "ping", result: Ok(()) }];
    if kind == "livez" {
        return checks;
    }
    checks.push(Check { name: "log", result: Ok(()) });
    let quorum = match tokio::time::timeout(CHECK, server.inner.store.linearizable_revision()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no quorum answered in time".to_owned()),
    };
    checks.push(Check { name: "etcd", result: quorum.clone() });
    checks.push(Check { name: "quorum", result: quorum });
    if kind == "readyz" {
        let synced = if server.inner.feed.revision() > 0 { Ok(()) } else { Err("caches are loading".to_owned()) };
        checks.push(Check { name: "informer-sync", result: synced });
        let stopping = server.inner.stopping.is_cancelled();
        let shutdown = if stopping { Err("process is shutting down".to_owned()) } else { Ok(()) };
        checks.push(Check { name: "shutdown", result: shutdown });
    }
    checks
}
