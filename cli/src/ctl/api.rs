//! Plain requests against the API: paths, queries, JSON in and out, streams of lines.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures::{AsyncBufRead, StreamExt};
use http::header::{ACCEPT, CONTENT_TYPE, WARNING};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;

use super::errors::{CtlError, Result};

/// What `Accept` says to get tables where there are some.
pub const TABLES: &str =
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";

/// One request.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    body: Bytes,
    content_type: &'static str,
    accept: &'static str,
}

impl Call {
    /// A request without a body.
    pub fn new(method: Method, path: impl Into<String>) -> Call {
        Call {
            method,
            path: path.into(),
            query: Vec::new(),
            body: Bytes::new(),
            content_type: "application/json",
            accept: "application/json",
        }
    }

    /// `GET`.
    pub fn get(path: impl Into<String>) -> Call {
        Call::new(Method::GET, path)
    }

    /// Adds a query parameter.
    pub fn query(mut self, name: &str, value: impl ToString) -> Call {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds a query parameter unless the value is empty.
    pub fn query_some(self, name: &str, value: Option<&str>) -> Call {
        match value {
            Some(value) if !value.is_empty() => self.query(name, value),
            _ => self,
        }
    }

    /// Sets a JSON body.
    pub fn body(mut self, body: &Value) -> Call {
        self.body = Bytes::from(body.to_string());
        self
    }

    /// Sets a JSON body of another media type (patches).
    pub fn body_as(self, content_type: &'static str, body: &Value) -> Call {
        Call { content_type, ..self.body(body) }
    }

    /// Sets a body as it stands.
    pub fn body_text(mut self, content_type: &'static str, text: &str) -> Call {
        self.body = Bytes::from(text.to_owned());
        Call { content_type, ..self }
    }

    /// Sets what kinds of answer are wanted.
    pub fn accept(mut self, accept: &'static str) -> Call {
        self.accept = accept;
        self
    }

    /// Path and query as they go over the wire.
    pub fn target(&self) -> String {
        let mut text = self.path.clone();
        for (index, (name, value)) in self.query.iter().enumerate() {
            text.push(if index == 0 && !self.path.contains('?') { '?' } else { '&' });
            text.push_str(&encode(name));
            text.push('=');
            text.push_str(&encode(value));
        }
        text
    }

    fn request(&self) -> Result<Request<Body>> {
        let mut builder = Request::builder().method(&self.method).uri(self.target()).header(ACCEPT, self.accept);
        if !self.body.is_empty() {
            builder = builder.header(CONTENT_TYPE, self.content_type);
        }
        builder
            .body(Body::from(self.body.clone()))
            .map_err(|error| CtlError::plain(format!("{}: {error}", self.target())))
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The API of one cluster.
#[derive(Clone)]
pub struct Api {
    client: kube::Client,
    timeout: Option<Duration>,
    headers: Vec<(&'static str, String)>,
}

/// Warnings that were shown: none is shown twice.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Shows a warning of the server's, or of our own, once.
pub fn warn(text: &str) {
    let mut shown = WARNINGS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !shown.iter().any(|known| known == text) {
        eprintln!("Warning: {text}");
        shown.push(text.to_owned());
    }
}

/// How many warnings were shown.
pub fn warnings() -> usize {
    WARNINGS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len()
}

/// The text of a warning header: `299 - "text"`.
fn warning_text(header: &str) -> String {
    let quoted = header.split_once('"').map_or(header, |(_, rest)| rest);
    let quoted = quoted.strip_suffix('"').unwrap_or(quoted);
    let mut text = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

impl Api {
    /// The limit of a request, if there is one.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Requests without streams fail after `timeout`, if there is one; the headers go with every request.
    pub fn new(client: kube::Client, timeout: Option<Duration>, headers: Vec<(&'static str, String)>) -> Api {
        Api { client, timeout, headers }
    }

    /// Adds the headers that go with every request.
    fn stamp(&self, request: &mut Request<Body>) -> Result<()> {
        for (name, value) in &self.headers {
            let value = http::HeaderValue::from_str(value).map_err(|error| CtlError::plain(error.to_string()))?;
            request.headers_mut().append(*name, value);
        }
        Ok(())
    }

    /// Sends a call and returns the answer, whatever its code, once its head is there.
    pub async fn send(&self, call: &Call) -> Result<Response<Body>> {
        let mut request = call.request()?;
        self.stamp(&mut request)?;
        let begin = std::time::Instant::now();
        let sending = self.client.send(request);
        let response = match self.timeout {
            Some(timeout) => tokio::time::timeout(timeout, sending)
                .await
                .map_err(|_| CtlError::bare("Unable to connect to the server: net/http: request canceled (Client.Timeout exceeded while awaiting headers)"))??,
            None => sending.await?,
        };
        for warning in response.headers().get_all(WARNING) {
            warn(&warning_text(&String::from_utf8_lossy(warning.as_bytes())));
        }
        tracing::debug!(
            "{} {} {} in {} ms",
            call.method,
            call.target(),
            response.status(),
            begin.elapsed().as_millis()
        );
        Ok(response)
    }

    /// Sends a call; codes from 400 on become errors.
    pub async fn checked(&self, call: &Call) -> Result<Response<Body>> {
        let response = self.send(call).await?;
        let code = response.status();
        if !code.is_client_error() && !code.is_server_error() {
            return Ok(response);
        }
        let bytes = self.collect(response).await?;
        if let Some(status) = status_of(&bytes) {
            return Err(status);
        }
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        let message = if text.is_empty() { code.to_string() } else { text };
        Err(CtlError::Status(Box::new(serde_json::json!({
            "kind": "Status", "code": code.as_u16(), "message": message,
            "reason": if code == 404 { "NotFound" } else { "" },
        }))))
    }

    /// Sends a request of somebody else's as it stands, with this user's rights; the answer is whatever comes.
    pub async fn forward(&self, mut request: Request<Body>) -> Result<Response<Body>> {
        self.stamp(&mut request)?;
        Ok(self.client.send(request).await?)
    }

    /// Sends a request whose connection is to be taken over; anything but that is an error.
    pub async fn upgrade(&self, mut request: Request<Body>) -> Result<Response<Body>> {
        self.stamp(&mut request)?;
        let response = self.client.send(request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let code = response.status();
        let bytes = self.collect(response).await?;
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        let text = if text.is_empty() { code.to_string() } else { text };
        Err(status_of(&bytes).unwrap_or_else(|| CtlError::plain(format!("unable to upgrade connection: {text}"))))
    }

    /// The answer's body.
    pub async fn bytes(&self, call: &Call) -> Result<Bytes> {
        let response = self.checked(call).await?;
        self.collect(response).await
    }

    /// The answer's body as JSON.
    pub async fn json(&self, call: &Call) -> Result<Value> {
        let bytes = self.bytes(call).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| CtlError::plain(format!("{}: the answer is not JSON: {error}", call.path)))
    }

    /// The answer's body as it comes.
    pub async fn stream(&self, call: &Call) -> Result<impl AsyncBufRead + Unpin + Send + use<>> {
        use futures::TryStreamExt;
        let response = self.checked(call).await?;
        let stream = response.into_body().into_data_stream();
        Ok(Box::pin(stream.map(|chunk| chunk.map_err(std::io::Error::other)).into_async_read()))
    }

    async fn collect(&self, response: Response<Body>) -> Result<Bytes> {
        Ok(response.into_body().collect().await.map_err(CtlError::from)?.to_bytes())
    }
}

fn status_of(bytes: &[u8]) -> Option<CtlError> {
    let status = serde_json::from_slice::<Value>(bytes).ok().filter(|value| value["kind"] == "Status")?;
    Some(CtlError::Status(Box::new(status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_unquoted() {
        assert_eq!(warning_text("299 - \"unknown field \\\"a\\\"\""), "unknown field \"a\"");
        assert_eq!(warning_text("299 - \"plain\""), "plain");
    }

    #[test]
    fn queries_are_encoded() {
        let call = Call::get("/api/v1/pods").query("labelSelector", "a=b,c in (d e)").query_some("x", None);
        assert_eq!(call.target(), "/api/v1/pods?labelSelector=a%3Db%2Cc%20in%20%28d%20e%29");
        assert_eq!(Call::get("/raw?a=1").query("b", 2).target(), "/raw?a=1&b=2");
    }
}
