//! Paths outside of resources: health, version, metrics, discovery, OpenAPI.

pub(crate) mod documents;
mod health;

use axum::body::Body;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};
use trireme_api::status::Status;

use crate::error::ApiResult;
use crate::request::info::RequestInfo;
use crate::request::query::Query;
use crate::response;
use crate::server::ApiServer;

/// First parts of the paths that are only read.
const READ_ONLY: [&str; 10] =
    ["healthz", "livez", "readyz", "version", "metrics", "api", "apis", "openapi", "openid", ".well-known"];
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers a request outside of resources.
pub(crate) async fn dispatch(
    server: &ApiServer,
    request: Request<Body>,
    query: Query,
    info: RequestInfo,
) -> ApiResult<Response<Body>> {
    let path = info.path.trim_end_matches('/');
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    if !reading && READ_ONLY.contains(&first) {
        return Err(Status::method_not_supported());
    }
    match first {
        "healthz" | "livez" | "readyz" => health::answer(server, path, &query).await,
        "version" if path == "/version" => Ok(version(server)),
        "metrics" if path == "/metrics" => {
            Ok(response::bytes(StatusCode::OK, OPENMETRICS, server.inner.metrics.exposition()))
        }
        "api" | "apis" => documents::discovery(server, path, request.headers()),
        "openapi" => documents::openapi(server, path, &query, request.headers()),
        "openid" if path == "/openid/v1/jwks" => {
            Ok(published("application/jwk-set+json", &server.inner.tokens.signer.key_set()))
        }
        ".well-known" if path == "/.well-known/openid-configuration" => {
            Ok(published("application/json", &server.inner.tokens.configuration(&server.inner.config.advertise_url)))
        }
        "" => documents::root(server),
        _ => Err(Status::unknown_resource()),
    }
}

/// What others need to check tokens; they may keep it for an hour.
fn published(content_type: &'static str, document: &Value) -> Response<Body> {
    let mut answer = response::bytes(StatusCode::OK, content_type, document.to_string());
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    answer
}

fn version(server: &ApiServer) -> Response<Body> {
    let git = &server.inner.config.version;
    let mut numbers = git.trim_start_matches('v').split(['.', '+', '-']);
    let body = json!({
        "major": numbers.next().unwrap_or("1"),
        "minor": numbers.next().unwrap_or("0"),
        "gitVersion": git,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    });
    response::json(StatusCode::OK, body.to_string())
}
