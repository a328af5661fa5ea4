//! Tests of patches: cases of our own, and upstream's cases of strategic merge where the folder of facts is at hand.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::catalogue::Catalogue;
use crate::schema::{List, ListType, Node, Property, Strategy, Struct};
use serde_json::json;

fn strategy(spec: &Value) -> Strategy {
    let words = spec["patchStrategy"].as_str().unwrap_or_default();
    let key = match spec["patchMergeKey"].as_str() {
        Some("name") => Some("name"),
        _ => None,
    };
    Strategy {
        merge: words.split(',').any(|w| w == "merge"),
        replace: words.split(',').any(|w| w == "replace"),
        retain_keys: words.split(',').any(|w| w == "retainKeys"),
        key,
    }
}

fn node(spec: &Value) -> Node {
    let named = |name: &str| match name {
        "mergeItem" => Node::Struct(TypeId(0)),
        "retainKeysMergeItem" => Node::Struct(TypeId(1)),
        "map of string" => Node::Map(Box::new(Node::String)),
        "int" => Node::Int64,
        "string" => Node::String,
        _ => Node::Any,
    };
    // A pointer to a list upstream, which its document does not say.
    if spec["type"] == "mergeItem" {
        return Node::List(Box::new(List { items: named("mergeItem"), list_type: ListType::Atomic, keys: Vec::new() }));
    }
    match (spec.as_str(), spec["items"].as_str(), spec["type"].as_str()) {
        (Some(name), _, _) | (_, _, Some(name)) => named(name),
        (_, Some(items), _) => {
            Node::List(Box::new(List { items: named(items), list_type: ListType::Atomic, keys: Vec::new() }))
        }
        _ => Node::Any,
    }
}

fn structure(name: &str, spec: &Value) -> Struct {
    let mut properties: Vec<Property> = spec
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, spec)| Property {
            name: name.as_str().into(),
            node: node(spec),
            required: false,
            strategy: strategy(spec),
            atomic: false,
        })
        .collect();
    properties.sort_by(|a, b| a.name.cmp(&b.name));
    Struct { name: name.into(), properties, atomic: false }
}

#[test]
fn upstreams_strategic_merge_cases() {
    let folder = crate::testing::facts_folder();
    let Ok(bytes) = std::fs::read(folder.join("strategic-merge-cases.json")) else {
        eprintln!("not run: {} has no strategic-merge-cases.json", folder.display());
        return;
    };
    let file: Value = serde_json::from_slice(&bytes).unwrap();
    let schemas = Schemas::new(vec![
        structure("mergeItem", &file["mergeItem"]),
        structure("retainKeysMergeItem", &file["retainKeysMergeItem"]),
    ]);
    let mut failures = Vec::new();
    let mut ran = 0;
    for case in file["cases"].as_array().unwrap() {
        let modified = case.get("twoWayResult").unwrap_or(&case["modified"]);
        for (from, patch, want) in [("original", "twoWay", modified), ("current", "threeWay", &case["result"])] {
            if case.get(patch).is_none() {
                continue;
            }
            ran += 1;
            let or_empty = |value: &Value| if value.is_null() { json!({}) } else { value.clone() };
            let mut target = or_empty(&case[from]);
            let outcome = strategic(&schemas, TypeId(0), &mut target, &or_empty(&case[patch]));
            let good = match (&outcome, case["expectedError"].as_str()) {
                (Err(error), Some(text)) => error.to_string().contains(text),
                (Ok(()), None) => without_nulls(&target) == without_nulls(&or_empty(want)),
                _ => false,
            };
            if !good {
                failures.push(format!("{} ({patch}): {outcome:?}\n got {target}\nwant {want}", case["description"]));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {ran} failed:\n{}", failures.len(), failures.join("\n"));
    assert!(ran > 200, "{ran}");
}

/// A null in upstream's typed documents is an absent field.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect()
        }
        other => other.clone(),
    }
}

#[test]
fn pods_are_patched_by_container_name() {
    let deployment = Catalogue::builtin().resource("apps", "v1", "deployments").unwrap();
    let base = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "a", "image": "a:1", "ports": [{"containerPort": 80, "name": "http"}]}, {"name": "b", "image": "b:1"}]}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let containers = |patch: Value| json!({"spec": {"template": {"spec": {"containers": patch}}}});
    let cases = [
        ("merge one", containers(json!([{"name": "b", "image": "b:2"}])), json!(["a:1", "b:2"])),
        ("add", containers(json!([{"name": "c", "image": "c:1"}])), json!(["c:1", "a:1", "b:1"])),
        ("delete", containers(json!([{"name": "a", "$patch": "delete"}])), json!(["b:1"])),
        ("replace", containers(json!([{"$patch": "replace"}, {"name": "z", "image": "z"}])), json!(["z"])),
        (
            "order",
            json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}}}),
            json!(["b:1", "a:1"]),
        ),
    ];
    for (name, patch, want) in cases {
        let mut target = base.clone();
        strategic_merge_patch(&deployment, &mut target, &patch).unwrap();
        let containers = target["spec"]["template"]["spec"]["containers"].as_array().unwrap().clone();
        let images: Vec<Value> = containers.iter().map(|c| c["image"].clone()).collect();
        assert_eq!(Value::from(images), want, "{name}");
    }
    let mut target = base;
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    strategic_merge_patch(&deployment, &mut target, &patch).unwrap();
    assert_eq!(target["spec"]["strategy"], json!({"type": "Recreate"}));
    let before = target.clone();
    assert!(strategic_merge_patch(&deployment, &mut target, &containers(json!([{"image": "x"}]))).is_err());
    assert_eq!(target, before);
}

