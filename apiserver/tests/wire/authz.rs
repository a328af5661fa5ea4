//! Identities from certificates and the fixed rules.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::json;

use super::harness::{ADMIN, MAPS, PODS, Server, config_map, pod};

#[tokio::test]
async fn strangers_and_anonymous() {
    let server = Server::start().await;
    let stranger = ("x", &[][..]);
    let (code, status) = server.call_as(stranger, Method::GET, PODS, "", "").await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        status["message"],
        "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    for (path, code) in [
        ("/readyz", 200),
        ("/healthz", 200),
        ("/livez", 200),
        ("/version", 200),
        ("/api", 403),
        (PODS, 403),
        ("/metrics", 403),
    ] {
        let answer = server.raw(None, Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status().as_u16(), code, "{path}");
    }
    // Identity headers mean nothing.
    let forged = Request::get(PODS).header("x-remote-user", "admin").header("x-remote-group", "system:masters");
    assert_eq!(server.raw(None, forged.body(Body::empty()).unwrap()).await.status(), StatusCode::FORBIDDEN);
    // A token that nobody knows is not the same as none.
    let token = Request::get(PODS).header("authorization", "Bearer nonsense");
    assert_eq!(server.raw(None, token.body(Body::empty()).unwrap()).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn impersonation_is_refused_rather_than_ignored() {
    let server = Server::start().await;
    let request = Request::get(PODS).header("impersonate-user", "bob").body(Body::empty()).unwrap();
    assert_eq!(server.raw(Some(ADMIN), request).await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn nodes_keep_to_themselves() {
    let server = Server::start().await;
    let node = ("system:node:n1", &["system:nodes"][..]);
    let json = "application/json";
    let body = |name: &str| json!({"metadata": {"name": name}}).to_string();
    let cases = [
        (Method::POST, "/api/v1/nodes".to_owned(), body("n1"), 201),
        (Method::POST, "/api/v1/nodes".to_owned(), body("n2"), 403),
        (Method::GET, PODS.to_owned(), String::new(), 200),
        (Method::GET, "/api/v1/secrets".to_owned(), String::new(), 403),
        (Method::POST, MAPS.to_owned(), config_map("a", "1").to_string(), 403),
        (Method::POST, PODS.to_owned(), pod("a").to_string(), 403),
        (Method::DELETE, "/api/v1/nodes/n1".to_owned(), String::new(), 403),
        (Method::POST, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases".to_owned(), body("n1"), 201),
        (Method::POST, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases".to_owned(), body("n2"), 403),
        (Method::POST, "/apis/coordination.k8s.io/v1/namespaces/default/leases".to_owned(), body("n1"), 403),
    ];
    for (method, path, body, code) in cases {
        let (got, status) = server.call_as(node, method.clone(), &path, json, body).await;
        assert_eq!(got.as_u16(), code, "{method} {path}: {status}");
    }
    server.post(PODS, pod("foreign")).await;
    let status = json!({"status": {"phase": "Running"}}).to_string();
    let path = format!("{PODS}/foreign/status");
    let (code, _) = server.call_as(node, Method::PATCH, &path, "application/merge-patch+json", status).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    let own = json!({"status": {"nodeInfo": {}}}).to_string();
    let (code, _) =
        server.call_as(node, Method::PATCH, "/api/v1/nodes/n1/status", "application/merge-patch+json", own).await;
    assert_eq!(code, StatusCode::OK);
}

#[tokio::test]
async fn nodes_leave_what_others_trust_them_by() {
    let server = Server::start().await;
    let node = ("system:node:n1", &["system:nodes"][..]);
    let (path, merge) = ("/api/v1/nodes/n1", "application/merge-patch+json");
    let labels = |labels: serde_json::Value| json!({"metadata": {"name": "n1", "labels": labels}}).to_string();
    let restricted = "node-restriction.kubernetes.io/zone";
    let create = labels(json!({restricted: "a"}));
    let (code, status) = server.call_as(node, Method::POST, "/api/v1/nodes", "application/json", create).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "{status}");
    let why = format!("node \"n1\" is not allowed to set the following labels: {restricted}");
    assert_eq!(status["message"], format!("nodes \"n1\" is forbidden: {why}"));
    // With taints of its own it may begin.
    let taint = json!([{"key": "a", "effect": "NoSchedule"}]);
    let create =
        json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/os": "linux"}}, "spec": {"taints": taint}});
    let (code, status) =
        server.call_as(node, Method::POST, "/api/v1/nodes", "application/json", create.to_string()).await;
    assert_eq!(code, StatusCode::CREATED, "{status}");
    let trusted = json!({"metadata": {"labels": {restricted: "a"}}}).to_string();
    let (code, _) = server.call(Method::PATCH, path, merge, trusted).await;
    assert_eq!(code, StatusCode::OK);
    let uid = "0f4a9a1e-4c1e-4f58-9d5b-0d3a6b5d2f10";
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": uid}]);
    let taints = "node \"n1\" is not allowed to modify taints";
    let labelled = format!("is not allowed to modify labels: {restricted}");
    let role = "is not allowed to modify labels: node-role.kubernetes.io/control-plane";
    let owned = "node \"n1\" is not allowed to modify ownerReferences";
    let refused = [
        (json!({"spec": {"taints": null}}), taints),
        (json!({"spec": {"taints": [taint[0], {"key": "b", "effect": "NoExecute"}]}}), taints),
        (json!({"metadata": {"labels": {restricted: "b"}}}), labelled.as_str()),
        (json!({"metadata": {"labels": null}}), labelled.as_str()),
        (json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}}), role),
        (json!({"metadata": {"ownerReferences": owner}}), owned),
    ];
    for (patch, why) in refused {
        for path in [path.to_owned(), format!("{path}/status")] {
            for kind in [merge, "application/strategic-merge-patch+json"] {
                if kind != merge && patch["spec"]["taints"].is_array() {
                    continue;
                }
                let (code, status) = server.call_as(node, Method::PATCH, &path, kind, patch.to_string()).await;
                assert_eq!(code, StatusCode::FORBIDDEN, "{path} {patch}: {status}");
                assert_eq!(status["message"], format!("nodes \"n1\" is forbidden: {why}"), "{patch}");
            }
        }
    }
    let (_, mut whole) = server.get(path).await;
    whole["metadata"]["labels"]["node.kubernetes.io/own"] = json!("1");
    whole["metadata"]["labels"]["e.com/own"] = json!("1");
    whole["spec"]["unschedulable"] = json!(true);
    let (code, after) = server.call_as(node, Method::PUT, path, "application/json", whole.to_string()).await;
    assert_eq!((code, &after["metadata"]["labels"][restricted]), (StatusCode::OK, &json!("a")), "{after}");
    whole = after;
    whole["spec"]["taints"] = json!([]);
    let (code, status) = server.call_as(node, Method::PUT, path, "application/json", whole.to_string()).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "{status}");
}

