//! The small part of kustomize that `-k` understands: resources, namespace, name prefix and suffix, common labels and
//! annotations, config maps and secrets from literals and files, images. Anything else is refused by name.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::errors::{CtlError, Result};
use super::manifest;
use super::print::os_reason;

const KNOWN: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "resources",
    "namespace",
    "namePrefix",
    "nameSuffix",
    "commonLabels",
    "commonAnnotations",
    "labels",
    "images",
    "configMapGenerator",
    "secretGenerator",
    "generatorOptions",
];

/// The objects of a kustomization.
pub fn build(folder: &Path) -> Result<Vec<Value>> {
    build_at(folder, 0)
}

fn build_at(folder: &Path, depth: usize) -> Result<Vec<Value>> {
    if depth > 16 {
        return Err(CtlError::plain(format!("{}: kustomizations hold each other", folder.display())));
    }
    let names = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
    let Some(file) = names.iter().map(|name| folder.join(name)).find(|path| path.is_file()) else {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
        return Err(CtlError::plain(format!(
            "unable to find one of 'kustomization.yaml', 'kustomization.yml' or 'Kustomization' in directory '{}'",
            folder.display()
        )));
    };
    let text = read(&file)?;
    let text = String::from_utf8_lossy(&text);
    let config: Value =
        serde_norway::from_str(&text).map_err(|error| CtlError::plain(format!("invalid Kustomization: {error}")))?;
    if let Some(unknown) =
        config.as_object().into_iter().flatten().map(|(key, _)| key).find(|key| !KNOWN.contains(&key.as_str()))
    {
        return Err(CtlError::plain(format!(
            "{}: the field {unknown:?} is not supported by trictl: render with kustomize and use -f -",
            file.display()
        )));
    }
    let mut objects = Vec::new();
    for resource in strings(&config["resources"]) {
        let path = folder.join(resource);
        if path.is_dir() {
            objects.extend(build_at(&path, depth + 1)?);
            continue;
        }
        let text = read(&path)?;
        for document in manifest::parse(&String::from_utf8_lossy(&text), &path.display().to_string()) {
            objects.push(document?.object);
        }
    }
    for (field, kind) in [("configMapGenerator", "ConfigMap"), ("secretGenerator", "Secret")] {
        for entry in config[field].as_array().into_iter().flatten() {
            objects.push(generated(folder, entry, kind)?);
        }
    }
    objects.iter_mut().for_each(|object| transform(object, &config));
    Ok(objects)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| CtlError::plain(format!("open {}: {}", path.display(), os_reason(&error))))
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn generated(folder: &Path, entry: &Value, kind: &str) -> Result<Value> {
    let mut data = Map::new();
    let keep = |bytes: &[u8]| match kind {
        "Secret" => Value::from(STANDARD.encode(bytes)),
        _ => Value::from(String::from_utf8_lossy(bytes)),
    };
    for literal in strings(&entry["literals"]) {
        let (key, value) = literal.split_once('=').unwrap_or((literal, ""));
        data.insert(key.to_owned(), keep(value.trim_matches(['"', '\'']).as_bytes()));
    }
    for file in strings(&entry["files"]) {
        let (key, file) = file.split_once('=').unwrap_or_else(|| (file.rsplit('/').next().unwrap_or(file), file));
        data.insert(key.to_owned(), keep(&read(&folder.join(file))?));
    }
    let mut object = json!({"apiVersion": "v1", "data": data, "kind": kind, "metadata": {"name": entry["name"]}});
    if kind == "Secret" {
        object["type"] = entry["type"].as_str().unwrap_or("Opaque").into();
    }
    Ok(object)
}

