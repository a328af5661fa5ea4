//! How a session begins: which of its protocols a request speaks, and the answers to requests that cannot have one.

use axum::extract::Request;
use axum::http::header::{CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use crate::server::fail;
use crate::server::sessions::Place;

const PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// What a request wants its connection to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upgrade {
    WebSocket,
    Spdy,
    Nothing,
}

impl Upgrade {
    pub(super) fn of(headers: &HeaderMap) -> Upgrade {
        let has = |name: HeaderName, word: &str| {
            let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
        };
        match () {
            () if !has(CONNECTION, "upgrade") => Upgrade::Nothing,
            () if has(UPGRADE, "websocket") => Upgrade::WebSocket,
            () if has(UPGRADE, "SPDY/3.1") => Upgrade::Spdy,
            () => Upgrade::Nothing,
        }
    }
}

/// Why there is no session: a code and a text, as kubelets answer.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) code: StatusCode,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: StatusCode, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }

    /// For a request that asks for no upgrade that is known here.
    pub(super) fn no_upgrade() -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        fail(self.code, self.message)
    }
}

fn listed(headers: &HeaderMap, name: HeaderName) -> Vec<String> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let parts = values.flat_map(|value| value.split(',')).map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

/// Sub-protocols that a WebSocket client offers.
pub(super) fn offered(headers: &HeaderMap) -> Vec<String> {
    listed(headers, SEC_WEBSOCKET_PROTOCOL)
}

/// The protocol over SPDY: the client's first that is served.
pub(super) fn negotiate(headers: &HeaderMap, served: &[&'static str]) -> Result<&'static str, Box<Response>> {
    let wanted = listed(headers, PROTOCOL);
    if wanted.is_empty() {
        let message = "unable to upgrade: X-Stream-Protocol-Version is required";
        return Err(Box::new(fail(StatusCode::BAD_REQUEST, message)));
    }
    let chosen = wanted.iter().find_map(|wanted| served.iter().find(|served| *served == wanted));
    chosen.copied().ok_or_else(|| {
        let (wanted, all) = (wanted.join(" "), served.join(" "));
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{wanted}], server accepts [{all}]"
        );
        let mut response = fail(StatusCode::FORBIDDEN, message);
        for protocol in served {
            response.headers_mut().append(ACCEPTED, HeaderValue::from_static(protocol));
        }
        Box::new(response)
    })
}

/// Switches to SPDY; `run` gets the connection.
pub(super) fn switch<F>(
    mut request: Request,
    protocol: &'static str,
    run: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send,
{
    let upgrade = hyper::upgrade::on(&mut request);
    let place = Place::of(request.extensions());
    tokio::spawn(async move {
        let _place = place;
        match upgrade.await {
            Ok(connection) => run(TokioIo::new(connection)).await,
            Err(error) => tracing::debug!(%error, "an upgrade to SPDY failed"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert(PROTOCOL, HeaderValue::from_static(protocol));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn upgrades_are_told_apart() {
        let of = |connection, upgrade| Upgrade::of(&headers(&[("connection", connection), ("upgrade", upgrade)]));
        assert_eq!(of("Upgrade", "SPDY/3.1"), Upgrade::Spdy);
        assert_eq!(of("keep-alive, Upgrade", "websocket"), Upgrade::WebSocket);
        assert_eq!(of("keep-alive", "websocket"), Upgrade::Nothing);
        assert_eq!(of("Upgrade", "h2c"), Upgrade::Nothing);
    }

    #[test]
    fn the_clients_first_choice_that_is_served_wins() {
        let served = ["v4.channel.k8s.io", "channel.k8s.io"];
        let ask = |values: &[&'static str]| {
            let pairs: Vec<_> = values.iter().map(|value| ("x-stream-protocol-version", *value)).collect();
            negotiate(&headers(&pairs), &served).map_err(|response| response.status())
        };
        assert_eq!(ask(&["v9.x", "v4.channel.k8s.io"]), Ok("v4.channel.k8s.io"));
        assert_eq!(ask(&["channel.k8s.io, v4.channel.k8s.io"]), Ok("channel.k8s.io"));
        assert_eq!(ask(&[]), Err(StatusCode::BAD_REQUEST));
        assert_eq!(ask(&["v9.x"]), Err(StatusCode::FORBIDDEN));
        let refused = negotiate(&headers(&[("x-stream-protocol-version", "v9.x")]), &served).unwrap_err();
        assert_eq!(refused.headers().get_all(ACCEPTED).iter().count(), 2);
    }
}
