//! Who may do what: fixed rules until RBAC comes.

use trireme_api::status::Status;

use crate::error::ApiResult;
use crate::identity::{GROUP_AUTHENTICATED, GROUP_MASTERS, UserInfo};
use crate::node_rules;
use crate::request::info::RequestInfo;

/// Paths that need no credential.
const PUBLIC: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];
/// Paths that any credential opens: what a client needs to find its way.
const DISCOVERY: [&str; 7] =
    ["/api", "/apis", "/openapi", "/version", "/trireme.io", "/openid", "/.well-known/openid-configuration"];

/// Components of the masters' process.
const COMPONENTS: [&str; 3] = ["system:kube-scheduler", "system:kube-controller-manager", "system:apiserver"];

/// Lets the request pass or answers 403 in upstream's words.
pub(crate) fn authorize(user: &UserInfo, info: &RequestInfo) -> ApiResult<()> {
    if allowed(user, info) { Ok(()) } else { Err(forbidden(user, info)) }
}

/// Whether everything is allowed to a user.
pub(crate) fn unlimited(user: &UserInfo) -> bool {
    user.in_group(GROUP_MASTERS) || COMPONENTS.contains(&user.name.as_str())
}

/// Whether the fixed rules let a request pass.
pub(crate) fn allowed(user: &UserInfo, info: &RequestInfo) -> bool {
    if unlimited(user) {
        return true;
    }
    if !info.is_resource {
        let reading = matches!(info.verb.as_str(), "get" | "head");
        let below = |roots: &[&str]| {
            roots.iter().any(|r| info.path == *r || info.path.strip_prefix(r).is_some_and(|p| p.starts_with('/')))
        };
        return reading && (below(&PUBLIC) || user.in_group(GROUP_AUTHENTICATED) && below(&DISCOVERY))
            || info.path.starts_with("/trireme.io/v1/join/");
    }
    let review = matches!(info.group.as_str(), "authorization.k8s.io" | "authentication.k8s.io");
    if user.in_group(GROUP_AUTHENTICATED) && review && info.verb == "create" {
        let of_others = ["tokenreviews", "subjectaccessreviews", "localsubjectaccessreviews"];
        // An agent asks who talks to it, and what they may.
        let by_node = user.node_name().is_some() && of_others.contains(&info.resource.as_str());
        return info.resource.starts_with("selfsubject") || by_node;
    }
    user.node_name().is_some_and(|node| node_rules::allowed(node, info))
}

/// 403 for an object that no pod on the node refers to.
pub(crate) fn unrelated(user: &UserInfo, info: &RequestInfo, node: &str) -> Status {
    let why = format!("{}: no relationship found between node {node:?} and this object", reason(user, info));
    Status::forbidden(&info.group, &info.resource, info.name.as_deref().unwrap_or_default(), &why)
}

fn forbidden(user: &UserInfo, info: &RequestInfo) -> Status {
    if !info.is_resource {
        let why = format!("User {:?} cannot {} path {:?}", user.name, info.verb, info.path);
        return Status::forbidden("", "", "", &why);
    }
    let name = info.name.as_deref().unwrap_or_default();
    Status::forbidden(&info.group, &info.resource, name, &reason(user, info))
}

fn reason(user: &UserInfo, info: &RequestInfo) -> String {
    let who = &user.name;
    let resource = match info.subresource.as_str() {
        "" => info.resource.clone(),
        sub => format!("{}/{sub}", info.resource),
    };
    // A namespace counts as being inside itself.
    let namespace = if info.resource == "namespaces" { &info.name } else { &info.namespace };
    let scope = match namespace {
        Some(namespace) => format!("in the namespace {namespace:?}"),
        None => "at the cluster scope".to_owned(),
    };
    format!("User {who:?} cannot {} resource {resource:?} in API group {:?} {scope}", info.verb, info.group)
}

/// Refuses requests that claim to come from somebody else in a way that this version does not serve: to answer them as who
/// makes them would mislead.
pub(crate) fn claims(headers: &http::HeaderMap) -> ApiResult<()> {
    let value = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    if headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        let whom = value("impersonate-user").unwrap_or_default();
        return Err(Status::forbidden("", "users", &whom, "impersonation is not served"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::request::query::Query;
    use http::Method;

    fn check(user: &UserInfo, method: Method, path: &str) -> Result<(), String> {
        authorize(user, &RequestInfo::parse(&method, path, &Query::default())).map_err(|s| s.message)
    }

    #[test]
    fn rules() {
        let nobody = UserInfo::new("x", []);
        assert_eq!(
            check(&nobody, Method::GET, "/api/v1/namespaces/default/pods").unwrap_err(),
            "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        );
        assert!(check(&nobody, Method::GET, "/apis/apps/v1").is_ok());
        let anonymous = UserInfo::anonymous();
        assert!(check(&anonymous, Method::GET, "/readyz/ping").is_ok());
        assert!(check(&anonymous, Method::GET, "/api").is_err());
        assert!(check(&anonymous, Method::GET, "/readyzx").is_err());
        assert!(check(&anonymous, Method::GET, "/metrics").is_err());
        let node = UserInfo::new("system:node:n1", ["system:nodes".to_owned()]);
        assert!(check(&node, Method::PUT, "/api/v1/nodes/n1/status").is_ok());
        assert!(check(&node, Method::PUT, "/api/v1/nodes/n2/status").is_err());
        assert!(check(&node, Method::POST, "/api/v1/namespaces/default/pods").is_err());
        assert!(check(&node, Method::GET, "/api/v1/namespaces/d/secrets/s").is_ok());
        assert!(check(&node, Method::GET, "/api/v1/namespaces/d/secrets").is_err());
        assert!(check(&node, Method::GET, "/api/v1/watch/namespaces/d/secrets/s").is_err());
    }
}
