//! Discovery, OpenAPI, health, version, metrics.

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;

use super::harness::{ADMIN, Server};

#[tokio::test]
async fn documents() {
    let server = Server::start().await;
    let (_, versions) = server.get("/api").await;
    assert_eq!(versions["versions"], json!(["v1"]));
    let (_, apps) = server.get("/apis/apps/v1").await;
    assert!(apps["resources"].as_array().unwrap().iter().any(|r| r["name"] == "deployments/scale"));
    assert_eq!(server.get("/apis/none").await.0, StatusCode::NOT_FOUND);
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let request = Request::get("/apis").header("accept", accept).body(Body::empty()).unwrap();
    let answer = server.raw(Some(ADMIN), request).await;
    assert_eq!(
        answer.headers()["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let etag = answer.headers()["etag"].clone();
    let body: serde_json::Value =
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(body["kind"], "APIGroupDiscoveryList");
    let request =
        Request::get("/apis").header("accept", accept).header("if-none-match", etag).body(Body::empty()).unwrap();
    assert_eq!(server.raw(Some(ADMIN), request).await.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn openapi() {
    let server = Server::start().await;
    let (code, index) = server.get("/openapi/v3").await;
    assert_eq!(code, StatusCode::OK);
    let path = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let (code, apps) = server.get(&path).await;
    assert_eq!((code, &apps["openapi"]), (StatusCode::OK, &json!("3.0.0")));
    let accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let request = Request::get("/openapi/v2").header("accept", accept).body(Body::empty()).unwrap();
    let answer = server.raw(Some(ADMIN), request).await;
    assert_eq!(answer.headers()["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    assert!(!answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    assert_eq!(server.get("/openapi/v3/apis/none/v1").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn health_version_metrics() {
    let server = Server::start().await;
    for path in ["/healthz", "/livez", "/readyz", "/readyz/quorum", "/readyz/ping"] {
        assert_eq!(server.get(path).await, (StatusCode::OK, json!("ok")), "{path}");
    }
    let (_, verbose) = server.get("/readyz?verbose").await;
    assert!(verbose.as_str().unwrap().ends_with("readyz check passed\n"), "{verbose}");
    assert_eq!(server.get("/readyz/none").await.0, StatusCode::NOT_FOUND);
    let (_, version) = server.get("/version").await;
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("36")));
    let (code, metrics) = server.get("/metrics").await;
    assert_eq!(code, StatusCode::OK);
    assert!(metrics.as_str().unwrap().contains("apiserver_request_total{"));
}
