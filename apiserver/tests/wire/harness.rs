//! One server for each test, and clients for it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::body::Body;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use trireme_apiserver::pki::{MasterIdentity, Pair, Pki};
use trireme_apiserver::{ApiServer, Config};
use trireme_raftstore::{PeerTls, Store};

pub const ADMIN: (&str, &[&str]) = ("admin", &["system:masters"]);

pub struct Server {
    pub api: ApiServer,
    pub pki: Pki,
    pub address: SocketAddr,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whom the server's certificates are for.
pub fn identity() -> MasterIdentity {
    MasterIdentity {
        name: "m1".into(),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        service_ip: IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)),
        cluster_domain: "cluster.local".into(),
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(adjust: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(&dir.path().join("pki"), &identity()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Announced only: the clients here connect to where it listens.
        let url = "https://192.0.2.10:6443".to_owned();
        let peer: SocketAddr = format!("127.0.0.1:{}", free_port()).parse().unwrap();
        let tls = PeerTls {
            ca_pem: pki.peer_ca_pem().as_bytes().to_vec(),
            cert_pem: pki.peer().cert_pem.clone().into_bytes(),
            key_pem: pki.peer().key_pem.clone().into_bytes(),
        };
        let store_config =
            trireme_raftstore::Config::new(dir.path().join("store"), "m1", peer, peer.to_string(), url.clone(), tls);
        let store = Store::bootstrap(store_config).await.unwrap();
        let mut config = Config::new(address, url);
        adjust(&mut config);
        let api = ApiServer::new(config, store, pki.clone()).unwrap();
        api.wait_synced().await;
        api.bootstrap(None).await.unwrap();
        let stop = CancellationToken::new();
        let serving = api.clone();
        let shutdown = stop.clone();
        tokio::spawn(async move { serving.serve(listener, shutdown).await.unwrap() });
        Self { api, pki, address, stop, _dir: dir }
    }

    pub fn kubeconfig(&self, user: &str, groups: &[&str]) -> Value {
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let pair = self.pki.client(user, groups).unwrap();
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://{}", self.address),
                "certificate-authority-data": encode(self.pki.ca_pem()),
            }}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "default"}}],
            "users": [{"name": "u", "user": {
                "client-certificate-data": encode(&pair.cert_pem),
                "client-key-data": encode(&pair.key_pem),
            }}],
        })
    }

    pub async fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig: Kubeconfig = serde_json::from_value(self.kubeconfig(user, groups)).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    pub async fn admin(&self) -> kube::Client {
        self.client(ADMIN.0, ADMIN.1).await
    }

    /// A raw request over TLS (HTTP/2), with or without a client certificate.
    pub async fn raw(
        &self,
        identity: Option<(&str, &[&str])>,
        request: Request<Body>,
    ) -> Response<hyper::body::Incoming> {
        let pair = identity.map(|(user, groups)| self.pki.client(user, groups).unwrap());
        self.raw_with(pair, request).await.0
    }

    /// A raw request with this certificate; also gives the server's.
    pub async fn raw_with(
        &self,
        pair: Option<Pair>,
        request: Request<Body>,
    ) -> (Response<hyper::body::Incoming>, Vec<u8>) {
        let (mut sender, shown) = self.connect(pair).await.unwrap();
        (sender.send_request(absolute(request)).await.unwrap(), shown)
    }

    /// A connection (HTTP/2) with this certificate, and the server's.
    pub async fn connect(&self, pair: Option<Pair>) -> std::io::Result<(http2::SendRequest<Body>, Vec<u8>)> {
        let mut roots = rustls::RootCertStore::empty();
        use rustls_pki_types::pem::PemObject;
        for der in rustls_pki_types::CertificateDer::pem_slice_iter(self.pki.ca_pem().as_bytes()) {
            roots.add(der.unwrap()).unwrap();
        }
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = rustls_pki_types::CertificateDer::pem_slice_iter(pair.cert_pem.as_bytes());
                let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
                let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, stream).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok((sender, shown))
    }

    /// A request as the administrator; the answer's code and JSON.
    pub async fn call(&self, method: Method, path: &str, kind: &str, body: impl Into<String>) -> (StatusCode, Value) {
        self.call_as(ADMIN, method, path, kind, body).await
    }

    pub async fn call_as(
        &self,
        identity: (&str, &[&str]),
        method: Method,
        path: &str,
        kind: &str,
        body: impl Into<String>,
    ) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        let response = self.raw(Some(identity), request.body(Body::from(body.into())).unwrap()).await;
        let code = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes))))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.call(Method::GET, path, "", "").await
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, path, "application/json", body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::PUT, path, "application/json", body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> (StatusCode, Value) {
        self.call(Method::DELETE, path, "", "").await
    }
}

/// The request with the URI that HTTP/2 needs.
pub fn absolute(request: Request<Body>) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    parts.uri = format!("https://localhost{}", parts.uri).parse().unwrap();
    Request::from_parts(parts, body)
}

pub fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}})
}

pub fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
           "spec": {"containers": [{"name": "c", "image": "busybox"}]}})
}

pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const PODS: &str = "/api/v1/namespaces/default/pods";
