//! The TLS listener: bounded connections, identity from the client certificate, graceful shutdown.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use trireme_api::status::Status;

use crate::error::ServerError;
use crate::identity::{Caller, PeerCertificate, UserInfo};
use crate::request::info::RequestInfo;
use crate::server::ApiServer;
use crate::{keepalive, response};

const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longer than clients keep idle connections, so that it is they who close them.
const HEADER: Duration = Duration::from_secs(150);
const DRAIN: Duration = Duration::from_secs(10);
/// The same once the client's certificate has expired.
const EXPIRED: Duration = Duration::from_secs(2);
/// The clock may be set meanwhile: how long a wait for a time of day relies on it.
const CLOCK: Duration = Duration::from_secs(600);
/// Path prefix of the join endpoints.
pub(crate) const JOIN_PREFIX: &str = "/trireme.io/";

/// Accepts until shutdown.
pub(crate) async fn serve(
    server: ApiServer,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServerError> {
    let limit = server.inner.config.limits.connections.min(u32::MAX as usize);
    let connections = Arc::new(Semaphore::new(limit));
    let join = crate::join::router(server.clone());
    loop {
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = connections.clone().acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, for example: wait for some to be closed.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let connection = Connection { server: server.clone(), join: join.clone() };
        // Certificates are renewed while this runs.
        let acceptor = TlsAcceptor::from(server.inner.server_tls.load_full());
        tokio::spawn(async move {
            connection.run(acceptor, stream, from).await;
            drop(permit);
        });
    }
    server.inner.stopping.cancel();
    // Every connection has a permit until it has ended.
    let all = u32::try_from(limit).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(DRAIN, connections.acquire_many(all)).await;
    server.inner.audit.flush().await;
    Ok(())
}

struct Connection {
    server: ApiServer,
    join: axum::Router,
}

impl Connection {
    async fn run(self, acceptor: TlsAcceptor, stream: TcpStream, from: SocketAddr) {
        // A session whose client vanished without a word would otherwise stay, here and at the node's agent.
        keepalive::set(&stream);
        let stopping = self.server.inner.stopping.clone();
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)) => shaken,
            () = stopping.cancelled() => return,
        };
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => return tracing::debug!("TLS handshake timed out"),
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let client = Client::of(from, certificate.map(|der| PeerCertificate(der.to_vec())));
        let until = client.until;
        let shared = Arc::new((self, client));
        let service = service_fn(move |request: http::Request<Incoming>| {
            let shared = shared.clone();
            async move { Ok::<_, Infallible>(shared.0.answer(request.map(Body::new), &shared.1).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(1000)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let mut connection = std::pin::pin!(connection);
        let rest = tokio::select! {
            ended = connection.as_mut() => return told(ended),
            () = stopping.cancelled() => DRAIN,
            () = expiry(until) => EXPIRED,
        };
        connection.as_mut().graceful_shutdown();
        if let Ok(ended) = tokio::time::timeout(rest, connection).await {
            told(ended);
        }
    }

    /// Answers one request under the name that the client has proven, for as long as the proof is valid.
    async fn answer(&self, mut request: http::Request<Body>, client: &Client) -> http::Response<Body> {
        let valid = !expired(client.until, now());
        let user = if valid { client.user.clone() } else { UserInfo::anonymous() };
        request.extensions_mut().insert(ConnectInfo(client.from));
        request.extensions_mut().insert(user.clone());
        request.extensions_mut().insert(Caller { user, fence: None });
        if let Some(certificate) = client.certificate.clone().filter(|_| valid) {
            request.extensions_mut().insert(certificate);
        }
        if valid && !request.uri().path().starts_with(JOIN_PREFIX) {
            return self.server.handle(request).await;
        }
        let info = RequestInfo::of(&request);
        let trail = self.server.inner.audit.begin(&mut request, &info);
        let answer = if valid {
            let Ok(answer) = self.join.clone().oneshot(request).await;
            answer
        } else {
            response::status(&Status::unauthorized("Unauthorized: the client certificate has expired"))
        };
        match trail {
            Some(trail) => trail.answered(answer, false),
            None => answer,
        }
    }
}

/// Who is at the other end.
struct Client {
    from: SocketAddr,
    user: UserInfo,
    certificate: Option<PeerCertificate>,
    /// The last second, of Unix time, in which the certificate is valid.
    until: Option<i64>,
}

impl Client {
    fn of(from: SocketAddr, certificate: Option<PeerCertificate>) -> Client {
        // A certificate without a name proves nothing about who it is.
        let user = certificate.as_ref().and_then(|shown| UserInfo::from_certificate(&shown.0));
        let until = certificate.as_ref().and_then(PeerCertificate::not_after);
        Client { from, user: user.unwrap_or_else(UserInfo::anonymous), certificate, until }
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn expired(until: Option<i64>, now: i64) -> bool {
    until.is_some_and(|until| now > until)
}

/// Waits until a certificate has expired.
async fn expiry(until: Option<i64>) {
    let Some(until) = until else { return std::future::pending().await };
    while !expired(Some(until), now()) {
        let left = u64::try_from(until.saturating_sub(now())).unwrap_or_default();
        tokio::time::sleep(Duration::from_secs(left.saturating_add(1)).min(CLOCK)).await;
    }
}

fn told(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_certificate_is_valid_to_its_last_second() {
        assert!(!expired(None, i64::MAX));
        assert!(!expired(Some(100), 100));
        assert!(expired(Some(100), 101));
        let soon = now() + 1;
        expiry(Some(soon)).await;
        assert!(now() > soon);
        let year = expiry(Some(soon + 365 * 24 * 3600));
        assert!(tokio::time::timeout(Duration::from_millis(10), year).await.is_err());
    }
}
