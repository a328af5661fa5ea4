//! What a kustomization changes in all of its objects.

use serde_json::{Map, Value, json};

use super::super::errors::{CtlError, Result};
use super::names::Renames;
use super::{Item, text};

/// Kinds that have a template for pods below `spec`, and a selector for them.
const WORKLOADS: [&str; 5] = ["Deployment", "ReplicaSet", "DaemonSet", "StatefulSet", "ReplicationController"];

/// Changes all objects, in kustomize's order.
pub fn run(config: &Value, items: &mut [Item]) -> Result<()> {
    namespace(text(config, "namespace"), items);
    let (prefix, suffix) = (text(config, "namePrefix"), text(config, "nameSuffix"));
    let mut renames = Renames::default();
    if !(prefix.is_empty() && suffix.is_empty()) {
        let fixed = ["Namespace", "CustomResourceDefinition", "APIService"];
        for item in items.iter_mut().filter(|item| !fixed.contains(&item.kind())) {
            renames.rename(item, |name| format!("{prefix}{name}{suffix}"));
        }
        renames.apply(items);
    }
    for entry in config["labels"].as_array().into_iter().flatten() {
        let selectors = entry["includeSelectors"] == true;
        labels(&entry["pairs"], selectors, selectors || entry["includeTemplates"] == true, items);
    }
    labels(&config["commonLabels"], true, true, items);
    annotations(&config["commonAnnotations"], items);
    replicas(&config["replicas"], items)?;
    let images = config["images"].as_array().cloned().unwrap_or_default();
    if !images.is_empty() {
        items.iter_mut().for_each(|item| set_images(&mut item.object, &images));
    }
    Ok(())
}

fn is_cluster_wide(object: &Value) -> bool {
    let version = text(object, "apiVersion");
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let known = trireme_api::Catalogue::builtin().by_kind(group, version, text(object, "kind"));
    known.is_some_and(|resource| resource.scope == trireme_api::catalogue::Scope::Cluster)
}

fn namespace(namespace: &str, items: &mut [Item]) {
    if namespace.is_empty() {
        return;
    }
    let own = items.iter().filter(|item| item.kind() == "ServiceAccount");
    let accounts: Vec<String> = own.map(|item| item.name().to_owned()).collect();
    for item in items {
        if item.kind() == "Namespace" {
            item.object["metadata"]["name"] = json!(namespace);
        } else if !is_cluster_wide(&item.object) {
            item.object["metadata"]["namespace"] = json!(namespace);
        }
        if item.kind().ends_with("RoleBinding") {
            for subject in item.object.get_mut("subjects").and_then(Value::as_array_mut).into_iter().flatten() {
                let name = text(subject, "name");
                if subject["kind"] == "ServiceAccount" && (name == "default" || accounts.iter().any(|own| own == name))
                {
                    subject["namespace"] = json!(namespace);
                }
            }
        }
    }
}

/// Adds pairs to a map at a path; what leads there is made if `create`, else it has to be there.
fn add(object: &mut Value, path: &str, pairs: &Map<String, Value>, create: bool) {
    if object.pointer(path).is_none_or(|found| !found.is_object()) {
        if !create {
            return;
        }
        let mut here = object;
        for part in path.split('/').skip(1) {
            here = &mut here[part];
        }
        *here = json!({});
        return add_pairs(here, pairs);
    }
    if let Some(found) = object.pointer_mut(path) {
        add_pairs(found, pairs);
    }
}

fn add_pairs(map: &mut Value, pairs: &Map<String, Value>) {
    if let Some(map) = map.as_object_mut() {
        map.extend(pairs.clone());
    }
}

fn labels(pairs: &Value, selectors: bool, templates: bool, items: &mut [Item]) {
    let Some(pairs) = pairs.as_object().filter(|pairs| !pairs.is_empty()) else { return };
    for item in items {
        let kind = item.kind().to_owned();
        let object = &mut item.object;
        add(object, "/metadata/labels", pairs, true);
        if templates {
            for path in template_paths(&kind) {
                add(object, &format!("{path}/labels"), pairs, true);
            }
        }
        if selectors {
            match kind.as_str() {
                "Service" | "ReplicationController" => add(object, "/spec/selector", pairs, true),
                "Job" | "PodDisruptionBudget" => add(object, "/spec/selector/matchLabels", pairs, false),
                "CronJob" => add(object, "/spec/jobTemplate/spec/selector/matchLabels", pairs, false),
                "NetworkPolicy" => add(object, "/spec/podSelector/matchLabels", pairs, false),
                kind if WORKLOADS.contains(&kind) => add(object, "/spec/selector/matchLabels", pairs, true),
                _ => {}
            }
        }
    }
}

