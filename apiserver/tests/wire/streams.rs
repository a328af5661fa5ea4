//! Lists that are made while they are sent: one state whatever is written meanwhile, in every shape, in bounded memory.

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use futures::StreamExt;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::harness::{ADMIN, MAPS, Server, absolute, config_map};

/// Objects that a connection does not take at once, whatever its windows are.
const OBJECTS: usize = 64;
const SIZE: usize = 256 << 10;

async fn fill(server: &Server, count: usize, size: usize) {
    let pair = server.pki.client(ADMIN.0, ADMIN.1).unwrap();
    let (sender, _) = server.connect(Some(pair)).await.unwrap();
    let created = futures::stream::iter(0..count).map(|i| {
        let body = config_map(&format!("m{i:05}"), &format!("{i:08}").repeat(size / 8 + 1)).to_string();
        let request = Request::post(MAPS).header("content-type", "application/json").body(Body::from(body)).unwrap();
        let mut sender = sender.clone();
        async move {
            sender.ready().await.unwrap();
            assert_eq!(sender.send_request(absolute(request)).await.unwrap().status(), StatusCode::CREATED);
        }
    });
    created.buffer_unordered(16).collect::<Vec<()>>().await;
}

async fn open(server: &Server, path: &str, headers: &[(&'static str, &'static str)]) -> http::Response<Incoming> {
    let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    let answer = server.raw(Some(ADMIN), request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    answer
}

async fn rest(body: Incoming) -> Result<Vec<u8>, hyper::Error> {
    let read = tokio::time::timeout(Duration::from_secs(60), body.collect());
    Ok(read.await.expect("an end in time")?.to_bytes().to_vec())
}

/// A figure of `/metrics`.
async fn metric(server: &Server, name: &str) -> u64 {
    let (_, text) = server.get("/metrics").await;
    let text = text.as_str().unwrap().to_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_default().to_owned();
    line.parse().unwrap_or_else(|_| panic!("{name} in {text}"))
}

async fn until(server: &Server, name: &str, wanted: impl Fn(u64) -> bool) {
    for _ in 0..600 {
        if wanted(metric(server, name).await) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{name} is {}", metric(server, name).await);
}

/// Bytes that wait once their number stands still.
async fn waiting(server: &Server) -> u64 {
    let mut last = u64::MAX;
    loop {
        let now = metric(server, "apiserver_list_waiting_bytes").await;
        if now == last && now > 0 {
            return now;
        }
        last = now;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_list_shows_one_state_whatever_is_written_while_it_is_read() {
    // With a short window the rest of the list comes from the store's history.
    for window in [2048, 4] {
        let server = Server::with(|c| c.limits.window_events = window).await;
        fill(&server, OBJECTS, SIZE).await;
        let (_, before) = server.get(&format!("{MAPS}?labelSelector=no%3Done")).await;
        let mut answer = open(&server, MAPS, &[]).await;
        let mut read = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
        let held = waiting(&server).await;
        assert!(held <= 4 * (64 << 10) + 4 * SIZE as u64, "{held} bytes wait");
        let last = OBJECTS - 1;
        for i in 0..4 {
            server.delete(&format!("{MAPS}/m{:05}", last - i)).await;
            server.post(MAPS, config_map(&format!("n{i}"), "new")).await;
        }
        server.put(&format!("{MAPS}/m{:05}", last - 5), config_map(&format!("m{:05}", last - 5), "changed")).await;
        read.extend(rest(answer.into_body()).await.unwrap());
        let list: Value = serde_json::from_slice(&read).unwrap();
        let items = list["items"].as_array().unwrap();
        assert_eq!(list["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
        let expected: Vec<String> = (0..OBJECTS).map(|i| format!("m{i:05}")).collect();
        assert_eq!(items.iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect::<Vec<_>>(), expected);
        for (i, item) in items.iter().enumerate() {
            assert!(item["data"]["k"].as_str().unwrap().starts_with(&format!("{i:08}")), "{i} was changed later");
            assert!(item["metadata"]["resourceVersion"].as_str().is_some());
        }
        until(&server, "apiserver_list_streams", |n| n == 0).await;
        assert_eq!(metric(&server, "apiserver_list_waiting_bytes").await, 0);
    }
}

#[tokio::test]
async fn who_hangs_up_or_stands_still_holds_nothing() {
    let server = Server::with(|c| c.limits.list_stall = Duration::from_millis(300)).await;
    fill(&server, OBJECTS, SIZE).await;
    let mut answer = open(&server, MAPS, &[]).await;
    answer.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(metric(&server, "apiserver_lists_broken_off_total").await, 0);
    drop(answer);
    until(&server, "apiserver_list_streams", |n| n == 0).await;
    assert_eq!(metric(&server, "apiserver_lists_broken_off_total").await, 0, "a hang-up is no slowness");
    for encoding in ["identity", "gzip"] {
        let answer = open(&server, MAPS, &[("accept-encoding", encoding)]).await;
        let broken = metric(&server, "apiserver_lists_broken_off_total").await;
        if encoding == "identity" {
            until(&server, "apiserver_lists_broken_off_total", |n| n == broken + 1).await;
            // A list that was broken off must not look like a whole one.
            assert!(rest(answer.into_body()).await.is_err());
        } else {
            let list = rest(answer.into_body()).await.unwrap();
            assert!(list.starts_with(&[0x1f, 0x8b]));
        }
    }
    until(&server, "apiserver_list_waiting_bytes", |n| n == 0).await;
    let request = Request::head(MAPS).body(Body::empty()).unwrap();
    let head = server.raw(Some(ADMIN), request).await;
    assert_eq!(head.status(), StatusCode::OK);
    assert!(rest(head.into_body()).await.unwrap().is_empty());
    until(&server, "apiserver_list_streams", |n| n == 0).await;
}

#[tokio::test]
async fn every_shape_and_encoding_streams() {
    let server = Server::start().await;
    fill(&server, 40, 16 << 10).await;
    let plain: Value =
        serde_json::from_slice(&rest(open(&server, MAPS, &[]).await.into_body()).await.unwrap()).unwrap();
    let (_, one) = server.get(&format!("{MAPS}/m00007")).await;
    assert_eq!((plain["items"].as_array().unwrap().len(), &plain["items"][7]), (40, &one));
    let zipped = open(&server, MAPS, &[("accept-encoding", "gzip")]).await;
    assert_eq!(zipped.headers()["content-encoding"], "gzip");
    let mut text = String::new();
    let zipped = rest(zipped.into_body()).await.unwrap();
    flate2::read::GzDecoder::new(&zipped[..]).read_to_string(&mut text).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), plain);
    let yaml = open(&server, MAPS, &[("accept", "application/yaml")]).await;
    assert_eq!(yaml.headers()["content-type"], "application/yaml");
    let yaml: Value = serde_norway::from_slice(&rest(yaml.into_body()).await.unwrap()).unwrap();
    assert_eq!(yaml, plain);
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let shown = async |path: &str, accept: &'static str| -> Value {
        let answer = open(&server, path, &[("accept", accept)]).await;
        serde_json::from_slice(&rest(answer.into_body()).await.unwrap()).unwrap()
    };
    let wide = shown(&format!("{MAPS}?includeObject=Object"), table).await;
    assert_eq!((&wide["kind"], wide["rows"].as_array().unwrap().len()), (&json!("Table"), 40));
    assert_eq!((&wide["rows"][7]["cells"][0], &wide["rows"][7]["object"]), (&json!("m00007"), &one));
    assert_eq!(wide["columnDefinitions"][0]["name"], "Name");
    let partial = shown(MAPS, "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1").await;
    assert_eq!(partial["items"][7]["metadata"], one["metadata"]);
    assert_eq!(partial["items"][7]["kind"], "PartialObjectMetadata");
    let bare = open(&server, MAPS, &[(trireme_omit(), "true")]).await;
    let bare: Value = serde_json::from_slice(&rest(bare.into_body()).await.unwrap()).unwrap();
    let mut expected = one.clone();
    expected["metadata"].as_object_mut().unwrap().remove("managedFields").unwrap();
    assert_eq!(bare["items"][7], expected);
    // Nothing at all, in each encoding.
    for (accept, empty) in [("application/json", "\"items\":[]}\n"), ("application/yaml", "items: []\n")] {
        let none = open(&server, &format!("{MAPS}?labelSelector=no%3Done"), &[("accept", accept)]).await;
        let none = String::from_utf8(rest(none.into_body()).await.unwrap()).unwrap();
        assert!(none.ends_with(empty), "{none}");
    }
    let request = Request::get(format!("{MAPS}?includeObject=Nonsense")).header("accept", table);
    let refused = server.raw(Some(ADMIN), request.body(Body::empty()).unwrap()).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
}

fn trireme_omit() -> &'static str {
    "trireme-omit-managed-fields"
}

#[tokio::test]
async fn pages_of_any_size_go_on_where_they_ended() {
    let server = Server::start().await;
    fill(&server, 1_040, 8).await;
    for limit in [500, 1_000, 1_035] {
        let (mut names, mut token, mut revisions) = (Vec::new(), String::new(), Vec::new());
        loop {
            let (code, page) = server.get(&format!("{MAPS}?limit={limit}&continue={token}")).await;
            assert_eq!(code, StatusCode::OK, "{page}");
            let items = page["items"].as_array().unwrap();
            names.extend(items.iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()));
            revisions.push(page["metadata"]["resourceVersion"].clone());
            let Some(next) = page["metadata"]["continue"].as_str() else { break };
            assert_eq!(items.len(), limit);
            assert_eq!(page["metadata"]["remainingItemCount"], 1_040 - names.len());
            token = next.to_owned();
            server.post(MAPS, config_map(&format!("n{limit}-{}", names.len()), "later")).await;
        }
        assert_eq!(names, (0..1_040).map(|i| format!("m{i:05}")).collect::<Vec<_>>(), "limit {limit}");
        revisions.dedup();
        assert_eq!(revisions.len(), 1);
        let (_, all) = server.get(&format!("{MAPS}?labelSelector=none")).await;
        assert!(all["items"].as_array().unwrap().is_empty());
        for name in server.get(&format!("{MAPS}?limit=100000")).await.1["items"].as_array().unwrap() {
            let name = name["metadata"]["name"].as_str().unwrap();
            if name.starts_with('n') {
                server.delete(&format!("{MAPS}/{name}")).await;
            }
        }
    }
}

#[tokio::test]
async fn a_watch_that_begins_with_what_there_is_survives_many_changes_meanwhile() {
    let server = Server::with(|c| {
        c.limits.window_events = 4;
        c.limits.watcher_backlog = 4;
    })
    .await;
    fill(&server, OBJECTS, SIZE).await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut body = open(&server, &format!("{MAPS}?{query}"), &[]).await.into_body();
    let mut read = body.frame().await.unwrap().unwrap().into_data().unwrap().to_vec();
    for i in 0..12 {
        server.post(MAPS, config_map(&format!("n{i}"), "new")).await;
    }
    let (mut events, mut searched) = (Vec::new(), 0);
    while !events.contains(&"ADDED n11".to_owned()) {
        let frame = tokio::time::timeout(Duration::from_secs(30), body.frame()).await.expect("an event in time");
        read.extend_from_slice(&frame.expect("the watch goes on").unwrap().into_data().unwrap());
        while let Some(end) = read[searched..].iter().position(|b| *b == b'\n').map(|at| searched + at) {
            let event: Value = serde_json::from_slice(&read[..end]).unwrap();
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
            events.push(format!("{} {name}", event["type"].as_str().unwrap()));
            read.drain(..=end);
            searched = 0;
        }
        searched = read.len();
    }
    events.retain(|event| event != "BOOKMARK ");
    let first = (0..OBJECTS).map(|i| format!("ADDED m{i:05}"));
    assert_eq!(events, first.chain((0..12).map(|i| format!("ADDED n{i}"))).collect::<Vec<_>>());
}

/// The answer to the deletion of many objects is a list like any other: of the state in which they were chosen.
#[tokio::test]
async fn a_large_collection_is_deleted_and_listed_in_bounded_memory() {
    const MANY: usize = 1_100;
    let server = Server::with(|c| c.limits.window_events = 64).await;
    fill(&server, MANY, 64).await;
    let (_, dry) = server.delete(&format!("{MAPS}?dryRun=All")).await;
    assert_eq!(dry["items"].as_array().unwrap().len(), MANY);
    assert_eq!(server.get(MAPS).await.1["items"].as_array().unwrap().len(), MANY);
    let (_, some) = server.delete(&format!("{MAPS}?fieldSelector=metadata.name%3Dm00007")).await;
    assert_eq!(some["items"][0]["metadata"]["name"], "m00007");
    let (code, gone) = server.delete(MAPS).await;
    assert_eq!((code, &gone["kind"]), (StatusCode::OK, &json!("ConfigMapList")));
    let items = gone["items"].as_array().unwrap();
    let wanted = (0..MANY).filter(|i| *i != 7).map(|i| format!("m{i:05}"));
    assert!(items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).eq(wanted));
    assert_eq!(items[0]["data"]["k"].as_str().map(|text| &text[..8]), Some("00000000"));
    assert!(server.get(MAPS).await.1["items"].as_array().unwrap().is_empty());
    let (_, none) = server.delete(MAPS).await;
    assert!(none["items"].as_array().unwrap().is_empty());
    until(&server, "apiserver_list_streams", |n| n == 0).await;
}
