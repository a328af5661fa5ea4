//! An API server made of a map: just enough of lists, watches, patches and deletes for one agent.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use serde_json::{Value, json};
use tokio::sync::watch;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    events: Vec<String>,
    /// Every change, at its version less one, for watches that begin earlier.
    changes: Vec<(String, Value)>,
}

/// The server.
#[derive(Clone)]
pub struct Api {
    state: Arc<Mutex<State>>,
    /// Tells that there are more changes.
    news: watch::Sender<()>,
}

type Body = BoxBody<Bytes, Infallible>;

impl Api {
    pub fn new() -> Api {
        Api { state: Arc::default(), news: watch::Sender::new(()) }
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    /// Messages of the Events recorded so far.
    pub fn events(&self) -> Vec<String> {
        self.state.lock().unwrap().events.clone()
    }

    pub fn put(&self, path: &str, object: Value) -> Value {
        self.store(&mut self.state.lock().unwrap(), path, object)
    }

    fn store(&self, state: &mut State, path: &str, mut object: Value) -> Value {
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", state.version));
        }
        let kind = if state.objects.insert(path.to_owned(), object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        self.tell(state, path, json!({"type": kind, "object": object}));
        object
    }

    /// A change of this version.
    fn tell(&self, state: &mut State, path: &str, event: Value) {
        state.changes.push((path.to_owned(), event));
        self.news.send_replace(());
    }

    pub fn patch(&self, path: &str, patch: &Value) -> Option<Value> {
        let mut state = self.state.lock().unwrap();
        let mut object = state.objects.get(path)?.clone();
        merge(&mut object, patch);
        Some(self.store(&mut state, path, object))
    }

    pub fn remove(&self, path: &str) -> Option<Value> {
        let mut state = self.state.lock().unwrap();
        let mut object = state.objects.remove(path)?;
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        self.tell(&mut state, path, json!({"type": "DELETED", "object": object}));
        Some(object)
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().trim_end_matches("/status").to_owned();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let object = || serde_json::from_slice::<Value>(&body).unwrap_or_default();
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let found = match parts.method {
            Method::GET if parts.uri.query().is_some_and(|q| q.contains("watch=")) => {
                let mut query = parts.uri.query().unwrap_or_default().split('&');
                let since = query.find_map(|option| option.strip_prefix("resourceVersion=")?.parse().ok());
                return self.watch(&path, since.unwrap_or_default());
            }
            Method::GET => match (self.get(&path), path.rsplit('/').next()) {
                (Some(object), _) => Some(object),
                (None, Some("pods" | "nodes" | "services" | "endpointslices")) => Some(self.list(&path)),
                (None, _) => None,
            },
            Method::POST if path.ends_with("/events") => {
                let event = object();
                let (who, why) = (event["involvedObject"]["name"].clone(), event["reason"].clone());
                self.state.lock().unwrap().events.push(format!("{who} {why} {}", event["message"]));
                Some(event)
            }
            Method::POST => Some(self.put(&format!("{path}/{}", name(&object())), object())),
            Method::PUT => Some(self.put(&path, object())),
            Method::PATCH => self.patch(&path, &object()),
            Method::DELETE => self.remove(&path),
            _ => None,
        };
        let (code, body) = match found {
            Some(object) => (200, object),
            None => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "reason": "NotFound", "code": 404, "message": format!("{path} not found")});
                (404, status)
            }
        };
        Response::builder().status(code).body(Full::new(Bytes::from(body.to_string())).boxed()).unwrap()
    }

    fn list(&self, path: &str) -> Value {
        let state = self.state.lock().unwrap();
        let items: Vec<Value> =
            state.objects.iter().filter(|(at, _)| belongs(at, path)).map(|(_, o)| o.clone()).collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": state.version.to_string()}, "items": items})
    }

    /// What happened after a version, and happens from now on.
    fn watch(&self, path: &str, since: usize) -> Response<Body> {
        let (api, path) = (self.clone(), path.to_owned());
        let stream = futures::stream::unfold((self.news.subscribe(), since), move |(mut news, mut next)| {
            let (api, path) = (api.clone(), path.clone());
            async move {
                loop {
                    news.mark_unchanged();
                    {
                        let state = api.state.lock().unwrap();
                        while let Some((at, event)) = state.changes.get(next) {
                            next += 1;
                            if belongs(at, &path) {
                                let line = Bytes::from(format!("{event}\n"));
                                return Some((Ok(http_body::Frame::data(line)), (news, next)));
                            }
                        }
                    }
                    news.changed().await.ok()?;
                }
            }
        });
        Response::new(BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(stream.boxed())))))
    }
}

/// `BoxBody` wants what can be shared, although nobody does.
struct SyncStream<T>(Mutex<futures::stream::BoxStream<'static, T>>);

impl<T> futures::Stream for SyncStream<T> {
    type Item = T;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.get_mut().0.get_mut().unwrap().poll_next_unpin(context)
    }
}

/// Whether an object's path is one of a list's, which may span namespaces.
fn belongs(object: &str, list: &str) -> bool {
    let Some((parent, _)) = object.rsplit_once('/') else { return false };
    let (prefix, resource) = list.rsplit_once('/').unwrap_or_default();
    parent == list
        || (parent.starts_with(&format!("{prefix}/namespaces/")) && parent.ends_with(&format!("/{resource}")))
}

fn merge(target: &mut Value, patch: &Value) {
    let (Some(target), Some(patch)) = (target.as_object_mut(), patch.as_object()) else {
        return target.clone_from(patch);
    };
    for (key, value) in patch {
        match value {
            Value::Null => drop(target.remove(key)),
            Value::Object(_) => merge(target.entry(key.clone()).or_insert_with(|| json!({})), value),
            // The one directive that agents send.
            Value::Array(list) if list.first().is_some_and(|first| first["$patch"] == "replace") => {
                target.insert(key.clone(), Value::Array(list[1..].to_vec()));
            }
            _ => drop(target.insert(key.clone(), value.clone())),
        }
    }
}
