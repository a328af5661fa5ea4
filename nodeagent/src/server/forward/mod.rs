//! `port-forward`: connections to ports inside a pod's network namespace.
//!
//! Clients speak SPDY ([`spdy`]), SPDY inside a WebSocket, or a WebSocket protocol of its own ([`websocket`]).

mod connect;
mod spdy;
mod websocket;

use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::pods::Context;
use crate::server::handshake::{Refusal, Upgrade};
use connect::PodPorts;

/// `/portForward/{namespace}/{pod}`
pub(super) async fn serve(
    State(context): State<Arc<Context>>,
    Path((namespace, pod)): Path<(String, String)>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let Some(view) = context.register.get(&namespace, &pod) else {
        return Refusal::new(StatusCode::NOT_FOUND, "pod does not exist").into_response();
    };
    let ports = PodPorts::new(&view);
    match Upgrade::of(request.headers()) {
        Upgrade::WebSocket => websocket::serve(request, &query, ports).await,
        Upgrade::Spdy => spdy::serve(request, ports),
        Upgrade::Nothing => Refusal::no_upgrade().into_response(),
    }
}
