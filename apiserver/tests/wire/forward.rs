//! `nodes/proxy`, `pods/proxy` and `services/proxy`.

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;

use super::harness::{ADMIN, Server};
use super::proxy::{agent, bound_pod};

const NODE: &str = "/api/v1/nodes/n1/proxy";

/// Says what arrived; `/echo/moved` redirects.
pub async fn echo(request: Request<hyper::body::Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if parts.uri.path() == "/echo/moved" {
        return Response::builder().status(302).header("location", "/echo/there").body(Body::empty()).unwrap();
    }
    if parts.uri.path() == "/echo/switch" {
        let switched = Response::builder().status(101).header("connection", "Upgrade").header("upgrade", "mine");
        return switched.body(Body::empty()).unwrap();
    }
    let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let body = body.collect().await.unwrap().to_bytes();
    let said = json!({
        "request": format!("{} {}", parts.method, parts.uri), "body": String::from_utf8_lossy(&body),
        "uri": header("x-forwarded-uri"), "for": header("x-forwarded-for"), "proto": header("x-forwarded-proto"),
        "mine": header("x-mine"), "authorization": header("authorization"), "te": header("te"),
    });
    Response::builder()
        .status(203)
        .header("x-answer", "yes")
        .header("content-type", "application/json")
        .body(Body::from(said.to_string()))
        .unwrap()
}

#[tokio::test]
async fn requests_pass_through_to_the_node() {
    let server = Server::start().await;
    let port = agent(&server).await;
    bound_pod(&server, port).await;
    let request = Request::put(format!("{NODE}/echo/a%2Fb//c?x=1&y"))
        .header("x-mine", "kept")
        .header("authorization", "Bearer secret")
        .header("te", "trailers")
        .body(Body::from("hello"))
        .unwrap();
    let answer = server.raw(Some(ADMIN), request).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["x-answer"]), (203, &"yes".parse().unwrap()));
    let said: serde_json::Value =
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(
        said,
        json!({"request": "PUT /echo/a%2Fb//c?x=1&y", "body": "hello", "uri": format!("{NODE}/echo/a%2Fb//c"),
               "for": "127.0.0.1", "proto": "https", "mine": "kept", "authorization": null, "te": null})
    );
    for method in [Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        let (code, said) = server.call(method.clone(), &format!("{NODE}/echo"), "", "").await;
        assert_eq!((code.as_u16(), &said["request"]), (203, &json!(format!("{method} /echo"))));
    }
    let get = |path: String| server.raw(Some(ADMIN), Request::get(path).body(Body::empty()).unwrap());
    let bare = get(format!("{NODE}?a=b")).await;
    assert_eq!(
        (bare.status().as_u16(), bare.headers()["location"].to_str().unwrap()),
        (301, "/api/v1/nodes/n1/proxy/?a=b")
    );
    let moved = get(format!("{NODE}/echo/moved")).await;
    assert_eq!(
        (moved.status().as_u16(), moved.headers()["location"].to_str().unwrap()),
        (302, "/api/v1/nodes/n1/proxy/echo/there")
    );
    let switched = get(format!("{NODE}/echo/switch")).await;
    assert_eq!(switched.status().as_u16(), 503);
    let text = switched.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&text).contains("error trying to reach service: "), "{text:?}");
    // What others say is passed on as they said it, also to people.
    let request = Request::get(format!("{NODE}/echo?pretty=true")).header("user-agent", "curl/8").body(Body::empty());
    let text = server.raw(Some(ADMIN), request.unwrap()).await.into_body().collect().await.unwrap().to_bytes();
    assert!(!text.contains(&b'\n'), "{text:?}");
}

/// Plays the pod that a master asks the agent to connect to.
pub fn dialed(mut request: Request<hyper::body::Incoming>) -> Response<Body> {
    assert_eq!(
        (request.uri().path(), &request.headers()["upgrade"]),
        ("/dial/10.244.0.9/8080", &"trireme-dial".parse().unwrap())
    );
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let service =
            hyper::service::service_fn(|request| async { Ok::<_, std::convert::Infallible>(echo(request).await) });
        let io = upgrade.await.unwrap();
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    });
    let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header("connection", "Upgrade");
    response.header("upgrade", "trireme-dial").body(Body::empty()).unwrap()
}

/// Masters need not be on the pod network.
#[tokio::test]
async fn pods_are_reached_through_their_node() {
    let server = Server::start().await;
    let port = agent(&server).await;
    bound_pod(&server, port).await;
    let pods = "/api/v1/namespaces/default/pods";
    let (code, status) = server.get(&format!("{pods}/p:8080/proxy/echo")).await;
    assert_eq!((code.as_u16(), &status["message"]), (503, &json!("pod p has no address yet")));
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    server.post(&format!("{pods}/p/binding"), binding).await;
    let status = json!({"status": {"podIP": "10.244.0.9", "podIPs": [{"ip": "10.244.0.9"}]}}).to_string();
    server.call(Method::PATCH, &format!("{pods}/p/status"), "application/merge-patch+json", status).await;
    let (code, said) = server.get(&format!("{pods}/p:8080/proxy/echo?a")).await;
    assert_eq!((code.as_u16(), &said["request"]), (203, &json!("GET /echo?a")), "{said}");
}

#[tokio::test]
async fn what_cannot_be_reached_and_who_may_not() {
    let server = Server::start().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    bound_pod(&server, port).await;
    let (code, status) = server.get(&format!("{NODE}/healthz")).await;
    assert_eq!((code, &status["reason"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("ServiceUnavailable")));
    let message = status["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("error trying to reach service: dial tcp 127.0.0.1:{port}: ")), "{message}");
    let (code, status) = server.get("/api/v1/nodes/n1:22/proxy/").await;
    assert_eq!((code.as_u16(), &status["message"]), (400, &json!("address not allowed")));
    assert_eq!(server.get("/api/v1/nodes/n2/proxy/").await.0, StatusCode::NOT_FOUND);
    assert_eq!(server.get("/api/v1/nodes/ftp:n1:1/proxy/").await.0, StatusCode::BAD_REQUEST);
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
    server.post("/api/v1/namespaces/default/services", service).await;
    let services = "/api/v1/namespaces/default/services";
    let (code, status) = server.get(&format!("{services}/web:80/proxy/")).await;
    assert_eq!((code.as_u16(), &status["message"]), (503, &json!("no endpoints available for service \"web\"")));
    let endpoints = json!({"metadata": {"name": "web"}, "subsets": [
        {"addresses": [{"ip": "192.0.2.1", "nodeName": "gone"}], "ports": [{"port": 80}]}]});
    assert_eq!(server.post("/api/v1/namespaces/default/endpoints", endpoints).await.0, StatusCode::CREATED);
    let (_, status) = server.get(&format!("{services}/web:80/proxy/")).await;
    let message = "error trying to reach service: dial tcp 192.0.2.1:80: the agent of node \"gone\" is not known";
    assert_eq!((&status["code"], &status["message"]), (&json!(503), &json!(message)));
    let (code, status) = server.get(&format!("{services}/web:81/proxy/")).await;
    assert_eq!((code.as_u16(), &status["message"]), (503, &json!("no service port 81 found for service \"web\"")));
    for user in [("system:node:n1", &["system:nodes"][..]), ("somebody", &[])] {
        let (code, status) = server.call_as(user, Method::GET, &format!("{NODE}/metrics"), "", "").await;
        assert_eq!(code, StatusCode::FORBIDDEN, "{status}");
        assert!(status["message"].as_str().unwrap().contains("cannot get resource \"nodes/proxy\""), "{status}");
    }
}
