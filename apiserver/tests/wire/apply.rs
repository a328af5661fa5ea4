//! Server-side apply over the wire.

use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::harness::{MAPS, Server};

const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

async fn apply(server: &Server, path: &str, manager: &str, body: &Value) -> (StatusCode, Value) {
    let joint = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{joint}fieldManager={manager}");
    server.call(Method::PATCH, &path, APPLY, body.to_string()).await
}

fn owners(object: &Value) -> Vec<String> {
    let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |key: &str, e: &Value| e[key].as_str().unwrap_or_default().to_owned();
    list.iter().map(|e| format!("{} {} {}", text("manager", e), text("operation", e), e["fieldsV1"])).collect()
}

#[tokio::test]
async fn applying_creates_changes_and_removes() {
    let server = Server::start().await;
    let path = format!("{MAPS}/a");
    let (code, made) = apply(&server, &path, "one", &map("a", json!({"x": "1", "y": "1"}))).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(owners(&made), [r#"one Apply {"f:data":{"f:x":{},"f:y":{}}}"#]);
    assert_eq!(made["metadata"]["namespace"], "default");
    let (code, same) = apply(&server, &path, "one", &map("a", json!({"x": "1", "y": "1"}))).await;
    assert_eq!((code, &same["metadata"]["resourceVersion"]), (StatusCode::OK, &made["metadata"]["resourceVersion"]));
    let (code, less) = apply(&server, &path, "one", &map("a", json!({"x": "2"}))).await;
    assert_eq!((code, &less["data"]), (StatusCode::OK, &json!({"x": "2"})));
    let (_, dry) = apply(&server, &format!("{path}?dryRun=All"), "one", &map("a", json!({"x": "3"}))).await;
    assert_eq!(dry["data"], json!({"x": "3"}));
    assert_eq!(server.get(&path).await.1["data"], json!({"x": "2"}));
    let (code, _) = apply(&server, &format!("{MAPS}/dry?dryRun=All"), "one", &map("dry", json!({}))).await;
    assert_eq!(code, StatusCode::CREATED);
    assert_eq!(server.get(&format!("{MAPS}/dry")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn conflicts_are_told_and_forced() {
    let server = Server::start().await;
    let path = format!("{MAPS}/a");
    apply(&server, &path, "one", &map("a", json!({"x": "1"}))).await;
    let patch = json!({"data": {"x": "2", "z": "2"}}).to_string();
    let (_, patched) = server.call(Method::PATCH, &format!("{path}?fieldManager=two"), MERGE, patch).await;
    assert_eq!(owners(&patched), [r#"two Update {"f:data":{"f:x":{},"f:z":{}}}"#], "{patched}");
    let (code, status) = apply(&server, &path, "one", &map("a", json!({"x": "3"}))).await;
    assert_eq!((code, &status["reason"]), (StatusCode::CONFLICT, &json!("Conflict")));
    assert_eq!(status["message"], r#"Apply failed with 1 conflict: conflict with "two" using v1: .data.x"#);
    let cause =
        json!({"reason": "FieldManagerConflict", "message": r#"conflict with "two" using v1"#, "field": ".data.x"});
    assert_eq!(status["details"]["causes"], json!([cause]));
    let (code, forced) = apply(&server, &format!("{path}?force=true"), "one", &map("a", json!({"x": "3"}))).await;
    assert_eq!((code, &forced["data"]), (StatusCode::OK, &json!({"x": "3", "z": "2"})));
    assert_eq!(owners(&forced).len(), 2);
    // A client library's way.
    let maps: Api<ConfigMap> = Api::default_namespaced(server.admin().await);
    let made: ConfigMap = serde_json::from_value(map("a", json!({"k": "1"}))).unwrap();
    let done = maps.patch("a", &PatchParams::apply("three"), &Patch::Apply(&made)).await.unwrap();
    assert_eq!(done.data.unwrap().len(), 3);
}

#[tokio::test]
async fn what_nobody_owns_is_owned_before_the_first_apply() {
    let server = Server::start().await;
    let (_, made) = server.post(MAPS, map("old", json!({"x": "1"}))).await;
    assert_eq!(owners(&made), [r#"admin Update {"f:data":{".":{},"f:x":{}}}"#]);
    let path = format!("{MAPS}/old");
    for (i, reset) in [json!([{}]), json!([])].into_iter().enumerate() {
        let patch = json!({"metadata": {"managedFields": reset}, "data": {"n": i.to_string()}}).to_string();
        let (_, bare) = server.call(Method::PATCH, &path, MERGE, patch).await;
        assert_eq!(owners(&bare), Vec::<String>::new());
        let patch = json!({"data": {"m": i.to_string()}}).to_string();
        let (_, bare) = server.call(Method::PATCH, &path, MERGE, patch).await;
        assert_eq!(owners(&bare), Vec::<String>::new(), "it stays untracked until it is applied");
        let (code, status) = apply(&server, &path, "one", &map("old", json!({"x": "2"}))).await;
        assert_eq!(code, StatusCode::CONFLICT);
        assert!(status["message"].as_str().unwrap().contains(r#""before-first-apply" using v1: .data.x"#), "{status}");
        let (_, applied) = apply(&server, &path, "one", &map("old", json!({"y": "2"}))).await;
        assert_eq!(owners(&applied).len(), 2, "{applied}");
    }
}

#[tokio::test]
async fn the_status_has_owners_of_its_own() {
    let server = Server::start().await;
    let path = "/apis/apps/v1/namespaces/default/deployments/d";
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": template});
    let mut body = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec});
    let (code, made) = apply(&server, path, "user", &body).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(made["spec"]["strategy"]["type"], "RollingUpdate", "defaults are filled in, and nobody's");
    body["status"] = json!({"replicas": 2});
    let (code, status) = apply(&server, &format!("{path}/status"), "controller", &body).await;
    assert_eq!((code, &status["status"]["replicas"]), (StatusCode::OK, &json!(2)), "{status}");
    let entries = status["metadata"]["managedFields"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["subresource"] == "status").unwrap();
    assert_eq!(entry["fieldsV1"], json!({"f:status": {"f:replicas": {}}}));
    let (code, _) = apply(&server, "/apis/apps/v1/namespaces/default/deployments/none/status", "c", &body).await;
    assert_ne!(code, StatusCode::CREATED);
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused() {
    let server = Server::start().await;
    let path = format!("{MAPS}/a");
    let body = map("a", json!({"x": "1"}));
    let (code, status) = server.call(Method::PATCH, &path, APPLY, body.to_string()).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    let why = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
    assert_eq!(status["message"], why);
    let mut managed = body.clone();
    managed["metadata"]["managedFields"] = json!([]);
    let mut unknown = body.clone();
    unknown["dat"] = json!({});
    let mut kind = body.clone();
    kind["kind"] = json!("Secret");
    let mut typed = body.clone();
    typed["data"] = json!(5);
    for (body, why) in [
        (json!({}), "apiVersion must be set"),
        (json!([]), "must be an object"),
        (managed, "managedFields must be nil"),
        (unknown, ".dat: field not declared in schema"),
        (kind, "does not match the expected API version"),
        (typed, "failed to create typed patch object (default/a; /v1, Kind=ConfigMap)"),
        (map("b", json!({})), "does not match the name on the URL"),
    ] {
        let (code, status) = apply(&server, &path, "m", &body).await;
        assert_eq!(code, StatusCode::BAD_REQUEST, "{body}: {status}");
        assert!(status["message"].as_str().unwrap().contains(why), "{why}: {status}");
    }
    assert_eq!(server.get(&path).await.0, StatusCode::NOT_FOUND, "nothing was made");
}
