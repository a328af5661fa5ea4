//! One API client over several masters: a healthy one is preferred, and another takes over by itself.
//!
//! [`connect`] gives an ordinary [`kube::Client`]; beneath it a service sends each request to the preferred
//! master and turns to the next on connection errors, TLS errors, and a 503 of a master without a quorum. What
//! may be repeated: a request that was never sent; a `GET` or `HEAD` without a response; and any request
//! answered 503 or 429 with `Retry-After`, by which a server says that it did not begin it. Everything else
//! that fails after sending is reported, because it may have happened.

mod connection;
mod follow;
mod pool;
mod service;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Uri;
use http::uri::Authority;

pub use self::follow::urls_of_endpoints;
use self::pool::Pool;
pub use self::service::MastersService;
use crate::tls::{self, Identity, TlsError, Trust};

/// What can go wrong between a client and all its masters.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MastersError {
    /// A URL that is not `https://host[:port][/path]`, nor one of plain HTTP where that is allowed.
    #[error("master URL {url:?}: {reason}")]
    Url {
        /// The URL as given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No URL was given.
    #[error("no master is known")]
    NoMasters,
    /// Certificates or keys that cannot be used.
    #[error(transparent)]
    Tls(Arc<TlsError>),
    /// Bearer tokens have to fit into a header.
    #[error("the token holds characters that a header cannot carry")]
    Token,
    /// No master could be reached; the text names each with its reason.
    #[error("{}", unreachable_text(.0))]
    Unreachable(Vec<DialFailure>),
    /// The connection failed after a request was sent that must not be repeated blindly.
    #[error("{url}: the connection failed before the answer came; the request may have taken effect: {reason}")]
    Interrupted {
        /// The master that had received the request.
        url: String,
        /// What the connection reported.
        reason: String,
    },
}

impl MastersError {
    /// The cause of a client's failure, if it lies between the client and the masters.
    pub fn of(error: &kube::Error) -> Option<&MastersError> {
        match error {
            kube::Error::Service(cause) => cause.downcast_ref(),
            _ => None,
        }
    }
}

/// Why one master could not be reached.
#[derive(Debug, Clone)]
pub struct DialFailure {
    /// The master's URL.
    pub url: String,
    /// At which step it failed.
    pub kind: DialFailureKind,
    /// The underlying error's text.
    pub reason: String,
}

/// The step at which reaching a master failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialFailureKind {
    /// Nothing listens there.
    Refused,
    /// No answer in time.
    TimedOut,
    /// Something answers, but not with a certificate that we trust (or it does not trust ours).
    Tls,
    /// Any other network error.
    Network,
}

fn unreachable_text(failures: &[DialFailure]) -> String {
    let each: Vec<String> = failures.iter().map(|failure| format!("{}: {}", failure.url, failure.reason)).collect();
    format!("no master could be reached ({})", each.join("; "))
}

/// What [`connect`] needs to know.
#[derive(Debug, Clone)]
pub struct MastersConfig {
    /// Masters in order of preference, `https://host:port`; at least one. They stay the last resort even after
    /// [`Masters::set`].
    pub urls: Vec<String>,
    /// How servers are verified.
    pub trust: Trust,
    /// Client certificate.
    pub identity: Option<Identity>,
    /// Bearer token.
    pub token: Option<String>,
    /// Verify the servers' certificates for this name instead of the host in the URL.
    pub server_name: Option<String>,
    /// Start with a random master instead of the first: spreads many agents.
    pub shuffle: bool,
    /// Namespace of the resulting client.
    pub default_namespace: String,
    /// Time-outs.
    pub timing: Timing,
    /// Whether the first URLs may be `http://`, as that of `kubectl proxy`: for what a person types, never for components.
    /// Neither certificate nor token goes there.
    pub plain_allowed: bool,
}

impl MastersConfig {
    /// The usual case: masters, their CA and a client certificate.
    pub fn new(urls: Vec<String>, ca_pem: Vec<u8>, identity: Option<Identity>) -> MastersConfig {
        MastersConfig {
            urls,
            trust: Trust::Ca(ca_pem),
            identity,
            token: None,
            server_name: None,
            shuffle: false,
            default_namespace: "default".to_owned(),
            timing: Timing::default(),
            plain_allowed: false,
        }
    }
}

