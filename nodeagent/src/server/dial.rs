//! `/dial/{address}/{port}`: a TCP connection to a pod of this node, for masters that are not on the pod network.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::fail;
use super::sessions::Place;
use crate::pods::Context;

/// What both ends call it.
const PROTOCOL: &str = "trireme-dial";
const CONNECT: Duration = Duration::from_secs(5);

/// Connects, and passes bytes both ways from then on.
pub(super) async fn serve(
    State(context): State<Arc<Context>>,
    Path((address, port)): Path<(IpAddr, u16)>,
    mut request: Request,
) -> Response {
    let asked = request.headers().get(header::UPGRADE).is_some_and(|protocol| protocol == PROTOCOL);
    if !asked {
        return fail(StatusCode::BAD_REQUEST, "Upgrade request required");
    }
    if !is_pod(&context, address) {
        return fail(StatusCode::NOT_FOUND, format!("no pod of this node has the address {address}"));
    }
    let mut pod = match tokio::time::timeout(CONNECT, TcpStream::connect((address, port))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return fail(StatusCode::BAD_GATEWAY, error.to_string()),
        Err(_) => return fail(StatusCode::GATEWAY_TIMEOUT, "i/o timeout"),
    };
    let _ = pod.set_nodelay(true);
    let upgrade = hyper::upgrade::on(&mut request);
    let place = Place::of(request.extensions());
    tokio::spawn(async move {
        let _place = place;
        match upgrade.await {
            Ok(client) => {
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut pod).await;
            }
            Err(error) => tracing::debug!(%error, "upgrade of a connection to a pod"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    response
}

/// Whether a pod of this node has the address: nothing else is reached through here.
fn is_pod(context: &Context, address: IpAddr) -> bool {
    context.register.all().iter().any(|view| {
        let uid = view.pod.metadata.uid.as_deref().unwrap_or_default();
        let given = context.network.lookup(uid).is_some_and(|network| IpAddr::V4(network.ip) == address);
        let status = view.pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
        given || status.and_then(|ip| ip.parse().ok()) == Some(address)
    })
}
