//! Tests of fail-over against local TLS servers: one healthy, one dead, one hanging, one without a quorum.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::*;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    fn client(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(Vec::new()).unwrap().signed_by(&key, &self.issuer).unwrap();
        Identity { cert_pem: cert.pem().into_bytes(), key_pem: key.serialize_pem().into_bytes() }
    }

    fn server(&self) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

/// What a server does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// 200 with the server's name.
    Answer,
    /// 503 with `Retry-After`.
    NoQuorum,
    /// Takes the request and cuts the connection.
    Cut,
}

struct Server {
    url: String,
    requests: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Server {
    async fn start(authority: &Authority, name: &'static str, manner: Manner) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (requests, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let (acceptor, counter, stopped) = (authority.server(), requests.clone(), stop.clone());
        tokio::spawn(async move {
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = stopped.cancelled() => return,
                };
                let (acceptor, counter, stopped) = (acceptor.clone(), counter.clone(), stopped.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let cut = CancellationToken::new();
                    let cutting = cut.clone();
                    let service = service_fn(move |request: Request<Incoming>| {
                        counter.fetch_add(1, Ordering::SeqCst);
                        respond(name, manner, cutting.clone(), request)
                    });
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
                    tokio::select! {
                        _ = serving => {}
                        () = stopped.cancelled() => {}
                        () = cut.cancelled() => {}
                    }
                });
            }
        });
        Server { url, requests, stop }
    }

    fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn respond(
    name: &'static str,
    manner: Manner,
    cut: CancellationToken,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.headers().contains_key("upgrade") {
        assert_eq!(request.version(), http::Version::HTTP_11);
        let switching = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header("upgrade", "test");
        return Ok(switching.header("connection", "upgrade").body(Full::default()).unwrap());
    }
    assert_eq!(request.version(), http::Version::HTTP_2);
    match manner {
        Manner::Answer => Ok(Response::new(Full::from(name))),
        Manner::NoQuorum => {
            let response = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).header("retry-after", "1");
            Ok(response.body(Full::from(name)).unwrap())
        }
        Manner::Cut => {
            cut.cancel();
            std::future::pending().await
        }
    }
}

/// A listener that takes connections (by the kernel) and never says a word.
async fn hanging() -> (String, std::net::TcpListener) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    (format!("https://{}", listener.local_addr().unwrap()), listener)
}

/// An address where nothing listens.
async fn dead() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    format!("https://{address}")
}

fn client(authority: &Authority, urls: &[&str]) -> (kube::Client, Masters) {
    let urls = urls.iter().map(|url| (*url).to_owned()).collect();
    let mut config = MastersConfig::new(urls, authority.pem.clone().into_bytes(), None);
    config.timing.patience = Duration::from_millis(300);
    config.timing.pause = Duration::from_millis(20);
    connect(config).unwrap()
}

async fn ask(client: &kube::Client, method: &str) -> Result<String, kube::Error> {
    let request = Request::builder().method(method).uri("/api").body(b"{}".to_vec()).unwrap();
    client.request_text(request).await
}

#[tokio::test]
async fn a_dead_and_a_hanging_master_are_passed_over() {
    let authority = Authority::new();
    let good = Server::start(&authority, "good", Manner::Answer).await;
    let (hanging, _listener) = hanging().await;
    let dead = dead().await;
    let (client, masters) = client(&authority, &[&dead, &hanging, &good.url]);
    let begun = Instant::now();
    assert_eq!(ask(&client, "POST").await.unwrap(), "good");
    assert!(begun.elapsed() < Duration::from_secs(2), "took {:?}", begun.elapsed());
    // From now on nobody else is bothered.
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(ask(&client, "GET").await.unwrap(), "good");
    }
    assert!(begun.elapsed() < Duration::from_secs(2));
    let health = masters.health();
    assert!(health.iter().any(|master| master.url == good.url && master.preferred && master.connected));
    assert!(health.iter().any(|master| master.url == dead && master.failure.is_some()));
}

