//! Response bodies: Status errors, single objects, documents, compression.

use std::io::Write;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde_json::Value;
use trireme_api::status::Status;

use crate::audit::Failure;
use crate::error::{ApiResult, corrupt};
use crate::request::accept::Encoding;
use crate::request::query::Query;

/// Smaller bodies are not worth compressing; upstream's limit.
pub(crate) const GZIP_MINIMUM: usize = 128 * 1024;

/// A JSON response.
pub(crate) fn json(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    bytes(code, "application/json", body)
}

/// A response with a content type.
pub(crate) fn bytes(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Plain text, as health checks answer.
pub(crate) fn text(code: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    bytes(code, "text/plain; charset=utf-8", body)
}

/// A value in the encoding that the client takes.
pub(crate) fn value(code: StatusCode, encoding: Encoding, value: &Value) -> ApiResult<Response<Body>> {
    Ok(match encoding {
        Encoding::Json => json(code, serde_json::to_vec(value).map_err(corrupt)?),
        Encoding::Yaml => bytes(code, "application/yaml", serde_norway::to_string(value).map_err(corrupt)?),
    })
}

/// Already encoded JSON in the encoding that the client takes.
pub(crate) fn encoded(code: StatusCode, encoding: Encoding, body: Bytes) -> ApiResult<Response<Body>> {
    match encoding {
        Encoding::Json => Ok(json(code, body)),
        Encoding::Yaml => value(code, encoding, &serde_json::from_slice(&body).map_err(corrupt)?),
    }
}

/// The error as an object.
pub(crate) fn status(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, status.to_value().to_string());
    response.extensions_mut().insert(Failure(Arc::new(status.clone())));
    let retry = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry));
    }
    response
}

/// Extension of an answer whose body is still being made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streamed;

fn compressed(code: StatusCode, content_type: &'static str, pieces: &[Bytes]) -> Response<Body> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let done = pieces.iter().try_for_each(|p| encoder.write_all(p)).and_then(|()| encoder.finish());
    let mut response = bytes(code, content_type, done.unwrap_or_default());
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

/// A whole document, compressed where it is large and the client takes it.
pub(crate) fn document(content_type: &'static str, body: Bytes, gzip: bool) -> Response<Body> {
    if gzip && body.len() >= GZIP_MINIMUM {
        return compressed(StatusCode::OK, content_type, &[body]);
    }
    bytes(StatusCode::OK, content_type, body)
}

/// What a HEAD request gets: HTTP/2 breaks the stream off where a body comes after all.
pub(crate) fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    Response::from_parts(parts, Body::empty())
}

/// Larger bodies are not indented: that needs several times their size.
pub(crate) const PRETTY_MAXIMUM: u64 = 4 << 20;

/// Whether the client wants JSON that people read: it says so, or it is one that people look at.
pub(crate) fn wants_pretty(query: &Query, headers: &HeaderMap) -> bool {
    if let Some(asked) = query.get("pretty") {
        return matches!(asked, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|prefix| agent.starts_with(prefix))
}

/// The response with its JSON indented.
pub(crate) async fn pretty(response: Response<Body>) -> Response<Body> {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let plain = kind.starts_with("application/json") && !response.headers().contains_key(header::CONTENT_ENCODING);
    // A stream that goes on, such as a watch, has no length.
    let announced =
        response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let length: Option<u64> = announced.or_else(|| response.body().size_hint().exact());
    if !plain || length.is_none_or(|length| length > PRETTY_MAXIMUM) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(collected) = body.collect().await else {
        return status(&Status::internal("the answer could not be read"));
    };
    let bytes = collected.to_bytes();
    let indented = serde_json::from_slice::<Value>(&bytes).and_then(|value| serde_json::to_vec_pretty(&value));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(indented.map_or(bytes, Bytes::from)))
}

/// Adds `Warning: 299 - "…"` headers, as many as fit upstream's limits.
pub(crate) fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    let mut total = 0;
    for (i, warning) in warnings.iter().enumerate() {
        if warnings[..i].contains(warning) {
            continue;
        }
        let clean: String = warning.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = format!("299 - \"{}\"", clean.replace('\\', "\\\\").replace('"', "\\\""));
        total += text.len();
        if total > 4096 {
            return;
        }
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}
