//! Tokens of service accounts: made, shown, bound, reviewed, and worth nothing once what they depend on is gone.

use axum::body::Body;
use base64::Engine as _;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::time::Duration;

use super::harness::{ADMIN, PODS, Server, pod};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const TOKEN: &str = "/api/v1/namespaces/default/serviceaccounts/a/token";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const WHO_AM_I: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

async fn with_account(server: &Server) -> Value {
    let (code, account) = server.post(ACCOUNTS, json!({"metadata": {"name": "a"}})).await;
    assert_eq!(code, StatusCode::CREATED, "{account}");
    account
}

async fn issue(server: &Server, spec: Value) -> Value {
    let (code, answer) = server.post(TOKEN, json!({"spec": spec})).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    answer
}

fn token_of(answer: &Value) -> String {
    answer["status"]["token"].as_str().unwrap().to_owned()
}

fn claims(token: &str) -> Value {
    let body = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap()
}

/// A request of whoever has the token, without a certificate.
async fn bearing(server: &Server, token: &str, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
    let request = request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())).unwrap();
    let answer = server.raw(None, request).await;
    let code = answer.status();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn review(server: &Server, token: &str, audiences: &[&str]) -> Value {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token, "audiences": audiences}});
    let (code, review) = server.post(REVIEWS, review).await;
    assert_eq!(code, StatusCode::CREATED, "{review}");
    review["status"].clone()
}

#[tokio::test]
async fn a_token_says_whose_it_is_and_opens_what_the_account_may() {
    let server = Server::start().await;
    let account = with_account(&server).await;
    let answer = issue(&server, json!({})).await;
    assert_eq!((&answer["kind"], &answer["metadata"]["name"]), (&json!("TokenRequest"), &json!("a")));
    assert_eq!(answer["spec"], json!({"expirationSeconds": 3600, "audiences": [ISSUER]}));
    let token = token_of(&answer);
    let said = claims(&token);
    assert_eq!((&said["sub"], &said["iss"]), (&json!("system:serviceaccount:default:a"), &json!(ISSUER)));
    assert_eq!(said["aud"], json!([ISSUER]));
    assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 3600);
    assert_eq!(
        said["kubernetes.io"],
        json!({"namespace": "default", "serviceaccount": {"name": "a", "uid": account["metadata"]["uid"]}})
    );
    let me = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let (code, who) = bearing(&server, &token, Method::POST, WHO_AM_I, me).await;
    assert_eq!(code, StatusCode::CREATED, "{who}");
    let user = &who["status"]["userInfo"];
    assert_eq!(user["username"], "system:serviceaccount:default:a");
    assert_eq!(user["uid"], account["metadata"]["uid"]);
    let groups = json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]);
    assert_eq!(user["groups"], groups);
    let id = format!("JTI={}", said["jti"].as_str().unwrap());
    assert_eq!(user["extra"]["authentication.kubernetes.io/credential-id"], json!([id]));
    let (code, refused) = bearing(&server, &token, Method::GET, PODS, Value::Null).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert!(refused["message"].as_str().unwrap().contains("User \"system:serviceaccount:default:a\" cannot list"));
    assert_eq!(bearing(&server, &token, Method::GET, "/apis/apps/v1", Value::Null).await.0, StatusCode::OK);
}

