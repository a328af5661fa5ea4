//! SelfSubjectAccessReview, SelfSubjectRulesReview and SelfSubjectReview: what `kubectl auth` asks.

use axum::body::Body;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use trireme_api::status::Status;
use trireme_api::{decode, value};

use crate::authz;
use crate::error::ApiResult;
use crate::identity::{Caller, GROUP_MASTERS};
use crate::request::info::RequestInfo;
use crate::request::{accept, body};
use crate::response;
use crate::server::ApiServer;

/// Groups of the reviews; they are answered, never stored.
pub(crate) const GROUPS: [&str; 2] = ["authorization.k8s.io", "authentication.k8s.io"];

/// POST of a review.
pub(crate) async fn review(
    server: &ApiServer,
    request: Request<Body>,
    info: &RequestInfo,
    caller: &Caller,
) -> ApiResult<Response<Body>> {
    if info.version != "v1" || info.name.is_some() {
        return Err(Status::unknown_resource());
    }
    let (mut parts, request_body) = request.into_parts();
    let encoding = accept::negotiate(&parts.headers)?.encoding;
    let bytes = body::read(&parts.headers, request_body, server.inner.config.limits.body_bytes).await?;
    let bytes = body::normalize(&mut parts.headers, bytes)?;
    let decoded = match accept::body_encoding(&parts.headers)? {
        accept::Encoding::Json => decode::from_json(&bytes),
        accept::Encoding::Yaml => decode::from_yaml(&bytes),
    };
    let mut object = decoded.map_err(|e| Status::bad_request(e.to_string()))?.value;
    if info.verb != "create" {
        return Err(Status::method_not_supported());
    }
    let status = match (info.group.as_str(), info.resource.as_str()) {
        ("authorization.k8s.io", "selfsubjectaccessreviews") => access(&object["spec"], caller),
        ("authorization.k8s.io", "selfsubjectrulesreviews") => rules(caller),
        ("authentication.k8s.io", "selfsubjectreviews") => {
            json!({"userInfo": {"username": caller.user.name, "groups": caller.user.groups}})
        }
        _ => return Err(Status::unknown_resource()),
    };
    if !object.is_object() {
        return Err(Status::bad_request("the body must be an object"));
    }
    value::set(&mut object, "status", status);
    response::value(StatusCode::CREATED, encoding, &object)
}

fn access(spec: &Value, caller: &Caller) -> Value {
    let mut asked = RequestInfo::default();
    let text = |v: &Value, key: &str| value::text(v, key).to_owned();
    let resource = &spec["resourceAttributes"];
    if resource.is_object() {
        asked.is_resource = true;
        asked.verb = text(resource, "verb");
        asked.group = text(resource, "group");
        asked.resource = text(resource, "resource");
        asked.subresource = text(resource, "subresource");
        asked.namespace = Some(text(resource, "namespace")).filter(|n| !n.is_empty());
        asked.name = Some(text(resource, "name")).filter(|n| !n.is_empty());
    } else {
        asked.verb = text(&spec["nonResourceAttributes"], "verb");
        asked.path = text(&spec["nonResourceAttributes"], "path");
    }
    json!({"allowed": authz::allowed(&caller.user, &asked)})
}

fn rules(caller: &Caller) -> Value {
    let all = caller.user.in_group(GROUP_MASTERS);
    let resources = if all { json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]) } else { json!([]) };
    let paths = if all {
        json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}])
    } else {
        json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version"]}])
    };
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": !all})
}
