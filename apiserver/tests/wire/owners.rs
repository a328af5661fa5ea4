//! Who owns which fields, from the first write on.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::harness::{MAPS, Server, config_map, pod};

const MERGE: &str = "application/merge-patch+json";
const JSON_PATCH: &str = "application/json-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn entries(object: &Value) -> Vec<Value> {
    object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default()
}

/// `manager Operation subresource: fields`, sorted: the list is in the order of times, and a second may pass at any time.
fn owners(object: &Value) -> Vec<String> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let line = |entry: Value| {
        let (manager, operation, sub) =
            (text(&entry, "manager"), text(&entry, "operation"), text(&entry, "subresource"));
        format!("{manager} {operation} {sub}: {}", entry["fieldsV1"])
    };
    let mut lines: Vec<String> = entries(object).into_iter().map(line).collect();
    lines.sort();
    lines
}

fn deployment(name: &str, replicas: Value) -> Value {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "template": template},
    })
}

async fn patch(server: &Server, path: &str, kind: &str, body: Value) -> Value {
    let (code, object) = server.call(Method::PATCH, path, kind, body.to_string()).await;
    assert_eq!(code, StatusCode::OK, "{object}");
    object
}

#[tokio::test]
async fn every_write_is_tracked() {
    let server = Server::start().await;
    let (_, made) = server.post(&format!("{MAPS}?fieldManager=maker"), config_map("c", "1")).await;
    assert_eq!(owners(&made), [r#"maker Update : {"f:data":{".":{},"f:k":{}}}"#]);
    let entry = &entries(&made)[0];
    assert_eq!((&entry["apiVersion"], &entry["fieldsType"]), (&json!("v1"), &json!("FieldsV1")));
    let (time, made_at) = (entry["time"].as_str().unwrap(), made["metadata"]["creationTimestamp"].as_str().unwrap());
    assert!(time.len() == made_at.len() && time <= made_at, "{made}");
    let path = format!("{MAPS}/c");
    let mut new = made.clone();
    new["data"]["more"] = json!("2");
    new["metadata"]["labels"] = json!({"l": "v"});
    let (_, put) = server.put(&format!("{path}?fieldManager=putter"), new).await;
    let putter = r#"putter Update : {"f:data":{"f:more":{}},"f:metadata":{"f:labels":{".":{},"f:l":{}}}}"#;
    assert_eq!(owners(&put), [r#"maker Update : {"f:data":{".":{},"f:k":{}}}"#, putter]);
    let patched = patch(&server, &format!("{path}?fieldManager=p"), MERGE, json!({"data": {"k": "9"}})).await;
    assert_eq!(owners(&patched)[..2], [r#"maker Update : {"f:data":{}}"#, r#"p Update : {"f:data":{"f:k":{}}}"#]);
    let operations = json!([{"op": "remove", "path": "/data/k"}, {"op": "add", "path": "/data/j", "value": "1"}]);
    let patched = patch(&server, &format!("{path}?fieldManager=j"), JSON_PATCH, operations).await;
    assert_eq!(owners(&patched)[0], r#"j Update : {"f:data":{"f:j":{}}}"#);
    assert_eq!(entries(&patched).len(), 3, "who has nothing left is gone: {patched}");
}

#[tokio::test]
async fn a_write_that_changes_nothing_changes_nothing() {
    let server = Server::start().await;
    let (_, made) = server.post(MAPS, config_map("c", "1")).await;
    let path = format!("{MAPS}/c");
    let (_, same) = server.put(&format!("{path}?fieldManager=other"), made.clone()).await;
    assert_eq!(same, made);
    let same = patch(&server, &format!("{path}?fieldManager=other"), MERGE, json!({"data": {"k": "1"}})).await;
    assert_eq!(same, made);
    let mut later = made.clone();
    later["metadata"]["managedFields"][0]["time"] = json!("2001-01-01T00:00:00Z");
    let (_, same) = server.put(&path, later).await;
    assert_eq!(same, made, "times alone are no change");
    let mut without = config_map("c", "1");
    without["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    let (_, same) = server.put(&format!("{path}?fieldManager=other"), without).await;
    assert_eq!(same, made, "a client that knows nothing of owners does not take them away");
}

#[tokio::test]
async fn the_list_can_be_written() {
    let server = Server::start().await;
    let (_, made) = server.post(&format!("{MAPS}?fieldManager=one"), config_map("c", "1")).await;
    let path = format!("{MAPS}/c");
    let rename = json!([{"op": "replace", "path": "/metadata/managedFields/0/manager", "value": "two"}]);
    let renamed = patch(&server, &path, JSON_PATCH, rename).await;
    assert_eq!(owners(&renamed), [r#"two Update : {"f:data":{".":{},"f:k":{}}}"#]);
    assert_ne!(renamed["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let mut wrong = renamed.clone();
    wrong["metadata"]["managedFields"][0]["operation"] = json!("Guess");
    let (code, kept) = server.put(&path, wrong).await;
    assert_eq!((code, owners(&kept)), (StatusCode::OK, owners(&renamed)), "what makes no sense is not taken");
    let bare = patch(&server, &path, MERGE, json!({"metadata": {"managedFields": [{}]}})).await;
    assert!(bare["metadata"].get("managedFields").is_none(), "{bare}");
    let (_, read) = server.get(&path).await;
    assert_eq!(read, bare);
}

#[tokio::test]
async fn sub_resources_have_owners_of_their_own() {
    let server = Server::start().await;
    let path = format!("{DEPLOYMENTS}/d");
    let (code, made) = server.post(&format!("{DEPLOYMENTS}?fieldManager=user"), deployment("d", json!(1))).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let fields = &entries(&made)[0]["fieldsV1"]["f:spec"];
    assert_eq!(fields["f:replicas"], json!({}));
    let container = json!({".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:resources": {},
        "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}});
    assert_eq!(fields["f:template"]["f:spec"]["f:containers"], json!({r#"k:{"name":"c"}"#: container}));
    assert!(made["metadata"]["managedFields"].to_string().find("f:status").is_none());
    let mut status = json!({"status": {"replicas": 1, "observedGeneration": 1}});
    let done = patch(&server, &format!("{path}/status?fieldManager=kcm"), MERGE, status.clone()).await;
    assert_eq!(owners(&done)[0], r#"kcm Update status: {"f:status":{"f:observedGeneration":{},"f:replicas":{}}}"#);
    assert_eq!(patch(&server, &format!("{path}/status?fieldManager=x"), MERGE, status.take()).await, done);
    let scale = json!({"spec": {"replicas": 3}});
    let scaled = patch(&server, &format!("{path}/scale?fieldManager=hpa"), MERGE, scale).await;
    assert!(scaled["metadata"].get("managedFields").is_none(), "{scaled}");
    let (_, object) = server.get(&path).await;
    assert!(owners(&object).contains(&r#"hpa Update scale: {"f:spec":{"f:replicas":{}}}"#.to_owned()), "{object}");
    assert_eq!(entries(&object).len(), 3);
    let user = entries(&object).into_iter().find(|entry| entry["manager"] == "user").unwrap();
    assert!(user["fieldsV1"]["f:spec"].get("f:replicas").is_none(), "who has scaled owns the replicas");
}

#[tokio::test]
async fn a_scale_can_be_applied() {
    let server = Server::start().await;
    let path = format!("{DEPLOYMENTS}/d");
    server.post(&format!("{DEPLOYMENTS}?fieldManager=user"), deployment("d", json!(1))).await;
    let scale = |replicas: Value| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": replicas}});
    let at = format!("{path}/scale?fieldManager=hpa");
    let (code, status) = server.call(Method::PATCH, &at, APPLY, scale(json!(2)).to_string()).await;
    assert_eq!(code, StatusCode::CONFLICT);
    let why = r#"Apply failed with 1 conflict: conflict with "user" using autoscaling/v1: .spec.replicas"#;
    assert_eq!(status["message"], why);
    let (code, done) =
        server.call(Method::PATCH, &format!("{at}&force=true"), APPLY, scale(json!(2)).to_string()).await;
    assert_eq!((code, &done["spec"]["replicas"]), (StatusCode::OK, &json!(2)), "{done}");
    let (_, object) = server.get(&path).await;
    assert_eq!(owners(&object)[0], r#"hpa Apply scale: {"f:spec":{"f:replicas":{}}}"#);
    let (_, again) = server.call(Method::PATCH, &at, APPLY, scale(json!(2)).to_string()).await;
    assert_eq!(again["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
    for (body, why) in [
        (deployment("d", json!(1)), "expected a Scale"),
        (scale(json!("many")), "failed to create typed patch object (default/d; autoscaling/v1, Kind=Scale)"),
        (json!({"apiVersion": "v9", "kind": "Scale"}), "expected: autoscaling/v1"),
        (json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spek": {}}), ".spek: field not declared in schema"),
    ] {
        let (code, status) = server.call(Method::PATCH, &at, APPLY, body.to_string()).await;
        assert_eq!(code, StatusCode::BAD_REQUEST, "{status}");
        assert!(status["message"].as_str().unwrap().contains(why), "{why}: {status}");
    }
}

#[tokio::test]
async fn kubectl_goes_from_client_side_apply_to_the_servers() {
    let server = Server::start().await;
    let key = "kubectl.kubernetes.io/last-applied-configuration";
    let mut map = config_map("c", "1");
    map["metadata"]["annotations"] = json!({key: map.to_string()});
    server.post(&format!("{MAPS}?fieldManager=kubectl-client-side-apply"), map).await;
    let path = format!("{MAPS}/c?fieldManager=kubectl");
    let mut wanted = config_map("c", "2");
    let (code, done) = server.call(Method::PATCH, &path, APPLY, wanted.to_string()).await;
    assert_eq!(code, StatusCode::OK, "what client-side apply has written is no conflict: {done}");
    wanted["metadata"]["namespace"] = json!("default");
    wanted.sort_all_objects();
    assert_eq!(done["metadata"]["annotations"][key], format!("{wanted}\n"), "so that it can go back");
    let (_, other) =
        server.call(Method::PATCH, &format!("{MAPS}/c?fieldManager=x"), APPLY, config_map("c", "2").to_string()).await;
    assert_eq!(other["metadata"]["annotations"][key], format!("{wanted}\n"));
}

#[tokio::test]
async fn who_binds_and_deletes_owns_nothing() {
    let server = Server::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let (_, made) = server.post(&format!("{pods}?fieldManager=user"), pod("p")).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let (code, _) = server.post(&format!("{pods}/p/binding?fieldManager=scheduler"), binding).await;
    assert_eq!(code, StatusCode::CREATED);
    let (_, bound) = server.get(&format!("{pods}/p")).await;
    assert_eq!((&bound["spec"]["nodeName"], owners(&bound)), (&json!("n"), owners(&made)));
    server.delete(&format!("{pods}/p?fieldManager=killer")).await;
    let (_, going) = server.get(&format!("{pods}/p")).await;
    assert_eq!((going["metadata"]["deletionTimestamp"].is_string(), owners(&going)), (true, owners(&made)));
}

#[tokio::test]
async fn those_who_do_not_want_to_see_them_do_not() {
    let server = Server::start().await;
    let client = server.admin().await;
    server.post(MAPS, config_map("c", "1")).await;
    for (path, accept) in [
        (format!("{MAPS}/c"), "application/json"),
        (MAPS.to_owned(), "application/json"),
        (MAPS.to_owned(), "application/yaml"),
        (format!("{MAPS}/c"), "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
        (format!("{MAPS}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name=c"), "application/json"),
        ("/apis/autoscaling/v2/horizontalpodautoscalers".to_owned(), "application/json"),
    ] {
        let ask = |omit: bool| {
            let mut request = http::Request::get(&path).header("accept", accept);
            if omit {
                request = request.header("trireme-omit-managed-fields", "true");
            }
            client.request_text(request.body(Vec::new()).unwrap())
        };
        let (all, less) = (ask(false).await.unwrap(), ask(true).await.unwrap());
        assert!(!less.contains("managedFields"), "{less}");
        assert!(path.contains("autoscaling") || all.contains("managedFields"), "{path}: {all}");
    }
}

#[tokio::test]
async fn what_has_no_room_with_its_owners_is_stored_without() {
    let server = Server::start().await;
    let keys: serde_json::Map<String, Value> = (0..60_000).map(|i| (format!("k{i:05}"), json!("v"))).collect();
    let mut large = config_map("large", "1");
    large["data"] = Value::Object(keys);
    let (code, made) = server.post(MAPS, large).await;
    assert_eq!((code, entries(&made).len()), (StatusCode::CREATED, 0), "{}", made["message"]);
    let mut small = config_map("small", "1");
    small["data"] = json!({"k": "v".repeat(700_000)});
    let (code, made) = server.post(MAPS, small).await;
    assert_eq!((code, entries(&made).len()), (StatusCode::CREATED, 1));
}
