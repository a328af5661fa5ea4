//! The audit log: who asked for what, when, and what came of it; one audit.k8s.io/v1 Event of level Metadata a line.
//!
//! A request never waits for the log. Its record is handed to a thread through a bounded queue; when that is full, the
//! record is dropped and counted, as in upstream's batch mode. Bodies are never recorded, so neither are secrets.
//!
//! Besides upstream's annotations a record has `trireme.io/revision`, the revisions at which the request's writes were
//! committed, and `trireme.io/fence`, the revision of the fence that they were conditional on. The commit of a fence is
//! a record of its own, so that the logs of all masters together tell which leader wrote what.

mod log;
mod record;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use trireme_api::status::Status;
use trireme_raftstore::Revision;

use crate::error::ServerError;
use crate::fence::Fence;
use crate::identity::{Caller, UserInfo};
use crate::request::info::RequestInfo;
use log::Log;
use record::{Record, Stage};

const AUDIT_ID: &str = "audit-id";
const FENCE: &str = "trireme.io/fence";
const REVISION: &str = "trireme.io/revision";
const DECISION: &str = "authorization.k8s.io/decision";

/// Where the audit log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// The file; `-` is standard output.
    pub path: PathBuf,
    /// MiB at which the file is put aside and begun anew; 0: never.
    pub max_size: u64,
    /// How many files put aside are kept; 0: all.
    pub max_backups: usize,
}

/// The log, or the absence of one.
pub(crate) struct Audit {
    log: Option<Log>,
    events: Counter,
    dropped: Counter,
}

/// What a request's steps have to tell about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Note(Option<Arc<Mutex<Facts>>>);

#[derive(Debug, Default)]
struct Facts {
    fence: Option<Revision>,
    revisions: Vec<Revision>,
    name: Option<String>,
    /// Whether the request was allowed; nothing before that was asked.
    allowed: Option<bool>,
}

impl Note {
    /// A write was committed.
    pub(crate) fn committed(&self, fence: Option<Fence>, revision: Revision) {
        if let Some(facts) = &self.0 {
            let mut facts = facts.lock();
            facts.fence = fence.map(|fence| fence.revision());
            facts.revisions.push(revision);
        }
    }

    /// The object got this name.
    pub(crate) fn named(&self, name: &str) {
        if let Some(facts) = &self.0 {
            facts.lock().name = Some(name.to_owned());
        }
    }

    /// Authorization let the request pass, or did not. A later refusal counts.
    pub(crate) fn decided(&self, allowed: bool) {
        if let Some(facts) = &self.0 {
            facts.lock().allowed = Some(allowed);
        }
    }

    /// The note of a request; one that nobody reads where nothing is logged.
    pub(crate) fn of(request: &Request<Body>) -> Note {
        request.extensions().get::<Note>().cloned().unwrap_or_default()
    }
}

/// A request on its way; what is not finished explicitly was given up by its client.
pub(crate) struct Trail {
    audit: Arc<Audit>,
    facts: Arc<Mutex<Facts>>,
    record: Option<Box<Record>>,
}

impl Audit {
    /// Opens the log and starts its thread.
    pub(crate) fn open(config: Option<&AuditConfig>) -> Result<Arc<Audit>, ServerError> {
        let (events, dropped) = (Counter::default(), Counter::default());
        let open = |config: &AuditConfig| {
            Log::open(config, dropped.clone()).map_err(|error| {
                ServerError::Config(format!("cannot write the audit log {}: {error}", config.path.display()))
            })
        };
        let log = config.map(open).transpose()?;
        Ok(Arc::new(Audit { log, events, dropped }))
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("apiserver_audit_event", "Audit records handed to the log.", self.events.clone());
        registry.register(
            "apiserver_audit_error",
            "Audit records lost: full queue, failed write.",
            self.dropped.clone(),
        );
    }

    fn send(&self, record: Box<Record>) {
        let Some(log) = &self.log else { return };
        match log.send(record) {
            true => self.events.inc(),
            false => self.dropped.inc(),
        };
    }

    /// Begins to follow a request; `None` where nothing is logged.
    pub(crate) fn begin(self: &Arc<Self>, request: &mut Request<Body>, info: &RequestInfo) -> Option<Trail> {
        self.log.as_ref()?;
        let user = match request.extensions().get::<Caller>() {
            Some(caller) => caller.user.clone(),
            None => request.extensions().get::<UserInfo>().cloned().unwrap_or_else(UserInfo::anonymous),
        };
        let from = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|from| from.0.ip());
        let mut record = Record::new(request, info, user);
        record.source = from;
        let facts = Arc::new(Mutex::new(Facts::default()));
        request.extensions_mut().insert(Note(Some(facts.clone())));
        Some(Trail { audit: self.clone(), facts, record: Some(Box::new(record)) })
    }

    /// A leader has committed its fence.
    pub(crate) fn fence(&self, holder: &str, fence: Fence) {
        let mut record = Record::of_fence(holder);
        record.annotations.push((FENCE, fence.revision().to_string()));
        record.annotations.push((REVISION, fence.revision().to_string()));
        self.send(Box::new(record));
    }

    /// Writes out what is queued.
    pub(crate) async fn flush(&self) {
        if let Some(log) = &self.log {
            log.flush().await;
        }
    }
}

impl Trail {
    /// The request was answered; long-running ones end with their body.
    pub(crate) fn answered(mut self, mut answer: Response<Body>, long: bool) -> Response<Body> {
        let Some(mut record) = self.record.take() else { return answer };
        if let Ok(id) = HeaderValue::from_str(&record.id) {
            answer.headers_mut().insert(AUDIT_ID, id);
        }
        record.code = answer.status().as_u16();
        record.failure = answer.extensions_mut().remove::<Failure>().map(|failure| failure.0);
        if !long {
            self.complete(record, Stage::ResponseComplete);
            return answer;
        }
        let mut started = record.clone();
        started.stage = Stage::ResponseStarted;
        self.complete(started, Stage::ResponseStarted);
        self.record = Some(record);
        answer.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _held = &self;
                frame
            }))
        })
    }

    /// Who makes the request turned out only later.
    pub(crate) fn identified(&mut self, user: &UserInfo) {
        if let Some(record) = &mut self.record {
            record.user = user.clone();
        }
    }

    /// The request's code panicked.
    pub(crate) fn panicked(&mut self) {
        if let Some(record) = &mut self.record {
            record.stage = Stage::Panic;
        }
    }

    fn complete(&self, mut record: Box<Record>, stage: Stage) {
        if record.stage != Stage::Panic {
            record.stage = stage;
        }
        let facts = self.facts.lock();
        if let Some(allowed) = facts.allowed {
            record.annotate(DECISION, if allowed { "allow" } else { "forbid" });
        }
        if let Some(fence) = facts.fence {
            record.annotate(FENCE, fence);
        }
        if !facts.revisions.is_empty() {
            let all: Vec<String> = facts.revisions.iter().map(ToString::to_string).collect();
            record.annotate(REVISION, all.join(","));
        }
        if let Some(name) = &facts.name {
            record.named(name);
        }
        drop(facts);
        record.finish();
        self.audit.send(record);
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.complete(record, Stage::ResponseComplete);
        }
    }
}

/// What a refused request was told, beside the encoded body.
#[derive(Clone, Debug)]
pub(crate) struct Failure(pub(crate) Arc<Status>);

#[cfg(test)]
mod tests;