#[test]
fn json_and_merge_patches() {
    let mut target = json!({"a": {"b": 1}, "c": [1, 2]});
    json_patch(&mut target, &json!([{"op": "replace", "path": "/a/b", "value": 2}, {"op": "remove", "path": "/c/0"}]))
        .unwrap();
    assert_eq!(target, json!({"a": {"b": 2}, "c": [2]}));
    let before = target.clone();
    let failing = json!([{"op": "add", "path": "/x", "value": 1}, {"op": "test", "path": "/a/b", "value": 9}]);
    assert!(matches!(json_patch(&mut target, &failing), Err(PatchError::Unprocessable(_))));
    assert_eq!(target, before);
    assert!(matches!(json_patch(&mut target, &json!({})), Err(PatchError::Malformed(_))));
    merge_patch(&mut target, &json!({"a": null, "d": {"e": null, "f": 1}})).unwrap();
    assert_eq!(target, json!({"c": [2], "d": {"f": 1}}));
    assert!(merge_patch(&mut target, &json!([])).is_err());
}

#[test]
fn absent_is_null_for_a_test() {
    // What kube-rs sends to add the first finalizer.
    let add = json!([{"op": "test", "path": "/metadata/finalizers", "value": null},
        {"op": "add", "path": "/metadata/finalizers", "value": ["a/b"]}]);
    let mut target = json!({"metadata": {"name": "x"}});
    json_patch(&mut target, &add).unwrap();
    assert_eq!(target["metadata"]["finalizers"], json!(["a/b"]));
    let failed = json_patch(&mut target, &add).unwrap_err();
    assert_eq!(failed.to_string(), "testing value /metadata/finalizers failed: test failed");
    let escaped = json!([{"op": "test", "path": "/metadata/a~1b", "value": null}]);
    json_patch(&mut target, &escaped).unwrap();
    target["metadata"]["a/b"] = json!(1);
    assert!(json_patch(&mut target, &escaped).is_err());
    for (path, value) in
        [("/none/deeper", json!(null)), ("/metadata/none", json!("x")), ("/metadata/finalizers/7", json!(null))]
    {
        let before = target.clone();
        let patch = json!([{"op": "add", "path": "/new", "value": 1}, {"op": "test", "path": path, "value": value}]);
        let failed = json_patch(&mut target, &patch).unwrap_err();
        assert!(failed.to_string().contains(path), "{failed}");
        assert_eq!(target, before);
    }
}

#[test]
fn a_patch_that_does_not_fit_tells_why() {
    let resource = Catalogue::builtin().by_kind("", "v1", "ConfigMap").unwrap();
    let error = json_patch(&mut json!({"data": {}}), &json!([{"op": "remove", "path": "/data/no"}])).unwrap_err();
    let status = error.status(&resource, "c").to_value();
    assert_eq!(status["code"], 422);
    let cause = &status["details"]["causes"][0];
    assert_eq!(cause["field"], "patch");
    assert!(cause["message"].as_str().unwrap().contains("/data/no"), "{status}");
}

#[test]
fn copies_cannot_grow_without_end() {
    let mut target = json!({"a": "x".repeat(1000)});
    let double = json!({"op": "copy", "from": "/a", "path": "/b"});
    let wrap = json!({"op": "add", "path": "/a", "value": {}});
    let mut operations = vec![double];
    for _ in 0..40 {
        operations.push(json!({"op": "copy", "from": "/b", "path": "/a"}));
        operations.push(wrap.clone());
        operations.push(json!({"op": "copy", "from": "/b", "path": "/a/l"}));
        operations.push(json!({"op": "copy", "from": "/b", "path": "/a/r"}));
        operations.push(json!({"op": "move", "from": "/a", "path": "/b"}));
    }
    let before = target.clone();
    let failed = json_patch(&mut target, &Value::from(operations)).unwrap_err();
    assert!(failed.to_string().starts_with("Unable to complete the copy"), "{failed}");
    assert_eq!(target, before);
}

#[test]
fn nothing_becomes_deeper_than_can_be_read() {
    let mut target = json!({"a": {}});
    let wrap = [
        json!({"op": "add", "path": "/w", "value": {}}),
        json!({"op": "move", "from": "/a", "path": "/w/a"}),
        json!({"op": "move", "from": "/w", "path": "/a"}),
    ];
    let operations: Vec<Value> = (0..3000).flat_map(|_| wrap.clone()).collect();
    let before = target.clone();
    let failed = json_patch(&mut target, &Value::from(operations)).unwrap_err();
    assert_eq!((failed.to_string().as_str(), &target), ("exceeded max depth", &before));
}
