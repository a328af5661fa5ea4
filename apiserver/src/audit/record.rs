//! One record, and its form as an audit.k8s.io/v1 Event.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use http::{Request, header};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use trireme_api::status::Status;

use crate::identity::UserInfo;
use crate::request::info::RequestInfo;

/// When a record was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The head of a long-running request's response is out.
    ResponseStarted,
    /// Nothing more will be sent.
    ResponseComplete,
    /// The request's code panicked.
    Panic,
}

/// A request as the log shows it.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: String,
    pub stage: Stage,
    uri: String,
    user: UserInfo,
    pub source: Option<IpAddr>,
    agent: Option<String>,
    info: RequestInfo,
    /// HTTP code of the answer; 0 while there is none.
    pub code: u16,
    pub failure: Option<Arc<Status>>,
    received: Timestamp,
    staged: Timestamp,
    pub annotations: Vec<(&'static str, String)>,
}

impl Record {
    pub fn new(request: &Request<Body>, info: &RequestInfo, user: UserInfo) -> Record {
        let text = |name| request.headers().get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        // A client may choose the id, to find its requests again; anything else than an id is not taken over.
        let fits = |id: &&str| id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let id = text(header::HeaderName::from_static(super::AUDIT_ID)).filter(fits).filter(|id| !id.is_empty());
        let now = Timestamp::now();
        Record {
            id: id.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned),
            stage: Stage::ResponseComplete,
            uri: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
            user,
            source: None,
            // Upstream's limit.
            agent: text(header::USER_AGENT).map(|agent| agent.chars().take(1024).collect()),
            info: info.clone(),
            code: 0,
            failure: None,
            received: now,
            staged: now,
            annotations: Vec::new(),
        }
    }

    /// The commit of a fence, which no request asks for.
    pub fn of_fence(holder: &str) -> Record {
        let request = Request::new(Body::empty());
        let info = RequestInfo { verb: "fence".into(), ..RequestInfo::default() };
        let mut record = Record::new(&request, &info, UserInfo::component("system:apiserver"));
        record.uri = crate::fence::FENCE_KEY.to_owned();
        record.agent = Some(format!("trireme master {holder}"));
        record.code = 200;
        record
    }

    /// Adds an annotation; the last of a name counts.
    pub fn annotate(&mut self, key: &'static str, value: impl ToString) {
        self.annotations.retain(|(old, _)| *old != key);
        self.annotations.push((key, value.to_string()));
    }

    /// The name that the server gave, or the body had, where the path has none.
    pub fn named(&mut self, name: &str) {
        if self.info.name.is_none() && self.info.is_resource {
            self.info.name = Some(name.to_owned());
        }
    }

    /// Now is the time of this stage.
    pub fn finish(&mut self) {
        self.staged = Timestamp::now();
    }

    /// The Event.
    pub fn to_json(&self) -> Value {
        let mut event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "auditID": self.id,
            "stage": match self.stage {
                Stage::ResponseStarted => "ResponseStarted",
                Stage::ResponseComplete => "ResponseComplete",
                Stage::Panic => "Panic",
            },
            "requestURI": self.uri,
            "verb": self.info.verb,
            "user": {"username": self.user.name, "groups": self.user.groups},
        });
        if let Some(source) = self.source {
            event["sourceIPs"] = json!([source.to_string()]);
        }
        if let Some(agent) = &self.agent {
            event["userAgent"] = json!(agent);
        }
        if self.info.is_resource {
            event["objectRef"] = self.object();
        }
        if self.code > 0 {
            event["responseStatus"] = self.status();
        }
        event["requestReceivedTimestamp"] = json!(micros(self.received));
        event["stageTimestamp"] = json!(micros(self.staged));
        let annotations: Map<String, Value> =
            self.annotations.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        if !annotations.is_empty() {
            event["annotations"] = Value::Object(annotations);
        }
        event
    }

    fn object(&self) -> Value {
        let info = &self.info;
        let parts = [
            ("resource", info.resource.as_str()),
            ("namespace", info.namespace.as_deref().unwrap_or_default()),
            ("name", info.name.as_deref().unwrap_or_default()),
            ("apiGroup", info.group.as_str()),
            ("apiVersion", info.version.as_str()),
            ("subresource", info.subresource.as_str()),
        ];
        let set = parts.into_iter().filter(|(_, value)| !value.is_empty());
        Value::Object(set.map(|(key, value)| (key.to_owned(), json!(value))).collect())
    }

    fn status(&self) -> Value {
        match &self.failure {
            Some(status) => {
                let mut value = status.to_value();
                if let Some(map) = value.as_object_mut() {
                    map.remove("kind");
                    map.remove("apiVersion");
                }
                value
            }
            None => json!({"metadata": {}, "code": self.code}),
        }
    }
}

/// RFC 3339 with exactly six digits, like upstream's MicroTime.
fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
