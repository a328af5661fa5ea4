//! Kinds that nothing acts on yet, and what is answered without being stored.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::harness::{ADMIN, PODS, Server, pod};

const MERGE: &str = "application/merge-patch+json";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1";

fn kinds() -> Vec<Value> {
    serde_json::from_str(include_str!("../../../api/testdata/kinds.json")).unwrap()
}

/// Collection of a kind, and whether it has a status, by what discovery says.
async fn place(server: &Server, kind: &Value) -> (String, String, bool) {
    let text = |key: &str| kind[key].as_str().unwrap();
    let (group, version, plural) = (text("group"), text("version"), text("plural"));
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let (_, list) = server.get(&root).await;
    let resources = list["resources"].as_array().unwrap();
    let own = resources.iter().find(|r| r["name"] == plural).unwrap_or_else(|| panic!("{plural} is not discovered"));
    let status = resources.iter().any(|r| r["name"] == format!("{plural}/status"));
    let path = if own["namespaced"] == true {
        format!("{root}/namespaces/default/{plural}")
    } else {
        format!("{root}/{plural}")
    };
    (path, format!("{root}/{plural}"), status)
}

#[tokio::test]
async fn each_is_made_read_listed_printed_changed_and_deleted() {
    let server = Server::start().await;
    for kind in kinds() {
        let plural = kind["plural"].as_str().unwrap();
        let (path, all, has_status) = place(&server, &kind).await;
        let (code, made) = server.post(&format!("{path}?fieldValidation=Strict"), kind["object"].clone()).await;
        assert_eq!(code, StatusCode::CREATED, "{plural}: {made}");
        let name = made["metadata"]["name"].as_str().unwrap();
        let item = format!("{path}/{name}");
        assert_eq!(server.get(&item).await, (StatusCode::OK, made.clone()), "{plural}");
        let (_, list) = server.get(&all).await;
        assert_eq!(list["kind"], format!("{}List", made["kind"].as_str().unwrap()));
        assert!(list["items"].as_array().unwrap().iter().any(|one| one["metadata"]["name"] == name), "{plural}");
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        let request = Request::get(&all).header("accept", accept).body(Body::empty()).unwrap();
        let table = server.raw(Some(ADMIN), request).await.into_body().collect().await.unwrap().to_bytes();
        let table: Value = serde_json::from_slice(&table).unwrap();
        assert_eq!(table["kind"], "Table", "{plural}: {table}");
        let (columns, cells) = (&table["columnDefinitions"], &table["rows"][0]["cells"]);
        assert_eq!(columns.as_array().unwrap().len(), cells.as_array().unwrap().len(), "{plural}");
        let labels = json!({"metadata": {"labels": {"a": "b"}}}).to_string();
        let (code, changed) = server.call(Method::PATCH, &item, MERGE, labels).await;
        assert_eq!((code, &changed["metadata"]["labels"]["a"]), (StatusCode::OK, &json!("b")), "{plural}: {changed}");
        let (code, replaced) = server.put(&item, changed.clone()).await;
        assert_eq!((code, &replaced), (StatusCode::OK, &changed), "{plural}: an update that changes nothing");
        if has_status {
            let (code, status) = server.put(&format!("{item}/status"), changed).await;
            assert_eq!(code, StatusCode::OK, "{plural}: {status}");
        }
        assert_eq!(server.delete(&item).await.0, StatusCode::OK, "{plural}");
        assert_eq!(server.get(&item).await.0, StatusCode::NOT_FOUND, "{plural}");
    }
}

