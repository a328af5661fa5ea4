//! A small API server in memory, for tests of loops that talk to one: lists, watches with bookmarks, writes with
//! versions and preconditions, sub-resources, discovery, and a fence.
#![allow(clippy::unwrap_used, dead_code, missing_docs)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Group, version, plural, kind.
const KINDS: [(&str, &str, &str, &str); 18] = [
    ("", "v1", "pods", "Pod"),
    ("", "v1", "nodes", "Node"),
    ("", "v1", "namespaces", "Namespace"),
    ("", "v1", "services", "Service"),
    ("", "v1", "endpoints", "Endpoints"),
    ("", "v1", "replicationcontrollers", "ReplicationController"),
    ("", "v1", "serviceaccounts", "ServiceAccount"),
    ("", "v1", "configmaps", "ConfigMap"),
    ("", "v1", "secrets", "Secret"),
    ("", "v1", "events", "Event"),
    ("", "v1", "podtemplates", "PodTemplate"),
    ("apps", "v1", "replicasets", "ReplicaSet"),
    ("apps", "v1", "deployments", "Deployment"),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    ("coordination.k8s.io", "v1", "leases", "Lease"),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    ("flowcontrol.apiserver.k8s.io", "v1", "flowschemas", "FlowSchema"),
    ("flowcontrol.apiserver.k8s.io", "v1", "prioritylevelconfigurations", "PriorityLevelConfiguration"),
];

type Out = UnsyncBoxBody<Bytes, Infallible>;

struct Watcher {
    plural: String,
    namespace: String,
    sender: mpsc::UnboundedSender<Value>,
}

#[derive(Default)]
struct State {
    revision: u64,
    fence: u64,
    /// By plural, namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    watchers: Vec<Watcher>,
    writes: Vec<String>,
    /// How many writes failed because their fence was not the newest.
    fenced: usize,
    /// Pods run and are ready from the beginning.
    kubelet: bool,
    /// Kinds of which the next creation is carried out and then answered with 500.
    stumbling: Vec<String>,
}

#[derive(Clone, Default)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    progress: Arc<tokio::sync::Notify>,
}

struct Target {
    plural: String,
    namespace: String,
    name: String,
    sub: String,
}

