//! Sessions over WebSocket or SPDY: the handshake is relayed, then bytes pass through both ways untouched.

use axum::body::Body;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use trireme_api::status::Status;

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
    tokio::spawn(async move {
        let _held = permit;
        let (client, backend) = match tokio::try_join!(client, backend) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "a session's upgrade failed"),
        };
        let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        let copied = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut backend, BUFFER, BUFFER).await;
        if let Err(error) = copied {
            tracing::debug!(%error, "a session ended");
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    Ok(response)
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
