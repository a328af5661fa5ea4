//! One connection to one master: TCP, TLS, and HTTP/2 (or HTTP/1.1 where an upgrade is wanted).

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::RwLock;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Address, DialFailure, DialFailureKind, Timing};

/// Request bodies are whole: they have to be repeatable.
pub(crate) type RequestBody = Full<Bytes>;

/// An open connection that ordinary requests can share.
#[derive(Clone)]
pub(crate) enum Shared {
    /// Multiplexed.
    H2(http2::SendRequest<RequestBody>),
    /// The server speaks no HTTP/2: every request dials for itself.
    OnlyH1,
}

impl Shared {
    pub fn is_closed(&self) -> bool {
        match self {
            Shared::H2(sender) => sender.is_closed(),
            Shared::OnlyH1 => false,
        }
    }
}

/// TLS settings for both kinds of connection.
pub(crate) struct Dialer {
    tls: RwLock<Settings>,
    server_name: Option<String>,
    timing: Timing,
}

#[derive(Clone)]
struct Settings {
    h2: Arc<ClientConfig>,
    h1: Arc<ClientConfig>,
}

impl Settings {
    fn new(tls: ClientConfig) -> Settings {
        let mut h2 = tls.clone();
        h2.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut h1 = tls;
        h1.alpn_protocols = vec![b"http/1.1".to_vec()];
        Settings { h2: Arc::new(h2), h1: Arc::new(h1) }
    }
}

impl Dialer {
    pub fn new(tls: ClientConfig, server_name: Option<String>, timing: Timing) -> Dialer {
        Dialer { tls: RwLock::new(Settings::new(tls)), server_name, timing }
    }

    /// Connections that are made from now on use these settings.
    pub fn replace(&self, tls: ClientConfig) {
        *self.tls.write() = Settings::new(tls);
    }

    fn settings(&self) -> Settings {
        self.tls.read().clone()
    }

    /// A connection for ordinary requests.
    pub async fn shared(&self, address: &Address) -> Result<Shared, DialFailure> {
        self.timed(address, async {
            if address.plain {
                // Whether somebody is there.
                return tcp(address).await.map(|_| Shared::OnlyH1);
            }
            let stream = self.handshake(address, self.settings().h2).await?;
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                return Ok(Shared::OnlyH1);
            }
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(self.timing.ping)
                .keep_alive_timeout(self.timing.ping_timeout)
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(8 << 20)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(|error| failure(address, DialFailureKind::Network, &chain(&error)))?;
            // Ends with the connection, which ends when the last sender and response body are gone.
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error = %chain(&error), "connection to a master ended");
                }
            });
            Ok(Shared::H2(sender))
        })
        .await
    }

    /// An HTTP/1.1 connection for one request, which may be upgraded.
    pub async fn single(&self, address: &Address) -> Result<http1::SendRequest<RequestBody>, DialFailure> {
        self.timed(address, async {
            match address.plain {
                true => http1_over(address, tcp(address).await?).await,
                false => http1_over(address, self.handshake(address, self.settings().h1).await?).await,
            }
        })
        .await
    }

    async fn timed<T>(
        &self,
        address: &Address,
        work: impl Future<Output = Result<T, DialFailure>>,
    ) -> Result<T, DialFailure> {
        match tokio::time::timeout(self.timing.dial, work).await {
            Ok(result) => result,
            Err(_) => Err(failure(address, DialFailureKind::TimedOut, "no answer in time")),
        }
    }

    async fn handshake(&self, address: &Address, tls: Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, DialFailure> {
        let name = self.server_name.as_deref().unwrap_or(&address.host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| failure(address, DialFailureKind::Tls, &format!("{name:?} is no host name")))?;
        let tcp = tcp(address).await?;
        TlsConnector::from(tls).connect(name, tcp).await.map_err(|error| {
            let is_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
            let kind = if is_tls { DialFailureKind::Tls } else { DialFailureKind::Network };
            failure(address, kind, &format!("tls: {error}"))
        })
    }
}

async fn tcp(address: &Address) -> Result<TcpStream, DialFailure> {
    let tcp = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => DialFailureKind::Refused,
            io::ErrorKind::TimedOut => DialFailureKind::TimedOut,
            _ => DialFailureKind::Network,
        };
        failure(address, kind, &format!("dial tcp {}: {error}", address.authority))
    })?;
    // Requests are small and answered at once: waiting to fill segments only costs.
    let _ = tcp.set_nodelay(true);
    Ok(tcp)
}

async fn http1_over<S>(address: &Address, stream: S) -> Result<http1::SendRequest<RequestBody>, DialFailure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failure(address, DialFailureKind::Network, &chain(&error)))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(error = %chain(&error), "connection to a master ended");
        }
    });
    Ok(sender)
}

fn failure(address: &Address, kind: DialFailureKind, reason: &str) -> DialFailure {
    DialFailure { url: address.url.clone(), kind, reason: reason.to_owned() }
}

/// An error with its causes, which hyper keeps out of its own text.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let next = inner.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = inner.source();
    }
    text
}
