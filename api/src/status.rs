//! `Status` error objects with upstream's codes, reasons, messages, details and causes (`apimachinery/pkg/api/errors`).

use crate::field::{FieldError, aggregate, quote};
use serde_json::{Map, Value, json};

/// The machine-readable reason of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Reason {
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    /// The reason's text on the wire; empty for `Unknown`.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Invalid => "Invalid",
            Self::ServerTimeout => "ServerTimeout",
            Self::Timeout => "Timeout",
            Self::TooManyRequests => "TooManyRequests",
            Self::BadRequest => "BadRequest",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::InternalError => "InternalError",
            Self::Expired => "Expired",
            Self::ServiceUnavailable => "ServiceUnavailable",
        }
    }
}

/// One cause in a Status' details.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cause {
    /// Machine-readable reason.
    pub reason: String,
    /// What a person reads.
    pub message: String,
    /// The field, where one is to blame.
    pub field: String,
}

/// The details of a Status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// The object's name.
    pub name: String,
    /// The object's API group.
    pub group: String,
    /// The kind or, where upstream does so, the plural resource name.
    pub kind: String,
    /// The object's uid.
    pub uid: String,
    /// Causes.
    pub causes: Vec<Cause>,
    /// After how many seconds to try again; 0 is not written.
    pub retry_after_seconds: u32,
    /// With which token a list whose pages have become too old may go on all the same; it stands in the Status' metadata.
    pub continue_token: String,
}

impl Details {
    fn of(group: &str, kind: &str, name: &str) -> Option<Box<Self>> {
        Some(Box::new(Self { name: name.into(), group: group.into(), kind: kind.into(), ..Self::default() }))
    }

    fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !text.is_empty() {
                map.insert(key.into(), Value::from(text.as_str()));
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|cause| {
                let mut one = Map::new();
                for (key, text) in [("reason", &cause.reason), ("message", &cause.message), ("field", &cause.field)] {
                    if !text.is_empty() {
                        one.insert(key.into(), Value::from(text.as_str()));
                    }
                }
                Value::Object(one)
            });
            map.insert("causes".into(), causes.collect());
        }
        if self.retry_after_seconds > 0 {
            map.insert("retryAfterSeconds".into(), self.retry_after_seconds.into());
        }
        Value::Object(map)
    }
}

/// A failure as the API reports it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Reason.
    pub reason: Reason,
    /// Message.
    pub message: String,
    /// Details.
    pub details: Option<Box<Details>>,
}

