//! Bad input gets a clear Status with the right code, and changes nothing.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::json;

use super::harness::{ADMIN, MAPS, PODS, Server, config_map, pod};

#[tokio::test]
async fn bodies() {
    let server = Server::start().await;
    let json = "application/json";
    let unknown_kind = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}).to_string();
    let wrong_type = json!({"metadata": {"name": "x"}, "data": {"a": 1}}).to_string();
    let bad_label = json!({"metadata": {"name": "x", "labels": {"a": "no spaces"}}}).to_string();
    let cases: Vec<(&str, &str, String, u16, &str)> = vec![
        (MAPS, json, "{".into(), 400, "BadRequest"),
        (MAPS, json, "[]".into(), 400, "BadRequest"),
        (MAPS, "application/yaml", "a: [".into(), 400, "BadRequest"),
        (MAPS, json, unknown_kind, 400, "BadRequest"),
        (MAPS, json, wrong_type, 400, "BadRequest"),
        (MAPS, json, bad_label, 422, "Invalid"),
        (MAPS, json, json!({"metadata": {"name": "Not_Valid"}}).to_string(), 422, "Invalid"),
        (MAPS, json, json!({"metadata": {}}).to_string(), 422, "Invalid"),
        (MAPS, "application/vnd.kubernetes.protobuf", "k8s".into(), 400, "BadRequest"),
        (MAPS, "text/plain", "x".into(), 415, "UnsupportedMediaType"),
        (MAPS, json, "x".repeat(4 << 20), 413, "RequestEntityTooLarge"),
        ("/api/v1/namespaces/default/nothings", json, "{}".into(), 404, "NotFound"),
        ("/apis/none/v1/things", json, "{}".into(), 404, "NotFound"),
        (&format!("{MAPS}?dryRun=Some"), json, config_map("x", "1").to_string(), 422, "Invalid"),
    ]
    .into_iter()
    .map(|(path, kind, body, code, reason)| {
        (Box::leak(path.to_owned().into_boxed_str()) as &str, kind, body, code, reason)
    })
    .collect();
    for (path, kind, body, code, reason) in cases {
        let shown: String = body.chars().take(60).collect();
        let (got, status) = server.call(Method::POST, path, kind, body).await;
        assert_eq!((got.as_u16(), status["reason"].as_str().unwrap_or_default()), (code, reason), "{shown}: {status}");
        assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(code)));
        assert!(!status["message"].as_str().unwrap().is_empty());
    }
    assert_eq!(server.get(MAPS).await.1["items"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn queries_and_methods() {
    let server = Server::start().await;
    let cases = [
        (Method::GET, format!("{MAPS}?labelSelector=%21%21"), 400),
        (Method::GET, format!("{MAPS}?fieldSelector=spec.nope%3D1"), 400),
        (Method::GET, format!("{MAPS}?limit=x"), 400),
        (Method::GET, format!("{MAPS}?continue=zzz"), 400),
        (Method::GET, format!("{MAPS}?resourceVersion=abc"), 400),
        (Method::GET, format!("{MAPS}?resourceVersionMatch=Exact"), 422),
        (Method::GET, format!("{MAPS}?resourceVersion=99999999"), 504),
        (Method::GET, format!("{MAPS}?watch=1&sendInitialEvents=true"), 422),
        (Method::POST, format!("{MAPS}/named"), 405),
        (Method::PUT, MAPS.to_owned(), 405),
        (Method::GET, format!("{PODS}/none/log"), 404),
        (Method::GET, "/nothing/here".to_owned(), 404),
        (Method::POST, "/version".to_owned(), 405),
        (Method::DELETE, format!("{MAPS}?propagationPolicy=Sideways"), 422),
    ];
    for (method, path, code) in cases {
        let (got, status) = server.call(method.clone(), &path, "application/json", "").await;
        assert_eq!(got.as_u16(), code, "{method} {path}: {status}");
        assert_eq!(status["kind"], "Status", "{method} {path}");
    }
    let unacceptable = Request::get(MAPS).header("accept", "application/vnd.kubernetes.protobuf");
    let answer = server.raw(Some(ADMIN), unacceptable.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn field_validation() {
    let server = Server::start().await;
    let mut typo = pod("typo");
    typo["spec"]["containerz"] = json!([]);
    let strict = format!("{PODS}?fieldValidation=Strict");
    let (code, status) = server.post(&strict, typo.clone()).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert_eq!(
        status["message"],
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.containerz\""
    );
    let request = Request::post(format!("{PODS}?fieldValidation=Warn")).header("content-type", "application/json");
    let answer = server.raw(Some(ADMIN), request.body(Body::from(typo.to_string())).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(answer.headers()["warning"], "299 - \"unknown field \\\"spec.containerz\\\"\"");
}
