//! The OpenAPI document as the rounds use it.

use serde_json::{Map, Value, json};

/// Parameters that turn an answer into a stream.
const STREAMS: [&str; 4] = ["watch", "allowWatchBookmarks", "sendInitialEvents", "follow"];
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The document with its paths in an order that the seed chooses, and without what makes streams.
pub(super) fn shuffled(document: &Value, seed: u64) -> Value {
    let mut document = document.clone();
    let mut paths: Vec<(String, Value)> =
        document["paths"].as_object().cloned().unwrap_or_default().into_iter().collect();
    // Knuth's shuffle with a small generator: it has to be the same everywhere.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for i in (1..paths.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        paths.swap(i, (state % (i as u64 + 1)) as usize);
    }
    for operation in paths.iter_mut().flat_map(|(_, item)| item.as_object_mut()).flat_map(Map::values_mut) {
        if let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) {
            parameters.retain(|one| !STREAMS.contains(&text(one, "name")));
        }
    }
    document["paths"] = Value::Object(paths.into_iter().collect());
    document
}

/// The document with what a random value hardly ever meets: names of objects that there may be, kinds, options that are known.
pub(super) fn narrowed(document: &Value) -> Value {
    let mut document = document.clone();
    for item in document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        for (method, part) in item.as_object_mut().into_iter().flatten() {
            if method == "parameters" {
                part.as_array_mut().into_iter().flatten().for_each(parameter);
            } else {
                operation(method, part);
            }
        }
    }
    if let Some(definitions) = document["definitions"].as_object_mut() {
        for (name, definition) in definitions {
            of_its_kind(definition);
            named(name, definition);
        }
    }
    document
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn operation(method: &str, operation: &mut Value) {
    let answer = operation["responses"]["200"]["schema"].clone();
    for one in operation["parameters"].as_array_mut().into_iter().flatten() {
        // What is patched looks like part of the object.
        if method == "patch" && one["in"] == "body" && answer.is_object() {
            one["schema"] = answer.clone();
        }
        parameter(one);
    }
}

/// Values that mean something.
fn parameter(parameter: &mut Value) {
    let values = match text(parameter, "name") {
        "name" => json!(["a", "b"]),
        "namespace" => json!(["default"]),
        "dryRun" => json!(["All"]),
        "fieldManager" => json!(["one", "two"]),
        "fieldValidation" => json!(["Ignore", "Warn", "Strict"]),
        "propagationPolicy" => json!(["Orphan", "Background", "Foreground"]),
        "resourceVersion" => json!(["0"]),
        "resourceVersionMatch" => json!(["NotOlderThan"]),
        "labelSelector" => json!(["app", "app=x", "app in (x,y)", "!app", "app!=x"]),
        "fieldSelector" => json!(["metadata.name=a", "metadata.name!=a"]),
        "continue" => json!([""]),
        "pretty" => json!(["true", "false"]),
        "limit" => json!([0, 1, 2]),
        "gracePeriodSeconds" => json!([0, 1, 30]),
        "timeoutSeconds" => json!([1]),
        _ => return,
    };
    parameter["enum"] = values;
}

/// Objects of one kind say which.
fn of_its_kind(definition: &mut Value) {
    let [kind] = definition["x-kubernetes-group-version-kind"].as_array().map_or(&[][..], Vec::as_slice) else {
        return;
    };
    let version = match text(kind, "group") {
        "" => text(kind, "version").to_owned(),
        group => format!("{group}/{}", text(kind, "version")),
    };
    let kind = text(kind, "kind").to_owned();
    if let Some(properties) = definition["properties"].as_object_mut() {
        for (key, value) in [("kind", kind), ("apiVersion", version)] {
            if properties.contains_key(key) {
                properties.insert(key.to_owned(), json!({"type": "string", "enum": [value]}));
            }
        }
    }
}

/// What is in many objects: metadata, quantities, labels.
fn named(name: &str, definition: &mut Value) {
    let word = json!({"type": "string", "enum": ["", "x", "y"]});
    let labels = json!({"type": "object", "properties": {"app": word, "e.com/b": word}, "additionalProperties": false});
    if name == format!("{META}.ObjectMeta") {
        let known = json!({"type": "string", "enum": ["a", "b"]});
        let finalizers = json!({"type": "array", "maxItems": 1, "items": {"type": "string", "enum": ["e.com/f"]}});
        let properties = json!({
            "name": known, "generateName": known, "labels": labels, "annotations": labels, "finalizers": finalizers,
            "ownerReferences": definition["properties"]["ownerReferences"],
            "managedFields": definition["properties"]["managedFields"],
        });
        *definition = json!({"type": "object", "properties": properties, "required": ["name"]});
    } else if name == format!("{META}.LabelSelector") {
        definition["properties"]["matchLabels"] = labels;
    } else if name.ends_with(".resource.Quantity") {
        definition["enum"] = json!(["0", "1", "250m", "64Mi", "1e3", "-1", "0.5"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_choose_the_order_and_streams_are_left_out() {
        let names: Vec<String> = (0..40).map(|i| format!("/p{i}")).collect();
        let get = json!({"get": {"parameters": [{"name": "watch"}, {"name": "limit"}]}});
        let paths: Map<String, Value> = names.iter().map(|name| (name.clone(), get.clone())).collect();
        let document = json!({"paths": paths});
        let order = |seed| {
            let shuffled = shuffled(&document, seed);
            let paths = shuffled["paths"].as_object().cloned().unwrap_or_default();
            assert!(paths.values().all(|item| item["get"]["parameters"] == json!([{"name": "limit"}])));
            paths.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
        let mut sorted = order(3);
        sorted.sort_by_key(|name| names.iter().position(|one| one == name));
        assert_eq!(sorted, names);
    }

    #[test]
    fn objects_say_what_they_are() {
        let kind = json!([{"group": "apps", "version": "v1", "kind": "Deployment"}]);
        let properties = json!({"kind": {"type": "string"}, "apiVersion": {"type": "string"}, "spec": {}});
        let deployment = json!({"x-kubernetes-group-version-kind": kind, "properties": properties});
        let schema = json!({"$ref": "#/definitions/D"});
        let patch = json!({"responses": {"200": {"schema": schema}}, "parameters": [{"in": "body", "name": "body"}, {"name": "dryRun"}]});
        let paths = json!({"/d/{name}": {"patch": patch, "parameters": [{"name": "name"}]}});
        let narrowed = narrowed(&json!({"paths": paths, "definitions": {"D": deployment}}));
        assert_eq!(narrowed["definitions"]["D"]["properties"]["apiVersion"]["enum"], json!(["apps/v1"]));
        let item = &narrowed["paths"]["/d/{name}"];
        assert_eq!(item["parameters"][0]["enum"], json!(["a", "b"]));
        assert_eq!(item["patch"]["parameters"][0]["schema"], schema);
        assert_eq!(item["patch"]["parameters"][1]["enum"], json!(["All"]));
    }
}
