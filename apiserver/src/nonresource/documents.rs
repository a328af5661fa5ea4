//! Discovery and OpenAPI: documents made from the catalogue once and kept as bytes.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use trireme_api::status::Status;
use trireme_api::{discovery, openapi};

use crate::error::{ApiResult, corrupt};
use crate::request::accept;
use crate::request::query::Query;
use crate::response;
use crate::server::ApiServer;

const OPENAPI_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// The same as a valid media type, which is what upstream answers with in either case.
const OPENAPI_PROTOBUF_DOT: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Encoded documents by path, with their hash.
#[derive(Default)]
pub(crate) struct Documents(Mutex<HashMap<String, (Bytes, Arc<str>)>>);

impl Documents {
    /// The document of a key, made on first use.
    fn get(&self, key: &str, make: impl FnOnce() -> ApiResult<Bytes>) -> ApiResult<(Bytes, Arc<str>)> {
        if let Some(found) = self.0.lock().get(key) {
            return Ok(found.clone());
        }
        let bytes = make()?;
        let hash: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02X}")).collect();
        let made = (bytes, Arc::from(hash));
        self.0.lock().insert(key.to_owned(), made.clone());
        Ok(made)
    }
}

/// `/`: the paths that there are.
pub(crate) fn root(server: &ApiServer) -> ApiResult<Response<Body>> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in server.inner.catalogue.groups().iter().filter(|(g, _)| !g.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|v| format!("/apis/{group}/{v}")));
    }
    paths.extend(
        [
            "/.well-known/openid-configuration",
            "/healthz",
            "/livez",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/openid/v1/jwks",
            "/readyz",
            "/version",
        ]
        .map(str::to_owned),
    );
    Ok(response::json(StatusCode::OK, json!({"paths": paths}).to_string()))
}

/// `/api`, `/apis` and below.
pub(crate) fn discovery(server: &ApiServer, path: &str, headers: &HeaderMap) -> ApiResult<Response<Body>> {
    let catalogue = &server.inner.catalogue;
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if parts.len() == 1
        && let Some(version) = aggregated_version(headers)
    {
        let core = parts[0] == "api";
        let (bytes, hash) = server.inner.documents.get(&format!("{path}|{version}"), || {
            Ok(Bytes::from(discovery::aggregated(catalogue, core, version).to_string()))
        })?;
        let content_type = match version {
            "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        };
        return Ok(tagged(content_type, bytes, &hash, headers));
    }
    let encoding = accept::negotiate(headers)?.encoding;
    let address = server.inner.config.advertise_url.trim_start_matches("https://");
    let document: Option<Value> = match parts.as_slice() {
        ["api"] => Some(discovery::api_versions(catalogue, address)),
        ["apis"] => Some(discovery::api_group_list(catalogue)),
        ["api", version] => discovery::api_resource_list(catalogue, "", version),
        ["apis", group] => discovery::api_group(catalogue, group),
        ["apis", group, version] => discovery::api_resource_list(catalogue, group, version),
        _ => None,
    };
    let document = document.ok_or_else(Status::unknown_resource)?;
    let mut answer = response::value(StatusCode::OK, encoding, &document)?;
    answer.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    Ok(answer)
}

/// The version of aggregated discovery that the client prefers over the plain documents.
fn aggregated_version(headers: &HeaderMap) -> Option<&'static str> {
    for range in accept::media_ranges(headers) {
        if range.kind != "application/json" {
            continue;
        }
        match (range.parameter("g"), range.parameter("as"), range.parameter("v")) {
            (Some("apidiscovery.k8s.io"), Some("APIGroupDiscoveryList"), Some("v2")) => return Some("v2"),
            (Some("apidiscovery.k8s.io"), Some("APIGroupDiscoveryList"), Some("v2beta1")) => return Some("v2beta1"),
            (_, None, _) => return None,
            _ => {}
        }
    }
    None
}

/// `/openapi/v2`, `/openapi/v3` and its documents.
pub(crate) fn openapi(server: &ApiServer, path: &str, query: &Query, headers: &HeaderMap) -> ApiResult<Response<Body>> {
    let catalogue = &server.inner.catalogue;
    let documents = &server.inner.documents;
    match path {
        "/openapi/v2" => {
            let wants = |kind: &str| accept::media_ranges(headers).iter().any(|r| r.kind == kind);
            if wants(OPENAPI_PROTOBUF) || wants(OPENAPI_PROTOBUF_DOT) {
                let make = || Ok(Bytes::from(openapi::v2_protobuf(catalogue)));
                let (bytes, hash) = documents.get("openapi/v2 protobuf", make)?;
                return Ok(tagged(OPENAPI_PROTOBUF_DOT, bytes, &hash, headers));
            }
            let make = || encode(&openapi::v2_document(catalogue));
            let (bytes, hash) = documents.get(path, make)?;
            Ok(tagged("application/json", bytes, &hash, headers))
        }
        "/openapi/v3" => {
            let (bytes, hash) = documents.get(path, || v3_index(server))?;
            Ok(tagged("application/json", bytes, &hash, headers))
        }
        _ => {
            let (bytes, hash) = v3_document(server, path)?;
            let mut answer = tagged("application/json", bytes, &hash, headers);
            if query.get("hash").is_some_and(|h| h.eq_ignore_ascii_case(&hash)) {
                let forever = HeaderValue::from_static("public, immutable");
                answer.headers_mut().insert(header::CACHE_CONTROL, forever);
            }
            Ok(answer)
        }
    }
}

fn v3_index(server: &ApiServer) -> ApiResult<Bytes> {
    let mut paths = serde_json::Map::new();
    for (group, versions) in server.inner.catalogue.groups() {
        for version in versions {
            let name = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            let path = format!("/openapi/v3/{name}");
            let (_, hash) = v3_document(server, &path)?;
            paths.insert(name, json!({"serverRelativeURL": format!("{path}?hash={hash}")}));
        }
    }
    encode(&json!({"paths": paths}))
}

fn v3_document(server: &ApiServer, path: &str) -> ApiResult<(Bytes, Arc<str>)> {
    let parts: Vec<&str> = path.trim_start_matches("/openapi/v3/").split('/').collect();
    let (group, version) = match parts.as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] => (*group, *version),
        _ => return Err(Status::unknown_resource()),
    };
    server.inner.documents.get(path, || {
        let document = openapi::v3_document(&server.inner.catalogue, group, version);
        encode(&document.ok_or_else(Status::unknown_resource)?)
    })
}

fn encode(value: &Value) -> ApiResult<Bytes> {
    serde_json::to_vec(value).map(Bytes::from).map_err(corrupt)
}

/// A document with its ETag; 304 for a client that has it.
fn tagged(content_type: &'static str, bytes: Bytes, hash: &str, headers: &HeaderMap) -> Response<Body> {
    let etag = format!("\"{hash}\"");
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    let same = known.flat_map(|v| v.split(',')).any(|v| v.trim().trim_start_matches("W/") == etag);
    let mut answer = if same {
        response::bytes(StatusCode::NOT_MODIFIED, content_type, Bytes::new())
    } else {
        response::document(content_type, bytes, accept::accepts_gzip(headers))
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        answer.headers_mut().insert(header::ETAG, etag);
    }
    answer.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
    answer
}
