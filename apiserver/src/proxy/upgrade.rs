//! Sessions over WebSocket or SPDY: the handshake is relayed, then bytes pass through both ways untouched.

use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use trireme_api::status::Status;

use super::last_words::LastWords;
use super::target::Target;
use super::{ERROR_TEXT, agent};
use crate::error::ApiResult;
use crate::server::ApiServer;

/// Headers of the handshake that the agent needs.
const RELAYED: [&str; 7] = [
    "connection",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "x-stream-protocol-version",
    "origin",
];
/// Tells a client which protocols it could have asked for.
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
/// Bytes in flight, each way.
const BUFFER: usize = 64 << 10;
/// After one side's end the other gets so long to finish.
pub(super) const LINGER: Duration = Duration::from_secs(10);

/// The client's handshake headers, or why there can be no session.
pub(crate) fn check(request: &Request<Body>) -> ApiResult<HeaderMap> {
    let headers = request.headers();
    let upgrade = headers.get(header::UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !["websocket", "spdy/3.1"].contains(&upgrade.to_ascii_lowercase().as_str()) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let mut relayed = HeaderMap::new();
    for name in RELAYED {
        for value in headers.get_all(name) {
            relayed.append(http::HeaderName::from_static(name), value.clone());
        }
    }
    Ok(relayed)
}

/// Performs the handshake with the agent, answers the client alike and joins both connections.
pub(crate) async fn pass(
    server: &ApiServer,
    mut request: Request<Body>,
    headers: HeaderMap,
    target: &Target,
    path: &str,
    subresource: &str,
) -> ApiResult<Response<Body>> {
    let mut sender = agent::connect(server, target).await?;
    let handshake = Request::builder().method(request.method()).uri(path).header(header::HOST, target.authority());
    let mut handshake = handshake.body(Body::empty()).map_err(Status::internal)?;
    handshake.headers_mut().extend(headers);
    let mut answer = sender.send_request(handshake).await.map_err(|e| agent::failed(target, &e))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return refusal(answer).await;
    }
    let permit = server.inner.long_running.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Status::too_many_requests("", 1))?;
    let client = hyper::upgrade::on(&mut request);
    let backend = hyper::upgrade::on(&mut answer);
    let words = LastWords::of(subresource, answer.headers());
    tokio::spawn(async move {
        let _held = permit;
        match tokio::try_join!(client, backend) {
            Ok((client, backend)) => {
                join(TokioIo::new(client), TokioIo::new(backend), words, LINGER).await;
            }
            Err(error) => tracing::debug!(%error, "a session's upgrade failed"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    Ok(response)
}

/// Passes bytes through until one side has ended and the other after it, or not in time: then both are closed.
pub(super) async fn join<S: AsyncRead + AsyncWrite>(client: S, agent: S, mut words: LastWords, linger: Duration) {
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut agent_read, mut agent_write) = tokio::io::split(agent);
    let up = async {
        let _ = copy(&mut client_read, &mut agent_write, |_| {}).await;
        let _ = agent_write.shutdown().await;
    };
    let down = async {
        if copy(&mut agent_read, &mut client_write, |bytes| words.follow(bytes)).await.is_ok()
            && let Some(last) = words.last()
        {
            let _ = client_write.write_all(&last).await;
        }
        let _ = client_write.shutdown().await;
    };
    tokio::pin!(up, down);
    tokio::select! {
        () = &mut up => drop(tokio::time::timeout(linger, down).await),
        () = &mut down => drop(tokio::time::timeout(linger, up).await),
    }
}

/// Copies to the end, however it comes; fails if nobody takes the bytes any more.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut look: impl FnMut(&[u8]),
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        look(&buffer[..length]);
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
    }
    Ok(())
}

/// The agent's own answer, as it is: clients show its text.
async fn refusal(answer: Response<Incoming>) -> ApiResult<Response<Body>> {
    let (parts, body) = answer.into_parts();
    let bytes = Limited::new(body, ERROR_TEXT).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = if parts.status.is_success() { StatusCode::BAD_GATEWAY } else { parts.status };
    for name in [header::CONTENT_TYPE, ACCEPTED] {
        for value in parts.headers.get_all(&name) {
            response.headers_mut().append(&name, value.clone());
        }
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::duplex;

    /// One side has ended, the other neither sends nor ends.
    #[tokio::test]
    async fn a_side_that_does_not_end_is_not_waited_for() {
        let linger = Duration::from_secs(1);
        for client_ends in [true, false] {
            let (mut client, left) = duplex(64);
            let (mut agent, right) = duplex(64);
            let joined = tokio::spawn(join(left, right, LastWords::none(), linger));
            client.write_all(b"up").await.unwrap();
            agent.write_all(b"down").await.unwrap();
            let mut got = [0; 4];
            agent.read_exact(&mut got[..2]).await.unwrap();
            client.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"down");
            let (mut ends, mut stays) = if client_ends { (client, agent) } else { (agent, client) };
            ends.shutdown().await.unwrap();
            // What comes in time still passes.
            stays.write_all(b"last").await.unwrap();
            ends.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"last");
            tokio::time::timeout(Duration::from_secs(10), joined).await.unwrap().unwrap();
            assert!(stays.write_all(b"more").await.is_err());
        }
    }
}
