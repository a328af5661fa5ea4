//! WebSocket sessions: the handshake is relayed, then bytes pass through both ways untouched.

use axum::body::Body;
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use trireme_api::status::Status;

use super::target::Target;
use super::{agent, agent_error};
use crate::error::ApiResult;
use crate::server::ApiServer;

/// Headers of the handshake that the agent needs.
const RELAYED: [&str; 6] =
    ["connection", "upgrade", "sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol", "origin"];

/// The client's handshake headers, or why there can be no session.
pub(crate) fn check(request: &Request<Body>) -> ApiResult<HeaderMap> {
    let headers = request.headers();
    let upgrade = headers.get(header::UPGRADE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if upgrade.to_ascii_lowercase().starts_with("spdy") {
        return Err(Status::bad_request(
            "SPDY sessions are not served; use a client that speaks WebSocket (kubectl 1.30 or newer)",
        ));
    }
    if !upgrade.eq_ignore_ascii_case("websocket") {
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
    let mut handshake =
        Request::get(path).header(header::HOST, target.authority()).body(Body::empty()).map_err(Status::internal)?;
    handshake.headers_mut().extend(headers);
    let mut answer = sender.send_request(handshake).await.map_err(|e| agent::failed(target, &e))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(agent_error(answer.status(), Body::new(answer.into_body())).await);
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
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
            tracing::debug!(%error, "a session ended");
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = answer.headers().clone();
    Ok(response)
}
