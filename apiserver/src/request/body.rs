//! Reading and decoding request bodies.

use axum::body::Body;
use bytes::Bytes;
use http::header;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use trireme_api::status::Status;

use super::accept;
use crate::error::{ApiResult, corrupt};

/// Upstream's binary encoding; clients written in Go prefer it for built-in kinds.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The whole body, or 413.
pub(crate) async fn read(headers: &http::HeaderMap, body: Body, limit: usize) -> ApiResult<Bytes> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    if announced.is_some_and(|length: usize| length > limit) {
        return Err(Status::request_entity_too_large(limit));
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Status::request_entity_too_large(limit)),
        Err(error) => Err(Status::bad_request(format!("the request's body could not be read: {error}"))),
    }
}

/// A body that the rest of the pipeline understands: one in protobuf becomes JSON.
pub(crate) fn normalize(headers: &mut http::HeaderMap, bytes: Bytes) -> ApiResult<Bytes> {
    if accept::content_type(headers) != PROTOBUF {
        return Ok(bytes);
    }
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    if bytes.is_empty() {
        return Ok(bytes);
    }
    let decoded = trireme_api::decode::from_protobuf(&bytes).map_err(|e| Status::bad_request(e.to_string()))?;
    serde_json::to_vec(&decoded.value).map(Bytes::from).map_err(corrupt)
}
