//! Connections to node agents: HTTP/1.1 over mutual TLS, one for each request, since sessions take them over.

use std::time::Duration;

use axum::body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use trireme_api::status::{Reason, Status};

use super::target::Target;
use crate::error::ApiResult;
use crate::keepalive;
use crate::server::ApiServer;

const CONNECT: Duration = Duration::from_secs(5);

/// Connects to a node's agent.
pub(crate) async fn connect(server: &ApiServer, target: &Target) -> ApiResult<SendRequest<Body>> {
    let dial = async {
        let stream = keepalive::dial(target.address, target.port).await?;
        let mut tls = (**server.inner.agent_tls.load()).clone();
        tls.alpn_protocols = Vec::new();
        let name = ServerName::IpAddress(target.address.into());
        let stream = TlsConnector::from(std::sync::Arc::new(tls)).connect(name, stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to a node agent ended");
            }
        });
        Ok::<_, std::io::Error>(sender)
    };
    match tokio::time::timeout(CONNECT, dial).await {
        Ok(Ok(sender)) => Ok(sender),
        Ok(Err(error)) => Err(failed(target, &words(&error))),
        Err(_) => Err(failed(target, &"i/o timeout")),
    }
}

/// The Status for an agent that cannot be reached.
pub(crate) fn failed(target: &Target, why: &dyn std::fmt::Display) -> Status {
    let mut status = Status::internal("");
    status.details = None;
    // Upstream has no reason for what goes wrong beyond the API server.
    status.reason = Reason::Unknown;
    status.message = format!("error dialing backend: dial tcp {}: {why}", target.authority());
    status
}

/// An error in the words that people search for.
fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((what, _)) => format!("connect: {}", what.to_lowercase()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_like_upstreams() {
        assert_eq!(words(&std::io::Error::from_raw_os_error(111)), "connect: connection refused");
        assert_eq!(words(&std::io::Error::other("tls: no")), "tls: no");
    }
}