type Answer = Result<Value, (StatusCode, &'static str, String)>;

impl FakeApi {
    /// A client whose writes are conditional on this fence, if one is given.
    pub fn client(&self, fence: Option<u64>) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(request, fence).await) }
        });
        Client::new(service, "default")
    }

    /// Commits a new fence; every watch gets a bookmark that reaches it.
    pub fn new_fence(&self) -> u64 {
        let mut state = self.state.lock();
        state.revision += 1;
        state.fence = state.revision;
        let revision = state.revision.to_string();
        for watcher in &state.watchers {
            let object = json!({"apiVersion": "v1", "kind": "X", "metadata": {"resourceVersion": revision}});
            let _ = watcher.sender.send(json!({"type": "BOOKMARK", "object": object}));
        }
        state.revision
    }

    /// What was written so far, one line a write.
    pub fn writes(&self) -> Vec<String> {
        self.state.lock().writes.clone()
    }

    /// All objects of a kind.
    pub fn all(&self, plural: &str) -> Vec<Value> {
        let state = self.state.lock();
        state.objects.iter().filter(|(key, _)| key.0 == plural).map(|(_, object)| object.clone()).collect()
    }

    /// Puts an object in, or changes it, from outside.
    pub fn put(&self, plural: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("").to_owned();
        let mut state = self.state.lock();
        state.store((plural.to_owned(), namespace, name), object);
        self.progress.notify_waiters();
    }

    /// Takes an object out from outside.
    pub fn remove(&self, plural: &str, namespace: &str, name: &str) {
        let mut state = self.state.lock();
        state.remove(&(plural.to_owned(), namespace.to_owned(), name.to_owned()));
        self.progress.notify_waiters();
    }

    /// How many writes failed because their fence was not the newest.
    pub fn fenced(&self) -> usize {
        self.state.lock().fenced
    }

    /// From now on, pods run and are ready as soon as they are created.
    pub fn start_kubelet(&self) {
        self.state.lock().kubelet = true;
    }

    /// The next creation of an object of this kind is carried out, but answered as if the server broke.
    pub fn stumble(&self, plural: &str) {
        self.state.lock().stumbling.push(plural.to_owned());
    }

    /// Waits until something holds; fails after a while, telling what was written.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            loop {
                let notified = self.progress.notified();
                if holds(self) {
                    return;
                }
                notified.await;
            }
        };
        let limit = std::time::Duration::from_secs(20);
        if tokio::time::timeout(limit, waiting).await.is_err() {
            panic!("not reached: {what}; written:\n{}", self.writes().join("\n"));
        }
    }

    async fn serve(&self, request: Request<Body>, fence: Option<u64>) -> Response<Out> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect_bytes().await.unwrap();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or("").to_owned();
        if query.contains("watch=true") {
            return self.watch(&path, &query);
        }
        let answer = match discovery(&path) {
            Some(document) => Ok(document),
            None => self.answer(&parts.method, &path, &bytes, fence),
        };
        self.progress.notify_waiters();
        match answer {
            Ok(value) => Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync()),
            Err((code, reason, message)) => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
                    "reason": reason, "message": message});
                let body = Full::new(Bytes::from(status.to_string())).boxed_unsync();
                Response::builder().status(code).body(body).unwrap()
            }
        }
    }

    fn watch(&self, path: &str, query: &str) -> Response<Out> {
        let target = target(path);
        let from: u64 = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion="))
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        // What was written since the list; what was deleted since is not kept, tests do not need it.
        for ((plural, namespace, _), object) in &state.objects {
            let revision: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            if *plural == target.plural && within(&target.namespace, namespace) && revision > from {
                let _ = sender.send(json!({"type": "MODIFIED", "object": object}));
            }
        }
        let revision = state.revision.to_string();
        let object = json!({"apiVersion": "v1", "kind": "X", "metadata": {"resourceVersion": revision}});
        let _ = sender.send(json!({"type": "BOOKMARK", "object": object}));
        state.watchers.push(Watcher { plural: target.plural, namespace: target.namespace, sender });
        drop(state);
        let frames = futures::stream::unfold(receiver, |mut receiver| async move {
            let event = receiver.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n")))), receiver))
        });
        Response::new(StreamBody::new(frames).boxed_unsync())
    }

    fn answer(&self, method: &Method, path: &str, bytes: &[u8], fence: Option<u64>) -> Answer {
        let target = target(path);
        let mut state = self.state.lock();
        if *method != Method::GET {
            if fence.is_some_and(|fence| fence != state.fence) {
                state.fenced += 1;
                return Err((StatusCode::CONFLICT, "Conflict", "the leader was deposed".to_owned()));
            }
            state.writes.push(format!("{method} {path}"));
        }
        let body: Value = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(bytes).unwrap() };
        match (method.as_str(), target.name.is_empty(), target.sub.as_str()) {
            ("GET", true, _) => Ok(state.list(&target)),
            ("GET", false, _) => state.get(&target),
            ("POST", true, _) => {
                let created = state.create(&target, body);
                match state.stumbling.iter().position(|plural| *plural == target.plural) {
                    Some(at) => {
                        state.stumbling.remove(at);
                        Err((StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "stumbled".to_owned()))
                    }
                    None => created,
                }
            }
            ("POST", false, "binding") => state.bind(&target, &body),
            ("PUT", false, "finalize") => {
                let key = target.key();
                state.remove(&key);
                Ok(body)
            }
            ("PATCH", false, sub) => state.patch(&target, sub, &body),
            ("DELETE", false, _) => state.delete(&target, &body),
            ("DELETE", true, _) => {
                let list = state.list(&target);
                for object in list["items"].as_array().unwrap() {
                    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                    let one = Target { name, sub: String::new(), ..target.clone_place() };
                    state.delete(&one, &Value::Null)?;
                }
                Ok(list)
            }
            other => panic!("unexpected request {other:?} {path}"),
        }
    }
}

impl Target {
    fn key(&self) -> (String, String, String) {
        (self.plural.clone(), self.namespace.clone(), self.name.clone())
    }

    fn clone_place(&self) -> Self {
        Self { plural: self.plural.clone(), namespace: self.namespace.clone(), name: String::new(), sub: String::new() }
    }
}

fn within(wanted: &str, namespace: &str) -> bool {
    wanted.is_empty() || wanted == namespace
}

fn target(path: &str) -> Target {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    parts.drain(..if parts[0] == "api" { 2 } else { 3 });
    let mut namespace = "";
    if parts.len() > 2 && parts[0] == "namespaces" && !matches!(parts[2], "finalize" | "status") {
        namespace = parts[1];
        parts.drain(..2);
    }
    let part = |at: usize| parts.get(at).copied().unwrap_or("").to_owned();
    Target { plural: part(0), namespace: namespace.to_owned(), name: part(1), sub: part(2) }
}

fn discovery(path: &str) -> Option<Value> {
    let list = |group: &str, version: &str| {
        let of_group = KINDS.iter().filter(|kind| kind.0 == group);
        let resources: Vec<Value> = of_group
            .map(|(_, _, plural, kind)| {
                json!({"name": plural, "kind": kind, "namespaced": !matches!(*plural, "nodes" | "namespaces" | "flowschemas" | "prioritylevelconfigurations"),
                    "singularName": "", "verbs": ["get", "list", "watch", "delete", "deletecollection"]})
            })
            .collect();
        let prefix = if group.is_empty() { String::new() } else { format!("{group}/") };
        json!({"kind": "APIResourceList", "groupVersion": format!("{prefix}{version}"), "resources": resources})
    };
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts[..] {
        ["api", version] => Some(list("", version)),
        ["apis"] => {
            let groups: Vec<Value> =
                ["apps", "discovery.k8s.io", "coordination.k8s.io", "policy", "flowcontrol.apiserver.k8s.io"]
                    .iter()
                    .map(|group| {
                        let version = json!({"groupVersion": format!("{group}/v1"), "version": "v1"});
                        json!({"name": group, "versions": [version], "preferredVersion": version})
                    })
                    .collect();
            Some(json!({"kind": "APIGroupList", "groups": groups}))
        }
        ["apis", group, version] => Some(list(group, version)),
        _ => None,
    }
}

