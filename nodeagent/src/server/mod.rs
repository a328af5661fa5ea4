//! The agent's HTTPS server: logs, exec, attach and port-forward for the API server, health and metrics for operators.
//!
//! Only clients with a certificate of the cluster's authority get in, and of them only `system:masters`.

mod dial;
mod forward;
mod handshake;
mod logs;
mod metrics;
mod remote;
mod sessions;
mod spdy;
mod streams;
mod summary;
pub(crate) mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::certificate::NodeCertificate;
use crate::pods::Context;
use crate::stats::Sampler;
use sessions::{Place, Sessions};

/// Connections at one time, those that sessions have taken over included.
const MAX_CONNECTIONS: usize = 1024;
/// A client that has not finished its handshake by then is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be silent before it is probed, and how often then.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Who is at the other end, from the certificate.
#[derive(Clone, Debug)]
struct Peer {
    name: String,
    groups: Vec<String>,
}

/// What the server tells of the agent itself.
#[derive(Clone)]
pub(crate) struct About {
    pub(crate) certificate: Arc<NodeCertificate>,
    pub(crate) sampler: Arc<Sampler>,
}

/// Serves until `shutdown`.
pub(crate) async fn run(
    context: Arc<Context>,
    certificate: Arc<NodeCertificate>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shutdown: CancellationToken,
) {
    let about = About { certificate, sampler: Arc::default() };
    let router = router(context).layer(axum::Extension(about)).layer(axum::Extension(Sessions::default()));
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, from)) => {
                let (acceptor, shutdown) = (acceptor.clone(), shutdown.clone());
                let router = router.clone().layer(axum::Extension(Place::new(permit)));
                tokio::spawn(async move {
                    tokio::select! {
                        () = connection(router, stream, from, acceptor) => {}
                        () = shutdown.cancelled() => {}
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, for example: it passes.
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(router: Router, stream: TcpStream, from: SocketAddr, acceptor: TlsAcceptor) {
    let _ = stream.set_nodelay(true);
    // A session whose other end vanished without a word would otherwise stay.
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%from, %error, "handshake"),
        Err(_) => return,
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let Some((name, groups)) = certificate.and_then(|der| tls::subject(der)) else { return };
    let service = router.layer(axum::Extension(Peer { name, groups }));
    let service = TowerToHyperService::new(service);
    let builder = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%from, %error, "connection");
    }
}

fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(pods))
        .route("/metrics", get(metrics::serve))
        .route("/stats/summary", get(summary::serve))
        .route("/dial/{address}/{port}", get(dial::serve))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::serve))
        .route("/exec/{namespace}/{pod}/{container}", get(remote::exec).post(remote::exec))
        .route("/attach/{namespace}/{pod}/{container}", get(remote::attach).post(remote::attach))
        .route("/portForward/{namespace}/{pod}", get(forward::serve).post(forward::serve))
        .layer(middleware::from_fn(authorize))
        .with_state(context)
}

async fn authorize(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned();
    match peer {
        Some(peer) if peer.groups.iter().any(|group| group == "system:masters") => next.run(request).await,
        Some(peer) => {
            let message = format!("Forbidden (user={}, verb=get, resource=nodes, subresource(s)=[proxy])", peer.name);
            (StatusCode::FORBIDDEN, message).into_response()
        }
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

async fn pods(State(context): State<Arc<Context>>) -> Response {
    let items: Vec<_> = context.register.all().iter().map(|view| (*view.pod).clone()).collect();
    axum::Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})).into_response()
}

/// A plain text error, as kubelets answer; the API server wraps it into a `Status`.
fn fail(code: StatusCode, message: impl Into<String>) -> Response {
    (code, message.into()).into_response()
}
