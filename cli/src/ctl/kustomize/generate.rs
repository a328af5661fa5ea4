//! Config maps and secrets that a kustomization makes.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::super::errors::{CtlError, Result};
use super::super::generate::content_hash;
use super::{Item, read, strings, text};

/// Adds what the generators make, or puts it into what is there.
pub fn run(folder: &Path, config: &Value, items: &mut Vec<Item>) -> Result<()> {
    for (field, kind) in [("configMapGenerator", "ConfigMap"), ("secretGenerator", "Secret")] {
        for entry in config[field].as_array().into_iter().flatten() {
            let made = generated(folder, entry, kind, &config["generatorOptions"])?;
            let name = text(entry, "name");
            let known =
                items.iter_mut().find(|item| item.kind() == kind && (item.original == name || item.name() == name));
            match (text(entry, "behavior"), known) {
                ("" | "create", None) => items.push(made),
                ("" | "create", Some(_)) => {
                    return Err(CtlError::plain(format!(
                        "id resid.ResId {kind}/{name} exists; behavior must be merge or replace"
                    )));
                }
                ("merge", Some(item)) => merge(item, &made.object),
                ("replace", Some(item)) => {
                    let name = item.object["metadata"]["name"].clone();
                    item.object = made.object;
                    item.object["metadata"]["name"] = name;
                }
                (behavior, _) => {
                    return Err(CtlError::plain(format!("id {kind}/{name} does not exist; cannot {behavior}")));
                }
            }
        }
    }
    Ok(())
}

fn merge(item: &mut Item, made: &Value) {
    for path in ["data", "binaryData"] {
        if let Some(new) = made[path].as_object() {
            let mut all = item.object[path].as_object().cloned().unwrap_or_default();
            all.extend(new.clone());
            item.object[path] = Value::Object(all);
        }
    }
    for path in ["labels", "annotations"] {
        if let Some(new) = made["metadata"][path].as_object() {
            let mut all = item.object["metadata"][path].as_object().cloned().unwrap_or_default();
            all.extend(new.clone());
            item.object["metadata"][path] = Value::Object(all);
        }
    }
}

/// What is behind the name of a generated object.
pub fn hash(object: &Value) -> String {
    content_hash(object, "")
}

fn generated(folder: &Path, entry: &Value, kind: &str, common: &Value) -> Result<Item> {
    let (mut data, mut binary) = (Map::new(), Map::new());
    for (key, bytes) in entries(folder, entry)? {
        match (kind, String::from_utf8(bytes)) {
            ("Secret", Ok(value)) => data.insert(key, json!(STANDARD.encode(value))),
            ("Secret", Err(error)) => data.insert(key, json!(STANDARD.encode(error.as_bytes()))),
            (_, Ok(value)) => data.insert(key, json!(value)),
            (_, Err(error)) => binary.insert(key, json!(STANDARD.encode(error.as_bytes()))),
        };
    }
    let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": entry["name"]}});
    if !data.is_empty() {
        object["data"] = Value::Object(data);
    }
    if !binary.is_empty() {
        object["binaryData"] = Value::Object(binary);
    }
    if kind == "Secret" {
        object["type"] = entry["type"].as_str().unwrap_or("Opaque").into();
    }
    if let Some(namespace) = entry["namespace"].as_str() {
        object["metadata"]["namespace"] = json!(namespace);
    }
    let flag = |name: &str| entry["options"][name] == true || common[name] == true;
    if flag("immutable") {
        object["immutable"] = json!(true);
    }
    for field in ["labels", "annotations"] {
        let mut all = common[field].as_object().cloned().unwrap_or_default();
        all.extend(entry["options"][field].as_object().cloned().unwrap_or_default());
        if !all.is_empty() {
            object["metadata"][field] = Value::Object(all);
        }
    }
    Ok(Item { hashed: !flag("disableNameSuffixHash"), ..Item::new(object) })
}

/// Keys and values, from literals, files and files of variables.
fn entries(folder: &Path, entry: &Value) -> Result<Vec<(String, Vec<u8>)>> {
    let mut all = Vec::new();
    let env = entry["env"].as_str().into_iter();
    for file in strings(&entry["envs"]).chain(env) {
        let contents = read(&folder.join(file))?;
        for line in String::from_utf8_lossy(&contents).lines().map(str::trim_start) {
            if !line.is_empty() && !line.starts_with('#') {
                let (key, value) = line.split_once('=').unwrap_or((line, ""));
                all.push((key.to_owned(), value.as_bytes().to_vec()));
            }
        }
    }
    for literal in strings(&entry["literals"]) {
        let (key, value) = literal
            .split_once('=')
            .ok_or_else(|| CtlError::plain(format!("invalid literal source {literal}, expected key=value")))?;
        let quoted = ['"', '\''].iter().any(|q| value.len() > 1 && value.starts_with(*q) && value.ends_with(*q));
        let value = if quoted { &value[1..value.len() - 1] } else { value };
        all.push((key.to_owned(), value.as_bytes().to_vec()));
    }
    for file in strings(&entry["files"]) {
        let (key, file) = file.split_once('=').unwrap_or_else(|| (file.rsplit('/').next().unwrap_or(file), file));
        all.push((key.to_owned(), read(&folder.join(file))?));
    }
    Ok(all)
}
