//! Tests of the documents, partly against upstream's own where the folder of facts is at hand.
#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn references_lead_somewhere() {
    let catalogue = Catalogue::builtin();
    let v2 = v2_document(&catalogue);
    let mut found = Vec::new();
    definitions::references(&v2, &mut found);
    for name in found {
        assert!(v2["definitions"].get(name).is_some(), "{name}");
    }
    for (group, versions) in catalogue.groups() {
        let document = v3_document(&catalogue, group, versions[0]).unwrap();
        let mut found = Vec::new();
        definitions::references(&document, &mut found);
        for name in found {
            assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
        }
    }
    assert!(v3_document(&catalogue, "nope", "v1").is_none());
    assert!(
        v3_index(&catalogue)["paths"]["apis/apps/v1"]["serverRelativeURL"]
            .as_str()
            .unwrap()
            .starts_with("/openapi/v3/apis/apps/v1?hash=")
    );
}

#[test]
fn patches_tell_of_field_validation_and_kind() {
    let catalogue = Catalogue::builtin();
    let core = v3_document(&catalogue, "", "v1").unwrap();
    let patch = &core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Pod");
    assert_eq!(patch["x-kubernetes-action"], "patch");
    let names: Vec<&str> =
        patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"fieldValidation") && names.contains(&"dryRun"));
    let containers = &core["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
}

#[test]
fn the_protobuf_form_reads_back() {
    use prost::Message as _;
    let catalogue = Catalogue::builtin();
    let bytes = v2_protobuf(&catalogue);
    let document = proto::Document::decode(bytes.as_slice()).unwrap();
    assert_eq!(document.swagger, "2.0");
    let pod =
        document.definitions.unwrap().additional_properties.into_iter().find(|d| d.name == "io.k8s.api.core.v1.Pod");
    let gvk = pod.unwrap().value.unwrap().vendor_extension.remove(0);
    assert_eq!(gvk.name, "x-kubernetes-group-version-kind");
    assert_eq!(gvk.value.unwrap().yaml.trim(), r#"[{"group":"","version":"v1","kind":"Pod"}]"#);
}

#[test]
fn definitions_are_upstreams() {
    let folder = crate::testing::facts_folder();
    let Ok(bytes) = std::fs::read(folder.join("openapi-v2.json")) else {
        eprintln!("not run: {} has no openapi-v2.json", folder.display());
        return;
    };
    let upstream: Value = serde_json::from_slice(&bytes).unwrap();
    let ours = v2_document(&Catalogue::builtin());
    let mut differing = Vec::new();
    for (name, ours) in ours["definitions"].as_object().unwrap() {
        let theirs = &upstream["definitions"][name];
        assert!(theirs.is_object(), "{name} is not upstream's");
        let (ours, theirs) = (comparable(ours), comparable(theirs));
        if ours != theirs {
            differing.push(format!("{name}\n  ours {ours}\ntheirs {theirs}"));
        }
    }
    let ours = ours["paths"].as_object().unwrap();
    for (path, item) in ours {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            let theirs = &upstream["paths"][path][method];
            for key in ["operationId", "x-kubernetes-action", "x-kubernetes-group-version-kind"] {
                if operation[key] != theirs[key] {
                    differing.push(format!("{method} {path}: ours {}, theirs {}", operation[key], theirs[key]));
                }
            }
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Without what is known to differ: descriptions, unions (which no client reads), and the many groups of DeleteOptions and WatchEvent.
fn comparable(schema: &Value) -> Value {
    match schema {
        Value::Object(map) => {
            let many =
                map.get("x-kubernetes-group-version-kind").and_then(Value::as_array).is_some_and(|l| l.len() > 1);
            let mut out: Map<String, Value> = map
                .iter()
                .filter(|(key, value)| !(*key == "description" && value.is_string()) && *key != "x-kubernetes-unions")
                .filter(|(key, _)| !(many && *key == "x-kubernetes-group-version-kind"))
                .map(|(key, value)| (key.clone(), comparable(value)))
                .collect();
            if let Some(required) = out.get_mut("required").and_then(Value::as_array_mut) {
                required.sort_by_key(ToString::to_string);
            }
            out.sort_keys();
            Value::Object(out)
        }
        Value::Array(items) => items.iter().map(comparable).collect(),
        other => other.clone(),
    }
}
