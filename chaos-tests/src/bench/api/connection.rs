//! HTTPS with as little between the program and the socket as hyper allows: one connection, one request at a time, or for
//! watches many streams on one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::config::Kubeconfig;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cluster::Cluster;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Windows of flow control, so large that nothing waits for them.
const WINDOW: u32 = 8 << 20;

/// One master, as its kubeconfig describes it.
#[derive(Clone)]
pub struct Target {
    authority: Arc<str>,
    one: Arc<ClientConfig>,
    many: Arc<ClientConfig>,
}

/// A connection on which watches are streams.
pub type Streams = http2::SendRequest<Empty<Bytes>>;

/// All masters.
///
/// # Errors
/// When a kubeconfig cannot be used.
pub fn targets(cluster: &Cluster) -> Result<Vec<Target>> {
    (1..=cluster.masters()).map(|n| Target::read(&cluster.root().join(format!("kubeconfig-master-{n}")))).collect()
}

/// A part of a kubeconfig that is in base64.
fn data(text: &Value) -> Result<Vec<u8>> {
    Ok(STANDARD.decode(text.as_str().context("the kubeconfig lacks certificates")?.trim())?)
}

impl Target {
    fn read(path: &Path) -> Result<Target> {
        // As a value, since keys are wrapped against being shown.
        let kubeconfig = Kubeconfig::read_from(path).with_context(|| path.display().to_string())?;
        let kubeconfig = serde_json::to_value(kubeconfig)?;
        let (cluster, user) = (&kubeconfig["clusters"][0]["cluster"], &kubeconfig["users"][0]["user"]);
        let server = cluster["server"].as_str().context("no server")?;
        let authority = server.trim_start_matches("https://").trim_end_matches('/');
        let mut roots = RootCertStore::empty();
        for der in CertificateDer::pem_slice_iter(&data(&cluster["certificate-authority-data"])?) {
            roots.add(der?)?;
        }
        let chain = data(&user["client-certificate-data"])?;
        let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&data(&user["client-key-data"])?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut one = config.with_root_certificates(roots).with_client_auth_cert(chain, key)?;
        one.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut many = one.clone();
        many.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Target { authority: authority.into(), one: Arc::new(one), many: Arc::new(many) })
    }

    async fn stream(&self, tls: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>> {
        let host = self.authority.rsplit_once(':').context("no port")?.0.to_owned();
        let connecting = async {
            let tcp = TcpStream::connect(&*self.authority).await?;
            tcp.set_nodelay(true)?;
            anyhow::Ok(TlsConnector::from(tls.clone()).connect(ServerName::try_from(host)?, tcp).await?)
        };
        tokio::time::timeout(CONNECT, connecting).await?
    }

    /// A connection (HTTP/1.1) for one request at a time.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn connect(&self) -> Result<Connection> {
        let stream = self.stream(&self.one).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender, authority: self.authority.clone() })
    }

    /// A connection (HTTP/2) for many watches.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn streams(&self) -> Result<Streams> {
        let stream = self.stream(&self.many).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW / 8)
            .initial_connection_window_size(WINDOW)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// A request for a watch.
    ///
    /// # Errors
    /// When the path is none.
    pub fn watch(&self, path: &str) -> Result<Request<Empty<Bytes>>> {
        Ok(Request::get(format!("https://{}{path}", self.authority)).body(Empty::new())?)
    }
}

/// A connection for one request at a time.
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    authority: Arc<str>,
}

impl Connection {
    /// Sends a request; returns when the answer begins.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        more: &[(header::HeaderName, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, &*self.authority);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        for (name, value) in more {
            request = request.header(name, *value);
        }
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(Full::new(body))?).await?)
    }

    /// A request whose answer is read and, if it is a success, forgotten.
    ///
    /// # Errors
    /// When it is not one of these codes.
    pub async fn done(&mut self, method: Method, path: &str, body: Bytes, codes: &[StatusCode]) -> Result<()> {
        let mut answer = self.send(method, path, &[], body).await?;
        if !codes.contains(&answer.status()) {
            let code = answer.status();
            let why = answer.into_body().collect().await?.to_bytes();
            anyhow::bail!("{path}: {code}: {}", String::from_utf8_lossy(&why));
        }
        while let Some(frame) = answer.body_mut().frame().await {
            frame?;
        }
        Ok(())
    }

    /// Reads a collection; how many bytes came, and the last of them.
    ///
    /// # Errors
    /// When it is refused or breaks off.
    pub async fn list(&mut self, path: &str, more: &[(header::HeaderName, &str)]) -> Result<(u64, Bytes)> {
        let mut answer = self.send(Method::GET, path, more, Bytes::new()).await?;
        ensure!(answer.status() == StatusCode::OK, "{path}: {}", answer.status());
        let (mut count, mut last) = (0, Bytes::new());
        while let Some(frame) = answer.body_mut().frame().await {
            if let Ok(data) = frame?.into_data() {
                count += data.len() as u64;
                last = data;
            }
        }
        Ok((count, last))
    }
}