#[tokio::test]
async fn what_is_no_token_of_ours_is_refused() {
    let server = Server::start().await;
    with_account(&server).await;
    let token = token_of(&issue(&server, json!({})).await);
    let other = token_of(&issue(&server, json!({"audiences": ["vault"]})).await);
    let broken = format!("{}x{}", &token[..token.len() / 2], &token[token.len() / 2 + 1..]);
    for bad in ["x", "a.b.c", "", &broken, &other] {
        assert_eq!(bearing(&server, bad, Method::GET, "/api", Value::Null).await.0, StatusCode::UNAUTHORIZED, "{bad}");
    }
    let basic = Request::get("/api").header(header::AUTHORIZATION, "Basic YTpi").body(Body::empty()).unwrap();
    assert_eq!(server.raw(None, basic).await.status(), StatusCode::UNAUTHORIZED);
    // A certificate goes before a token, whatever that is worth.
    let both = Request::get(PODS).header(header::AUTHORIZATION, "Bearer x").body(Body::empty()).unwrap();
    assert_eq!(server.raw(Some(ADMIN), both).await.status(), StatusCode::OK);
    // A cluster does not take another's.
    let stranger = Server::start().await;
    with_account(&stranger).await;
    assert_eq!(bearing(&stranger, &token, Method::GET, "/api", Value::Null).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn reviews_tell_of_tokens_and_their_audiences() {
    let server = Server::start().await;
    with_account(&server).await;
    let own = token_of(&issue(&server, json!({})).await);
    let vault = token_of(&issue(&server, json!({"audiences": ["vault", "other"]})).await);
    let status = review(&server, &own, &[]).await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["audiences"], json!([ISSUER]));
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:a");
    assert_eq!(review(&server, &vault, &["vault", "x"]).await["audiences"], json!(["vault"]));
    let foreign = review(&server, &vault, &[]).await;
    assert!(foreign.get("authenticated").is_none(), "{foreign}");
    assert!(foreign["error"].as_str().unwrap().contains("invalid for the target audiences"), "{foreign}");
    assert_eq!(review(&server, "x", &[]).await, json!({"user": {}, "error": "[invalid bearer token]"}));
}

#[tokio::test]
async fn a_token_ends_with_what_it_is_bound_to() {
    let server = Server::start().await;
    let account = with_account(&server).await;
    let mut of_account = pod("p");
    of_account["spec"]["serviceAccountName"] = json!("a");
    let (_, made) = server.post(PODS, of_account).await;
    let (_, other) = server.post(PODS, pod("q")).await;
    let (_, secret) = server.post("/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await;
    assert!(secret["metadata"]["uid"].is_string() && other["metadata"]["uid"].is_string());
    let bound = |kind: &str, name: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name}});
    let to_pod = token_of(&issue(&server, bound("Pod", "p")).await);
    let to_secret = token_of(&issue(&server, bound("Secret", "s")).await);
    let free = token_of(&issue(&server, json!({})).await);
    assert_eq!(claims(&to_pod)["kubernetes.io"]["pod"], json!({"name": "p", "uid": made["metadata"]["uid"]}));
    let status = review(&server, &to_pod, &[]).await;
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    for (spec, code) in [
        (bound("Pod", "q"), 400),
        (bound("Pod", "none"), 404),
        (bound("ConfigMap", "x"), 400),
        (json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "x"}}), 409),
        (json!({"expirationSeconds": 599}), 422),
    ] {
        let (answered, why) = server.post(TOKEN, json!({"spec": spec})).await;
        assert_eq!(answered.as_u16(), code, "{spec}: {why}");
    }
    let open = |token: String| {
        let server = &server;
        async move { bearing(server, &token, Method::GET, "/api", Value::Null).await.0.as_u16() }
    };
    assert_eq!((open(to_pod.clone()).await, open(to_secret.clone()).await), (200, 200));
    server.delete(&format!("{PODS}/p?gracePeriodSeconds=0")).await;
    server.delete("/api/v1/namespaces/default/secrets/s").await;
    assert_eq!((open(to_pod).await, open(to_secret).await, open(free.clone()).await), (401, 401, 200));
    // Another account of the same name is another account.
    server.delete(&format!("{ACCOUNTS}/a")).await;
    assert_eq!(open(free.clone()).await, 401);
    let again = with_account(&server).await;
    assert_ne!(again["metadata"]["uid"], account["metadata"]["uid"]);
    assert_eq!(open(free).await, 401);
}

#[tokio::test]
async fn agents_get_tokens_for_their_own_pods_alone() {
    let server = Server::start().await;
    with_account(&server).await;
    for (name, node) in [("mine", "n1"), ("theirs", "n2")] {
        let mut one = pod(name);
        one["spec"]["serviceAccountName"] = json!("a");
        one["spec"]["nodeName"] = json!(node);
        one["spec"]["volumes"] = json!([{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]}}]);
        assert_eq!(server.post(PODS, one).await.0, StatusCode::CREATED);
    }
    let uid = |name: &str| {
        let (server, path) = (&server, format!("{PODS}/{name}"));
        async move { server.get(&path).await.1["metadata"]["uid"].as_str().unwrap().to_owned() }
    };
    let (mine, theirs) = (uid("mine").await, uid("theirs").await);
    let bound = |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
    let node = ("system:node:n1", &["system:nodes"][..]);
    for (spec, code) in [
        (json!({"boundObjectRef": bound("mine", &mine)}), 201),
        (json!({"boundObjectRef": bound("mine", &mine), "audiences": ["vault"]}), 201),
        (json!({"boundObjectRef": bound("mine", &mine), "audiences": ["bank"]}), 403),
        (json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "mine"}}), 403),
        (json!({"boundObjectRef": bound("theirs", &theirs)}), 403),
        (json!({}), 403),
    ] {
        let body = json!({"spec": spec}).to_string();
        let (answered, why) = server.call_as(node, Method::POST, TOKEN, "application/json", body).await;
        assert_eq!(answered.as_u16(), code, "{spec}: {why}");
    }
    let stranger = ("x", &[][..]);
    assert_eq!(server.call_as(stranger, Method::POST, TOKEN, "application/json", "{}").await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn others_find_the_keys_and_lives_are_bounded() {
    let server = Server::with(|config| {
        config.service_account_issuer = Some("https://issuer.example.com".into());
        config.api_audiences = vec!["api".into(), "more".into()];
        config.max_token_life = Some(Duration::from_secs(7200));
    })
    .await;
    with_account(&server).await;
    let answer = issue(&server, json!({"expirationSeconds": 100_000})).await;
    assert_eq!(answer["spec"], json!({"expirationSeconds": 7200, "audiences": ["api", "more"]}));
    let (code, document) = server.get("/.well-known/openid-configuration").await;
    assert_eq!((code, &document["issuer"]), (StatusCode::OK, &json!("https://issuer.example.com")));
    assert!(document["jwks_uri"].as_str().unwrap().ends_with("/openid/v1/jwks"));
    let (_, keys) = server.get("/openid/v1/jwks").await;
    let header = token_of(&answer);
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    assert_eq!((&keys["keys"][0]["kid"], &keys["keys"][0]["alg"]), (&header["kid"], &header["alg"]));
    let (_, missing) = server.get("/openid/v1/other").await;
    assert_eq!(missing["code"], 404);
}