#[tokio::test]
async fn when_the_preferred_master_dies_another_takes_over() {
    let authority = Authority::new();
    let first = Server::start(&authority, "first", Manner::Answer).await;
    let second = Server::start(&authority, "second", Manner::Answer).await;
    let (client, _) = client(&authority, &[&first.url, &second.url]);
    assert_eq!(ask(&client, "GET").await.unwrap(), "first");
    first.stop.cancel();
    for _ in 0..10 {
        assert_eq!(ask(&client, "GET").await.unwrap(), "second");
    }
    assert_eq!(ask(&client, "POST").await.unwrap(), "second");
}

#[tokio::test]
async fn a_master_without_quorum_is_left_and_its_refusal_reported_if_all_refuse() {
    let authority = Authority::new();
    let lost = Server::start(&authority, "lost", Manner::NoQuorum).await;
    let good = Server::start(&authority, "good", Manner::Answer).await;
    let (all, _) = client(&authority, &[&lost.url, &good.url]);
    assert_eq!(ask(&all, "POST").await.unwrap(), "good");
    assert_eq!(ask(&all, "POST").await.unwrap(), "good");
    assert_eq!(lost.count(), 1);
    let (alone, _) = client(&authority, &[&lost.url]);
    let error = ask(&alone, "GET").await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 503), "{error:?}");
}

#[tokio::test]
async fn a_write_that_may_have_happened_is_not_repeated_but_a_read_is() {
    let authority = Authority::new();
    let cutting = Server::start(&authority, "cutting", Manner::Cut).await;
    let good = Server::start(&authority, "good", Manner::Answer).await;
    let (client_a, _) = client(&authority, &[&cutting.url, &good.url]);
    let error = ask(&client_a, "POST").await.unwrap_err();
    assert!(matches!(MastersError::of(&error), Some(MastersError::Interrupted { .. })), "{error:?}");
    assert_eq!(good.count(), 0);
    let (client_b, _) = client(&authority, &[&cutting.url, &good.url]);
    assert_eq!(ask(&client_b, "GET").await.unwrap(), "good");
}

#[tokio::test]
async fn a_server_of_another_ca_is_not_believed() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let stranger = Server::start(&theirs, "stranger", Manner::Answer).await;
    let good = Server::start(&ours, "good", Manner::Answer).await;
    let (both, _) = client(&ours, &[&stranger.url, &good.url]);
    assert_eq!(ask(&both, "GET").await.unwrap(), "good");
    let (alone, _) = client(&ours, &[&stranger.url]);
    let error = ask(&alone, "GET").await.unwrap_err();
    match MastersError::of(&error) {
        Some(MastersError::Unreachable(failures)) => assert_eq!(failures[0].kind, DialFailureKind::Tls),
        other => panic!("{other:?}"),
    }
    assert_eq!(stranger.count(), 0);
}