/// Where the metadata of a kind's pods is.
fn template_paths(kind: &str) -> &'static [&'static str] {
    match kind {
        "CronJob" => &["/spec/jobTemplate/metadata", "/spec/jobTemplate/spec/template/metadata"],
        "Job" => &["/spec/template/metadata"],
        kind if WORKLOADS.contains(&kind) => &["/spec/template/metadata"],
        _ => &[],
    }
}

fn annotations(pairs: &Value, items: &mut [Item]) {
    let Some(pairs) = pairs.as_object().filter(|pairs| !pairs.is_empty()) else { return };
    for item in items {
        add(&mut item.object, "/metadata/annotations", pairs, true);
        for path in template_paths(item.kind()) {
            add(&mut item.object, &format!("{path}/annotations"), pairs, true);
        }
    }
}

fn replicas(rules: &Value, items: &mut [Item]) -> Result<()> {
    for rule in rules.as_array().into_iter().flatten() {
        let name = text(rule, "name");
        let scaled = ["Deployment", "ReplicationController", "ReplicaSet", "StatefulSet"];
        let mut found = false;
        for item in items.iter_mut().filter(|item| scaled.contains(&item.kind())) {
            if item.original == name || item.name() == name {
                item.object["spec"]["replicas"] = rule["count"].clone();
                found = true;
            }
        }
        if !found {
            return Err(CtlError::plain(format!(
                "resource with name {name} does not match a config with the following GVK [Deployment.[noVer].[noGrp] \
                 ReplicationController.[noVer].[noGrp] ReplicaSet.[noVer].[noGrp] StatefulSet.[noVer].[noGrp]]"
            )));
        }
    }
    Ok(())
}

/// Changes images in every list of containers, wherever it is.
fn set_images(value: &mut Value, rules: &[Value]) {
    match value {
        Value::Object(fields) => {
            for (field, inner) in fields.iter_mut() {
                if matches!(field.as_str(), "containers" | "initContainers") {
                    for container in inner.as_array_mut().into_iter().flatten() {
                        if let Some(image) = container["image"].as_str().and_then(|image| changed(image, rules)) {
                            container["image"] = json!(image);
                        }
                    }
                }
                set_images(inner, rules);
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|inner| set_images(inner, rules)),
        _ => {}
    }
}

/// An image as the rules want it, if one is for it.
fn changed(image: &str, rules: &[Value]) -> Option<String> {
    let (rest, digest) = image.split_once('@').map_or((image, None), |(rest, digest)| (rest, Some(digest)));
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    let rule = rules.iter().find(|rule| rule["name"] == name)?;
    let name = rule["newName"].as_str().unwrap_or(name);
    let suffix = text(rule, "tagSuffix");
    Some(match (rule["newTag"].as_str(), rule["digest"].as_str()) {
        (_, Some(digest)) => format!("{name}@{digest}"),
        (Some(tag), None) => format!("{name}:{tag}{suffix}"),
        (None, None) => match (tag, digest) {
            (Some(tag), None) => format!("{name}:{tag}{suffix}"),
            (Some(tag), Some(digest)) => format!("{name}:{tag}@{digest}"),
            (None, Some(digest)) => format!("{name}@{digest}"),
            (None, None) => name.to_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_changed_by_their_names() {
        let rules = [
            json!({"name": "a", "newTag": "2"}),
            json!({"name": "r:5000/b", "newName": "c"}),
            json!({"name": "d", "digest": "sha256:x"}),
        ];
        for (image, new) in [
            ("a", Some("a:2")),
            ("a:1", Some("a:2")),
            ("a@sha256:y", Some("a:2")),
            ("r:5000/b:1", Some("c:1")),
            ("r:5000/b", Some("c")),
            ("r:5000/b@sha256:y", Some("c@sha256:y")),
            ("d:1", Some("d@sha256:x")),
            ("x/a:1", None),
        ] {
            assert_eq!(changed(image, &rules).as_deref(), new, "{image}");
        }
    }
}
