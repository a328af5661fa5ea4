//! Response bodies: Status errors, single objects, spliced lists, compression.

use std::io::Write;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::Value;
use trireme_api::status::Status;

use crate::audit::Failure;
use crate::error::{ApiResult, corrupt};
use crate::request::accept::Encoding;

/// Smaller bodies are not worth compressing; upstream's limit.
const GZIP_MINIMUM: usize = 128 * 1024;

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

/// Pieces of a body that share the cache's bytes; joined only where the client wants them compressed.
pub(crate) fn pieces(code: StatusCode, pieces: Vec<Bytes>, gzip: bool) -> Response<Body> {
    let total: usize = pieces.iter().map(Bytes::len).sum();
    if gzip && total >= GZIP_MINIMUM {
        return compressed(code, "application/json", &pieces);
    }
    let stream = futures::stream::iter(pieces.into_iter().map(Ok::<_, std::convert::Infallible>));
    let mut response = Response::new(Body::from_stream(stream));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(total));
    response
}

fn compressed(code: StatusCode, content_type: &'static str, pieces: &[Bytes]) -> Response<Body> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let done = pieces.iter().try_for_each(|p| encoder.write_all(p)).and_then(|()| encoder.finish());
    let mut response = bytes(code, content_type, done.unwrap_or_default());
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

/// Compresses a large static document where the client takes it.
pub(crate) fn document(content_type: &'static str, body: Bytes, gzip: bool) -> Response<Body> {
    if gzip && body.len() >= GZIP_MINIMUM {
        return compressed(StatusCode::OK, content_type, &[body]);
    }
    bytes(StatusCode::OK, content_type, body)
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
