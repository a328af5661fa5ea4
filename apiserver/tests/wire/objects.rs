//! Creating, reading, changing and deleting objects.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::harness::{ADMIN, MAPS, PODS, Server, config_map, pod};

const MERGE: &str = "application/merge-patch+json";

#[tokio::test]
async fn life_of_an_object() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.admin().await);
    let made: ConfigMap = serde_json::from_value(config_map("a", "1")).unwrap();
    let created = maps.create(&PostParams::default(), &made).await.unwrap();
    assert!(created.uid().is_some() && created.metadata.creation_timestamp.is_some());
    let read = maps.get("a").await.unwrap();
    assert_eq!(read, created);
    let mut first = read.clone();
    first.data.as_mut().unwrap().insert("k".into(), "2".into());
    let updated = maps.replace("a", &PostParams::default(), &first).await.unwrap();
    assert_ne!(updated.resource_version(), read.resource_version());
    // The old resourceVersion loses.
    let kube::Error::Api(conflict) = maps.replace("a", &PostParams::default(), &first).await.unwrap_err() else {
        panic!()
    };
    assert_eq!((conflict.code, conflict.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        conflict.message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );
    // A write that changes nothing has no new revision.
    let same = maps.replace("a", &PostParams::default(), &updated).await.unwrap();
    assert_eq!(same.resource_version(), updated.resource_version());
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let kube::Error::Api(gone) = maps.get("a").await.unwrap_err() else { panic!() };
    assert_eq!(gone.message, "configmaps \"a\" not found");
    let kube::Error::Api(gone) = maps.delete("a", &DeleteParams::default()).await.unwrap_err() else { panic!() };
    assert_eq!(gone.code, 404);
}