#[tokio::test]
async fn autoscalers_have_two_versions_and_one_place() {
    let server = Server::start().await;
    let (v1, v2) = ("/apis/autoscaling/v1", "/apis/autoscaling/v2");
    let own = "namespaces/default/horizontalpodautoscalers";
    let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
    let spec = json!({"maxReplicas": 3, "scaleTargetRef": target, "metrics": [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
        {"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "1"}}}]});
    let (code, made) = server.post(&format!("{v2}/{own}"), json!({"metadata": {"name": "h"}, "spec": spec})).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let (_, old) = server.get(&format!("{v1}/{own}/h")).await;
    assert_eq!(
        (&old["apiVersion"], &old["spec"]["targetCPUUtilizationPercentage"]),
        (&json!("autoscaling/v1"), &json!(50))
    );
    let change = json!({"spec": {"targetCPUUtilizationPercentage": 70}}).to_string();
    let (code, changed) = server.call(Method::PATCH, &format!("{v1}/{own}/h"), MERGE, change).await;
    assert_eq!(code, StatusCode::OK, "{changed}");
    let (_, new) = server.get(&format!("{v2}/{own}/h")).await;
    let metrics = &new["spec"]["metrics"];
    assert_eq!(metrics[0]["resource"]["target"]["averageUtilization"], 70);
    assert_eq!(metrics[1], made["spec"]["metrics"][1], "what v1 cannot say is not lost");
    let (_, groups) = server.get("/apis/autoscaling").await;
    assert_eq!(groups["preferredVersion"]["version"], "v2");
}

#[tokio::test]
async fn what_is_answered_and_not_stored() {
    let server = Server::start().await;
    let (_, all) = server.get("/api/v1/componentstatuses").await;
    let names: Vec<&str> =
        all["items"].as_array().unwrap().iter().map(|c| c["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["scheduler", "controller-manager", "etcd-0"]);
    let (code, store) = server.get("/api/v1/componentstatuses/etcd-0").await;
    assert_eq!((code, &store["conditions"][0]["status"]), (StatusCode::OK, &json!("True")));
    assert_eq!(server.get("/api/v1/componentstatuses/none").await.0, StatusCode::NOT_FOUND);
    let delete = server.delete("/api/v1/componentstatuses/etcd-0").await;
    assert_eq!(delete.0, StatusCode::METHOD_NOT_ALLOWED);
    let review = |user: &str| {
        json!({"spec": {"user": user, "groups": ["system:masters"],
        "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}})
    };
    let (code, answer) = server.post(&format!("{REVIEWS}/subjectaccessreviews"), review("u")).await;
    assert_eq!((code, &answer["status"]["allowed"]), (StatusCode::CREATED, &json!(true)));
    let local = format!("{REVIEWS}/namespaces/other/localsubjectaccessreviews");
    assert_eq!(server.post(&local, review("u")).await.0, StatusCode::BAD_REQUEST);
    let nobody = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let (code, answer) = server.post(&format!("{REVIEWS}/subjectaccessreviews"), nobody).await;
    assert_eq!(
        (code, &answer["details"]["causes"][0]["field"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("spec.user"))
    );
    let tokens = "/apis/authentication.k8s.io/v1/tokenreviews";
    let (code, answer) = server.post(tokens, json!({"spec": {"token": "x"}})).await;
    assert_eq!((code, &answer["status"]["authenticated"]), (StatusCode::CREATED, &Value::Null));
    let (_, group) = server.get("/apis/authorization.k8s.io/v1").await;
    assert_eq!(group["resources"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn pods_are_bound_by_name_and_get_ephemeral_containers() {
    let server = Server::start().await;
    server.post(PODS, pod("p")).await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let (code, answer) = server.post("/api/v1/namespaces/default/bindings", binding.clone()).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    assert_eq!(server.get(&format!("{PODS}/p")).await.1["spec"]["nodeName"], "n");
    assert_eq!(server.post("/api/v1/namespaces/default/bindings", binding).await.0, StatusCode::CONFLICT);
    let path = format!("{PODS}/p/ephemeralcontainers");
    let debug = json!({"spec": {"nodeName": "m", "ephemeralContainers": [{"name": "d", "image": "x"}]}}).to_string();
    let (code, shown) = server.call(Method::PATCH, &path, MERGE, debug).await;
    assert_eq!(code, StatusCode::OK, "{shown}");
    assert_eq!(
        (&shown["spec"]["ephemeralContainers"][0]["name"], &shown["spec"]["nodeName"]),
        (&json!("d"), &json!("n"))
    );
    let none = json!({"spec": {"ephemeralContainers": []}}).to_string();
    let (code, refused) = server.call(Method::PATCH, &path, MERGE, none).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    let mut whole = shown.clone();
    whole["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    whole["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(server.put(&format!("{PODS}/p"), whole).await.0, StatusCode::OK, "an update without a resourceVersion");
    let more = json!({"spec": {"containers": [{"name": shown["spec"]["containers"][0]["name"], "resources": {}}]}});
    let strategic = "application/strategic-merge-patch+json";
    let (code, resized) = server.call(Method::PATCH, &format!("{PODS}/p/resize"), strategic, more.to_string()).await;
    assert_eq!(code, StatusCode::OK, "{resized}");
}

#[tokio::test]
async fn certificates_are_asked_for_in_the_callers_name_and_approved() {
    let server = Server::start().await;
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let mut request =
        kinds().into_iter().find(|k| k["plural"] == "certificatesigningrequests").unwrap()["object"].clone();
    request["spec"]["username"] = json!("somebody");
    let (code, made) = server.post(path, request).await;
    assert_eq!((code, &made["spec"]["username"]), (StatusCode::CREATED, &json!("admin")));
    let approve = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}]}}).to_string();
    let (code, approved) = server.call(Method::PATCH, &format!("{path}/x/approval"), MERGE, approve).await;
    assert_eq!((code, &approved["status"]["conditions"][0]["type"]), (StatusCode::OK, &json!("Approved")));
    let take_back = json!({"status": {"conditions": null}}).to_string();
    let (code, refused) = server.call(Method::PATCH, &format!("{path}/x/approval"), MERGE, take_back).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
}

#[tokio::test]
async fn beta_versions_are_served_where_they_are_asked_for() {
    use trireme_api::catalogue::RuntimeConfig;
    let v1beta1 = "/apis/resource.k8s.io/v1beta1/namespaces/default/resourceclaims";
    let plain = Server::start().await;
    assert_eq!(plain.get("/apis/resource.k8s.io/v1beta1").await.0, StatusCode::NOT_FOUND);
    assert_eq!(plain.get(v1beta1).await.0, StatusCode::NOT_FOUND);
    let chosen = ["resource.k8s.io/v1beta1=true", "certificates.k8s.io/v1alpha1=true", "batch/v1/cronjobs=false"];
    let server = Server::with(|config| config.runtime_config = RuntimeConfig::parse(chosen).unwrap()).await;
    let claim =
        json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [{"name": "r", "deviceClassName": "d"}]}}});
    let (code, made) = server.post(&format!("{v1beta1}?fieldValidation=Strict"), claim).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    assert_eq!(made["apiVersion"], "resource.k8s.io/v1beta1");
    let wanted = json!({"name": "r", "deviceClassName": "d", "allocationMode": "ExactCount", "count": 1});
    let flat = |object: &Value| object["spec"]["devices"]["requests"][0].clone();
    assert_eq!(flat(&made), wanted);
    let v1 = v1beta1.replace("v1beta1", "v1");
    let (_, stable) = server.get(&format!("{v1}/c")).await;
    assert_eq!(stable["apiVersion"], "resource.k8s.io/v1");
    let exactly = json!({"deviceClassName": "d", "allocationMode": "ExactCount", "count": 1});
    assert_eq!(flat(&stable), json!({"name": "r", "exactly": exactly}));
    let labels = json!({"metadata": {"labels": {"a": "b"}}}).to_string();
    let (code, changed) = server.call(Method::PATCH, &format!("{v1beta1}/c"), MERGE, labels).await;
    assert_eq!((code, flat(&changed)), (StatusCode::OK, wanted), "{changed}");
    let (_, list) = server.get(v1beta1).await;
    assert_eq!(
        (&list["apiVersion"], &list["items"][0]["apiVersion"]),
        (&json!("resource.k8s.io/v1beta1"), &json!("resource.k8s.io/v1beta1"))
    );
    let bundles = "/apis/certificates.k8s.io/v1alpha1/clustertrustbundles";
    let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    let (code, bundle) = server.post(bundles, json!({"metadata": {"name": "b"}, "spec": {"trustBundle": pem}})).await;
    assert_eq!(code, StatusCode::CREATED, "{bundle}");
    assert_eq!(server.get(&format!("{bundles}/b")).await, (StatusCode::OK, bundle));
    assert_eq!(server.get("/apis/certificates.k8s.io/v1beta1/clustertrustbundles").await.0, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/apis/batch/v1/cronjobs").await.0, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/apis/batch/v1/jobs").await.0, StatusCode::OK);
    let (_, document) = server.get("/openapi/v2").await;
    let definitions = document["definitions"].as_object().unwrap();
    assert!(definitions.contains_key("io.k8s.api.resource.v1beta1.ResourceClaim"));
    assert!(!definitions.contains_key("io.k8s.api.resource.v1beta2.ResourceClaim"));
}

#[tokio::test]
async fn clients_find_what_every_cluster_has() {
    let server = Server::start().await;
    for path in [
        "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/catch-all",
        "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations/workload-low",
        "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical",
        "/apis/apiregistration.k8s.io/v1/apiservices/v1.",
        "/apis/apiregistration.k8s.io/v1/apiservices/v1.apps",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/view",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/cluster-admin",
        "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
    ] {
        assert_eq!(server.get(path).await.0, StatusCode::OK, "{path}");
    }
    let (_, network) = server.get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes").await;
    assert_eq!(
        (&network["spec"]["cidrs"], &network["status"]["conditions"][0]["type"]),
        (&json!(["10.96.0.0/16"]), &json!("Ready"))
    );
    // What somebody has changed stays, what is missing comes back.
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let labels = json!({"metadata": {"labels": {"a": "b"}}}).to_string();
    server.call(Method::PATCH, &format!("{roles}/view"), MERGE, labels).await;
    server.delete(&format!("{roles}/edit")).await;
    server.api.bootstrap(None).await.unwrap();
    assert_eq!(server.get(&format!("{roles}/view")).await.1["metadata"]["labels"]["a"], "b");
    assert_eq!(server.get(&format!("{roles}/edit")).await.0, StatusCode::OK);
    // Flow control's last resort is not to be changed.
    let spec = json!({"spec": {"matchingPrecedence": 5}}).to_string();
    let schema = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/catch-all";
    assert_eq!(server.call(Method::PATCH, schema, MERGE, spec).await.0, StatusCode::UNPROCESSABLE_ENTITY);
}
