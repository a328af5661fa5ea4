//! Lists: pages of one revision, selectors, resourceVersion rules, shapes.

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::harness::{ADMIN, MAPS, PODS, Server, config_map, pod};

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn pages_show_one_revision() {
    let server = Server::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        server.post(MAPS, config_map(name, "1")).await;
    }
    let (_, first) = server.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    // What happens now must not be seen on the next pages.
    server.delete(&format!("{MAPS}/c")).await;
    server.post(MAPS, config_map("bb", "1")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = server.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(second["metadata"]["remainingItemCount"], 1);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let (_, last) = server.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!(names(&last), ["e"]);
    assert!(last["metadata"]["continue"].is_null());
    let revision = first["metadata"]["resourceVersion"].as_str().unwrap();
    let (_, exact) = server.get(&format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact")).await;
    assert_eq!(names(&exact), ["a", "b", "c", "d", "e"]);
    let (_, newer) = server.get(&format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=NotOlderThan")).await;
    assert_eq!(names(&newer), ["a", "b", "bb", "d", "e"]);
    server.api.store().compact(server.api.store().applied_revision()).await.unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (code, expired) = server.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!((code, &expired["reason"]), (StatusCode::GONE, &json!("Expired")), "{expired}");
    // Who does without consistency goes on where the pages ended.
    let again = expired["metadata"]["continue"].as_str().unwrap();
    let (code, rest) = server.get(&format!("{MAPS}?limit=2&continue={again}")).await;
    assert_eq!((code, names(&rest)), (StatusCode::OK, vec!["bb", "d"]), "{rest}");
    let next = rest["metadata"]["continue"].as_str().unwrap();
    let (_, last) = server.get(&format!("{MAPS}?limit=2&continue={next}")).await;
    assert_eq!(names(&last), ["e"]);
    assert_eq!(last["metadata"]["resourceVersion"], rest["metadata"]["resourceVersion"]);
    let (code, expired) = server.get(&format!("{MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact")).await;
    let why = "The resourceVersion for the provided list is too old.";
    assert_eq!((code, &expired["message"]), (StatusCode::GONE, &json!(why)), "{expired}");
}

#[tokio::test]
async fn selectors_select() {
    let server = Server::start().await;
    for name in ["x", "y", "z"] {
        server.post(PODS, pod(name)).await;
    }
    let binding = json!({"metadata": {"name": "y"}, "target": {"kind": "Node", "name": "n1"}});
    server.post(&format!("{PODS}/y/binding"), binding).await;
    for (query, expected) in [
        ("labelSelector=app%20in%20(x,z)", vec!["x", "z"]),
        ("labelSelector=app!%3Dx", vec!["y", "z"]),
        ("fieldSelector=spec.nodeName%3Dn1", vec!["y"]),
        ("fieldSelector=spec.nodeName%3D", vec!["x", "z"]),
        ("fieldSelector=metadata.name%3Dz", vec!["z"]),
        ("fieldSelector=status.phase%3DPending&labelSelector=app", vec!["x", "y", "z"]),
    ] {
        let (_, list) = server.get(&format!("{PODS}?{query}")).await;
        assert_eq!(names(&list), expected, "{query}");
        let (_, all) = server.get(&format!("/api/v1/pods?resourceVersion=0&{query}")).await;
        assert_eq!(names(&all), expected, "{query}");
    }
}

#[tokio::test]
async fn shapes_and_compression() {
    let server = Server::start().await;
    server.post(PODS, pod("shown")).await;
    let get = async |path: &str, name: &'static str, value: &'static str| {
        let request = Request::get(path).header(name, value).body(Body::empty()).unwrap();
        let answer = server.raw(Some(ADMIN), request).await;
        let encoded = answer.headers().get("content-encoding").is_some();
        (encoded, answer.into_body().collect().await.unwrap().to_bytes())
    };
    let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let table = json(&get(PODS, "accept", "application/json;as=Table;g=meta.k8s.io;v=v1,application/json").await.1);
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    assert_eq!(table["rows"][0]["cells"][0], "shown");
    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let partial = json(&get(PODS, "accept", partial).await.1);
    assert_eq!(partial["kind"], "PartialObjectMetadataList");
    assert!(partial["items"][0]["spec"].is_null());
    let yaml = get(&format!("{PODS}/shown"), "accept", "application/yaml").await.1;
    assert!(String::from_utf8_lossy(&yaml).contains("kind: Pod"));
    server.post(MAPS, config_map("big", &"v".repeat(300_000))).await;
    assert!(get(MAPS, "accept-encoding", "gzip").await.0);
    assert!(!get(PODS, "accept-encoding", "gzip").await.0);
}
