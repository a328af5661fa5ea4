//! Requests as any client makes them, and what has to be read back after them.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::Value;

/// Longest wait for one answer.
const LIMIT: Duration = Duration::from_secs(20);
/// Longest wait for an effect that others bring about.
const EFFECT: Duration = Duration::from_secs(60);

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// HTTP code.
    pub code: u16,
    /// Body as JSON, or as a text.
    pub body: Value,
}

impl Answer {
    /// The body of a success.
    ///
    /// # Errors
    /// When it is none.
    pub fn ok(self) -> Result<Value> {
        let text = || self.body["message"].as_str().map_or_else(|| self.body.to_string(), str::to_owned);
        ensure!((200..300).contains(&self.code), "{}: {}", self.code, text());
        Ok(self.body)
    }
}

/// A client of the API.
#[derive(Clone)]
pub struct Api(pub kube::Client);

impl Api {
    /// One request.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&self, method: &str, path: &str, kind: &str, body: Option<&Value>) -> Result<Answer> {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes())?).uri(path);
        if body.is_some() {
            request = request.header("content-type", kind);
        }
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let work = async {
            let answer = self.0.send(request.body(Body::from(bytes))?).await?;
            let code = answer.status().as_u16();
            let bytes = answer.into_body().collect().await?.to_bytes();
            let text = || Value::from(String::from_utf8_lossy(&bytes));
            Ok(Answer { code, body: serde_json::from_slice(&bytes).unwrap_or_else(|_| text()) })
        };
        tokio::time::timeout(LIMIT, work).await.with_context(|| format!("{method} {path}: no answer"))?
    }

    /// A request with a JSON body.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn write(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        self.send(method, path, kind, Some(body)).await?.ok()
    }

    /// What is at a path.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.send("GET", path, "", None).await?.ok()
    }

    /// Changes an object by reading and writing it until nobody is in between; the path is that of the object or of a
    /// sub-resource.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn replace(&self, path: &str, change: impl Fn(&mut Value)) -> Result<Value> {
        for _ in 0..10 {
            let mut object = self.get(path).await?;
            change(&mut object);
            let answer = self.send("PUT", path, "application/json", Some(&object)).await?;
            if answer.code != 409 {
                return answer.ok();
            }
        }
        bail!("conflicts only")
    }

    /// Waits until a path answers something.
    ///
    /// # Errors
    /// When it does not for a minute.
    pub async fn until(&self, path: &str, what: &str, seen: impl Fn(&Answer) -> bool) -> Result<()> {
        let deadline = tokio::time::Instant::now() + EFFECT;
        loop {
            let answer = self.send("GET", path, "", None).await?;
            if seen(&answer) {
                return Ok(());
            }
            let told: String = answer.body.to_string().chars().take(300).collect();
            ensure!(tokio::time::Instant::now() < deadline, "not {what}: {} {told}", answer.code);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits for a line of a streamed answer that has a text in it.
    ///
    /// # Errors
    /// When none comes.
    pub async fn streams(&self, path: &str, wanted: &str) -> Result<()> {
        let request = Request::get(path).body(Body::empty())?;
        let work = async {
            let answer = self.0.send(request).await?;
            let code = answer.status().as_u16();
            let mut frames = answer.into_body().into_data_stream();
            let mut text = String::new();
            while let Some(frame) = frames.next().await {
                text.push_str(&String::from_utf8_lossy(&frame?));
                if code == 200 && text.contains(wanted) {
                    return Ok(());
                }
            }
            let told: String = text.chars().take(300).collect();
            bail!("{code}: the stream ended without it: {told}")
        };
        tokio::time::timeout(LIMIT, work).await.context("nothing came")?
    }
}

/// Whether a value has everything that another has; of a list each item, somewhere.
pub fn contains(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Object(value), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| value.get(key).is_some_and(|value| contains(value, wanted)))
        }
        (Value::Array(value), Value::Array(wanted)) => {
            wanted.iter().all(|wanted| value.iter().any(|value| contains(value, wanted)))
        }
        (value, wanted) => value == wanted,
    }
}

/// That a value has everything that another has.
///
/// # Errors
/// When it has not.
pub fn has(value: &Value, wanted: &Value) -> Result<()> {
    ensure!(contains(value, wanted), "read back without {wanted}: {value}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::contains;
    use serde_json::json;

    #[test]
    fn parts_are_found_in_wholes() {
        let whole = json!({"a": [{"b": 1, "c": 2}, {"b": 3}], "d": "e"});
        assert!(contains(&whole, &json!({"a": [{"b": 3}], "d": "e"})));
        assert!(!contains(&whole, &json!({"a": [{"b": 2}]})));
        assert!(!contains(&whole, &json!({"x": null})));
    }
}
