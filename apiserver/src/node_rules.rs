//! What a node agent's credential is good for: its own Node, Lease and pods, as upstream's node authorizer and its admission
//! plugin NodeRestriction have it.

use serde_json::Value;
use trireme_api::node_labels;
use trireme_api::status::Status;

use crate::error::ApiResult;
use crate::identity::{GROUP_MASTERS, UserInfo};
use crate::request::info::RequestInfo;

const READ: [&str; 3] = ["get", "list", "watch"];
const READABLE: [&str; 7] = ["pods", "services", "endpoints", "endpointslices", "nodes", "configmaps", "namespaces"];

/// The part that the path alone decides; [`admit`] sees the object too.
pub(crate) fn allowed(node: &str, info: &RequestInfo) -> bool {
    let verb = info.verb.as_str();
    let own = info.name.as_deref() == Some(node);
    match (info.resource.as_str(), info.subresource.as_str()) {
        (resource, "") if READ.contains(&verb) && READABLE.contains(&resource) => true,
        // Which ones, the pods on the node decide.
        ("secrets", "") => info.group.is_empty() && verb == "get",
        // For which pods, the request's body tells.
        ("serviceaccounts", "token") => verb == "create",
        ("nodes", "") => verb == "create" || own && matches!(verb, "update" | "patch"),
        ("nodes", "status") => own && matches!(verb, "get" | "update" | "patch"),
        ("pods", "status") => matches!(verb, "get" | "update" | "patch"),
        ("pods", "") => verb == "delete",
        ("events", "") => matches!(verb, "create" | "update" | "patch" | "get"),
        ("leases", "") => {
            info.namespace.as_deref() == Some("kube-node-lease")
                && (verb == "create" || own && matches!(verb, "get" | "update" | "patch" | "delete"))
        }
        _ => false,
    }
}