/// `pods` or `deployments.apps`: how messages name a resource or kind of a group.
pub fn qualified(group: &str, name: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

impl Status {
    fn new(code: u16, reason: Reason, message: impl Into<String>, details: Option<Box<Details>>) -> Self {
        Self { code, reason, message: message.into(), details }
    }

    /// The JSON object.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("kind".into(), "Status".into());
        map.insert("apiVersion".into(), "v1".into());
        let token =
            self.details.as_ref().map(|details| details.continue_token.as_str()).filter(|token| !token.is_empty());
        map.insert("metadata".into(), token.map_or(json!({}), |token| json!({"continue": token})));
        map.insert("status".into(), "Failure".into());
        map.insert("message".into(), self.message.as_str().into());
        if self.reason != Reason::Unknown {
            map.insert("reason".into(), self.reason.text().into());
        }
        if let Some(details) = &self.details {
            map.insert("details".into(), details.to_value());
        }
        map.insert("code".into(), self.code.into());
        Value::Object(map)
    }

    /// The `Status` of success, as deletion answers where no object is returned.
    pub fn success(group: &str, plural: &str, name: &str, uid: &str) -> Value {
        let details = Details {
            name: name.into(),
            group: group.into(),
            kind: plural.into(),
            uid: uid.into(),
            ..Details::default()
        };
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details.to_value()})
    }

    /// 404 `pods "x" not found`.
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {} not found", qualified(group, plural), quote(name));
        Self::new(404, Reason::NotFound, message, Details::of(group, plural, name))
    }

    /// 404 for a path that names no resource: `the server could not find the requested resource`.
    pub fn unknown_resource() -> Self {
        let details = Some(Box::new(Details::default()));
        Self::new(404, Reason::NotFound, "the server could not find the requested resource", details)
    }

    /// 409 `pods "x" already exists`.
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {} already exists", qualified(group, plural), quote(name));
        Self::new(409, Reason::AlreadyExists, message, Details::of(group, plural, name))
    }

    /// 409 for a `generateName` of which every name that was tried is taken.
    pub fn generate_name_conflict(group: &str, plural: &str, name: &str) -> Self {
        let message = format!(
            "{} {} already exists, the server was not able to generate a unique name for the object",
            qualified(group, plural),
            quote(name)
        );
        let mut details = Details::of(group, plural, name);
        if let Some(details) = &mut details {
            details.retry_after_seconds = 1;
        }
        Self::new(409, Reason::AlreadyExists, message, details)
    }

    /// 409 with a reason: `Operation cannot be fulfilled on pods "x": …`.
    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {}: {why}", qualified(group, plural), quote(name));
        Self::new(409, Reason::Conflict, message, Details::of(group, plural, name))
    }

    /// The conflict of what is applied with the fields of others, as messages and fields.
    pub fn apply_conflict(message: impl Into<String>, causes: impl Iterator<Item = (String, String)>) -> Self {
        let reason = "FieldManagerConflict";
        let causes = causes.map(|(message, field)| Cause { reason: reason.into(), message, field }).collect();
        let details = Details { causes, ..Details::default() };
        Self::new(409, Reason::Conflict, message, Some(Box::new(details)))
    }

    /// The conflict of a stale resourceVersion.
    pub fn modified(group: &str, plural: &str, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, plural, name, why)
    }

    /// The conflict of an object that carries another uid than the one that it is written over.
    pub fn uid_mismatch(group: &str, plural: &str, object: &Value, wanted: &str) -> Self {
        let metadata = &object["metadata"];
        let text = |key: &str| metadata[key].as_str().unwrap_or_default();
        // Upstream tells under which key it keeps the object.
        let folder = match (group, plural) {
            ("", "nodes") => "minions",
            ("", "services") => "services/specs",
            ("", "endpoints") => "services/endpoints",
            _ => plural,
        };
        let namespace = match text("namespace") {
            "" => String::new(),
            namespace => format!("/{namespace}"),
        };
        let (name, uid) = (text("name"), text("uid"));
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{folder}{namespace}/{name}, ResourceVersion: 0, \
             AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        );
        Self::conflict(group, plural, name, &why)
    }

    /// 422 `Pod "x" is invalid: …` with a cause for each error.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let message = format!("{} {} is invalid: {}", qualified(group, kind), quote(name), aggregate(errors));
        let causes = errors
            .iter()
            .map(|e| Cause { reason: e.kind.reason().into(), message: e.body.clone(), field: e.field.clone() })
            .collect();
        let details =
            Details { name: name.into(), group: group.into(), kind: kind.into(), causes, ..Details::default() };
        Self::new(422, Reason::Invalid, message, Some(Box::new(details)))
    }

    /// 403 as authorization words it: `pods "x" is forbidden: why`.
    pub fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let resource = qualified(group, plural);
        let message = match (plural.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} {} is forbidden: {why}", quote(name)),
        };
        Self::new(403, Reason::Forbidden, message, Details::of(group, plural, name))
    }

    /// 401.
    pub fn unauthorized(message: &str) -> Self {
        let message = if message.is_empty() { "Unauthorized" } else { message };
        Self::new(401, Reason::Unauthorized, message, None)
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message, None)
    }

    /// 410 Gone.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Gone, message, None)
    }

    /// 410 Expired: the resourceVersion or continue token is compacted.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message, None)
    }

    /// 410 for a list at a revision that is compacted.
    pub fn expired_list() -> Self {
        Self::expired("The resourceVersion for the provided list is too old.")
    }

    /// 410 for the next page of a list whose revision is compacted, with a token to go on with what is there now.
    pub fn expired_page(token: String) -> Self {
        let why = "The provided continue parameter is too old to display a consistent list result. You can start a new list \
            without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
            results. Continuing with the provided token results in an inconsistent list - objects that were created, \
            modified, or deleted between the time the first chunk was returned and now may show up in the list.";
        let details = Details { continue_token: token, ..Details::default() };
        Self::new(410, Reason::Expired, why, Some(Box::new(details)))
    }

    /// 410 for a watch or list at a compacted revision.
    pub fn compacted(requested: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {requested} ({oldest})"))
    }

    /// 504 for a resourceVersion that has not happened yet.
    pub fn too_large_resource_version(requested: u64, current: u64) -> Self {
        let mut status = Self::new(
            504,
            Reason::Timeout,
            format!("Timeout: Too large resource version: {requested}, current: {current}"),
            None,
        );
        status.details = Some(Box::new(Details {
            causes: vec![Cause {
                reason: "ResourceVersionTooLarge".into(),
                message: "Too large resource version".into(),
                field: String::new(),
            }],
            retry_after_seconds: 1,
            ..Details::default()
        }));
        status
    }

    /// 405 `… does not allow this method on the requested resource`.
    pub fn method_not_allowed(group: &str, plural: &str, action: &str) -> Self {
        let message = format!("{action} is not supported on resources of kind {}", quote(&qualified(group, plural)));
        Self::new(405, Reason::MethodNotAllowed, message, Details::of(group, plural, ""))
    }

    /// 405 for a path whose method no route takes.
    pub fn method_not_supported() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, Reason::MethodNotAllowed, message, Some(Box::default()))
    }

    /// 406 with the media types that would do.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, Reason::NotAcceptable, message, None)
    }

    /// 415 with the media types that would do.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, Reason::UnsupportedMediaType, message, None)
    }

    /// 413.
    pub fn request_entity_too_large(limit: usize) -> Self {
        let message = format!("Request entity is too large: limit is {limit}");
        Self::new(413, Reason::RequestEntityTooLarge, message, None)
    }

    /// 504: the request was not completed in time.
    pub fn timeout(message: &str, retry_after_seconds: u32) -> Self {
        let details = Details { retry_after_seconds, ..Details::default() };
        Self::new(504, Reason::Timeout, format!("Timeout: {message}"), Some(Box::new(details)))
    }

    /// 500 ServerTimeout: the operation could not be completed at this time, try again.
    pub fn server_timeout(group: &str, plural: &str, operation: &str, retry_after_seconds: u32) -> Self {
        let message = format!(
            "The {operation} operation against {} could not be completed at this time, please try again.",
            qualified(group, plural)
        );
        let details = Details {
            group: group.into(),
            kind: plural.into(),
            name: operation.into(),
            retry_after_seconds,
            ..Details::default()
        };
        Self::new(500, Reason::ServerTimeout, message, Some(Box::new(details)))
    }

    /// 429.
    pub fn too_many_requests(message: &str, retry_after_seconds: u32) -> Self {
        let message = if message.is_empty() { "Too many requests, please try again later." } else { message };
        let details = Details { retry_after_seconds, ..Details::default() };
        Self::new(429, Reason::TooManyRequests, message, Some(Box::new(details)))
    }

    /// 500.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let cause = Cause { message: message.to_string(), ..Cause::default() };
        let details = Details { causes: vec![cause], ..Details::default() };
        Self::new(500, Reason::InternalError, format!("Internal error occurred: {message}"), Some(Box::new(details)))
    }

    /// 503.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, Reason::ServiceUnavailable, message, None)
    }

    /// 403 for creating something in a namespace that is being deleted.
    pub fn namespace_terminating(group: &str, plural: &str, name: &str, namespace: &str) -> Self {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut status = Self::forbidden(group, plural, name, &why);
        if let Some(details) = &mut status.details {
            details.causes.push(Cause {
                reason: "NamespaceTerminating".into(),
                message: format!("namespace {namespace} is being terminated"),
                field: "metadata.namespace".into(),
            });
        }
        status
    }

    /// 400 for a body whose types do not fit the kind.
    pub fn cannot_be_handled(kind: &str, version: &str, why: &str) -> Self {
        let version = quote(version);
        Self::bad_request(format!("{kind} in version {version} cannot be handled as a {kind}: {why}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::field::Path;

    #[test]
    fn messages() {
        let invalid = FieldError::required(&Path::new("spec"), "");
        let cases: Vec<(Status, u16, &str, &str)> = vec![
            (Status::not_found("", "pods", "x"), 404, "NotFound", "pods \"x\" not found"),
            (
                Status::already_exists("apps", "deployments", "x"),
                409,
                "AlreadyExists",
                "deployments.apps \"x\" already exists",
            ),
            (
                Status::modified("", "pods", "x"),
                409,
                "Conflict",
                "Operation cannot be fulfilled on pods \"x\": the object has been modified; \
                 please apply your changes to the latest version and try again",
            ),
            (
                Status::invalid("apps", "Deployment", "x", &[invalid]),
                422,
                "Invalid",
                "Deployment.apps \"x\" is invalid: spec: Required value",
            ),
            (Status::expired("old"), 410, "Expired", "old"),
            (Status::internal("boom"), 500, "InternalError", "Internal error occurred: boom"),
        ];
        for (status, code, reason, message) in cases {
            let value = status.to_value();
            assert_eq!(value["code"], code);
            assert_eq!(value["reason"], reason);
            assert_eq!(value["message"], message);
            assert_eq!(value["status"], "Failure");
        }
    }
}
