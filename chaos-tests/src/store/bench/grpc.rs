//! As much of gRPC as etcd's five calls need, over hyper's HTTP/2: one request for a unary call, without buffers,
//! layers or retries in between, so that the generator of load is no worse for etcd than ours is for our store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Flow-control windows, large enough that nothing waits for them.
const WINDOW: u32 = 8 << 20;

/// A call: where it goes.
pub struct Call(pub &'static str);

pub const PUT: Call = Call("/etcdserverpb.KV/Put");
pub const RANGE: Call = Call("/etcdserverpb.KV/Range");
pub const TXN: Call = Call("/etcdserverpb.KV/Txn");
pub const WATCH: Call = Call("/etcdserverpb.Watch/Watch");
pub const STATUS: Call = Call("/etcdserverpb.Maintenance/Status");

/// How to speak TLS to etcd.
///
/// # Errors
/// When the certificates cannot be read.
pub fn tls(folder: &Path) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem"))?)?;
    let chain = vec![CertificateDer::from_pem_file(folder.join("client.pem"))?];
    let key = PrivateKeyDer::from_pem_file(folder.join("client-key.pem"))?;
    // etcd 3.5.1 speaks 1.2 at most.
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions)?;
    let mut config = config.with_root_certificates(roots).with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// A connection; cloning shares it. The body of its requests is whole, or for watches a stream.
pub struct Channel<B> {
    sender: SendRequest<B>,
    authority: Arc<str>,
}

impl<B> Clone for Channel<B> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), authority: self.authority.clone() }
    }
}

impl<B> Channel<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn connect(address: &str, tls: Arc<ClientConfig>) -> Result<Self> {
        let connecting = async {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let host = address.rsplit_once(':').context("no port")?.0.to_owned();
            let stream = TlsConnector::from(tls).connect(ServerName::try_from(host)?, tcp).await?;
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(WINDOW)
                .initial_connection_window_size(2 * WINDOW)
                .handshake(TokioIo::new(stream))
                .await?;
            tokio::spawn(connection);
            anyhow::Ok(sender)
        };
        let sender = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await??;
        Ok(Self { sender, authority: address.into() })
    }

    /// Sends a request; returns when the answer begins.
    ///
    /// # Errors
    /// When the connection is lost, or the answer is an error.
    pub async fn send(&self, call: &Call, body: B) -> Result<Response<Incoming>> {
        let uri = Uri::builder().scheme("https").authority(&*self.authority).path_and_query(call.0).build()?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
            .header(header::TE, HeaderValue::from_static("trailers"))
            .body(body)?;
        let response = self.sender.clone().send_request(request).await?;
        judge(response.headers())?;
        Ok(response)
    }
}

impl Channel<Full<Bytes>> {
    /// One message there, one back.
    ///
    /// # Errors
    /// When the connection is lost, or the answer is an error.
    pub async fn unary<M: Message, R: Message + Default>(&self, call: &Call, message: &M) -> Result<R> {
        let mut answers = Answers::new(self.send(call, Full::new(frame(message))).await?);
        let answer = answers.next().await?.context("no answer")?;
        // The status comes after the message.
        ensure!(answers.next::<R>().await?.is_none(), "a second answer");
        Ok(answer)
    }
}

/// A message with what precedes it.
pub fn frame<M: Message>(message: &M) -> Bytes {
    let size = message.encoded_len();
    let mut out = BytesMut::with_capacity(5 + size);
    out.put_u8(0);
    out.put_u32(size as u32);
    message.encode(&mut out).expect("there is room");
    out.freeze()
}

fn judge(headers: &http::HeaderMap) -> Result<()> {
    match headers.get("grpc-status").map(HeaderValue::as_bytes) {
        None | Some(b"0") => Ok(()),
        Some(code) => {
            let why = headers.get("grpc-message").map(|m| String::from_utf8_lossy(m.as_bytes()).into_owned());
            bail!("status {}: {}", String::from_utf8_lossy(code), why.unwrap_or_default())
        }
    }
}

/// The messages of an answer.
pub struct Answers {
    body: Incoming,
    buffer: BytesMut,
    /// A piece that is used where it is, when the buffer is empty.
    piece: Bytes,
}

impl Answers {
    /// Those of a response.
    pub fn new(response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), buffer: BytesMut::new(), piece: Bytes::new() }
    }

    fn take(&mut self) -> Option<Bytes> {
        let size = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?) as usize + 5);
        if self.buffer.is_empty() {
            if let Some(size) = size(&self.piece).filter(|size| *size <= self.piece.len()) {
                let mut message = self.piece.split_to(size);
                message.advance(5);
                return Some(message);
            }
            self.buffer.extend_from_slice(&self.piece);
            self.piece.clear();
        }
        let size = size(&self.buffer).filter(|size| *size <= self.buffer.len())?;
        let mut message = self.buffer.split_to(size).freeze();
        message.advance(5);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Some(message)
    }

    /// The next message; `None` after the last one of an answer without an error.
    ///
    /// # Errors
    /// When the connection is lost, or the answer ends with an error.
    pub async fn next<R: Message + Default>(&mut self) -> Result<Option<R>> {
        loop {
            if let Some(message) = self.take() {
                return Ok(Some(R::decode(message)?));
            }
            let Some(frame) = self.body.frame().await.transpose()? else { return Ok(None) };
            match frame.into_data() {
                Ok(data) if self.buffer.is_empty() && self.piece.is_empty() => self.piece = data,
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(frame) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        judge(trailers)?;
                    }
                }
            }
        }
    }
}
