//! Secrets for node agents: only those that a pod on the node refers to.

use serde_json::Value;

use super::ctx::Ctx;
use crate::authz;
use crate::error::{ApiResult, corrupt};
use crate::storage::cache::Part;

/// Refuses a node agent's read of a Secret that none of its node's pods needs; tokens for joining are never for nodes.
pub(crate) async fn admit(ctx: &Ctx) -> ApiResult<()> {
    let user = &ctx.caller.user;
    if !ctx.group().is_empty() || ctx.plural() != "secrets" || authz::unlimited(user) {
        return Ok(());
    }
    // Nobody but nodes is let this far.
    let node = user.node_name().unwrap_or_default();
    let refuse = || {
        ctx.note.decided(false);
        Err(authz::unrelated(user, &ctx.info, node))
    };
    let (name, namespace) = (ctx.name(), ctx.info.namespace.clone());
    if node.is_empty() || namespace.is_none() || ctx.suffix(name).starts_with("kube-system/bootstrap-token-") {
        return refuse();
    }
    let Some(pods) = ctx.server.inner.feed.cache("", "pods") else { return refuse() };
    // The agent may have learned of the pod from a master that is ahead of this one.
    ctx.server.barrier().await?;
    let part = Part { namespace, name: None, node: Some(node.to_owned()) };
    for pod in pods.snapshot(&part, |_| true) {
        if refers(&pod.value().map_err(corrupt)?, name) {
            return Ok(());
        }
    }
    refuse()
}

/// Whether a pod's volumes, environments or image pulls use a Secret.
fn refers(pod: &Value, secret: &str) -> bool {
    let spec = &pod["spec"];
    let is = |name: &Value| name.as_str() == Some(secret);
    let volume = |volume: &Value| {
        is(&volume["secret"]["secretName"])
            || items(&volume["projected"]["sources"]).any(|source| is(&source["secret"]["name"]))
    };
    let container = |container: &Value| {
        items(&container["env"]).any(|variable| is(&variable["valueFrom"]["secretKeyRef"]["name"]))
            || items(&container["envFrom"]).any(|source| is(&source["secretRef"]["name"]))
    };
    items(&spec["imagePullSecrets"]).any(|reference| is(&reference["name"]))
        || items(&spec["volumes"]).any(volume)
        || ["containers", "initContainers", "ephemeralContainers"].iter().any(|list| items(&spec[list]).any(container))
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::refers;
    use serde_json::json;

    #[test]
    fn every_kind_of_reference_counts() {
        for spec in [
            json!({"volumes": [{"emptyDir": {}}, {"secret": {"secretName": "s"}}]}),
            json!({"volumes": [{"projected": {"sources": [{"configMap": {"name": "x"}}, {"secret": {"name": "s"}}]}}]}),
            json!({"containers": [{"env": [{"value": "x"}, {"valueFrom": {"secretKeyRef": {"name": "s"}}}]}]}),
            json!({"initContainers": [{"envFrom": [{"secretRef": {"name": "s"}}]}]}),
            json!({"imagePullSecrets": [{"name": "s"}]}),
        ] {
            let pod = json!({"spec": spec});
            assert!(refers(&pod, "s"), "{pod}");
            assert!(!refers(&pod, "x"), "{pod}");
        }
        let map = json!({"spec": {"volumes": [{"configMap": {"name": "s"}}], "containers": [{"name": "s"}]}});
        assert!(!refers(&map, "s"));
    }
}
