//! What the audit log says about who may.

use std::time::Duration;

use http::Method;
use serde_json::Value;
use trireme_apiserver::AuditConfig;

use super::harness::{ADMIN, MAPS, Server};

const DECISION: &str = "authorization.k8s.io/decision";

#[tokio::test]
async fn the_decision_is_told_as_it_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let audit = AuditConfig { path: path.clone(), max_size: 0, max_backups: 0 };
    let server = Server::with(|config| config.audit = Some(audit)).await;
    let somebody: (&str, &[&str]) = ("somebody", &[]);
    let node: (&str, &[&str]) = ("system:node:n1", &["system:nodes"]);
    let secret = "/api/v1/namespaces/default/secrets/s";
    let cases = [
        (ADMIN, Method::GET, MAPS, "allow"),
        (somebody, Method::GET, MAPS, "forbid"),
        (node, Method::GET, secret, "forbid"),
        (ADMIN, Method::GET, "/trireme.io/v1/members", "allow"),
        (somebody, Method::GET, "/trireme.io/v1/members", "forbid"),
        (somebody, Method::DELETE, "/trireme.io/v1/members/m1", "forbid"),
        (ADMIN, Method::GET, "/trireme.io/v1/status", "allow"),
        (somebody, Method::GET, "/trireme.io/v1/status", "forbid"),
        (somebody, Method::POST, "/trireme.io/v1/renew/node", "forbid"),
        (somebody, Method::POST, "/trireme.io/v1/join/node", ""),
    ];
    for (user, method, path, _) in &cases {
        server.call_as(*user, method.clone(), path, "application/json", "{}").await;
    }
    let told = async {
        loop {
            let text = std::fs::read_to_string(&path).unwrap();
            let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            // The server's own requests are told as well.
            let lines: Vec<Value> = lines.into_iter().filter(|line| !line["sourceIPs"].is_null()).collect();
            if lines.len() >= cases.len() {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(20), told).await.unwrap();
    for ((user, _, path, decision), event) in cases.iter().zip(&told) {
        assert_eq!((event["requestURI"].as_str(), event["user"]["username"].as_str()), (Some(*path), Some(user.0)));
        assert_eq!(event["annotations"][DECISION].as_str().unwrap_or_default(), *decision, "{event}");
    }
}
