//! A WebSocket to the API server, over whichever master answers.

use http::Request;
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::super::api::Call;
use super::super::errors::{CtlError, Result};
use super::super::session::Session;

/// The newest version of the channel protocol of exec and attach, in which a channel can be closed.
pub const V5: &str = "v5.channel.k8s.io";
/// The same for the ports of a pod: Trireme's own, since upstream has none.
pub const V5_PORTS: &str = "v5.portforward.trireme.io";
/// The version that every server speaks.
pub const V4: &str = "v4.channel.k8s.io";

/// An open connection.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Opens a connection in the version `closing`, in which channels can be closed, or else in [`V4`]; the flag tells which.
pub async fn open(session: &Session, call: &Call, closing: &str) -> Result<(Socket, bool)> {
    let request = Request::get(call.target())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, generate_key())
        .header(SEC_WEBSOCKET_PROTOCOL, format!("{closing}, {V4}"))
        .body(Body::empty())
        .map_err(|error| CtlError::plain(error.to_string()))?;
    let response = session.api.upgrade(request).await?;
    let closes = response.headers().get(SEC_WEBSOCKET_PROTOCOL).is_some_and(|protocol| protocol == closing);
    let lost = |error: hyper::Error| CtlError::plain(format!("unable to upgrade connection: {error}"));
    let upgraded = hyper::upgrade::on(response).await.map_err(lost)?;
    Ok((WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await, closes))
}
