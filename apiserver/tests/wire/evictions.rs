//! Evictions: what budgets grant and refuse, and what they do not guard.

use http::StatusCode;
use serde_json::{Value, json};

use super::harness::{PODS, Server, pod};

const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

/// A pod on a node, in a phase, ready or not.
async fn put_pod(server: &Server, name: &str, phase: &str, ready: &str) -> Value {
    let mut made = pod(name);
    made["metadata"]["labels"] = json!({"app": "web"});
    made["spec"]["nodeName"] = "n".into();
    let (code, mut made) = server.post(PODS, made).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    made["status"] = json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready}]});
    let (code, made) = server.put(&format!("{PODS}/{name}/status"), made).await;
    assert_eq!(code, StatusCode::OK, "{made}");
    made
}

/// A budget of all those pods, with what its controller has counted.
async fn put_budget(server: &Server, name: &str, spec: Value, status: Value) {
    let mut budget = json!({"metadata": {"name": name}, "spec": spec});
    budget["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
    let (code, mut made) = server.post(BUDGETS, budget).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    if status.is_object() {
        made["status"] = status;
        let (code, made) = server.put(&format!("{BUDGETS}/{name}/status"), made).await;
        assert_eq!(code, StatusCode::OK, "{made}");
    }
}

fn counted(allowed: i64, healthy: i64, desired: i64) -> Value {
    json!({"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": healthy,
           "desiredHealthy": desired, "expectedPods": healthy})
}

async fn evict(server: &Server, name: &str, options: Value) -> (StatusCode, Value) {
    let mut eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    if options.is_object() {
        eviction["deleteOptions"] = options;
    }
    server.post(&format!("{PODS}/{name}/eviction"), eviction).await
}

async fn status_of(server: &Server, budget: &str) -> Value {
    server.get(&format!("{BUDGETS}/{budget}")).await.1["status"].clone()
}

#[tokio::test]
async fn a_budget_grants_what_it_has_and_refuses_the_rest() {
    let server = Server::start().await;
    for name in ["a", "b"] {
        put_pod(&server, name, "Running", "True").await;
    }
    put_budget(&server, "two", json!({"minAvailable": 1}), counted(1, 2, 1)).await;

    // What is only tried, or meant for another pod, takes nothing.
    let before = status_of(&server, "two").await;
    let (code, answer) = evict(&server, "a", json!({"dryRun": ["All"]})).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    for precondition in [json!({"uid": "x"}), json!({"resourceVersion": "1"})] {
        let (code, answer) = evict(&server, "a", json!({"preconditions": precondition})).await;
        assert_eq!((code, &answer["reason"]), (StatusCode::CONFLICT, &json!("Conflict")), "{answer}");
    }
    let (code, answer) = server.post(&format!("{PODS}/a/eviction"), json!({"metadata": {"name": "b"}})).await;
    let why = "name in URL does not match name in Eviction object";
    assert_eq!((code, &answer["message"]), (StatusCode::BAD_REQUEST, &json!(why)));
    assert_eq!(status_of(&server, "two").await, before);

    let (code, answer) = evict(&server, "a", Value::Null).await;
    assert_eq!((code, &answer["status"], &answer["code"]), (StatusCode::CREATED, &json!("Success"), &json!(201)));
    let status = status_of(&server, "two").await;
    assert_eq!(status["disruptionsAllowed"], 0);
    assert!(status["disruptedPods"]["a"].is_string(), "{status}");
    assert_eq!(status["conditions"][0]["reason"], "InsufficientPods");
    let (_, gone) = server.get(&format!("{PODS}/a")).await;
    assert!(gone["metadata"]["deletionTimestamp"].is_string(), "{gone}");
    let told = &gone["status"]["conditions"][1];
    assert_eq!((&told["type"], &told["reason"]), (&json!("DisruptionTarget"), &json!("EvictionByEvictionAPI")));

    let (code, answer) = evict(&server, "b", Value::Null).await;
    assert_eq!((code, &answer["reason"]), (StatusCode::TOO_MANY_REQUESTS, &json!("TooManyRequests")), "{answer}");
    assert_eq!(answer["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    let cause = json!({"reason": "DisruptionBudget",
        "message": "The disruption budget two needs 1 healthy pods and has 2 currently"});
    assert_eq!(answer["details"]["causes"], json!([cause]));
    // Whoever goes already may be evicted again.
    assert_eq!(evict(&server, "a", Value::Null).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn budgets_that_cannot_be_asked_refuse() {
    let server = Server::start().await;
    put_pod(&server, "a", "Running", "True").await;
    put_budget(&server, "new", json!({"minAvailable": 0}), Value::Null).await;
    let (code, answer) = evict(&server, "a", Value::Null).await;
    assert_eq!((code, &answer["details"]["retryAfterSeconds"]), (StatusCode::TOO_MANY_REQUESTS, &json!(10)));
    let why = "The disruption budget new is still being processed by the server.";
    assert_eq!(answer["details"]["causes"][0]["message"], why);
    put_budget(&server, "other", json!({"maxUnavailable": 1}), counted(1, 1, 0)).await;
    let (code, answer) = evict(&server, "a", Value::Null).await;
    let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
    assert_eq!((code, &answer["message"]), (StatusCode::INTERNAL_SERVER_ERROR, &json!(why)));
    assert!(server.get(&format!("{PODS}/a")).await.1["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test]
async fn pods_that_do_not_count_go() {
    let server = Server::start().await;
    put_budget(&server, "none", json!({"minAvailable": 2}), counted(0, 1, 2)).await;
    for (name, phase) in [("pending", "Pending"), ("done", "Succeeded"), ("failed", "Failed")] {
        put_pod(&server, name, phase, "True").await;
        let (code, answer) = evict(&server, name, Value::Null).await;
        assert_eq!(code, StatusCode::CREATED, "{name}: {answer}");
    }
    put_pod(&server, "sick", "Running", "False").await;
    assert_eq!(evict(&server, "sick", Value::Null).await.0, StatusCode::TOO_MANY_REQUESTS, "the budget is not met");
    let (_, mut budget) = server.get(&format!("{BUDGETS}/none")).await;
    budget["status"] = counted(0, 2, 2);
    assert_eq!(server.put(&format!("{BUDGETS}/none/status"), budget).await.0, StatusCode::OK);
    let (code, answer) = evict(&server, "sick", json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(code, StatusCode::CREATED, "it is met: {answer}");
    assert_eq!(server.get(&format!("{PODS}/sick")).await.0, StatusCode::NOT_FOUND);

    let (_, mut budget) = server.get(&format!("{BUDGETS}/none")).await;
    budget["spec"]["unhealthyPodEvictionPolicy"] = "AlwaysAllow".into();
    assert_eq!(server.put(&format!("{BUDGETS}/none"), budget).await.0, StatusCode::OK);
    put_pod(&server, "sick", "Running", "False").await;
    assert_eq!(evict(&server, "sick", Value::Null).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn a_budget_is_never_overdrawn() {
    let server = Server::start().await;
    let names: Vec<String> = (0..8).map(|i| format!("p{i}")).collect();
    for name in &names {
        put_pod(&server, name, "Running", "True").await;
    }
    put_budget(&server, "three", json!({"minAvailable": 5}), counted(3, 8, 5)).await;
    let evictions = names.iter().map(|name| evict(&server, name, Value::Null));
    let codes: Vec<StatusCode> = futures::future::join_all(evictions).await.into_iter().map(|(code, _)| code).collect();
    let count = |wanted: StatusCode| codes.iter().filter(|code| **code == wanted).count();
    assert_eq!((count(StatusCode::CREATED), count(StatusCode::TOO_MANY_REQUESTS)), (3, 5), "{codes:?}");
    let status = status_of(&server, "three").await;
    assert_eq!(status["disruptionsAllowed"], 0);
    assert_eq!(status["disruptedPods"].as_object().unwrap().len(), 3);
}
