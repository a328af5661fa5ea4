//! The tower service that carries requests to a master and decides what may be tried again.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, RETRY_AFTER, UPGRADE};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use kube::client::Body;

use super::connection::{RequestBody, Shared, chain};
use super::pool::{Pool, Route};
use super::{Address, DialFailure, DialFailureKind, MastersError, Timing};

/// Sends every request to one healthy master. Cheap to clone.
#[derive(Clone)]
pub struct MastersService {
    pool: Arc<Pool>,
    token: Option<HeaderValue>,
    timing: Timing,
}

/// Any failure, as tower's layers want it.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request that can be sent any number of times.
struct Template {
    method: Method,
    path: PathAndQuery,
    headers: http::HeaderMap,
    extensions: http::Extensions,
    body: Bytes,
    upgrade: bool,
}

/// What became of one attempt.
enum Attempt {
    Answer(Response<Incoming>),
    /// The master certainly did nothing with the request.
    NotSent(String),
    /// The connection failed after the request had left.
    Lost(String),
}

/// What to do after one attempt.
enum Verdict {
    Done(Response<Incoming>),
    /// Turn to another master; the response is kept in case that all say the same.
    Refused(Response<Incoming>),
    /// Turn to another master.
    Broken(DialFailure),
    Failed(MastersError),
}

impl MastersService {
    pub(crate) fn new(pool: Arc<Pool>, token: Option<HeaderValue>, timing: Timing) -> MastersService {
        MastersService { pool, token, timing }
    }

    async fn carry(self, request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        let template = self.template(request).await?;
        let begun = Instant::now();
        let mut attempts = 0;
        let mut refusal = None;
        let mut last = None;
        loop {
            let (address, attempt) = match self.attempt(&template).await {
                Ok(pair) => pair,
                // Every master was just tried: only an answer that says "later" is worth more than the list.
                Err(failures) => return refusal.ok_or_else(|| MastersError::Unreachable(failures).into()),
            };
            attempts += 1;
            match self.judge(&template, &address, attempt) {
                Verdict::Done(response) => return Ok(response),
                Verdict::Failed(error) => return Err(error.into()),
                Verdict::Refused(response) => refusal = Some(response),
                Verdict::Broken(failure) => last = Some(failure),
            }
            if attempts % self.pool.count().max(1) == 0 {
                if begun.elapsed() >= self.timing.patience {
                    let failures = last.into_iter().collect();
                    return refusal.ok_or_else(|| MastersError::Unreachable(failures).into());
                }
                tokio::time::sleep(self.timing.pause).await;
            }
        }
    }

    async fn template(&self, request: Request<Body>) -> Result<Template, BoxError> {
        let (mut parts, body) = request.into_parts();
        if let Some(token) = &self.token {
            parts.headers.entry(AUTHORIZATION).or_insert_with(|| token.clone());
        }
        let upgrade = parts.headers.contains_key(UPGRADE) && parts.headers.contains_key(CONNECTION);
        Ok(Template {
            method: parts.method,
            path: parts.uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")),
            headers: parts.headers,
            extensions: parts.extensions,
            body: body.collect_bytes().await?,
            upgrade,
        })
    }

    /// One try on the best master; the error lists why none could be reached.
    async fn attempt(&self, template: &Template) -> Result<(Arc<Address>, Attempt), Vec<DialFailure>> {
        if !template.upgrade {
            let route = self.pool.route().await.map_err(|failures| failures.as_ref().clone())?;
            if let Shared::H2(sender) = route.connection {
                let Route { address, .. } = route;
                let attempt = send_h2(sender, template.request(&address, Version::HTTP_2)).await;
                return Ok((address, attempt));
            }
        }
        self.attempt_single(template).await
    }

    /// As [`Self::attempt`], over a connection of its own.
    async fn attempt_single(&self, template: &Template) -> Result<(Arc<Address>, Attempt), Vec<DialFailure>> {
        let mut failures = Vec::new();
        for address in self.pool.order() {
            match self.pool.dialer.single(&address).await {
                Ok(mut sender) => {
                    self.pool.reached(&address);
                    let request = template.request(&address, Version::HTTP_11);
                    let attempt = Attempt::of(sender.try_send_request(request).await);
                    return Ok((address, attempt));
                }
                Err(failure) => {
                    self.pool.failed(&address, &failure.reason);
                    failures.push(failure);
                }
            }
        }
        Err(failures)
    }

    fn judge(&self, template: &Template, address: &Address, attempt: Attempt) -> Verdict {
        let idempotent = matches!(template.method, Method::GET | Method::HEAD | Method::OPTIONS);
        match attempt {
            Attempt::Answer(response) => {
                let status = response.status();
                let not_begun = response.headers().contains_key(RETRY_AFTER);
                match status {
                    // A master without a quorum; another may be on the majority's side.
                    StatusCode::SERVICE_UNAVAILABLE if (idempotent && !is_health(template)) || not_begun => {
                        self.pool.failed(address, "503 Service Unavailable");
                        Verdict::Refused(response)
                    }
                    _ => Verdict::Done(response),
                }
            }
            Attempt::NotSent(reason) => {
                self.pool.failed(address, &reason);
                Verdict::Broken(broken(address, reason))
            }
            Attempt::Lost(reason) => {
                self.pool.failed(address, &reason);
                if idempotent {
                    Verdict::Broken(broken(address, reason))
                } else {
                    Verdict::Failed(MastersError::Interrupted { url: address.url.clone(), reason })
                }
            }
        }
    }
}

fn broken(address: &Address, reason: String) -> DialFailure {
    DialFailure { url: address.url.clone(), kind: DialFailureKind::Network, reason }
}

/// Health endpoints are asked about the master that answers: its 503 is the answer.
fn is_health(template: &Template) -> bool {
    ["/readyz", "/livez", "/healthz"].iter().any(|prefix| template.path.path().starts_with(prefix))
}

async fn send_h2(
    mut sender: hyper::client::conn::http2::SendRequest<RequestBody>,
    request: Request<RequestBody>,
) -> Attempt {
    if let Err(error) = sender.ready().await {
        return Attempt::NotSent(chain(&error));
    }
    Attempt::of(sender.try_send_request(request).await)
}

impl Attempt {
    fn of(result: Result<Response<Incoming>, TrySendError<Request<RequestBody>>>) -> Attempt {
        match result {
            Ok(response) => Attempt::Answer(response),
            Err(mut error) => match error.take_message() {
                Some(_) => Attempt::NotSent(chain(error.error())),
                None => Attempt::Lost(chain(error.error())),
            },
        }
    }
}

impl Template {
    fn request(&self, address: &Address, version: Version) -> Request<RequestBody> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        *request.extensions_mut() = self.extensions.clone();
        let path = if address.prefix.is_empty() {
            Some(self.path.clone())
        } else {
            format!("{}{}", address.prefix, self.path).parse().ok()
        };
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = path.or_else(|| Some(PathAndQuery::from_static("/")));
        if version == Version::HTTP_2 {
            parts.scheme = Some(Scheme::HTTPS);
            parts.authority = Some(address.authority.clone());
        } else if let Ok(host) = HeaderValue::from_str(address.authority.as_str()) {
            request.headers_mut().insert(HOST, host);
        }
        // Cannot fail: either only a path, or all three parts.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        *request.version_mut() = version;
        request
    }
}

impl tower::Service<Request<Body>> for MastersService {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.clone().carry(request).boxed()
    }
}
