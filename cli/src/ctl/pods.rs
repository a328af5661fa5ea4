//! Finding the pod and the container that `logs` and `exec` mean.

use serde_json::Value;

use super::api::Call;
use super::errors::{CtlError, Result};
use super::session::Session;
use super::targets::{self, Query, Selection, Target};

/// Pods behind `NAME`, `TYPE/NAME` or `TYPE NAME`, the most useful first.
pub async fn find(session: &Session, words: &[String]) -> Result<Vec<Target>> {
    let discovery = session.discovery().await?;
    let words = match words {
        [name] if !name.contains('/') => vec![format!("pods/{name}")],
        other => other.to_vec(),
    };
    let (queries, _) = targets::parse(&discovery, &words)?;
    let Some(Query::Named(resource, names)) = queries.into_iter().next() else {
        return Err(CtlError::plain("expected a POD or TYPE/NAME"));
    };
    let Some(name) = names.into_iter().next() else {
        return Err(CtlError::plain("expected a POD or TYPE/NAME"));
    };
    let namespace = resource.namespaced.then(|| session.namespace.clone());
    let owner = Target { resource, namespace, name, object: None, source: None };
    let object = owner.fetch(session).await?;
    if owner.resource.kind == "Pod" && owner.resource.group.is_empty() {
        return Ok(vec![Target { object: Some(object), ..owner }]);
    }
    let selector = selector_of(&object).ok_or_else(|| {
        let kind = format!("*{}.{}", owner.resource.version, owner.resource.kind);
        CtlError::plain(format!("cannot attach to {kind}: selector for {kind} not implemented"))
    })?;
    let pods = discovery.need("pods")?;
    let selection = Selection { labels: Some(selector), ..Selection::default() };
    let mut found = targets::list(session, &pods, &selection).await?;
    if found.is_empty() {
        return Err(CtlError::plain(format!("no pods found for {}", owner.label())));
    }
    found.sort_by_key(|pod| (!is_ready(pod), pod["status"]["phase"] != "Running"));
    Ok(found.into_iter().map(|pod| targets::of_object(&pods, pod)).collect())
}

/// Whether a pod's Ready condition holds.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// A workload's or service's selector as a query.
pub fn selector_of(object: &Value) -> Option<String> {
    let selector = &object["spec"]["selector"];
    let labels = if selector["matchLabels"].is_object() || selector["matchExpressions"].is_array() {
        &selector["matchLabels"]
    } else {
        selector
    };
    let equal =
        |(key, value): (&String, &Value)| (key.clone(), format!("{key}={}", value.as_str().unwrap_or_default()));
    let mut parts: Vec<(String, String)> = labels.as_object().into_iter().flatten().map(equal).collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let text = match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        parts.push((key.to_owned(), text));
    }
    // By their keys, as client-go writes them.
    parts.sort_by(|left, right| left.0.cmp(&right.0));
    let parts: Vec<String> = parts.into_iter().map(|(_, text)| text).collect();
    if parts.is_empty() { None } else { Some(parts.join(",")) }
}

/// Names of a pod's containers: init, ordinary, ephemeral.
pub fn containers(pod: &Value) -> Vec<String> {
    let names = |field: &str| {
        let list = pod["spec"][field].as_array().into_iter().flatten();
        list.filter_map(|container| container["name"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    [names("initContainers"), names("containers"), names("ephemeralContainers")].concat()
}

/// The container to use: the one asked for, the annotated one, or the first; a choice is told.
pub fn container(pod: &Value, wanted: Option<&str>, quiet: bool) -> Result<String> {
    let all = containers(pod);
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    if let Some(wanted) = wanted {
        return match all.iter().any(|known| known == wanted) {
            true => Ok(wanted.to_owned()),
            // As the server says it, which would be asked else.
            false => Err(CtlError::Status(Box::new(serde_json::json!({
                "reason": "BadRequest", "message": format!("container {wanted} is not valid for pod {name}"),
            })))),
        };
    }
    let annotated = pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
    if let Some(annotated) = annotated.filter(|annotated| all.iter().any(|known| known == annotated)) {
        return Ok(annotated.to_owned());
    }
    let ordinary = pod["spec"]["containers"][0]["name"].as_str().unwrap_or_default().to_owned();
    if all.len() > 1 && !quiet {
        let inits = pod["spec"]["initContainers"].as_array().map_or(0, Vec::len);
        let mark =
            |(index, name): (usize, &String)| if index < inits { format!("{name} (init)") } else { name.clone() };
        let ordered: Vec<String> =
            all.iter().enumerate().skip(inits).chain(all.iter().enumerate().take(inits)).map(mark).collect();
        eprintln!("Defaulted container {ordinary:?} out of: {}", ordered.join(", "));
    }
    Ok(ordinary)
}

/// Reads a pod anew.
pub async fn reload(session: &Session, target: &Target) -> Result<Value> {
    session.api.json(&Call::get(target.path())).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_of_all_shapes() {
        assert_eq!(selector_of(&json!({"spec": {"selector": {"a": "b"}}})).unwrap(), "a=b");
        let workload = json!({"spec": {"selector": {"matchLabels": {"a": "b"}, "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["d", "e"]}, {"key": "f", "operator": "DoesNotExist"}]}}});
        assert_eq!(selector_of(&workload).unwrap(), "a=b,c in (d,e),!f");
        assert_eq!(selector_of(&json!({"spec": {}})), None);
    }

    #[test]
    fn containers_are_chosen() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"initContainers": [{"name": "i"}],
            "containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(container(&pod, None, true).unwrap(), "a");
        assert_eq!(container(&pod, Some("i"), true).unwrap(), "i");
        let said = container(&pod, Some("x"), true).unwrap_err().text();
        assert_eq!(said, "Error from server (BadRequest): container x is not valid for pod p\n");
    }
}