#[tokio::test]
async fn nodes_read_the_secrets_of_their_pods() {
    let server = Server::start().await;
    let on = |node: &str, name: &str, secret: &str| {
        let mut pod = pod(name);
        pod["spec"]["nodeName"] = node.into();
        pod["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": secret}}]);
        pod
    };
    let secret = |name: &str| json!({"metadata": {"name": name}, "data": {"k": "dg=="}});
    let (secrets, system) = ("/api/v1/namespaces/default/secrets", "/api/v1/namespaces/kube-system");
    let token = "bootstrap-token-abcdef";
    for (path, body) in [
        (secrets.to_owned(), secret("own")),
        (secrets.to_owned(), secret("foreign")),
        (secrets.to_owned(), secret("unused")),
        (format!("{system}/secrets"), secret("own")),
        (format!("{system}/secrets"), secret(token)),
        (PODS.to_owned(), on("n1", "own", "own")),
        (PODS.to_owned(), on("n1", "early", "missing")),
        (PODS.to_owned(), on("n2", "foreign", "foreign")),
        (format!("{system}/pods"), on("n1", "thief", token)),
    ] {
        let (code, answer) = server.post(&path, body).await;
        assert_eq!(code, StatusCode::CREATED, "{path}: {answer}");
    }
    let node = ("system:node:n1", &["system:nodes"][..]);
    for (path, code) in [
        (format!("{secrets}/own"), 200),
        (format!("{secrets}/missing"), 404),
        (format!("{secrets}/foreign"), 403),
        (format!("{secrets}/unused"), 403),
        (format!("{system}/secrets/own"), 403),
        (format!("{system}/secrets/{token}"), 403),
        (secrets.to_owned(), 403),
        (format!("{secrets}?watch=true"), 403),
        (format!("{secrets}/own?watch=true"), 403),
    ] {
        let (got, status) = server.call_as(node, Method::GET, &path, "", "").await;
        assert_eq!(got.as_u16(), code, "{path}: {status}");
    }
}

#[tokio::test]
async fn can_i() {
    let server = Server::start().await;
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": "default"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let (code, answer) = server.post(path, review.clone()).await;
    assert_eq!((code, &answer["status"]["allowed"]), (StatusCode::CREATED, &json!(true)));
    let (_, answer) = server.call_as(("x", &[]), Method::POST, path, "application/json", review.to_string()).await;
    assert_eq!(answer["status"]["allowed"], false);
}

#[tokio::test]
async fn reviews_are_checked_as_other_bodies_are() {
    let server = Server::start().await;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(server.get(path).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(server.get("/apis/authorization.k8s.io/v1/nopes").await.0, StatusCode::NOT_FOUND);
    let (code, status) = server.post(path, json!({"spec": {}})).await;
    let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
    let kind = "SelfSubjectAccessReview.authorization.k8s.io";
    let message = json!(format!("{kind} \"\" is invalid: spec.resourceAttributes: Invalid value: null: {why}"));
    assert_eq!((code, &status["message"]), (StatusCode::UNPROCESSABLE_ENTITY, &message));
    let (code, status) = server.post(path, json!({"spec": {"resourceAttributes": "x"}})).await;
    assert_eq!(code, StatusCode::BAD_REQUEST, "{status}");
    assert_eq!(server.post(path, json!({"kind": "Pod"})).await.0, StatusCode::BAD_REQUEST);
    let (code, answer) = server.post(path, json!({"spec": {"nonResourceAttributes": {"path": "/x"}}})).await;
    assert_eq!((code, &answer["kind"]), (StatusCode::CREATED, &json!("SelfSubjectAccessReview")), "{answer}");
}
