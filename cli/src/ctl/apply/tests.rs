//! Upstream's strategic merge cases, where their file is at hand, and cases of our own.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::{Value, json};
use trireme_api::schema::Strategy;

use super::shape::{Field, Shape};
use super::{diff, with_last_applied};

/// A field of a type that is described as data: `mergeItem` and `retainKeysMergeItem` of the case file.
pub(super) fn field_of(types: &Arc<Value>, type_name: &str, name: &str) -> Field {
    let field = &types[type_name][name];
    let strategies = field["patchStrategy"].as_str().unwrap_or_default();
    let has = |word: &str| strategies.split(',').any(|strategy| strategy == word);
    let key = match field["patchMergeKey"].as_str() {
        Some("name") => Some("name"),
        Some(other) => panic!("unexpected merge key {other}"),
        None => None,
    };
    let inner = field["items"].as_str().or(field["type"].as_str()).unwrap_or_default();
    let shape = match inner {
        "mergeItem" | "retainKeysMergeItem" => Shape::Data(types.clone(), inner.to_owned()),
        _ => Shape::Open,
    };
    let strategy = Strategy { merge: has("merge"), replace: has("replace"), retain_keys: has("retainKeys"), key };
    Field { shape, strategy }
}

fn cases() -> Option<Value> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/kubernetes").to_owned();
    let folder = std::env::var("TRIREME_FACTS").unwrap_or(default);
    let text = std::fs::read_to_string(format!("{folder}/strategic-merge-cases.json"));
    match text {
        Ok(text) => Some(serde_json::from_str(&text).unwrap()),
        Err(_) => {
            eprintln!("strategic-merge-cases.json is not at hand: nothing compared");
            None
        }
    }
}

/// Upstream compares merged lists by their keys, not by their order; the order has a list of its own.
fn same(left: &Value, right: &Value) -> bool {
    super::super::print::sorted(&by_name(left)) == super::super::print::sorted(&by_name(right))
}

fn by_name(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(by_name).collect();
            if items.iter().all(Value::is_object) {
                items.sort_by_key(|item| item["name"].to_string());
            }
            Value::Array(items)
        }
        Value::Object(map) => {
            let keep = |key: &String, value: &Value| if key.starts_with('$') { value.clone() } else { by_name(value) };
            Value::Object(map.iter().map(|(key, value)| (key.clone(), keep(key, value))).collect())
        }
        other => other.clone(),
    }
}

#[test]
fn upstreams_cases_of_creating_patches() {
    let Some(file) = cases() else { return };
    let types = Arc::new(file.clone());
    let shape = Shape::Data(types, "mergeItem".to_owned());
    let (mut failures, mut compared) = (Vec::new(), 0);
    for case in file["cases"].as_array().unwrap() {
        let name = case["description"].as_str().unwrap();
        // The custom sets only apply patches; upstream does not create them either.
        let set = case["set"].as_str().unwrap();
        let creates = [
            "strategicMergePatchRawTestCases",
            "createStrategicMergePatchTestCaseData",
            "replaceRawExtensionPatchTestCases",
        ];
        if !creates.contains(&set) || case.get("expectedError").is_some() {
            continue;
        }
        if let (Some(original), Some(modified), Some(wanted)) =
            (case.get("original"), case.get("modified"), case.get("twoWay"))
        {
            compared += 1;
            match diff::two_way(original, modified, &shape) {
                Ok(patch) if same(&patch, &object(wanted)) => {}
                other => failures.push(format!("{name}\n  two way: {other:?}\n  wanted {wanted}")),
            }
        }
        if let (Some(modified), Some(current), Some(wanted)) =
            (case.get("modified"), case.get("current"), case.get("threeWay"))
        {
            compared += 1;
            let original = case.get("original").unwrap_or(&Value::Null);
            match diff::three_way(original, modified, current, &shape) {
                Ok(patch) if same(&patch, &object(wanted)) => {}
                other => failures.push(format!("{name}\n  three way: {other:?}\n  wanted {wanted}")),
            }
        }
    }
    assert!(compared > 150, "only {compared} compared");
    assert!(failures.is_empty(), "{} of {compared} fail:\n{}", failures.len(), failures.join("\n"));
}

fn object(value: &Value) -> Value {
    if value.is_null() { json!({}) } else { value.clone() }
}

#[test]
fn the_annotation_is_what_kubectl_writes() {
    let object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "default"}});
    let annotated = with_last_applied(&object);
    let text = annotated["metadata"]["annotations"][super::LAST_APPLIED].as_str().unwrap();
    assert_eq!(
        text,
        "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"annotations\":{},\"name\":\"a\",\"namespace\":\"default\"}}\n"
    );
    assert_eq!(with_last_applied(&annotated), annotated);
}

#[test]
fn merge_patches_of_unknown_types() {
    let original = json!({"spec": {"a": 1, "gone": 2, "list": [1]}});
    let modified = json!({"spec": {"a": 3, "list": [1, 2]}});
    let current = json!({"spec": {"a": 1, "gone": 2, "theirs": 4, "list": [1]}});
    assert_eq!(
        diff::three_way_plain(&original, &modified, &current),
        json!({"spec": {"a": 3, "list": [1, 2], "gone": null}})
    );
    assert_eq!(diff::three_way_plain(&modified, &modified, &modified), json!({}));
}
