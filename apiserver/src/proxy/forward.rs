//! `nodes/proxy`, `pods/proxy` and `services/proxy`: any request, passed on to a node's agent, a pod or a service.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use trireme_api::status::Status;

use super::backend::{Backend, Scheme};
use super::last_words::LastWords;
use super::target::Target;
use super::upgrade;
use crate::error::ApiResult;
use crate::keepalive;
use crate::request::info::RequestInfo;
use crate::server::ApiServer;

const CONNECT: Duration = Duration::from_secs(10);
/// How long it is tried to know a node as it is now.
const FRESH: Duration = Duration::from_millis(500);

/// What concerns one connection only.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Passes a request on and its answer back.
pub(crate) async fn serve(server: &ApiServer, request: Request<Body>, info: &RequestInfo) -> ApiResult<Response<Body>> {
    if info.resource == "nodes" {
        // An operator looks at nodes also when the masters have no quorum; a node's address seldom changes.
        let _ = tokio::time::timeout(FRESH, server.barrier()).await;
    } else {
        server.barrier().await?;
    }
    let backend = Backend::of(server, info)?;
    let (base, rest) = split(request.uri().path(), info);
    let upgrade = wanted_protocol(request.headers());
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    if rest.is_empty() && reading && upgrade.is_none() {
        // Relative links of the answer would lead beside the target.
        return redirect(&base, request.uri().query());
    }
    let public = host(&request);
    let outgoing = Outgoing { backend: &backend, base: &base, rest: &rest, public: &public, upgrade: &upgrade };
    let (head, client) = outgoing.request(request)?;
    let failed = |why: String| Status::service_unavailable(format!("error trying to reach service: {why}"));
    let dial = tokio::time::timeout(CONNECT, connect(server, &backend)).await;
    let mut sender = match dial {
        Ok(Ok(sender)) => sender,
        Ok(Err(error)) => return Err(failed(format!("dial tcp {}: {error}", backend.authority()))),
        Err(_) => return Err(failed(format!("dial tcp {}: i/o timeout", backend.authority()))),
    };
    let mut answer = sender.send_request(head).await.map_err(|error| failed(error.to_string()))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else {
            return Err(failed("it changes to another protocol, which nobody asked for".to_owned()));
        };
        let back = hyper::upgrade::on(&mut answer);
        join(server, client, back)?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = answer.headers().clone();
        return Ok(response);
    }
    let (mut parts, body) = answer.into_parts();
    strip(&mut parts.headers);
    relocate(&mut parts.headers, &backend, &base, &public);
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// The path up to `/proxy`, and what follows, both as they were sent.
fn split(path: &str, info: &RequestInfo) -> (String, String) {
    let segments = if info.namespace.is_some() { 8 } else { 6 };
    let mut seen = 0;
    for (index, byte) in path.bytes().enumerate() {
        if byte == b'/' {
            seen += 1;
            if seen == segments {
                return (path[..index].to_owned(), path[index..].to_owned());
            }
        }
    }
    (path.to_owned(), String::new())
}

fn redirect(base: &str, query: Option<&str>) -> ApiResult<Response<Body>> {
    let target = format!("{base}/{}", query.map(|q| format!("?{q}")).unwrap_or_default());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_str(&target).map_err(Status::internal)?);
    Ok(response)
}

/// Whom the client believes to speak to.
fn host(request: &Request<Body>) -> String {
    let header = request.headers().get(header::HOST).and_then(|value| value.to_str().ok()).map(str::to_owned);
    header.or_else(|| request.uri().authority().map(ToString::to_string)).unwrap_or_default()
}

/// The protocol that the client wants to change to.
fn wanted_protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let wants = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let wants = wants.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| wants).cloned()
}

/// Removes what concerns one connection only, also what `Connection` names.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|word| word.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// What is needed to write the request to the target.
struct Outgoing<'a> {
    backend: &'a Backend,
    base: &'a str,
    rest: &'a str,
    public: &'a str,
    upgrade: &'a Option<HeaderValue>,
}

impl Outgoing<'_> {
    /// The request, and the client's end of an upgrade.
    fn request(&self, mut request: Request<Body>) -> ApiResult<(Request<Body>, Option<hyper::upgrade::OnUpgrade>)> {
        let client = self.upgrade.as_ref().map(|_| hyper::upgrade::on(&mut request));
        let from = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(from)| from.ip());
        let (mut parts, body) = request.into_parts();
        let path = if self.rest.is_empty() { "/" } else { self.rest };
        let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let uri: Uri = format!("{path}{query}").parse().map_err(|error| Status::bad_request(format!("{error}")))?;
        strip(&mut parts.headers);
        // It proves who asks us; to others it is worth stealing.
        parts.headers.remove(header::AUTHORIZATION);
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                parts.headers.insert(HeaderName::from_static(name), value);
            }
        };
        set("x-forwarded-uri", &format!("{}{path}", self.base));
        set("x-forwarded-host", self.public);
        set("x-forwarded-proto", "https");
        let authority = self.backend.authority();
        set("host", if self.public.is_empty() { &authority } else { self.public });
        if let Some(from) = from {
            let before = parts.headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
            let chain: Vec<String> = before.map(str::to_owned).chain([from.to_string()]).collect();
            if let Ok(value) = HeaderValue::from_str(&chain.join(", ")) {
                parts.headers.insert("x-forwarded-for", value);
            }
        }
        if let Some(protocol) = self.upgrade {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            parts.headers.insert(header::UPGRADE, protocol.clone());
        }
        let mut outgoing = Request::new(body);
        *outgoing.method_mut() = parts.method;
        *outgoing.uri_mut() = uri;
        *outgoing.headers_mut() = parts.headers;
        Ok((outgoing, client))
    }
}

