//! Logs and sessions through a stand-in for a node's agent.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::body::Body;
use futures::SinkExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, LogParams};
use rustls_pki_types::pem::PemObject;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};
use trireme_apiserver::pki::key_and_csr;

use super::harness::{PODS, Server, pod};

async fn answer(mut request: Request<hyper::body::Incoming>) -> Result<Response<Body>, Infallible> {
    let uri = request.uri().to_string();
    if uri.starts_with("/containerLogs/default/p/waiting") {
        let mut refused =
            Response::new(Body::from("container \"waiting\" in pod \"p\" is waiting to start: ContainerCreating"));
        *refused.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(refused);
    }
    if uri.starts_with("/containerLogs/") {
        return Ok(Response::new(Body::from(format!("asked {uri}\n"))));
    }
    if uri.starts_with("/dial/") {
        return Ok(super::forward::dialed(request));
    }
    if uri.starts_with("/echo") {
        return Ok(super::forward::echo(request).await);
    }
    if uri.starts_with("/exec/default/p/waiting") {
        let mut refused = Response::new(Body::from("container not found (\"waiting\")"));
        *refused.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return Ok(refused);
    }
    if request.headers()["upgrade"] == "SPDY/3.1" {
        return Ok(echo(request));
    }
    let key = derive_accept_key(request.headers()["sec-websocket-key"].as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let io = TokioIo::new(upgrade.await.unwrap());
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        let mut out = vec![1u8];
        out.extend_from_slice(uri.as_bytes());
        socket.send(Message::binary(out)).await.unwrap();
        let mut status = vec![3u8];
        status.extend_from_slice(json!({"metadata": {}, "status": "Success"}).to_string().as_bytes());
        socket.send(Message::binary(status)).await.unwrap();
        let _ = socket.close(None).await;
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", key)
        .header(
            "sec-websocket-protocol",
            request.headers()["sec-websocket-protocol"].to_str().unwrap().split(',').next().unwrap(),
        );
    Ok(response.body(Body::empty()).unwrap())
}

/// Sends back whatever comes, after the request's line.
fn echo(mut request: Request<hyper::body::Incoming>) -> Response<Body> {
    let asked = format!("{} {}", request.method(), request.uri());
    let protocol = request.headers()["x-stream-protocol-version"].clone();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgrade.await.unwrap());
        io.write_all(asked.as_bytes()).await.unwrap();
        let (mut read, mut write) = tokio::io::split(io);
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "Upgrade")
        .header("upgrade", "SPDY/3.1")
        .header("x-stream-protocol-version", protocol);
    response.body(Body::empty()).unwrap()
}

/// Listens as node `n1` with a certificate of the cluster and takes only the API server's.
pub async fn agent(server: &Server) -> u16 {
    let own = key_and_csr().unwrap();
    let certificate = server.pki.sign_node(&own.csr_pem, "n1", IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
    let chain = rustls_pki_types::CertificateDer::pem_slice_iter(certificate.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for der in rustls_pki_types::CertificateDer::pem_slice_iter(server.pki.ca_pem().as_bytes()) {
        roots.add(der.unwrap()).unwrap();
    }
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = hyper::service::service_fn(answer);
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                let _ = connection.with_upgrades().await;
            });
        }
    });
    port
}

pub async fn bound_pod(server: &Server, port: u16) {
    server.post("/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                                   "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    let path = "/api/v1/nodes/n1/status";
    let (code, node) = server.call(Method::PATCH, path, "application/merge-patch+json", status.to_string()).await;
    assert_eq!(code, StatusCode::OK, "{node}");
    let mut two = pod("p");
    two["spec"]["containers"] = json!([{"name": "c", "image": "i"}, {"name": "waiting", "image": "i"}]);
    server.post(PODS, two).await;
}

async fn bind(server: &Server) {
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(server.post(&format!("{PODS}/p/binding"), binding).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn logs_and_exec() {
    let server = Server::start().await;
    let port = agent(&server).await;
    bound_pod(&server, port).await;
    let (code, refused) = server.get(&format!("{PODS}/p/log")).await;
    assert_eq!(
        (code, refused["message"].as_str().unwrap()),
        (StatusCode::BAD_REQUEST, "a container name must be specified for pod p, choose one of: [c waiting]")
    );
    bind(&server).await;
    let pods: Api<Pod> = Api::default_namespaced(server.admin().await);
    let parameters = LogParams { container: Some("c".into()), tail_lines: Some(3), ..LogParams::default() };
    assert_eq!(pods.logs("p", &parameters).await.unwrap(), "asked /containerLogs/default/p/c?tailLines=3\n");
    let (code, waiting) = server.get(&format!("{PODS}/p/log?container=waiting")).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert!(waiting["message"].as_str().unwrap().ends_with("is waiting to start: ContainerCreating"), "{waiting}");
    let attach = AttachParams::default().container("c").stdin(false).stderr(false);
    let mut session = pods.exec("p", ["echo", "a b"], &attach).await.unwrap();
    let mut out = String::new();
    session.stdout().unwrap().read_to_string(&mut out).await.unwrap();
    assert_eq!(out, "/exec/default/p/c?command=echo&command=a%20b&output=1");
    let (code, refused) = server.get(&format!("{PODS}/p/exec?command=sh&stdout=true&container=c")).await;
    assert_eq!((code, &refused["message"]), (StatusCode::BAD_REQUEST, &json!("Upgrade request required")));
}

#[tokio::test]
async fn sessions_over_spdy_pass_through_and_refusals_stay_as_they_are() {
    let server = Server::start().await;
    let port = agent(&server).await;
    bound_pod(&server, port).await;
    bind(&server).await;
    let client = server.admin().await;
    let ask = |path: String, protocol: &'static str| {
        let request = Request::post(path)
            .header("connection", "Upgrade")
            .header("upgrade", "SPDY/3.1")
            .header("x-stream-protocol-version", protocol);
        client.send(request.body(kube::client::Body::empty()).unwrap())
    };
    let response = ask(format!("{PODS}/p/portforward"), "portforward.k8s.io").await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["x-stream-protocol-version"], "portforward.k8s.io");
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let sent = vec![7; 300_000];
    io.write_all(&sent).await.unwrap();
    io.shutdown().await.unwrap();
    let mut got = Vec::new();
    io.read_to_end(&mut got).await.unwrap();
    let asked = b"POST /portForward/default/p";
    assert!(got.starts_with(asked) && got[asked.len()..] == sent, "{} bytes", got.len());
    let path = format!("{PODS}/p/exec?command=sh&stdout=true&container=waiting");
    let response = ask(path, "v4.channel.k8s.io").await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&text[..], b"container not found (\"waiting\")");
}

#[tokio::test]
async fn an_agent_that_is_away() {
    let server = Server::start().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    bound_pod(&server, port).await;
    bind(&server).await;
    let (code, status) = server.get(&format!("{PODS}/p/log?container=c")).await;
    assert_eq!((code, status["reason"].as_str()), (StatusCode::INTERNAL_SERVER_ERROR, None));
    let message = status["message"].as_str().unwrap();
    assert!(
        message.starts_with(&format!("error dialing backend: dial tcp 127.0.0.1:{port}: connect: connection refused")),
        "{message}"
    );
}