/// What is about to happen to an object.
#[derive(Clone, Copy)]
pub(crate) enum Act<'a> {
    Create(&'a Value),
    /// As the agent wants it, before the server puts back what may not be written this way.
    Update {
        new: &'a Value,
        old: &'a Value,
    },
    Delete(&'a Value),
}

/// Keeps an agent to what is its own, once the object is known.
pub(crate) fn admit(user: &UserInfo, info: &RequestInfo, act: Act<'_>) -> ApiResult<()> {
    if user.in_group(GROUP_MASTERS) {
        return Ok(());
    }
    let Some(node) = user.node_name() else { return Ok(()) };
    let (Act::Create(object) | Act::Update { old: object, .. } | Act::Delete(object)) = act;
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    match refusal(node, name, info, object, act) {
        Some(why) => Err(Status::forbidden(&info.group, &info.resource, name, &why)),
        None => Ok(()),
    }
}

fn refusal(node: &str, name: &str, info: &RequestInfo, object: &Value, act: Act<'_>) -> Option<String> {
    match info.resource.as_str() {
        "nodes" if name != node => Some(format!("node {node:?} is not allowed to modify node {name:?}")),
        "nodes" => own_node(node, act),
        "leases" if name != node => {
            Some("can only access node lease with the same name as the requesting node".to_owned())
        }
        "pods" if object["spec"]["nodeName"].as_str() != Some(node) => Some(match act {
            Act::Delete(_) => format!("node {node:?} can only delete pods with spec.nodeName set to itself"),
            _ => format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"),
        }),
        "pods" => own_pod(node, act),
        _ => None,
    }
}

/// A node decides neither which pods tolerate it, nor by which labels it is trusted, nor who deletes it.
fn own_node(node: &str, act: Act<'_>) -> Option<String> {
    let nothing = Value::Null;
    let (new, old, creating) = match act {
        Act::Create(new) => (new, &nothing, true),
        Act::Update { new, old } => (new, old, false),
        Act::Delete(_) => return None,
    };
    let source = &new["spec"]["configSource"];
    if !source.is_null() && *source != old["spec"]["configSource"] {
        return Some(match creating {
            true => format!("node {node:?} is not allowed to create pods with a non-nil configSource"),
            false => format!("node {node:?} is not allowed to update configSource to a new non-nil configSource"),
        });
    }
    if !creating && !same_list(&new["spec"]["taints"], &old["spec"]["taints"]) {
        return Some(format!("node {node:?} is not allowed to modify taints"));
    }
    let owners = |object: &'_ Value| object["metadata"]["ownerReferences"].clone();
    if !creating && !same_list(&owners(new), &owners(old)) {
        return Some(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    let labels = node_labels::forbidden_changes(&new["metadata"]["labels"], &old["metadata"]["labels"]);
    match (labels.is_empty(), creating) {
        (true, _) => None,
        (false, true) => {
            Some(format!("node {node:?} is not allowed to set the following labels: {}", labels.join(", ")))
        }
        (false, false) => Some(format!("is not allowed to modify labels: {}", labels.join(", "))),
    }
}

fn own_pod(node: &str, act: Act<'_>) -> Option<String> {
    let Act::Update { new, old } = act else { return None };
    let empty = |labels: &Value| labels.as_object().is_none_or(serde_json::Map::is_empty);
    let (labels, before) = (&new["metadata"]["labels"], &old["metadata"]["labels"]);
    if labels != before && !(empty(labels) && empty(before)) {
        return Some(format!("node {node:?} cannot update labels through pod status"));
    }
    let claims = |pod: &Value| pod["status"]["resourceClaimStatuses"].clone();
    (!same_list(&claims(new), &claims(old))).then(|| format!("node {node:?} cannot update resource claim statuses"))
}

/// Whether two lists are the same; none is as good as an empty one.
fn same_list(a: &Value, b: &Value) -> bool {
    let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
    items(a) == items(b)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::request::query::Query;
    use http::Method;
    use serde_json::json;

    fn why(method: &Method, path: &str, act: Act<'_>) -> Option<String> {
        let node = UserInfo::new("system:node:n1", ["system:nodes".to_owned()]);
        let info = RequestInfo::parse(method, path, &Query::default());
        let status = admit(&node, &info, act).err()?;
        assert_eq!(status.code, 403);
        Some(status.message)
    }

    fn node(spec: Value, metadata: Value) -> Value {
        let mut object = json!({"metadata": {"name": "n1"}, "spec": spec});
        for (key, value) in metadata.as_object().unwrap() {
            object["metadata"][key.as_str()] = value.clone();
        }
        object
    }

    #[test]
    fn a_node_leaves_what_others_trust_it_by() {
        let plain = node(json!({}), json!({"labels": {"k8s.io/given": "1", "kubernetes.io/os": "linux"}}));
        let tainted = node(json!({"taints": [{"key": "a", "effect": "NoSchedule"}]}), json!({}));
        let labelled = node(json!({}), json!({"labels": {"node-restriction.kubernetes.io/a": "b"}}));
        let owned = node(json!({}), json!({"ownerReferences": [{"name": "x"}]}));
        let empty = node(json!({"taints": []}), json!({"labels": null}));
        let update = |new: &Value, old: &Value| why(&Method::PUT, "/api/v1/nodes/n1", Act::Update { new, old });
        let create = |new: &Value| why(&Method::POST, "/api/v1/nodes", Act::Create(new));
        let said = |why: &str| Some(format!("nodes \"n1\" is forbidden: {why}"));
        let taints = said("node \"n1\" is not allowed to modify taints");
        assert_eq!(update(&tainted, &empty), taints);
        assert_eq!(update(&empty, &tainted), taints);
        assert_eq!(update(&owned, &empty), said("node \"n1\" is not allowed to modify ownerReferences"));
        let restricted = "node-restriction.kubernetes.io/a";
        assert_eq!(update(&labelled, &empty), said(&format!("is not allowed to modify labels: {restricted}")));
        assert_eq!(update(&empty, &labelled), said(&format!("is not allowed to modify labels: {restricted}")));
        assert_eq!(update(&empty, &plain), said("is not allowed to modify labels: k8s.io/given"));
        let set = format!("node \"n1\" is not allowed to set the following labels: {restricted}");
        assert_eq!(create(&labelled), said(&set));
        for fine in [&tainted, &owned, &empty] {
            assert_eq!(create(fine), None);
            assert_eq!(update(fine, fine), None);
        }
        assert_eq!(update(&plain, &plain), None, "what is there already may stay");
    }

    #[test]
    fn pods_of_others_and_labels_of_its_own() {
        let pod = |node: &str, labels: Value| json!({"metadata": {"name": "p", "labels": labels}, "spec": {"nodeName": node}});
        let path = "/api/v1/namespaces/d/pods/p";
        let foreign = pod("n2", json!({}));
        let said = |why: &str| Some(format!("pods \"p\" is forbidden: node \"n1\" {why}"));
        let deleted = why(&Method::DELETE, path, Act::Delete(&foreign));
        assert_eq!(deleted, said("can only delete pods with spec.nodeName set to itself"));
        let (own, other) = (pod("n1", Value::Null), pod("n1", json!({"a": "b"})));
        let status = |new: &Value, old: &Value| why(&Method::PUT, &format!("{path}/status"), Act::Update { new, old });
        assert_eq!(
            status(&foreign, &foreign),
            said("can only update pod status for pods with spec.nodeName set to itself")
        );
        assert_eq!(status(&other, &own), said("cannot update labels through pod status"));
        assert_eq!(status(&pod("n1", json!({})), &own), None);
        assert_eq!(why(&Method::DELETE, path, Act::Delete(&own)), None);
    }
}