/// A redirection within the target leads through here again.
fn relocate(headers: &mut HeaderMap, backend: &Backend, base: &str, public: &str) {
    let Some(location) = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()) else { return };
    let Ok(uri) = location.parse::<Uri>() else { return };
    let inside = match uri.authority() {
        None => uri.path().starts_with('/'),
        Some(authority) => authority.as_str() == backend.authority() || authority.as_str() == public,
    };
    if !inside {
        return;
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    if let Ok(value) = HeaderValue::from_str(&format!("{base}{path}")) {
        headers.insert(header::LOCATION, value);
    }
}

fn join(server: &ApiServer, client: hyper::upgrade::OnUpgrade, back: hyper::upgrade::OnUpgrade) -> ApiResult<()> {
    let permit = server.inner.long_running.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Status::too_many_requests("", 1))?;
    tokio::spawn(async move {
        let _held = permit;
        let (client, back) = match tokio::try_join!(client, back) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "an upgrade failed"),
        };
        upgrade::join(TokioIo::new(client), TokioIo::new(back), LastWords::none(), upgrade::LINGER).await;
    });
    Ok(())
}

async fn connect(server: &ApiServer, backend: &Backend) -> std::io::Result<SendRequest<Body>> {
    let Some(node) = backend.node.as_deref() else {
        return speak(server, backend, keepalive::dial(backend.address, backend.port).await?).await;
    };
    // Without its agent the address could mean anything on the masters' network.
    let agent = agent_of(server, node);
    let agent = agent.ok_or_else(|| std::io::Error::other(format!("the agent of node {node:?} is not known")))?;
    speak(server, backend, through(server, backend, agent).await?).await
}

/// The agent of a node.
fn agent_of(server: &ApiServer, name: &str) -> Option<Backend> {
    let node = server.inner.feed.cache("", "nodes")?.get(name)?.value().ok()?;
    let agent = Target::of_node(name, &node).ok()?;
    Some(Backend { address: agent.address, port: agent.port, scheme: Scheme::Agent, node: None })
}

/// A connection to the backend that its node's agent makes.
async fn through(server: &ApiServer, backend: &Backend, agent: Backend) -> std::io::Result<TokioIo<Upgraded>> {
    let stream = keepalive::dial(agent.address, agent.port).await?;
    let mut sender = speak(server, &agent, stream).await?;
    let request = Request::get(format!("/dial/{}/{}", backend.address, backend.port))
        .header(header::HOST, agent.authority())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "trireme-dial")
        .body(Body::empty())
        .map_err(std::io::Error::other)?;
    let mut answer = sender.send_request(request).await.map_err(std::io::Error::other)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let text =
            Limited::new(answer.into_body(), 4096).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        return Err(std::io::Error::other(String::from_utf8_lossy(&text).into_owned()));
    }
    Ok(TokioIo::new(hyper::upgrade::on(&mut answer).await.map_err(std::io::Error::other)?))
}

/// TLS as the backend wants it, and HTTP over it.
async fn speak<S>(server: &ApiServer, backend: &Backend, stream: S) -> std::io::Result<SendRequest<Body>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let tls = match backend.scheme {
        Scheme::Http => return handshake(stream).await,
        Scheme::Https => unchecked()?,
        Scheme::Agent => {
            let mut tls = (**server.inner.agent_tls.load()).clone();
            tls.alpn_protocols = Vec::new();
            Arc::new(tls)
        }
    };
    let name = ServerName::IpAddress(backend.address.into());
    handshake(TlsConnector::from(tls).connect(name, stream).await?).await
}

async fn handshake<S>(stream: S) -> std::io::Result<SendRequest<Body>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection ended");
        }
    });
    Ok(sender)
}

/// TLS that believes any certificate.
fn unchecked() -> std::io::Result<Arc<ClientConfig>> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    Ok(CONFIG.get_or_init(|| Arc::new(config)).clone())
}

#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::request::query::Query;

    #[test]
    fn the_rest_of_the_path_stays_as_it_was_sent() {
        let cut = |path: &str| split(path, &RequestInfo::parse(&Method::GET, path, &Query::default()));
        let pod = "/api/v1/namespaces/d/pods/https:p:8443/proxy";
        assert_eq!(cut(&format!("{pod}/a%2Fb//c/")), (pod.into(), "/a%2Fb//c/".into()));
        assert_eq!(cut(pod), (pod.into(), String::new()));
        let node = "/api/v1/nodes/n/proxy";
        assert_eq!(cut(&format!("{node}/stats/summary")), (node.into(), "/stats/summary".into()));
    }

    #[test]
    fn headers_of_one_connection_do_not_pass() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("connection", "close, X-Mine"), ("x-mine", "1"), ("te", "trailers"), ("accept", "a")] {
            headers.append(name, value.parse().unwrap());
        }
        strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn redirections_inside_lead_through_here() {
        let backend = Backend { address: "10.1.2.3".parse().unwrap(), port: 80, scheme: Scheme::Http, node: None };
        let moved = |to: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, to.parse().unwrap());
            relocate(&mut headers, &backend, "/x/proxy", "api:6443");
            headers[header::LOCATION].to_str().unwrap().to_owned()
        };
        assert_eq!(moved("/login?a=1"), "/x/proxy/login?a=1");
        assert_eq!(moved("http://10.1.2.3:80/login"), "/x/proxy/login");
        assert_eq!(moved("http://elsewhere/login"), "http://elsewhere/login");
        assert_eq!(moved("next"), "next");
    }
}
