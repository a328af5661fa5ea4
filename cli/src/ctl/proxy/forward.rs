//! One request of a proxy, sent to the API and its answer brought back, streams and upgrades too.

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::super::api::Api;
use super::{Body, short};

/// Largest body that is sent on: the masters may have to be tried one after the other, so it is held here.
const LARGEST: usize = 64 << 20;

/// Headers that are about a connection, not about the request.
const HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "trailer", "transfer-encoding"];

/// Sends a request on, under another path.
pub async fn answer(api: &Api, mut request: Request<Incoming>, path: &str) -> Response<Body> {
    let upgrade = upgrades(request.headers());
    let client = upgrade.as_ref().map(|_| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, LARGEST).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return short(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or broken off\n"),
    };
    let target = match parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let Ok(target) = target.parse::<PathAndQuery>() else {
        return short(StatusCode::BAD_REQUEST, "the path is not valid\n");
    };
    let mut onward = Request::new(kube::client::Body::from(body));
    *onward.method_mut() = parts.method;
    *onward.uri_mut() = target.into();
    *onward.headers_mut() = parts.headers;
    own_headers(onward.headers_mut(), upgrade.as_deref());
    onward.headers_mut().remove(HOST);
    let mut response = match api.forward(onward).await {
        Ok(response) => response,
        Err(error) => return short(StatusCode::BAD_GATEWAY, error.text()),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let server = hyper::upgrade::on(&mut response);
        if let Some(client) = client {
            tokio::spawn(join(client, server));
        }
        let upgrade = upgrades(response.headers());
        let mut switched = Response::new(Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync());
        *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *switched.headers_mut() = std::mem::take(response.headers_mut());
        own_headers(switched.headers_mut(), upgrade.as_deref());
        return switched;
    }
    let mut response = response.map(|body| body.map_err(std::io::Error::other).boxed_unsync());
    own_headers(response.headers_mut(), None);
    response
}

/// The protocol that a message wants to switch to.
fn upgrades(headers: &HeaderMap) -> Option<String> {
    let mut words = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let wanted = words.any(|words| words.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade")));
    headers.get(UPGRADE).filter(|_| wanted)?.to_str().ok().map(str::to_owned)
}

/// Leaves out what was about the other connection.
fn own_headers(headers: &mut HeaderMap, upgrade: Option<&str>) {
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|words| words.split(',').map(|word| word.trim().to_lowercase()).collect::<Vec<_>>())
        .collect();
    for name in HOP.iter().map(|name| (*name).to_owned()).chain(named) {
        if let Ok(name) = name.parse::<HeaderName>() {
            headers.remove(name);
        }
    }
    headers.remove(TRANSFER_ENCODING);
    headers.remove(UPGRADE);
    if let Some(protocol) = upgrade.and_then(|protocol| protocol.parse().ok()) {
        headers.insert(CONNECTION, http::HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Carries what both sides say after an upgrade.
async fn join(client: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade) {
    if let (Ok(client), Ok(server)) = tokio::join!(client, server) {
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        // Either side may end it at any time.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn headers_of_the_connection_stay_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Own"),
            ("x-own", "1"),
            ("te", "trailers"),
            ("accept", "a"),
            ("upgrade", "h2c"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        assert_eq!(upgrades(&headers), None);
        own_headers(&mut headers, None);
        assert_eq!(headers.len(), 1);
        headers.insert("connection", "keep-alive, Upgrade".parse().unwrap());
        headers.insert("upgrade", "websocket".parse().unwrap());
        let protocol = upgrades(&headers);
        own_headers(&mut headers, protocol.as_deref());
        assert_eq!(
            (headers["connection"].as_bytes(), headers["upgrade"].as_bytes()),
            (&b"Upgrade"[..], &b"websocket"[..])
        );
    }
}
