//! Requests that the node agent answers: logs and interactive sessions.

mod agent;
mod backend;
pub(crate) mod forward;
mod last_words;
mod target;
mod upgrade;

use std::sync::Arc;

use axum::body::Body;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use trireme_api::status::Status;

use crate::error::{ApiResult, corrupt};
use crate::request::info::RequestInfo;
use crate::request::query::Query;
use crate::server::ApiServer;
use crate::storage::cache::KindCache;
use crate::storage::keys;
use target::Target;

/// The sub-resources of pods that are proxied.
const SUBRESOURCES: [&str; 4] = ["log", "exec", "attach", "portforward"];
/// An agent's error text that is passed on.
const ERROR_TEXT: usize = 64 * 1024;

/// Whether the node agent answers the request.
pub(crate) fn is_proxied(info: &RequestInfo) -> bool {
    info.group.is_empty() && info.resource == "pods" && SUBRESOURCES.contains(&info.subresource.as_str())
}

/// Checks the request against the pod and hands it to the pod's node.
pub(crate) async fn serve(
    server: &ApiServer,
    request: Request<Body>,
    query: &Query,
    info: &RequestInfo,
    pods: &Arc<KindCache>,
) -> ApiResult<Response<Body>> {
    let name = info.name.as_deref().unwrap_or_default();
    server.barrier().await?;
    let pod = pods.get(&keys::suffix(info.namespace.as_deref(), name));
    let pod = pod.ok_or_else(|| Status::not_found("", "pods", name))?.value().map_err(corrupt)?;
    if info.subresource == "log" {
        return log(server, query, &pod).await;
    }
    let path = match info.subresource.as_str() {
        "portforward" => target::port_forward(&pod, query)?,
        sub => target::session(&pod, query, sub)?,
    };
    let target = Target::of(server, &pod)?
        .ok_or_else(|| Status::bad_request(format!("pod {name} does not have a host assigned")))?;
    let upgrade = match upgrade::check(&request) {
        Ok(upgrade) => upgrade,
        Err(refusal) => {
            // kubectl tries SPDY after a WebSocket that failed: an agent that cannot be reached is the better answer.
            agent::connect(server, &target).await?;
            return Err(refusal);
        }
    };
    upgrade::pass(server, request, upgrade, &target, &path, &info.subresource).await
}

async fn log(server: &ApiServer, query: &Query, pod: &Value) -> ApiResult<Response<Body>> {
    let path = target::log(pod, query)?;
    let Some(target) = Target::of(server, pod)? else {
        // Nothing was logged by a pod that never had a node.
        return Ok(text(Body::empty()));
    };
    let mut sender = agent::connect(server, &target).await?;
    let request =
        Request::get(path).header(header::HOST, target.authority()).body(Body::empty()).map_err(Status::internal)?;
    let answer = sender.send_request(request).await.map_err(|e| agent::failed(&target, &e))?;
    if answer.status().is_success() {
        return Ok(text(Body::new(answer.into_body())));
    }
    Err(agent_error(answer.status(), Body::new(answer.into_body())).await)
}

fn text(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// What the agent said, as a Status.
pub(crate) async fn agent_error(code: StatusCode, body: Body) -> Status {
    let bytes = Limited::new(body, ERROR_TEXT).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let message = match serde_json::from_slice::<Value>(&bytes) {
        Ok(value) if value["kind"] == "Status" => value["message"].as_str().unwrap_or_default().to_owned(),
        _ => text.trim().to_owned(),
    };
    match code.as_u16() {
        400 => Status::bad_request(message),
        404 => {
            let mut status = Status::unknown_resource();
            if !message.is_empty() {
                status.message = message;
            }
            status
        }
        500 => Status::internal(message),
        code => {
            let mut status = Status::internal(&message);
            status.message = format!("the node agent answered {code}: {message}");
            status.code = if code < 400 { 502 } else { code };
            status
        }
    }
}