#[tokio::test]
async fn creation_rules() {
    let server = Server::start().await;
    let (code, made) = server.post(MAPS, json!({"metadata": {"generateName": "gen-"}})).await;
    assert_eq!(code, StatusCode::CREATED);
    assert!(made["metadata"]["name"].as_str().unwrap().starts_with("gen-"));
    assert_eq!((&made["kind"], &made["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    server.post(MAPS, config_map("x", "1")).await;
    let (code, again) = server.post(MAPS, config_map("x", "1")).await;
    assert_eq!((code, &again["reason"]), (StatusCode::CONFLICT, &json!("AlreadyExists")));
    assert_eq!(again["message"], "configmaps \"x\" already exists");
    let (code, none) = server.post("/api/v1/namespaces/nope/configmaps", config_map("x", "1")).await;
    assert_eq!((code, &none["message"]), (StatusCode::NOT_FOUND, &json!("namespaces \"nope\" not found")));
    let mut wrong = config_map("y", "1");
    wrong["metadata"]["namespace"] = json!("other");
    assert_eq!(server.post(MAPS, wrong).await.0, StatusCode::BAD_REQUEST);
    let (code, _) = server.post(&format!("{MAPS}?dryRun=All"), config_map("dry", "1")).await;
    assert_eq!(code, StatusCode::CREATED);
    assert_eq!(server.get(&format!("{MAPS}/dry")).await.0, StatusCode::NOT_FOUND);
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: from-yaml\n";
    let (code, _) = server.call(Method::POST, MAPS, "application/yaml", yaml).await;
    assert_eq!(code, StatusCode::CREATED);
}

#[tokio::test]
async fn patches() {
    let server = Server::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.admin().await);
    server.post(MAPS, config_map("p", "1")).await;
    let merged = maps.patch("p", &PatchParams::default(), &Patch::Merge(json!({"data": {"m": "2"}}))).await.unwrap();
    assert_eq!(merged.data.unwrap().len(), 2);
    let strategic = Patch::Strategic(json!({"data": {"m": null, "s": "3"}}));
    let patched = maps.patch("p", &PatchParams::default(), &strategic).await.unwrap();
    assert_eq!(patched.data.unwrap().keys().collect::<Vec<_>>(), ["k", "s"]);
    let path = format!("{MAPS}/p");
    let ops =
        json!([{"op": "test", "path": "/data/k", "value": "1"}, {"op": "replace", "path": "/data/k", "value": "9"}]);
    let (code, got) = server.call(Method::PATCH, &path, "application/json-patch+json", ops.to_string()).await;
    assert_eq!((code, &got["data"]["k"]), (StatusCode::OK, &json!("9")));
    let (code, failed) = server.call(Method::PATCH, &path, "application/json-patch+json", ops.to_string()).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{failed}");
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"k": "x"}});
    let (code, _) = server.call(Method::PATCH, &path, MERGE, stale.to_string()).await;
    assert_eq!(code, StatusCode::CONFLICT);
    let (code, _) = server.call(Method::PATCH, &path, "application/apply-patch+cbor", "{}").await;
    assert_eq!(code, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let (code, _) = server.call(Method::PATCH, &format!("{MAPS}/none"), MERGE, "{}").await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    // Patches without a resourceVersion do not conflict with each other.
    let many =
        (0..20).map(|i| {
            let (server, path) = (&server, &path);
            async move {
                server.call(Method::PATCH, path, MERGE, json!({"data": {format!("n{i}"): "1"}}).to_string()).await.0
            }
        });
    for code in futures::future::join_all(many).await {
        assert!(code == StatusCode::OK || code == StatusCode::CONFLICT);
    }
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let server = Server::start().await;
    let mut held = config_map("held", "1");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(MAPS, held).await;
    let path = format!("{MAPS}/held");
    let (code, deleting) = server.delete(&path).await;
    assert_eq!(code, StatusCode::OK);
    assert!(deleting["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(server.delete(&path).await.0, StatusCode::OK);
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/new"]}});
    let (code, refused) = server.call(Method::PATCH, &path, MERGE, more.to_string()).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    let (code, _) =
        server.call(Method::PATCH, &path, MERGE, json!({"metadata": {"finalizers": null}}).to_string()).await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(server.get(&path).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn deletion_of_pods_is_graceful() {
    let server = Server::start().await;
    let pods: Api<Pod> = Api::default_namespaced(server.admin().await);
    // Nobody runs a pod that has no node.
    server.post(PODS, pod("free")).await;
    pods.delete("free", &DeleteParams::default()).await.unwrap();
    assert_eq!(server.get(&format!("{PODS}/free")).await.0, StatusCode::NOT_FOUND);
    server.post(PODS, pod("bound")).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "bound"},
                         "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"}});
    let (code, answer) = server.post(&format!("{PODS}/bound/binding"), binding.clone()).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let (code, again) = server.post(&format!("{PODS}/bound/binding"), binding).await;
    assert_eq!(code, StatusCode::CONFLICT, "{again}");
    let (_, bound) = server.get(&format!("{PODS}/bound")).await;
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let (code, deleting) = server.delete(&format!("{PODS}/bound?gracePeriodSeconds=20")).await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(deleting["metadata"]["deletionGracePeriodSeconds"], 20);
    // The node agent confirms; only then it is gone.
    let agent = ("system:node:n1", &["system:nodes"][..]);
    let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}}).to_string();
    let path = format!("{PODS}/bound");
    let (code, _) = server.call_as(agent, Method::DELETE, &path, "application/json", options).await;
    assert_eq!(code, StatusCode::CONFLICT);
    let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": bound["metadata"]["uid"]}}).to_string();
    let (code, _) = server.call_as(agent, Method::DELETE, &path, "application/json", options).await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(server.get(&path).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn namespaces_end_only_when_finalized() {
    let server = Server::start().await;
    let namespaces: Api<Namespace> = Api::all(server.admin().await);
    let (code, made) = server.post("/api/v1/namespaces", json!({"metadata": {"name": "team"}})).await;
    assert_eq!(code, StatusCode::CREATED);
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(made["status"]["phase"], "Active");
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "team");
    let maps = "/api/v1/namespaces/team/configmaps";
    assert_eq!(server.post(maps, config_map("a", "1")).await.0, StatusCode::CREATED);
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    let (_, mut deleting) = server.get("/api/v1/namespaces/team").await;
    assert_eq!(deleting["status"]["phase"], "Terminating");
    let (code, refused) = server.post(maps, config_map("b", "1")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["message"],
        "configmaps \"b\" is forbidden: unable to create new content in namespace team because it is being terminated"
    );
    deleting["spec"]["finalizers"] = json!([]);
    let (code, done) = server.put("/api/v1/namespaces/team/finalize", deleting).await;
    assert_eq!(code, StatusCode::OK, "{done}");
    assert_eq!(server.get("/api/v1/namespaces/team").await.0, StatusCode::NOT_FOUND);
    assert_eq!(server.post("/api/v1/namespaces", json!({"metadata": {"name": "team"}})).await.0, StatusCode::CREATED);
    let (code, refused) = server.delete("/api/v1/namespaces/default").await;
    assert_eq!(code, StatusCode::FORBIDDEN, "{refused}");
}