#[tokio::test]
async fn all_dead_is_reported_at_once_with_each_reason() {
    let authority = Authority::new();
    let (first, second) = (dead().await, dead().await);
    let (client, _) = client(&authority, &[&first, &second]);
    let error = ask(&client, "GET").await.unwrap_err();
    match MastersError::of(&error) {
        Some(MastersError::Unreachable(failures)) => {
            assert_eq!(failures.len(), 2);
            assert!(failures.iter().all(|failure| failure.kind == DialFailureKind::Refused));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn upgrades_go_over_http_1_and_fail_over_too() {
    let authority = Authority::new();
    let dead = dead().await;
    let good = Server::start(&authority, "good", Manner::Answer).await;
    let (client, _) = client(&authority, &[&dead, &good.url]);
    let request = Request::builder().uri("/exec").header("connection", "upgrade").header("upgrade", "test");
    let response = client.send(request.body(kube::client::Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
}

#[tokio::test]
async fn what_was_dialed_with_a_former_identity_is_not_kept() {
    let authority = Authority::new();
    let good = Server::start(&authority, "good", Manner::Answer).await;
    // In front of it a relay that holds the first connection back.
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", relay.local_addr().unwrap());
    let (arrived, mut arrivals) = tokio::sync::mpsc::channel(8);
    let release = CancellationToken::new();
    let (gate, behind) = (release.clone(), good.url.trim_start_matches("https://").to_owned());
    tokio::spawn(async move {
        while let Ok((mut near, _)) = relay.accept().await {
            arrived.send(()).await.unwrap();
            let (gate, behind) = (gate.clone(), behind.clone());
            tokio::spawn(async move {
                gate.cancelled().await;
                let mut far = tokio::net::TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let (client, masters) = client(&authority, &[&url]);
    let early = tokio::spawn({
        let client = client.clone();
        async move { ask(&client, "GET").await }
    });
    arrivals.recv().await.unwrap();
    masters.set_identity(&authority.client()).unwrap();
    release.cancel();
    assert_eq!(early.await.unwrap().unwrap(), "good", "its own dial still serves it");
    assert!(arrivals.try_recv().is_err());
    // The new identity is shown on a connection of its own, and that one stays.
    for _ in 0..3 {
        assert_eq!(ask(&client, "GET").await.unwrap(), "good");
    }
    arrivals.try_recv().unwrap();
    assert!(arrivals.try_recv().is_err());
}

#[tokio::test]
async fn masters_can_be_replaced_and_the_first_ones_stay_as_a_last_resort() {
    let authority = Authority::new();
    let seed = Server::start(&authority, "seed", Manner::Answer).await;
    let learned = Server::start(&authority, "learned", Manner::Answer).await;
    let (client, masters) = client(&authority, &[&seed.url]);
    masters.set(std::slice::from_ref(&learned.url)).unwrap();
    assert_eq!(masters.urls(), std::slice::from_ref(&learned.url));
    assert_eq!(ask(&client, "GET").await.unwrap(), "learned");
    learned.stop.cancel();
    assert_eq!(ask(&client, "GET").await.unwrap(), "seed");
    assert!(masters.set(&[]).is_err());
    assert!(masters.set(&["http://plain".to_owned()]).is_err());
    assert_eq!(masters.urls(), std::slice::from_ref(&learned.url));
}

#[test]
fn urls_are_taken_apart() {
    let address = Address::parse("https://[::1]:6443/prefix/").unwrap();
    assert_eq!((address.host.as_str(), address.port, address.prefix.as_str()), ("::1", 6443, "/prefix"));
    assert_eq!(Address::parse("https://host").unwrap().port, 443);
    let plain = Address::parse("http://host").unwrap();
    assert_eq!((plain.plain, plain.port), (true, 80));
    for bad in ["host:1", "https://", "ftp://x", ""] {
        assert!(Address::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn endpoints_become_urls() {
    let endpoints: k8s_openapi::api::core::v1::Endpoints = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "kubernetes"},
        "subsets": [{"addresses": [{"ip": "10.0.0.2"}, {"ip": "fd00::1"}, {"ip": "10.0.0.1"}],
                     "ports": [{"name": "metrics", "port": 1}, {"name": "https", "port": 6443}]}]
    }))
    .unwrap();
    assert_eq!(
        urls_of_endpoints(&endpoints),
        ["https://10.0.0.1:6443", "https://10.0.0.2:6443", "https://[fd00::1]:6443"]
    );
}

#[tokio::test]
async fn plain_http_is_for_those_who_ask_for_it() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/under", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            // The first connection only looks whether somebody is there.
            if read > 0 {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain").await.unwrap();
                return String::from_utf8_lossy(&head[..read]).into_owned();
            }
        }
    });
    let config = MastersConfig { trust: Trust::Anyone, ..MastersConfig::new(vec![url], Vec::new(), None) };
    assert!(connect(config.clone()).is_err());
    let (client, _) = connect(MastersConfig { plain_allowed: true, ..config }).unwrap();
    assert_eq!(ask(&client, "GET").await.unwrap(), "plain");
    assert!(server.await.unwrap().starts_with("GET /under/api HTTP/1.1\r\n"));
}