impl State {
    fn tell(&self, kind: &str, key: &(String, String, String), object: &Value) {
        for watcher in &self.watchers {
            if watcher.plural == key.0 && within(&watcher.namespace, &key.1) {
                let _ = watcher.sender.send(json!({"type": kind, "object": object}));
            }
        }
    }

    fn store(&mut self, key: (String, String, String), mut object: Value) -> Value {
        self.revision += 1;
        let meta = &mut object["metadata"];
        meta["resourceVersion"] = json!(self.revision.to_string());
        if meta["uid"].is_null() {
            meta["uid"] = json!(format!("uid-{}", self.revision));
            meta["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let old = self.objects.insert(key.clone(), object.clone());
        self.tell(if old.is_some() { "MODIFIED" } else { "ADDED" }, &key, &object);
        object
    }

    fn remove(&mut self, key: &(String, String, String)) {
        if let Some(mut object) = self.objects.remove(key) {
            self.revision += 1;
            object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
            self.tell("DELETED", key, &object);
        }
    }

    fn list(&self, target: &Target) -> Value {
        let of_kind =
            self.objects.iter().filter(|(key, _)| key.0 == target.plural && within(&target.namespace, &key.1));
        let items: Vec<&Value> = of_kind.map(|(_, object)| object).collect();
        json!({"kind": "List", "apiVersion": "v1", "items": items,
            "metadata": {"resourceVersion": self.revision.to_string()}})
    }

    fn get(&self, target: &Target) -> Answer {
        let missing = || (StatusCode::NOT_FOUND, "NotFound", format!("{} {} not found", target.plural, target.name));
        self.objects.get(&target.key()).cloned().ok_or_else(missing)
    }

    fn create(&mut self, target: &Target, mut object: Value) -> Answer {
        if object["metadata"]["name"].is_null() {
            let base = object["metadata"]["generateName"].as_str().unwrap().to_owned();
            object["metadata"]["name"] = json!(format!("{base}{}", self.revision));
        }
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let key = (target.plural.clone(), target.namespace.clone(), name);
        if self.objects.contains_key(&key) {
            return Err((StatusCode::CONFLICT, "AlreadyExists", format!("{} already exists", key.2)));
        }
        if !target.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(target.namespace);
        }
        object["metadata"]["generation"] = json!(1);
        if self.kubelet && target.plural == "pods" {
            let ip = format!("10.0.{}.{}", self.revision / 256, self.revision % 256);
            object["spec"]["nodeName"] = json!("n1");
            object["status"] =
                json!({"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]});
        }
        Ok(self.store(key, object))
    }

    fn patch(&mut self, target: &Target, sub: &str, patch: &Value) -> Answer {
        let mut object = self.get(target)?;
        let version = &patch["metadata"]["resourceVersion"];
        if !version.is_null() && *version != object["metadata"]["resourceVersion"] {
            return Err((StatusCode::CONFLICT, "Conflict", "the object has been modified".to_owned()));
        }
        let before = object["spec"].clone();
        merge(&mut object, patch);
        if sub == "status" {
            object["spec"] = before;
        } else if object["spec"] != before {
            object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
        }
        let finalizers = object["metadata"]["finalizers"].as_array().map_or(0, Vec::len);
        if !object["metadata"]["deletionTimestamp"].is_null()
            && finalizers == 0
            && !matches!(&*target.plural, "pods" | "namespaces")
        {
            self.remove(&target.key());
            return Ok(object);
        }
        Ok(self.store(target.key(), object))
    }

    fn bind(&mut self, target: &Target, binding: &Value) -> Answer {
        let mut pod = self.get(target)?;
        if !pod["spec"]["nodeName"].is_null() {
            return Err((StatusCode::CONFLICT, "Conflict", "the pod is bound already".to_owned()));
        }
        pod["spec"]["nodeName"] = binding["target"]["name"].clone();
        self.store(target.key(), pod);
        Ok(json!({"kind": "Status", "status": "Success"}))
    }

    fn delete(&mut self, target: &Target, options: &Value) -> Answer {
        let mut object = self.get(target)?;
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return Err((StatusCode::CONFLICT, "Conflict", "another uid".to_owned()));
        }
        let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        match options["propagationPolicy"].as_str() {
            Some("Foreground") => finalizers.push(json!("foregroundDeletion")),
            Some("Orphan") => finalizers.push(json!("orphan")),
            _ => {}
        }
        if finalizers.is_empty() {
            self.remove(&target.key());
            return Ok(json!({"kind": "Status", "status": "Success"}));
        }
        object["metadata"]["finalizers"] = Value::Array(finalizers);
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        Ok(self.store(target.key(), object))
    }
}

fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut object[key], value);
        }
    }
}