fn transform(object: &mut Value, config: &Value) {
    let text = |field: &str| config[field].as_str().unwrap_or_default();
    let cluster_scoped = {
        let version = object["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let kind = object["kind"].as_str().unwrap_or_default();
        let known = trireme_api::Catalogue::builtin().by_kind(group, version, kind);
        known.is_some_and(|resource| resource.scope == trireme_api::catalogue::Scope::Cluster)
    };
    if !text("namespace").is_empty() && !cluster_scoped {
        object["metadata"]["namespace"] = text("namespace").into();
    }
    if object["kind"] != "Namespace" {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        object["metadata"]["name"] = format!("{}{name}{}", text("namePrefix"), text("nameSuffix")).into();
    }
    let has_template = object["spec"]["template"].is_object();
    let places = ["/metadata", "/spec/template/metadata"];
    for place in places.into_iter().filter(|place| *place == "/metadata" || has_template) {
        for (field, source) in [("labels", "commonLabels"), ("annotations", "commonAnnotations")] {
            let Some(pairs) = config[source].as_object() else { continue };
            if let Some(metadata) = object.pointer(place).cloned() {
                let mut metadata = metadata;
                for (key, value) in pairs {
                    metadata[field][key] = value.clone();
                }
                if let Some(slot) = object.pointer_mut(place) {
                    *slot = metadata;
                }
            }
        }
    }
    selectors(object, config);
    images(object, &config["images"]);
}

/// Common labels select too.
fn selectors(object: &mut Value, config: &Value) {
    let Some(pairs) = config["commonLabels"].as_object() else { return };
    let path = match object["kind"].as_str() {
        Some("Service" | "ReplicationController") => "/spec/selector",
        _ => "/spec/selector/matchLabels",
    };
    if let Some(selector) = object.pointer_mut(path).and_then(Value::as_object_mut) {
        selector.extend(pairs.clone());
    }
}

fn images(object: &mut Value, images: &Value) {
    let rules: Vec<Value> = images.as_array().cloned().unwrap_or_default();
    if rules.is_empty() {
        return;
    }
    for place in ["/spec", "/spec/template/spec"] {
        for field in ["containers", "initContainers"] {
            let list = object.pointer_mut(&format!("{place}/{field}")).and_then(Value::as_array_mut);
            for container in list.into_iter().flatten() {
                let image = container["image"].as_str().unwrap_or_default().to_owned();
                let (name, tag) = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((&image, ""));
                if let Some(rule) = rules.iter().find(|rule| rule["name"] == name) {
                    let name = rule["newName"].as_str().unwrap_or(name);
                    container["image"] = match (rule["digest"].as_str(), rule["newTag"].as_str()) {
                        (Some(digest), _) => format!("{name}@{digest}").into(),
                        (None, Some(tag)) => format!("{name}:{tag}").into(),
                        (None, None) if tag.is_empty() => name.into(),
                        (None, None) => format!("{name}:{tag}").into(),
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_small_kustomization() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "a.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: c, image: \"busybox:1\"}]}\n",
        );
        write(
            "kustomization.yaml",
            "resources: [a.yaml]\nnamePrefix: k-\nnamespace: n\ncommonLabels: {t: x}\nimages: [{name: busybox, newTag: \"2\"}]\nconfigMapGenerator: [{name: g, literals: [a=b]}]\n",
        );
        let objects = build(folder.path()).unwrap();
        assert_eq!(objects.len(), 2);
        assert_eq!(objects[0]["metadata"]["name"], "k-web");
        assert_eq!(objects[0]["metadata"]["namespace"], "n");
        assert_eq!(objects[0]["spec"]["selector"]["matchLabels"], json!({"app": "web", "t": "x"}));
        assert_eq!(objects[0]["spec"]["template"]["spec"]["containers"][0]["image"], "busybox:2");
        assert_eq!(objects[1]["data"], json!({"a": "b"}));
        write("kustomization.yaml", "patches: []\n");
        assert!(build(folder.path()).unwrap_err().text().contains("patches"));
        assert!(
            build(Path::new("/nowhere")).unwrap_err().text().contains("unable to find one of 'kustomization.yaml'")
        );
    }
}
