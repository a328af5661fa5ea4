//! The pipeline of one request: limits, authorization, dispatch, metrics; panics become a 500 Status.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::body::Body;
use futures::FutureExt;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;
use trireme_api::status::Status;

use crate::audit::{Note, Trail};
use crate::error::ApiResult;
use crate::identity::{Caller, UserInfo};
use crate::request::info::RequestInfo;
use crate::request::query::Query;
use crate::server::ApiServer;
use crate::{authz, nonresource, response, verbs};

impl ApiServer {
    /// Answers one request. The caller's identity is in its extensions; nobody is anonymous.
    pub(crate) async fn handle(&self, mut request: Request<Body>) -> Response<Body> {
        let begun = Instant::now();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.unwrap_or_else(|| Caller { user: UserInfo::anonymous(), fence: None });
        let mut trail = self.inner.audit.begin(&mut request, &info);
        let long = long_running(&info, &query);
        let labels = info.clone();
        let head = request.method() == Method::HEAD;
        // OpenAPI documents are for programs; indented they would be many megabytes.
        let people = !head && !info.path.starts_with("/openapi/") && response::wants_pretty(&query, request.headers());
        // What others say stays as it is, but not what is said about them.
        let pretty = people && !matches!(info.subresource.as_str(), "proxy" | "log");
        // Boxed: the pipeline is deep, and so would be the types of everything that calls it.
        let work = Box::pin(async {
            let caller = self.caller_by_token(request.headers(), caller, &info, &query).await?;
            trail.iter_mut().for_each(|trail| trail.identified(&caller.user));
            self.limited(request, query, info, caller, pretty).await
        });
        let answer = match AssertUnwindSafe(work).catch_unwind().await {
            Ok(answer) => answer,
            Err(panic) => {
                let what = panic.downcast_ref::<String>().map(String::as_str);
                let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
                tracing::error!(path = %labels.path, panic = what, "a request panicked");
                self.inner.metrics.panics.inc();
                trail.iter_mut().for_each(Trail::panicked);
                Err(Status::internal("the request could not be completed; see the server's log"))
            }
        };
        let mut answer = match answer {
            Ok(answer) => answer,
            Err(status) if people => response::pretty(response::status(&status)).await,
            Err(status) => response::status(&status),
        };
        if head {
            answer = response::without_body(answer);
        }
        self.inner.metrics.observe(&labels, answer.status().as_u16(), begun.elapsed());
        match trail {
            Some(trail) => trail.answered(answer, long),
            None => answer,
        }
    }

    async fn limited(
        &self,
        request: Request<Body>,
        query: Query,
        info: RequestInfo,
        caller: Caller,
        pretty: bool,
    ) -> ApiResult<Response<Body>> {
        authz::claims(request.headers())?;
        let decision = authz::authorize(&caller.user, &info);
        Note::of(&request).decided(decision.is_ok());
        decision?;
        let long = long_running(&info, &query);
        let semaphore = if long { &self.inner.long_running } else { &self.inner.in_flight };
        // Health checks have to get through when everything else does not.
        let health = !info.is_resource && ["/healthz", "/livez", "/readyz"].iter().any(|p| info.path.starts_with(p));
        let permit = match semaphore.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) if health => None,
            Err(_) => return Err(Status::too_many_requests("", 1)),
        };
        if long {
            let answer = self.dispatch(request, query, info, caller).await?;
            return Ok(keep_until_end(answer, permit));
        }
        let limit = self.inner.config.limits.request_timeout;
        let work = async {
            let answer = self.dispatch(request, query, info, caller).await?;
            Ok(if pretty { response::pretty(answer).await } else { answer })
        };
        match tokio::time::timeout(limit, work).await {
            Ok(Ok(answer)) if answer.extensions().get::<response::Streamed>().is_some() => {
                Ok(keep_until_end(answer, permit))
            }
            Ok(answer) => answer,
            Err(_) => Err(Status::timeout("request did not complete within the allotted time", 0)),
        }
    }

    async fn dispatch(
        &self,
        request: Request<Body>,
        query: Query,
        info: RequestInfo,
        caller: Caller,
    ) -> ApiResult<Response<Body>> {
        if info.is_resource {
            verbs::dispatch(self, request, query, info, caller).await
        } else {
            nonresource::dispatch(self, request, query, info).await
        }
    }
}

fn long_running(info: &RequestInfo, query: &Query) -> bool {
    info.is_resource
        && (info.verb == "watch"
            || info.subresource == "log" && query.flag("follow")
            || matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy"))
}

/// Ties a permit to the life of a response body.
fn keep_until_end(response: Response<Body>, permit: Option<OwnedSemaphorePermit>) -> Response<Body> {
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _held = &permit;
            frame
        }))
    })
}