/// Time-outs of fail-over.
#[derive(Debug, Clone)]
pub struct Timing {
    /// The next master is tried beside one that has not answered for this long.
    pub stagger: Duration,
    /// A master that is not connected after this long has failed.
    pub dial: Duration,
    /// How often an open connection with requests in flight is pinged.
    pub ping: Duration,
    /// How long a ping may stay unanswered.
    pub ping_timeout: Duration,
    /// For how long requests that no master accepts (503: no quorum, an election is on) are tried again.
    pub patience: Duration,
    /// Pause between two such rounds.
    pub pause: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            stagger: Duration::from_millis(300),
            dial: Duration::from_secs(4),
            ping: Duration::from_secs(2),
            ping_timeout: Duration::from_secs(3),
            patience: Duration::from_secs(3),
            pause: Duration::from_millis(100),
        }
    }
}

/// What is known about one master.
#[derive(Debug, Clone)]
pub struct MasterHealth {
    /// Its URL.
    pub url: String,
    /// Whether requests currently go there.
    pub preferred: bool,
    /// Whether a connection is open.
    pub connected: bool,
    /// The last failure that no success has followed yet.
    pub failure: Option<(Instant, String)>,
}

/// Handle on the set of masters beneath a client. Cheap to clone.
#[derive(Clone)]
pub struct Masters {
    pool: Arc<Pool>,
    trust: Trust,
}

impl Masters {
    /// Replaces the masters, keeping connections to those that stay. Invalid or empty lists change nothing.
    pub fn set(&self, urls: &[String]) -> Result<(), MastersError> {
        self.pool.set(urls)
    }

    /// Shows another client certificate on connections that are made from now on, and gives up those that are open;
    /// requests in flight on them still end well.
    ///
    /// # Errors
    /// When certificate and key cannot be used; the old ones then stay in use.
    pub fn set_identity(&self, identity: &Identity) -> Result<(), TlsError> {
        self.pool.replace_tls(tls::client_config(&self.trust, Some(identity))?);
        Ok(())
    }

    /// The masters in order of preference.
    pub fn urls(&self) -> Vec<String> {
        self.pool.urls()
    }

    /// What is known about each master.
    pub fn health(&self) -> Vec<MasterHealth> {
        self.pool.health()
    }

    /// Learns the masters from the Endpoints `default/kubernetes` for as long as it is polled, and tells
    /// `persist` about each changed list.
    pub async fn follow(&self, client: kube::Client, persist: impl FnMut(&[String]) + Send) {
        follow::follow(self, client, persist).await;
    }
}

/// Builds a client over the masters of `config`. Nothing is contacted yet. Must run inside a tokio runtime.
pub fn connect(config: MastersConfig) -> Result<(kube::Client, Masters), MastersError> {
    let namespace = config.default_namespace.clone();
    let (service, masters) = service(config)?;
    Ok((kube::Client::new(service, namespace), masters))
}

/// The service beneath [`connect`], for callers that want to put layers around it.
pub fn service(config: MastersConfig) -> Result<(MastersService, Masters), MastersError> {
    let tls = tls::client_config(&config.trust, config.identity.as_ref())
        .map_err(|error| MastersError::Tls(Arc::new(error)))?;
    let token = match &config.token {
        Some(token) => {
            let mut value = http::HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| MastersError::Token)?;
            value.set_sensitive(true);
            Some(value)
        }
        None => None,
    };
    let pool = Arc::new(Pool::new(&config, tls)?);
    Ok((MastersService::new(pool.clone(), token, config.timing.clone()), Masters { pool, trust: config.trust }))
}

/// A master's address, taken apart once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// As given, without a trailing slash.
    pub url: String,
    /// Host without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Without TLS.
    pub plain: bool,
    /// `host:port` as it goes into requests.
    pub authority: Authority,
    /// Path that all requests are put under; empty or starting with `/`.
    pub prefix: String,
}

impl Address {
    /// Parses `https://host[:port][/path]`, or `http://…`.
    pub fn parse(url: &str) -> Result<Address, MastersError> {
        let bad = |reason: &str| MastersError::Url { url: url.to_owned(), reason: reason.to_owned() };
        let trimmed = url.trim_end_matches('/');
        let uri: Uri = trimmed.parse().map_err(|_| bad("not a URL"))?;
        let plain = match uri.scheme_str() {
            Some("https") => false,
            Some("http") => true,
            _ => return Err(bad("must start with https://")),
        };
        let authority = uri.authority().cloned().ok_or_else(|| bad("has no host"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(bad("has no host"));
        }
        let port = authority.port_u16().unwrap_or(if plain { 80 } else { 443 });
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Address { url: trimmed.to_owned(), host, port, plain, authority, prefix })
    }
}
