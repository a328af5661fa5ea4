//! Reviews of access, of rules and of tokens: what `kubectl auth` and webhook authorizers ask.

use axum::body::Body;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use trireme_api::field::{FieldError, Path};
use trireme_api::schema::Schemas;
use trireme_api::status::Status;
use trireme_api::{decode, value};

use crate::authz;
use crate::error::ApiResult;
use crate::identity::{Caller, GROUP_MASTERS, UserInfo};
use crate::request::info::RequestInfo;
use crate::request::{accept, body};
use crate::response;
use crate::server::ApiServer;
use crate::tokens::Refused;

/// Groups of the reviews; they are answered, never stored.
pub(crate) const GROUPS: [&str; 2] = ["authorization.k8s.io", "authentication.k8s.io"];

/// Resources and kinds of the reviews.
const KINDS: [(&str, &str, &str); 6] = [
    ("authorization.k8s.io", "subjectaccessreviews", "SubjectAccessReview"),
    ("authorization.k8s.io", "localsubjectaccessreviews", "LocalSubjectAccessReview"),
    ("authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    ("authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
    ("authentication.k8s.io", "tokenreviews", "TokenReview"),
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
];

/// POST of a review.
pub(crate) async fn review(
    server: &ApiServer,
    request: Request<Body>,
    info: &RequestInfo,
    caller: &Caller,
) -> ApiResult<Response<Body>> {
    let known = KINDS.iter().find(|(group, plural, _)| *group == info.group && *plural == info.resource);
    let (_, plural, kind) = known.ok_or_else(Status::unknown_resource)?;
    let namespaced = *plural == "localsubjectaccessreviews";
    if info.version != "v1" || info.name.is_some() || namespaced != info.namespace.is_some() {
        return Err(Status::unknown_resource());
    }
    if info.verb != "create" {
        return Err(Status::method_not_supported());
    }
    let (mut parts, request_body) = request.into_parts();
    let encoding = accept::negotiate(&parts.headers)?.encoding;
    let bytes = body::read(&parts.headers, request_body, server.inner.config.limits.body_bytes).await?;
    let bytes = body::normalize(&mut parts.headers, bytes)?;
    let decoded = match accept::body_encoding(&parts.headers)? {
        accept::Encoding::Json => decode::from_json(&bytes),
        accept::Encoding::Yaml => decode::from_yaml(&bytes),
    };
    let decoded = decoded.map_err(|e| Status::bad_request(e.to_string()))?;
    let mut object = fitted(&info.group, kind, decoded.value)?;
    let status = match *kind {
        "SubjectAccessReview" => of_subject(&object, kind)?,
        "LocalSubjectAccessReview" => {
            let (given, wanted) =
                (&object["spec"]["resourceAttributes"], info.namespace.as_deref().unwrap_or_default());
            if !given.is_object() || value::text(given, "namespace") != wanted {
                let why = format!("spec.resourceAttributes.namespace must match namespace: {wanted}");
                return Err(Status::bad_request(why));
            }
            of_subject(&object, kind)?
        }
        "SelfSubjectAccessReview" => {
            refuse(kind, attributes(&object["spec"]))?;
            access(&object["spec"], &caller.user)
        }
        "SelfSubjectRulesReview" => rules(caller),
        "TokenReview" => of_token(server, &object).await?,
        _ => json!({"userInfo": caller.user.to_value()}),
    };
    value::set(&mut object, "status", status);
    response::value(StatusCode::CREATED, encoding, &object)
}

/// A review that is of its kind and fits its schema.
fn fitted(group: &str, kind: &str, mut object: Value) -> ApiResult<Value> {
    if !object.is_object() {
        return Err(Status::bad_request("the body must be an object"));
    }
    let version = format!("{group}/v1");
    for (key, own) in [("kind", kind), ("apiVersion", version.as_str())] {
        let given = value::text(&object, key);
        if !given.is_empty() && given != own {
            return Err(Status::bad_request(format!("{key} {given:?} does not match the expected {own:?}")));
        }
        value::set(&mut object, key, own);
    }
    value::set_default(&mut object, "metadata", json!({}));
    let package = group.split('.').next().unwrap_or_default();
    let schemas = Schemas::builtin();
    if let Some(id) = schemas.find(&format!("io.k8s.api.{package}.v1.{kind}")) {
        let conform = schemas.conform(id, &mut object);
        conform.map_err(|e| Status::cannot_be_handled(kind, "v1", &e.to_string()))?;
    }
    Ok(object)
}

fn refuse(kind: &str, errors: Vec<FieldError>) -> ApiResult<()> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("authorization.k8s.io", kind, "", &errors)) }
}

/// What is wrong with what is asked about.
fn attributes(spec: &Value) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors = Vec::new();
    let (resource, other) = (value::has(spec, "resourceAttributes"), value::has(spec, "nonResourceAttributes"));
    if resource && other {
        let why = "cannot be specified in combination with resourceAttributes";
        let given = spec["nonResourceAttributes"].clone();
        errors.push(FieldError::invalid(&path.child("nonResourceAttributes"), given, why));
    }
    if !resource && !other {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(FieldError::invalid(&path.child("resourceAttributes"), Value::Null, why));
    }
    errors
}

/// Whether somebody else may do something.
fn of_subject(review: &Value, kind: &str) -> ApiResult<Value> {
    let spec = &review["spec"];
    let mut errors = attributes(spec);
    let (user, groups) = (value::text(spec, "user"), value::list(spec, "groups"));
    if user.is_empty() && groups.is_empty() {
        let why = "at least one of user or group must be specified";
        errors.push(FieldError::invalid(&Path::new("spec").child("user"), "", why));
    }
    refuse(kind, errors)?;
    let groups = groups.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(access(spec, &UserInfo { name: user.to_owned(), groups, ..UserInfo::default() }))
}

/// Whose token it is.
async fn of_token(server: &ApiServer, review: &Value) -> ApiResult<Value> {
    let spec = &review["spec"];
    let token = value::text(spec, "token");
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let wanted: Vec<String> =
        value::list(spec, "audiences").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    match server.token_bearer(token, &wanted, true).await {
        Ok(proven) => Ok(json!({"authenticated": true, "user": proven.user.to_value(), "audiences": proven.audiences})),
        Err(Refused::Token(why)) => {
            let why = if why.is_empty() { String::new() } else { format!(", {why}") };
            Ok(json!({"user": {}, "error": format!("[invalid bearer token{why}]")}))
        }
        Err(Refused::Unavailable(status)) => Err(status),
    }
}

fn access(spec: &Value, user: &UserInfo) -> Value {
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
    json!({"allowed": authz::allowed(user, &asked)})
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
