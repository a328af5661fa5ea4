//! Requests that make no sense: each is answered, none with a server error, and what is stored stays as it is.

use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::harness::{ADMIN, MAPS, Server, absolute, config_map};

const TYPES: [&str; 12] = [
    "application/json",
    "application/yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/vnd.kubernetes.protobuf",
    "application/cbor",
    "text/plain; charset=\"",
    "",
    ";;;",
    "application/json;as=Table;v=v9;g=x",
];

fn pick<'a>(rng: &mut StdRng, all: &[&'a str]) -> &'a str {
    all[rng.random_range(0..all.len())]
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn text(rng: &mut StdRng) -> String {
    let likely =
        ["a", "=", "!=", " in (", ")", ",", "/", "metadata.name", "!", "é", "\u{0}", "%", "&", "status.phase", "(("];
    (0..rng.random_range(0..8)).map(|_| pick(rng, &likely)).collect()
}

/// A list's address with options that are wrong or unusual; `token` is a continue token that the server gave.
fn list(rng: &mut StdRng, token: &str) -> String {
    let mut token = token.to_owned().into_bytes();
    if rng.random_bool(0.7) && !token.is_empty() {
        let at = rng.random_range(0..token.len());
        token[at] = rng.random_range(b'!'..b'~');
    }
    let number = ["-1", "0", "1", "x", "99999999999999999999", "", "1e3", "0x10"];
    let flag = ["true", "false", "1", "maybe", ""];
    let token = String::from_utf8(token).unwrap();
    let mut options = Vec::new();
    for _ in 0..rng.random_range(0..5) {
        options.push(match rng.random_range(0..9) {
            0 => format!("limit={}", pick(rng, &number)),
            1 => format!("continue={}", escaped(&token)),
            2 => format!("resourceVersion={}", pick(rng, &["-1", "0", "1", "x", ""])),
            3 => format!("resourceVersionMatch={}", pick(rng, &["Exact", "NotOlderThan", "exact", ""])),
            4 => format!("labelSelector={}", escaped(&text(rng))),
            5 => format!("fieldSelector={}", escaped(&text(rng))),
            6 => format!("sendInitialEvents={}", pick(rng, &flag)),
            7 => format!("continue={}", escaped(&text(rng))),
            _ => format!("{}={}", escaped(&text(rng)), escaped(&text(rng))),
        });
    }
    let path = pick(rng, &[MAPS, "/api/v1/configmaps", "/api/v1/pods", "/apis/apps/v1/deployments", "/api/v1/events"]);
    format!("{path}?{}", options.join("&"))
}

fn body(rng: &mut StdRng) -> Vec<u8> {
    let whole = config_map("c", "2");
    let documents = [
        whole.clone(),
        json!([]),
        json!(null),
        json!({"metadata": null, "data": {"k": 1}}),
        json!({"metadata": {"managedFields": [{"manager": 1}], "name": "c"}, "data": []}),
        json!({"metadata": {"resourceVersion": {}, "uid": 3, "ownerReferences": [{}], "finalizers": "x"}}),
        json!([{"op": "replace", "path": "/metadata", "value": 1}]),
        json!([{"op": "copy", "from": "", "path": "/data/x"}]),
        json!({"data": {"$patch": 1}, "$setElementOrder/data": 1}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "labels": {"a b": "c d"}}, "dat": {}}),
        json!({"kind": "DeleteOptions", "preconditions": {"uid": "x"}, "gracePeriodSeconds": -5, "dryRun": ["Some"]}),
        json!({"kind": {}, "apiVersion": []}),
    ];
    let mut bytes = documents[rng.random_range(0..documents.len())].to_string().into_bytes();
    for _ in 0..rng.random_range(0..3) {
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..3) {
            0 => bytes[at] = rng.random(),
            1 => bytes.truncate(at.max(1)),
            _ => bytes.insert(at, rng.random()),
        }
    }
    bytes
}

fn write(rng: &mut StdRng) -> Request<axum::body::Body> {
    let method = [Method::PATCH, Method::PUT, Method::POST, Method::DELETE][rng.random_range(0..4)].clone();
    let name = pick(rng, &["/c", "/c", "/c/status", "/none", "/c/scale", "/%00", "/..", "", "/c%2Fd"]);
    let force = pick(
        rng,
        &["", "&force=true", "&force=x", "&fieldValidation=Wrong", "&fieldManager=%01", "&propagationPolicy=x"],
    );
    // Whatever is taken is only tried.
    let path = format!("{MAPS}{name}?dryRun=All&fieldManager=m{force}");
    let request = Request::builder().method(method).uri(path).header("content-type", pick(rng, &TYPES));
    let accept = pick(
        rng,
        &[
            "application/json",
            "*/*",
            "application/json;as=Table;v=v1;g=meta.k8s.io",
            "x/y",
            "",
            "a;b;c,,",
            "application/yaml",
        ],
    );
    request.header("accept", accept).body(body(rng).into()).unwrap()
}

#[tokio::test]
async fn nonsense_is_answered_and_changes_nothing() {
    let server = Server::start().await;
    for name in ["c", "d"] {
        server.post(MAPS, config_map(name, "1")).await;
    }
    let (_, page) = server.get(&format!("{MAPS}?limit=1")).await;
    let token = page["metadata"]["continue"].as_str().unwrap().to_owned();
    let (_, before) = server.get(&format!("{MAPS}/c")).await;
    let (mut sender, _) = server.connect(Some(server.pki.client(ADMIN.0, ADMIN.1).unwrap())).await.unwrap();
    let mut rng = StdRng::seed_from_u64(7);
    let mut refused = 0;
    for i in 0..600 {
        let request = match i % 2 {
            0 => Request::get(list(&mut rng, &token)).body(axum::body::Body::empty()).unwrap(),
            _ => write(&mut rng),
        };
        let shown = format!("{} {} {:?}", request.method(), request.uri(), request.headers());
        let response = sender.send_request(absolute(request)).await.expect(&shown);
        let code = response.status();
        let answer = response.into_body().collect().await.unwrap().to_bytes();
        assert!(code.as_u16() < 500, "{shown}: {code} {}", String::from_utf8_lossy(&answer));
        if code.is_client_error() {
            refused += 1;
            if let Ok(status) = serde_json::from_slice::<Value>(&answer) {
                assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(code.as_u16())), "{shown}");
                assert!(!status["message"].as_str().unwrap_or_default().is_empty(), "{shown}: {status}");
            }
        }
    }
    assert!(refused > 200, "{refused}");
    let (code, after) = server.get(&format!("{MAPS}/c")).await;
    assert_eq!((code, after), (StatusCode::OK, before));
}

#[tokio::test]
async fn what_could_not_be_read_again_is_not_stored() {
    let server = Server::start().await;
    let revisions = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({"a": inner}));
    let revision = |levels: usize| json!({"metadata": {"name": "r"}, "revision": 1, "data": nested(levels)});
    let (code, answer) = server.post(revisions, revision(110)).await;
    assert_eq!(code, StatusCode::BAD_REQUEST, "{answer}");
    let (code, answer) = server.post(revisions, revision(80)).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    // A patch is as deep as a body may be, and what it is put into is so as well.
    let patch = json!([{"op": "add", "path": format!("/data{}/b", "/a".repeat(79)), "value": nested(80)}]);
    let path = format!("{revisions}/r");
    let (code, answer) = server.call(Method::PATCH, &path, "application/json-patch+json", patch.to_string()).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    let (code, answer) = server.get(revisions).await;
    assert_eq!((code, answer["items"].as_array().map(Vec::len)), (StatusCode::OK, Some(1)), "{answer}");
}
