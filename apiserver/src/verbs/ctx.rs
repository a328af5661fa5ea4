//! Everything that the steps of one resource request share.

use std::sync::Arc;

use http::HeaderMap;
use parking_lot::Mutex;
use serde_json::Value;
use trireme_api::catalogue::{FieldValidation, Resource};
use trireme_api::status::Status;

use crate::audit::Note;
use crate::error::{ApiResult, corrupt};
use crate::identity::Caller;
use crate::request::accept::Accept;
use crate::request::info::RequestInfo;
use crate::request::query::Query;
use crate::server::ApiServer;
use crate::storage::cache::KindCache;
use crate::storage::keys;
use crate::storage::object::Object;

/// A request for a resource of the catalogue.
pub(crate) struct Ctx {
    pub(crate) server: ApiServer,
    pub(crate) info: RequestInfo,
    pub(crate) query: Query,
    pub(crate) caller: Caller,
    pub(crate) resource: Arc<Resource>,
    pub(crate) cache: Arc<KindCache>,
    pub(crate) accept: Accept,
    pub(crate) gzip: bool,
    pub(crate) headers: HeaderMap,
    /// For the audit log.
    pub(crate) note: Note,
    pub(crate) warnings: Mutex<Vec<String>>,
}

impl Ctx {
    /// Group for messages.
    pub(crate) fn group(&self) -> &str {
        &self.resource.group
    }

    /// Plural for messages.
    pub(crate) fn plural(&self) -> &str {
        &self.resource.plural
    }

    /// The name in the path; dispatch made sure that there is one where it is needed.
    pub(crate) fn name(&self) -> &str {
        self.info.name.as_deref().unwrap_or_default()
    }

    /// `namespace/name` of an object in the request's namespace.
    pub(crate) fn suffix(&self, name: &str) -> String {
        let namespace = if self.resource.namespaced() { self.info.namespace.as_deref() } else { None };
        keys::suffix(namespace, name)
    }

    /// The sub-resource, if any.
    pub(crate) fn subresource(&self) -> Option<&str> {
        Some(self.info.subresource.as_str()).filter(|s| !s.is_empty())
    }

    pub(crate) fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().push(text.into());
    }

    pub(crate) fn not_found(&self, name: &str) -> Status {
        Status::not_found(self.group(), self.plural(), name)
    }

    /// Whether the request asks for validation only.
    pub(crate) fn dry_run(&self) -> bool {
        self.query.all("dryRun").any(|value| value == "All")
    }

    pub(crate) fn field_validation(&self) -> ApiResult<FieldValidation> {
        let text = self.query.get("fieldValidation").unwrap_or_default();
        FieldValidation::parse(text).map_err(Status::bad_request)
    }

    /// The object as this request's version shows it, with managers if the client wants them.
    pub(crate) fn served(&self, object: &Object) -> ApiResult<Value> {
        if self.accept.managers { self.full(object) } else { self.bare(object) }
    }

    /// The object in this request's version, with managers.
    pub(crate) fn full(&self, object: &Object) -> ApiResult<Value> {
        Ok(self.converted(object.value().map_err(corrupt)?))
    }

    /// The object in this request's version, without managers.
    pub(crate) fn bare(&self, object: &Object) -> ApiResult<Value> {
        Ok(self.converted(object.bare().map_err(corrupt)?))
    }

    fn converted(&self, mut value: Value) -> Value {
        if self.resource.converts() {
            self.resource.from_storage(&mut value);
        }
        value
    }

    /// The current object: from the cache as it is, or after everything acknowledged before this call.
    pub(crate) async fn current(&self, name: &str, fresh: bool) -> ApiResult<Arc<Object>> {
        if fresh {
            self.server.barrier().await?;
        }
        self.cache.get(&self.suffix(name)).ok_or_else(|| self.not_found(name))
    }
}

/// Text at a path of a JSON value, or "".
pub(crate) fn text_at<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    trireme_api::value::at(value, path).as_str().unwrap_or_default()
}
