//! Watches: order, resumption, bookmarks, selections, expiry.

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::time::Duration;

use super::harness::{ADMIN, MAPS, Server, config_map};

struct Frames {
    body: hyper::body::Incoming,
    buffer: Vec<u8>,
}

impl Frames {
    async fn open(server: &Server, query: &str) -> Self {
        Self::accepting(server, query, "application/json").await
    }

    async fn accepting(server: &Server, query: &str, accept: &str) -> Self {
        let request = Request::get(format!("{MAPS}?watch=true&{query}")).header("accept", accept);
        let request = request.body(Body::empty()).unwrap();
        let answer = server.raw(Some(ADMIN), request).await;
        assert_eq!(answer.status(), 200);
        Self { body: answer.into_body(), buffer: Vec::new() }
    }

    /// The next event; nothing after the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame =
                tokio::time::timeout(Duration::from_secs(10), self.body.frame()).await.expect("an event in time");
            let data: Bytes = frame?.unwrap().into_data().unwrap();
            self.buffer.extend_from_slice(&data);
        }
    }

    async fn expect(&mut self, kind: &str, name: &str) -> Value {
        let event = self.next().await.unwrap();
        assert_eq!(
            (event["type"].as_str(), event["object"]["metadata"]["name"].as_str()),
            (Some(kind), Some(name)),
            "{event}"
        );
        event["object"].clone()
    }
}

fn revision(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

async fn label(server: &Server, name: &str, value: Value) -> Value {
    let body = json!({"metadata": {"labels": {"tier": value}}}).to_string();
    server.call(Method::PATCH, &format!("{MAPS}/{name}"), "application/merge-patch+json", body).await.1
}

#[tokio::test]
async fn changes_come_in_order_and_can_be_resumed() {
    let server = Server::start().await;
    let (_, a) = server.post(MAPS, config_map("a", "1")).await;
    let mut live = Frames::open(&server, "").await;
    live.expect("ADDED", "a").await;
    let (_, b) = server.post(MAPS, config_map("b", "1")).await;
    label(&server, "a", json!("x")).await;
    server.delete(&format!("{MAPS}/b")).await;
    live.expect("ADDED", "b").await;
    live.expect("MODIFIED", "a").await;
    let deleted = live.expect("DELETED", "b").await;
    assert!(revision(&deleted).parse::<u64>().unwrap() > revision(&b).parse::<u64>().unwrap());
    assert_eq!(deleted["data"]["k"], "1");
    let mut resumed = Frames::open(&server, &format!("resourceVersion={}", revision(&a))).await;
    resumed.expect("ADDED", "b").await;
    resumed.expect("MODIFIED", "a").await;
    assert_eq!(resumed.expect("DELETED", "b").await, deleted);
}

#[tokio::test]
async fn history_serves_what_the_window_has_forgotten() {
    let server = Server::with(|c| c.limits.window_events = 3).await;
    let (_, first) = server.post(MAPS, config_map("n0", "1")).await;
    for i in 1..12 {
        server.post(MAPS, config_map(&format!("n{i}"), "1")).await;
    }
    let mut resumed = Frames::open(&server, &format!("resourceVersion={}", revision(&first))).await;
    for i in 1..12 {
        resumed.expect("ADDED", &format!("n{i}")).await;
    }
    server.post(MAPS, config_map("after", "1")).await;
    resumed.expect("ADDED", "after").await;
    server.api.store().compact(server.api.store().applied_revision()).await.unwrap();
    let mut expired = Frames::open(&server, &format!("resourceVersion={}", revision(&first))).await;
    let error = expired.next().await.unwrap();
    assert_eq!(
        (&error["type"], &error["object"]["code"], &error["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert!(expired.next().await.is_none());
}

#[tokio::test]
async fn selections_translate_changes() {
    let server = Server::start().await;
    server.post(MAPS, config_map("m", "1")).await;
    let mut selected = Frames::open(&server, "labelSelector=tier%3Dx").await;
    label(&server, "m", json!("x")).await;
    selected.expect("ADDED", "m").await;
    label(&server, "m", json!("y")).await;
    let left = selected.expect("DELETED", "m").await;
    assert_eq!(left["metadata"]["labels"]["tier"], "x");
    label(&server, "m", json!("x")).await;
    selected.expect("ADDED", "m").await;
    let mut one = Frames::open(&server, "fieldSelector=metadata.name%3Dother&resourceVersion=0").await;
    label(&server, "m", json!("z")).await;
    server.post(MAPS, config_map("other", "1")).await;
    one.expect("ADDED", "other").await;
}

#[tokio::test]
async fn bookmarks() {
    let server = Server::with(|c| c.bookmark_interval = Duration::from_millis(200)).await;
    server.post(MAPS, config_map("a", "1")).await;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = Frames::open(&server, query).await;
    watch.expect("ADDED", "a").await;
    let end = watch.next().await.unwrap();
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!((&end["object"]["kind"], &end["object"]["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    let periodic = watch.next().await.unwrap();
    assert_eq!(periodic["type"], "BOOKMARK");
    // Without being asked for there is none.
    let mut silent = Frames::open(&server, "timeoutSeconds=1").await;
    silent.expect("ADDED", "a").await;
    assert!(silent.next().await.is_none());
}

#[tokio::test]
async fn a_new_fence_is_announced_at_once() {
    let server = Server::start().await;
    let (_, a) = server.post(MAPS, config_map("a", "1")).await;
    let mut watch = Frames::open(&server, &format!("resourceVersion={}&allowWatchBookmarks=true", revision(&a))).await;
    assert_eq!(watch.next().await.unwrap()["type"], "BOOKMARK");
    let fence = server.api.acquire_fence().await.unwrap();
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert!(revision(&bookmark["object"]).parse::<u64>().unwrap() >= fence.revision());
}

/// Frames are shared by those who watch in the same form, and by nobody else.
#[tokio::test]
async fn each_form_of_a_change_is_told_to_those_who_asked_for_it() {
    let server = Server::start().await;
    server.post(MAPS, config_map("a", "1")).await;
    let partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let mut whole = Frames::open(&server, "").await;
    let mut first = Frames::accepting(&server, "", partial).await;
    let mut second = Frames::accepting(&server, "", partial).await;
    for kind in ["ADDED", "MODIFIED", "DELETED"] {
        match kind {
            "MODIFIED" => drop(label(&server, "a", json!("x")).await),
            "DELETED" => drop(server.delete(&format!("{MAPS}/a")).await),
            _ => {}
        }
        let all = whole.expect(kind, "a").await;
        let mut metadata = first.expect(kind, "a").await;
        assert_eq!(second.expect(kind, "a").await, metadata);
        assert_eq!((&all["kind"], &all["data"]["k"]), (&json!("ConfigMap"), &json!("1")));
        assert_eq!(metadata["metadata"].take(), all["metadata"], "{kind}");
        let rest = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": null});
        assert_eq!(metadata, rest, "{kind}");
    }
}
