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
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::error::ServerError;
use crate::identity::{Caller, PeerCertificate, UserInfo};
use crate::request::info::RequestInfo;
use crate::server::ApiServer;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longer than clients keep idle connections, so that it is they who close them.
const HEADER: Duration = Duration::from_secs(150);
const DRAIN: Duration = Duration::from_secs(10);
/// How long a connection may be silent before it is probed, and how often then.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Path prefix of the join endpoints.
pub(crate) const JOIN_PREFIX: &str = "/trireme.io/";

/// Accepts until shutdown.
pub(crate) async fn serve(
    server: ApiServer,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServerError> {
    let connections = Arc::new(Semaphore::new(server.inner.config.limits.connections));
    let graceful = Arc::new(GracefulShutdown::new());
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
        let connection = Connection { server: server.clone(), join: join.clone(), graceful: graceful.clone() };
        // Certificates are renewed while this runs.
        let acceptor = TlsAcceptor::from(server.inner.server_tls.load_full());
        tokio::spawn(async move {
            connection.run(acceptor, stream, from).await;
            drop(permit);
        });
    }
    server.inner.stopping.cancel();
    drain(graceful).await;
    server.inner.audit.flush().await;
    Ok(())
}

async fn drain(graceful: Arc<GracefulShutdown>) {
    // Connections hold a clone only while they shake hands.
    let mut graceful = graceful;
    for _ in 0..100 {
        match Arc::try_unwrap(graceful) {
            Ok(owned) => {
                let _ = tokio::time::timeout(DRAIN, owned.shutdown()).await;
                return;
            }
            Err(shared) => graceful = shared,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Connection {
    server: ApiServer,
    join: axum::Router,
    graceful: Arc<GracefulShutdown>,
}

impl Connection {
    async fn run(self, acceptor: TlsAcceptor, stream: TcpStream, from: SocketAddr) {
        let _ = stream.set_nodelay(true);
        // A session whose client vanished without a word would otherwise stay, here and at the node's agent.
        let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => return tracing::debug!("TLS handshake timed out"),
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|c| c.to_vec());
        let user = match &certificate {
            None => UserInfo::anonymous(),
            // A certificate without a name proves nothing about who it is.
            Some(der) => UserInfo::from_certificate(der).unwrap_or_else(UserInfo::anonymous),
        };
        let caller = Caller { user, fence: None };
        let certificate = certificate.map(PeerCertificate);
        let Self { server, join, graceful } = self;
        let service = service_fn(move |request: http::Request<Incoming>| {
            let (server, join, caller) = (server.clone(), join.clone(), caller.clone());
            let certificate = certificate.clone();
            async move {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(from));
                request.extensions_mut().insert(caller.user.clone());
                request.extensions_mut().insert(caller);
                if let Some(certificate) = certificate {
                    request.extensions_mut().insert(certificate);
                }
                if request.uri().path().starts_with(JOIN_PREFIX) {
                    let info = RequestInfo::of(&request);
                    let trail = server.inner.audit.begin(&mut request, &info);
                    let answer = join.oneshot(request).await?;
                    return Ok(match trail {
                        Some(trail) => trail.answered(answer, false),
                        None => answer,
                    });
                }
                Ok::<_, Infallible>(server.handle(request).await)
            }
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
        let watched = graceful.watch(connection);
        drop(graceful);
        if let Err(error) = watched.await {
            tracing::debug!(%error, "connection ended");
        }
    }
}
