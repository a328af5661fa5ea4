//! What clients send around their objects: options, names and namespaces, encodings, and the protocol below.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::harness::{ADMIN, MAPS, PODS, Server, config_map, pod};

const MERGE: &str = "application/merge-patch+json";

fn invalid(kind: &str, why: &str) -> String {
    format!("{kind}.meta.k8s.io \"\" is invalid: {why}")
}

#[tokio::test]
async fn options_are_checked() {
    let server = Server::start().await;
    let long = "x".repeat(129);
    let rule = "resourceVersionMatch: ";
    let cases = [
        (Method::POST, "dryRun=Some".to_owned(), "CreateOptions", "dryRun: Unsupported value: [\"Some\"]: supported values: \"All\"".to_owned()),
        (Method::PUT, "dryRun=".into(), "UpdateOptions", "dryRun: Unsupported value: [\"\"]: supported values: \"All\"".into()),
        (Method::POST, format!("fieldManager={long}"), "CreateOptions", "fieldManager: Too long: may not be more than 128 bytes".into()),
        (Method::PUT, "fieldManager=a%07".into(), "UpdateOptions", "fieldManager: Invalid value: \"a\\x07\": invalid character U+0007 (at position 1)".into()),
        (Method::POST, "fieldValidation=Loose".into(), "CreateOptions", "fieldValidation: Unsupported value: \"Loose\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"".into()),
        (Method::PATCH, "force=true".into(), "PatchOptions", "force: Forbidden: may not be specified for non-apply patch".into()),
        (Method::GET, "resourceVersionMatch=Exact".into(), "ListOptions", format!("{rule}Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided")),
        (Method::GET, "resourceVersionMatch=Exact&resourceVersion=0".into(), "ListOptions", format!("{rule}Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")),
        (Method::GET, "resourceVersionMatch=Some&resourceVersion=1".into(), "ListOptions", format!("{rule}Unsupported value: \"Some\": supported values: \"Exact\", \"NotOlderThan\", \"\"")),
        (Method::GET, "sendInitialEvents=true".into(), "ListOptions", "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list".into()),
        (Method::GET, "watch=true&sendInitialEvents=true".into(), "ListOptions", format!("{rule}Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")),
        (Method::GET, "watch=true&resourceVersionMatch=NotOlderThan".into(), "ListOptions", format!("{rule}Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")),
        (Method::DELETE, "propagationPolicy=Sideways".into(), "DeleteOptions", "propagationPolicy: Unsupported value: \"Sideways\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"".into()),
        (Method::DELETE, "propagationPolicy=Orphan&orphanDependents=true".into(), "DeleteOptions", "propagationPolicy: Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot be both set".into()),
    ];
    server.post(MAPS, config_map("there", "1")).await;
    for (method, query, kind, why) in cases {
        let named = matches!(method, Method::PUT | Method::PATCH | Method::DELETE);
        let path = format!("{MAPS}{}?{query}", if named { "/there" } else { "" });
        let content = if method == Method::PATCH { MERGE } else { "application/json" };
        let body = if method == Method::DELETE { String::new() } else { config_map("there", "2").to_string() };
        let (code, status) = server.call(method.clone(), &path, content, body).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{method} {path}: {status}");
        assert_eq!(status["message"], invalid(kind, &why), "{method} {path}");
        assert_eq!((&status["details"]["group"], &status["details"]["kind"]), (&json!("meta.k8s.io"), &json!(kind)));
    }
    let options = json!({"dryRun": ["Some"]}).to_string();
    let (code, status) = server.call(Method::DELETE, &format!("{MAPS}/there"), "application/json", options).await;
    assert_eq!((code, &status["reason"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("Invalid")));
    let (_, left) = server.get(&format!("{MAPS}/there")).await;
    assert_eq!(left["data"]["k"], "1");
}

#[tokio::test]
async fn booleans_are_read_in_any_case() {
    let server = Server::start().await;
    server.post(MAPS, config_map("a", "1")).await;
    // As Python's str(False) writes it.
    let (code, list) = server.get(&format!("{MAPS}?watch=False&limit=0")).await;
    assert_eq!((code, &list["kind"]), (StatusCode::OK, &json!("ConfigMapList")));
    assert_eq!(server.get(&format!("{MAPS}?limit=-1")).await.1["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn names_and_namespaces_have_to_match() {
    let server = Server::start().await;
    server.post(MAPS, config_map("one", "1")).await;
    let path = format!("{MAPS}/one");
    let message = async |method: Method, body: Value| {
        let kind = if method == Method::PATCH { MERGE } else { "application/json" };
        let (code, status) = server.call(method, &path, kind, body.to_string()).await;
        assert_eq!(code, StatusCode::BAD_REQUEST, "{status}");
        status["message"].as_str().unwrap().to_owned()
    };
    let mut nameless = config_map("", "2");
    nameless["metadata"] = json!({});
    let undeterminable = "the name of the object (one based on URL) was undeterminable: name must be provided";
    assert_eq!(message(Method::PUT, nameless).await, undeterminable);
    let other = "the name of the object (two) does not match the name on the URL (one)";
    assert_eq!(message(Method::PUT, config_map("two", "2")).await, other);
    assert_eq!(message(Method::PATCH, json!({"metadata": {"name": "two"}})).await, other);
    let elsewhere = "the namespace of the object (kube-system) does not match the namespace on the request (default)";
    let moved = json!({"metadata": {"name": "one", "namespace": "kube-system"}});
    assert_eq!(message(Method::PUT, moved.clone()).await, elsewhere);
    assert_eq!(message(Method::PATCH, moved).await, elsewhere);
    // Where there is no namespace, one that is given does not matter.
    let team = json!({"metadata": {"name": "team", "namespace": "default"}});
    let (code, made) = server.post("/api/v1/namespaces", team.clone()).await;
    assert_eq!((code, &made["metadata"]["namespace"]), (StatusCode::CREATED, &Value::Null), "{made}");
    let (code, patched) = server.call(Method::PATCH, "/api/v1/namespaces/team", MERGE, team.to_string()).await;
    assert_eq!((code, &patched["metadata"]["namespace"]), (StatusCode::OK, &Value::Null), "{patched}");
}

#[tokio::test]
async fn preconditions_fail_in_upstreams_words() {
    let server = Server::start().await;
    let (_, map) = server.post(MAPS, config_map("one", "1")).await;
    let (uid, version) =
        (map["metadata"]["uid"].as_str().unwrap(), map["metadata"]["resourceVersion"].as_str().unwrap());
    let path = format!("{MAPS}/one");
    let conflict = async |method: Method, kind: &str, body: Value| {
        let (code, status) = server.call(method, &path, kind, body.to_string()).await;
        (code.as_u16(), status["message"].as_str().unwrap_or_default().to_owned())
    };
    let options = |preconditions: Value| json!({"preconditions": preconditions});
    let deleted = conflict(Method::DELETE, "application/json", options(json!({"uid": "x"}))).await;
    let on = "Operation cannot be fulfilled on ConfigMap \"one\":";
    let recreated = "The object might have been deleted and then recreated";
    let why = format!("{on} the UID in the precondition (x) does not match the UID in record ({uid}). {recreated}");
    assert_eq!(deleted, (409, why));
    let deleted = conflict(Method::DELETE, "application/json", options(json!({"resourceVersion": "1"}))).await;
    let why = format!(
        "{on} the ResourceVersion in the precondition (1) does not match the ResourceVersion in record ({version})."
    );
    assert_eq!(deleted, (409, format!("{why} The object might have been modified")));
    let mut other = config_map("one", "2");
    other["metadata"]["uid"] = json!("x");
    let failed = "AdditionalErrorMsg: Precondition failed: UID in precondition: x, UID in object meta:";
    let stored = "StorageError: invalid object, Code: 4, Key: /registry/configmaps/default/one, ResourceVersion: 0,";
    let why = format!("Operation cannot be fulfilled on configmaps \"one\": {stored} {failed} {uid}");
    assert_eq!(conflict(Method::PUT, "application/json", other).await, (409, why));
    let why = "ConfigMap \"one\" is invalid: metadata.uid: Invalid value: \"x\": field is immutable";
    assert_eq!(conflict(Method::PATCH, MERGE, json!({"metadata": {"uid": "x"}})).await, (422, why.to_owned()));
    let why = "patch: Invalid value: \"map[data:map[k:1]]\": cannot convert int64 to string";
    let patched = conflict(Method::PATCH, "application/strategic-merge-patch+json", json!({"data": {"k": 1}})).await;
    assert_eq!(patched, (422, format!(" \"\" is invalid: {why}")));
    let (code, why) = conflict(Method::PATCH, MERGE, json!({"data": {"k": 1}})).await;
    assert_eq!(code, 422);
    let text = "json: cannot unmarshal number into Go struct field ConfigMap.data of type string";
    assert!(
        why.starts_with(" \"\" is invalid: patch: Invalid value: \"{\\\"kind\\\":") && why.ends_with(text),
        "{why}"
    );
}

#[tokio::test]
async fn finalizers_have_domains() {
    let server = Server::start().await;
    let mut map = config_map("one", "1");
    map["metadata"]["finalizers"] = json!(["nope"]);
    let (code, status) = server.post(MAPS, map.clone()).await;
    let why = "name is neither a standard finalizer name nor is it fully qualified";
    let message =
        json!(format!("ConfigMap \"one\" is invalid: metadata.finalizers[0]: Invalid value: \"nope\": {why}"));
    assert_eq!((code, &status["message"]), (StatusCode::UNPROCESSABLE_ENTITY, &message));
    map["metadata"]["finalizers"] = json!(["orphan", "e.com/f"]);
    assert_eq!(server.post(MAPS, map).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn what_is_not_there_is_not_applied_under_a_uid() {
    let server = Server::start().await;
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"uid": "x"}}).to_string();
    let path = format!("{MAPS}/one?fieldManager=m");
    let (code, status) = server.call(Method::PATCH, &path, "application/apply-patch+yaml", body).await;
    let why = "uid mismatch: the provided object specified uid x, and no existing object was found";
    let message = json!(format!("Operation cannot be fulfilled on configmaps \"one\": {why}"));
    assert_eq!((code, &status["message"]), (StatusCode::CONFLICT, &message));
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "nope": 1}).to_string();
    let (code, status) = server.call(Method::PATCH, &path, "application/apply-patch+yaml", body).await;
    let why =
        "failed to create typed patch object (default/one; /v1, Kind=ConfigMap): .nope: field not declared in schema";
    assert_eq!((code, &status["message"]), (StatusCode::BAD_REQUEST, &json!(why)));
}

#[tokio::test]
async fn deletions_by_uid_in_the_query() {
    let server = Server::start().await;
    server.post(MAPS, config_map("u", "1")).await;
    let (code, status) = server.delete(&format!("{MAPS}/u?uid=another")).await;
    assert_eq!((code, &status["reason"]), (StatusCode::CONFLICT, &json!("Conflict")));
    let (_, map) = server.get(&format!("{MAPS}/u")).await;
    let uid = map["metadata"]["uid"].as_str().unwrap();
    assert_eq!(server.delete(&format!("{MAPS}/u?uid={uid}")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn people_get_indented_json() {
    let server = Server::start().await;
    server.post(PODS, pod("p")).await;
    let get = async |path: &str, agent: &'static str| {
        let request = Request::get(path).header("user-agent", agent).body(Body::empty()).unwrap();
        let bytes = server.raw(Some(ADMIN), request).await.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    };
    let one = format!("{PODS}/p");
    for (path, agent, indented) in [
        (one.clone(), "kubectl", false),
        (one.clone(), "curl/7.88.1", true),
        (format!("{one}?pretty=true"), "kubectl", true),
        (format!("{one}?pretty=false"), "curl/7.88.1", false),
        (PODS.to_owned(), "Wget/1.21", true),
        ("/apis".to_owned(), "Mozilla/5.0 (X11)", true),
        (format!("{PODS}/none"), "curl/7.88.1", true),
        ("/nothing".to_owned(), "curl/7.88.1", true),
    ] {
        let text = get(&path, agent).await;
        assert_eq!(text.starts_with("{\n  \""), indented, "{path} for {agent}: {text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(value["kind"].is_string());
    }
    // A stream is told line by line to everyone.
    let watched = get(&format!("{PODS}?watch=1&timeoutSeconds=1"), "curl/7.88.1").await;
    assert!(watched.starts_with("{\"type\":\"ADDED\""), "{watched}");
}

#[tokio::test]
async fn methods_and_media_types() {
    let server = Server::start().await;
    server.post(MAPS, config_map("m", "1")).await;
    let call = async |method: Method, path: &str, name: &'static str, value: &'static str, body: &str| {
        let request = Request::builder().method(method).uri(path).header(name, value);
        let answer = server.raw(Some(ADMIN), request.body(Body::from(body.to_owned())).unwrap()).await;
        (answer.status().as_u16(), answer.into_body().collect().await.unwrap().to_bytes())
    };
    let charset = "application/json; charset=utf-8";
    let body = config_map("utf", "ä").to_string();
    assert_eq!(call(Method::POST, MAPS, "content-type", charset, &body).await.0, 201);
    assert_eq!(call(Method::OPTIONS, MAPS, "accept", "*/*", "").await.0, 405);
    assert_eq!(call(Method::PUT, MAPS, "content-type", "application/json", &body).await.0, 405);
    for path in [MAPS, "/readyz", "/apis"] {
        assert_eq!(call(Method::HEAD, path, "accept", "*/*", "").await, (200, Vec::new().into()), "{path}");
    }
    assert_eq!(call(Method::HEAD, "/nothing", "user-agent", "curl", "").await, (404, Vec::new().into()));
    let go = "application/vnd.kubernetes.protobuf, */*";
    assert_eq!(call(Method::GET, MAPS, "accept", go, "").await.0, 200);
    assert_eq!(call(Method::GET, MAPS, "accept", "application/vnd.kubernetes.protobuf", "").await.0, 406);
    let patch = call(Method::PATCH, &format!("{MAPS}/m"), "content-type", "application/json", "{}").await;
    assert_eq!(patch.0, 415);
    let status: Value = serde_json::from_slice(&patch.1).unwrap();
    assert!(status["message"].as_str().unwrap().contains("application/strategic-merge-patch+json"), "{status}");
}
