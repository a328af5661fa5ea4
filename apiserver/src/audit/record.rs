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

/// Bytes of a URI that are kept, and of each part of it.
const URI: usize = 4096;
const PART: usize = 256;

/// What a request is about.
#[derive(Clone, Debug)]
struct About {
    is_resource: bool,
    verb: String,
    resource: String,
    namespace: String,
    name: String,
    group: String,
    version: String,
    subresource: String,
}

impl About {
    fn of(info: &RequestInfo) -> About {
        let part = |text: &str| short(text, PART);
        About {
            is_resource: info.is_resource,
            verb: part(&info.verb),
            resource: part(&info.resource),
            namespace: part(info.namespace.as_deref().unwrap_or_default()),
            name: part(info.name.as_deref().unwrap_or_default()),
            group: part(&info.group),
            version: part(&info.version),
            subresource: part(&info.subresource),
        }
    }

    fn size(&self) -> usize {
        let texts = [&self.verb, &self.resource, &self.namespace, &self.name, &self.group, &self.version];
        texts.iter().map(|text| text.len()).sum::<usize>() + self.subresource.len()
    }
}

/// The text, or its beginning and a sign that there was more.
fn short(text: &str, limit: usize) -> String {
    match text.len() > limit {
        true => format!("{}…", &text[..text.floor_char_boundary(limit)]),
        false => text.to_owned(),
    }
}

/// A request as the log shows it.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: String,
    pub stage: Stage,
    uri: String,
    pub(super) user: UserInfo,
    pub source: Option<IpAddr>,
    agent: Option<String>,
    about: About,
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
            uri: request.uri().path_and_query().map(|uri| short(uri.as_str(), URI)).unwrap_or_default(),
            user,
            source: None,
            // Upstream's limit.
            agent: text(header::USER_AGENT).map(|agent| agent.chars().take(1024).collect()),
            about: About::of(info),
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
        if self.about.name.is_empty() && self.about.is_resource {
            self.about.name = short(name, PART);
        }
    }

    /// Now is the time of this stage.
    pub fn finish(&mut self) {
        self.staged = Timestamp::now();
    }

    /// How many bytes it takes, nearly.
    pub fn size(&self) -> usize {
        let user = self.user.name.len() + self.user.groups.iter().map(|group| group.len() + 24).sum::<usize>();
        let annotations: usize = self.annotations.iter().map(|(key, value)| key.len() + value.len() + 40).sum();
        let failure = self.failure.as_ref().map_or(0, |status| {
            let causes = status.details.iter().flat_map(|details| &details.causes);
            let causes = causes.map(|cause| cause.reason.len() + cause.message.len() + cause.field.len() + 72);
            // The name is in the message too.
            2 * status.message.len() + causes.sum::<usize>() + 128
        });
        let texts = self.uri.len() + self.agent.as_ref().map_or(0, String::len) + self.about.size();
        size_of::<Record>() + self.id.len() + texts + user + annotations + failure
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
            "verb": self.about.verb,
            "user": self.user.to_value(),
        });
        if let Some(source) = self.source {
            event["sourceIPs"] = json!([source.to_string()]);
        }
        if let Some(agent) = &self.agent {
            event["userAgent"] = json!(agent);
        }
        if self.about.is_resource {
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
        let about = &self.about;
        let parts = [
            ("resource", &about.resource),
            ("namespace", &about.namespace),
            ("name", &about.name),
            ("apiGroup", &about.group),
            ("apiVersion", &about.version),
            ("subresource", &about.subresource),
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
