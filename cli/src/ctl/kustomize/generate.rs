//! Config maps and secrets that a kustomization makes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::super::errors::{CtlError, Result};
use super::super::generate::content_hash;
use super::place::Place;
use super::{Item, marks, strings, text};

/// Adds what the generators of a kustomization make, or puts it into what is there.
pub fn run(place: &Place, file: &str, config: &Value, items: &mut Vec<Item>) -> Result<()> {
    for (field, kind) in [("configMapGenerator", "ConfigMap"), ("secretGenerator", "Secret")] {
        let origin = marks::by(place, file, &format!("{kind}Generator"), "");
        for entry in config[field].as_array().into_iter().flatten() {
            one(place, entry, kind, &config["generatorOptions"], &origin, items)?;
        }
    }
    Ok(())
}

/// Adds what one generator makes.
pub fn one(
    place: &Place,
    entry: &Value,
    kind: &str,
    common: &Value,
    origin: &Value,
    items: &mut Vec<Item>,
) -> Result<()> {
    let name = text(entry, "name");
    if name.is_empty() {
        return Err(CtlError::plain(format!("a {} must have a name", kind.to_lowercase())));
    }
    let mut made = generated(place, entry, kind, common)?;
    made.origin = origin.clone();
    let namespace = text(entry, "namespace");
    let is_it = |item: &&mut Item| {
        item.kind() == kind
            && (item.original == name || item.name() == name)
            && (namespace.is_empty() || item.namespaces.iter().any(|known| known == namespace))
    };
    let behavior = text(entry, "behavior");
    match (behavior, items.iter_mut().find(is_it)) {
        ("merge", Some(item)) => merge(item, &made.object),
        ("replace", Some(item)) => {
            let name = item.object["metadata"]["name"].clone();
            item.object = made.object;
            item.object["metadata"]["name"] = name;
        }
        ("merge" | "replace", None) => {
            return Err(CtlError::plain(format!("id {kind}/{name} does not exist; cannot {behavior}")));
        }
        (_, Some(_)) => {
            return Err(CtlError::plain(format!("id {kind}/{name} exists; behavior must be merge or replace")));
        }
        (_, None) => items.push(made),
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
    if !object["data"].is_null() {
        return content_hash(object, "");
    }
    let mut hashed = object.clone();
    hashed["data"] = json!("");
    content_hash(&hashed, "")
}

fn generated(place: &Place, entry: &Value, kind: &str, common: &Value) -> Result<Item> {
    let (mut data, mut binary) = (Map::new(), Map::new());
    for (key, bytes) in entries(place, entry)? {
        if data.contains_key(&key) || binary.contains_key(&key) {
            let (what, name) = (kind.to_lowercase(), text(entry, "name"));
            return Err(CtlError::plain(format!("{what} {name} illegally repeats the key `{key}`")));
        }
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
        if object["data"].is_null() {
            object["data"] = json!({});
        }
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
fn entries(place: &Place, entry: &Value) -> Result<Vec<(String, Vec<u8>)>> {
    let mut all = Vec::new();
    let env = entry["env"].as_str().into_iter();
    for file in strings(&entry["envs"]).chain(env) {
        for line in place.text(file)?.lines().map(str::trim_start) {
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
        all.push((key.to_owned(), place.read(file)?));
    }
    Ok(all)
}
