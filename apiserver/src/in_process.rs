//! The request pipeline as a tower service for components of the same process.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};

use crate::identity::Caller;
use crate::server::ApiServer;

/// A service for `kube::Client::new(service, "default")`. Requests carry the identity and fence it was made with.
#[derive(Clone, Debug)]
pub struct InProcess {
    server: ApiServer,
    caller: Caller,
}

impl InProcess {
    pub(crate) fn new(server: ApiServer, caller: Caller) -> Self {
        Self { server, caller }
    }

    /// Sends one request.
    pub async fn send(&self, request: Request<Body>) -> Response<Body> {
        let mut request = request;
        request.extensions_mut().insert(self.caller.clone());
        // No component of the process looks at them.
        request.headers_mut().insert(trireme_api::apply::OMIT_HEADER, http::HeaderValue::from_static("true"));
        self.server.handle(request).await
    }
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let this = self.clone();
        let request = request.map(Body::new);
        Box::pin(async move { Ok(this.send(request).await) })
    }
}