#[tokio::test]
async fn status_scale_and_generation() {
    let server = Server::start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let body = json!({"metadata": {"name": "d"}, "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        "status": {"replicas": 7}});
    let (code, made) = server.post(deployments, body).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(made["metadata"]["generation"], 1);
    assert!(made["status"]["replicas"].is_null());
    let path = format!("{deployments}/d");
    let status = json!({"status": {"replicas": 2}, "spec": {"replicas": 9}}).to_string();
    let (_, patched) = server.call(Method::PATCH, &format!("{path}/status"), MERGE, status).await;
    assert_eq!((&patched["status"]["replicas"], &patched["spec"]["replicas"]), (&json!(2), &json!(2)));
    assert_eq!(patched["metadata"]["generation"], 1);
    let (code, mut scale) = server.get(&format!("{path}/scale")).await;
    assert_eq!((code, &scale["status"]["selector"]), (StatusCode::OK, &json!("a=b")));
    scale["spec"]["replicas"] = json!(5);
    let (code, scaled) = server.put(&format!("{path}/scale"), scale.clone()).await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (StatusCode::OK, &json!(5)), "{scaled}");
    assert_eq!(server.put(&format!("{path}/scale"), scale).await.0, StatusCode::CONFLICT);
    let patch = async |query: &str, patch: Value| {
        let path = format!("{path}/scale{query}");
        let (code, status) = server.call(Method::PATCH, &path, "application/merge-patch+json", patch.to_string()).await;
        (code.as_u16(), status["message"].as_str().unwrap_or_default().to_owned())
    };
    let (code, why) = patch("", json!({"spec": {"replicas": "x"}})).await;
    let text = "json: cannot unmarshal string into Go struct field ScaleSpec.spec.replicas of type int32";
    assert!(code == 422 && why.ends_with(text), "{code} {why}");
    let unknown = json!({"spec": {"replicas": 5, "nope": 1}});
    let (code, why) = patch("?fieldValidation=Strict", unknown.clone()).await;
    assert!(code == 422 && why.ends_with("strict decoding error: unknown field \"spec.nope\""), "{code} {why}");
    assert_eq!(patch("", unknown).await.0, 200);
    let table = Request::get(format!("{path}/scale")).header("accept", "application/json;as=Table;g=meta.k8s.io;v=v1");
    let table = server.raw(Some(ADMIN), table.body(Body::empty()).unwrap()).await;
    let table: Value = serde_json::from_slice(&table.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let names: Vec<&Value> = table["columnDefinitions"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["Name", "Desired", "Available", "Age"]);
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[1..3], [json!(5), json!(2)], "{table}");
    let (_, now) = server.get(&path).await;
    assert_eq!((&now["spec"]["replicas"], &now["metadata"]["generation"]), (&json!(5), &json!(2)));
    let (code, patched) =
        server.call(Method::PATCH, &format!("{path}/scale"), MERGE, json!({"spec": {"replicas": 1}}).to_string()).await;
    assert_eq!((code, &patched["spec"]["replicas"]), (StatusCode::OK, &json!(1)));
    let foreground = json!({"propagationPolicy": "Foreground"}).to_string();
    let (_, held) = server.call(Method::DELETE, &path, "application/json", foreground).await;
    assert_eq!(held["metadata"]["finalizers"], json!(["foregroundDeletion"]));
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let server = Server::start().await;
    for (name, tier) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let mut map = config_map(name, "1");
        map["metadata"]["labels"] = json!({"tier": tier});
        server.post(MAPS, map).await;
    }
    let (code, gone) = server.delete(&format!("{MAPS}?labelSelector=tier%3Dx")).await;
    assert_eq!((code, gone["items"].as_array().unwrap().len()), (StatusCode::OK, 2));
    let (_, left) = server.get(MAPS).await;
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}
