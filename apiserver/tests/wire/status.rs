//! What a master tells about itself, and certificates that are renewed.

use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use trireme_apiserver::pki::{Pair, key_and_csr};

use super::harness::{ADMIN, Server, identity};

const STATUS: &str = "/trireme.io/v1/status";
const RENEW: &str = "/trireme.io/v1/renew/node";

#[tokio::test]
async fn a_master_tells_about_itself() {
    let server = Server::start().await;
    let (code, status) = server.get(STATUS).await;
    assert_eq!(code, StatusCode::OK, "{status}");
    assert_eq!(
        (&status["name"], &status["role"], &status["inContact"]),
        (&json!("m1"), &json!("leader"), &json!(true))
    );
    assert_eq!((&status["leader"], &status["address"]), (&json!("m1"), &json!("https://192.0.2.10:6443")));
    for key in ["term", "revision", "appliedIndex", "lastLogIndex", "dbSizeBytes", "residentBytes"] {
        assert!(status[key].as_u64().is_some_and(|n| n > 0), "{key}: {status}");
    }
    assert!(status["disk"]["totalBytes"].as_u64() >= status["disk"]["availableBytes"].as_u64());
    assert_eq!(status["members"].as_array().map(Vec::len), Some(1));
    let names: Vec<&str> =
        status["certificates"].as_array().unwrap().iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, ["ca", "peer-ca", "server", "peer", "kubelet-client", "admin"]);
    for user in [("system:node:n1", &["system:nodes"][..]), ("somebody", &[])] {
        assert_eq!(server.call_as(user, Method::GET, STATUS, "", "").await.0, StatusCode::FORBIDDEN);
    }
    let anonymous = server.raw(None, Request::get(STATUS).body(Body::empty()).unwrap()).await;
    assert_eq!(anonymous.status(), StatusCode::FORBIDDEN);
    assert_eq!(server.call(Method::POST, STATUS, "", "").await.0, StatusCode::METHOD_NOT_ALLOWED);
}

async fn renew(server: &Server, pair: Option<Pair>, name: &str, csr: &str) -> (StatusCode, String) {
    let body = json!({"name": name, "address": "127.0.0.1", "csr": csr}).to_string();
    let (answer, _) = server.raw_with(pair, Request::post(RENEW).body(Body::from(body)).unwrap()).await;
    let code = answer.status();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&bytes).unwrap();
    (code, status["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_node_gets_nothing_but_its_own_certificate_again() {
    let server = Server::start().await;
    let key = key_and_csr().unwrap();
    let pair = |groups: &[&str]| server.pki.client("system:node:n1", groups).unwrap();
    let own = Pair {
        cert_pem: server.pki.sign_node(&key.csr_pem, "n1", "127.0.0.1".parse().unwrap()).unwrap(),
        key_pem: key.key_pem.clone(),
    };
    let refused = |answer: (StatusCode, String), why: &str| {
        assert_eq!(answer.0, StatusCode::FORBIDDEN, "{}", answer.1);
        assert!(answer.1.contains(why), "{}", answer.1);
    };
    refused(renew(&server, None, "n1", &key.csr_pem).await, "only a node");
    refused(
        renew(&server, Some(server.pki.client(ADMIN.0, ADMIN.1).unwrap()), "n1", &key.csr_pem).await,
        "only a node",
    );
    refused(renew(&server, Some(own.clone()), "n2", &key.csr_pem).await, "that of node \"n1\"");
    refused(
        renew(&server, Some(pair(&["system:nodes"])), "n1", &key.csr_pem).await,
        "the key of the certificate shown",
    );
    // All is right but the address, since no node lives on this one.
    refused(renew(&server, Some(own), "n1", &key.csr_pem).await, "loopback");
}

/// Its name may be another one's by now.
#[tokio::test]
async fn only_the_member_that_is_meant_is_removed() {
    let server = Server::start().await;
    let (_, status) = server.get(STATUS).await;
    let (id, lineage) = (status["id"].as_u64().unwrap(), status["lineage"].as_str().unwrap());
    let remove = async |query: &str| server.delete(&format!("/trireme.io/v1/members/m1?{query}")).await;
    for other in [format!("id={}", id + 1), format!("id={id}&lineage=another"), "id=-1".to_owned()] {
        let (code, answer) = remove(&other).await;
        assert_eq!(code, StatusCode::NOT_FOUND, "{other}: {answer}");
    }
    assert_eq!(remove("id=x").await.0, StatusCode::BAD_REQUEST);
    // That one it is; what is refused now is the removal of the last voter.
    let (code, answer) = remove(&format!("id={id}&lineage={lineage}")).await;
    assert_eq!(code, StatusCode::CONFLICT, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("the only voter"), "{answer}");
}

#[tokio::test]
async fn new_certificates_are_shown_without_a_restart() {
    let server = Server::start().await;
    let ready = || Request::get("/readyz").body(Body::empty()).unwrap();
    let (_, before) = server.raw_with(None, ready()).await;
    server.pki.set_leaf_life(Duration::from_secs(3600)).unwrap();
    assert!(server.pki.refresh(&identity()).unwrap());
    let (_, unchanged) = server.raw_with(None, ready()).await;
    assert_eq!(before, unchanged);
    server.api.reload_certificates().unwrap();
    let (answer, after) = server.raw_with(None, ready()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_ne!(before, after);
    let (_, status) = server.get(STATUS).await;
    let own = status["certificates"].as_array().unwrap().iter().find(|c| c["name"] == "server").unwrap();
    assert!(own["notAfter"].as_i64().unwrap() - own["notBefore"].as_i64().unwrap() <= 4000, "{own}");
}
