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
    let mut differing = Vec::new();
    for catalogue in [Catalogue::builtin(), Catalogue::everything()] {
        differences(&v2_document(&catalogue), &upstream, &mut differing);
    }
    let ours = v2_document(&Catalogue::everything());
    for name in upstream["definitions"].as_object().unwrap().keys() {
        if ours["definitions"].get(name).is_none() && !NO_RESOURCE.contains(&name.as_str()) {
            differing.push(format!("{name} is missing"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Upstream's definitions that nothing served refers to.
const NO_RESOURCE: [&str; 0] = [];

/// Whatever of our document is not as in upstream's.
fn differences(ours: &Value, upstream: &Value, differing: &mut Vec<String>) {
    for (name, ours) in ours["definitions"].as_object().unwrap() {
        let theirs = &upstream["definitions"][name];
        assert!(theirs.is_object(), "{name} is not upstream's");
        let (ours, theirs) = (comparable(ours), comparable(theirs));
        if ours != theirs {
            differing.push(format!("{name}\n  ours {ours}\ntheirs {theirs}"));
        }
    }
    let ours_document = ours;
    for (path, item) in ours["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            let theirs = &upstream["paths"][path][method];
            for key in ["operationId", "x-kubernetes-action", "x-kubernetes-group-version-kind"] {
                if operation[key] != theirs[key] {
                    differing.push(format!("{method} {path}: ours {}, theirs {}", operation[key], theirs[key]));
                }
            }
            let (given, wanted) =
                (parameters(ours_document, item, operation), parameters(upstream, &upstream["paths"][path], theirs));
            if given != wanted {
                let ours: Vec<_> = given.difference(&wanted).collect();
                differing.push(format!(
                    "{method} {path}: ours {ours:?}, theirs {:?}",
                    wanted.difference(&given).collect::<Vec<_>>()
                ));
            }
        }
    }
}

/// Parameters that are for what is not served: shards of lists, objects that cannot be read, and kubelets without certificates;
/// a container's output and its errors are one log.
const UNSERVED: [&str; 4] =
    ["shardSelector", "ignoreStoreReadErrorWithClusterBreakingPotential", "insecureSkipTLSVerifyBackend", "stream"];

/// The parameters of an operation: where, name, type, required. And what bodies it takes, but for an encoding that is not served.
fn parameters(document: &Value, item: &Value, operation: &Value) -> std::collections::BTreeSet<String> {
    let list = |of: &Value| of["parameters"].as_array().cloned().unwrap_or_default();
    let resolved = |one: Value| match one["$ref"].as_str().and_then(|name| name.strip_prefix("#/parameters/")) {
        Some(name) => document["parameters"][name].clone(),
        None => one,
    };
    let all = list(item).into_iter().chain(list(operation)).map(resolved);
    let served = all.filter(|one| !UNSERVED.contains(&one["name"].as_str().unwrap_or_default()));
    let shown = served.map(|one| {
        let required = one["required"] == true;
        format!("{} {} {} {} {required}", one["in"], one["name"], one["type"], one["schema"])
    });
    let consumes = operation["consumes"].as_array().into_iter().flatten().map(ToString::to_string);
    shown.chain(consumes.filter(|kind| !kind.contains("cbor"))).collect()
}

/// What no group and version of the catalogue has to do with.
const ELSEWHERE: [&str; 4] = ["/logs/", "/openid/", "/.well-known/", "/version/"];

#[test]
fn every_stable_operation_is_served() {
    let folder = crate::testing::facts_folder();
    let Ok(text) = std::fs::read_to_string(folder.join("endpoints.tsv")) else {
        eprintln!("not run: {} has no endpoints.tsv", folder.display());
        return;
    };
    let catalogue = Catalogue::builtin();
    let ours = v2_document(&catalogue);
    let mut groups: std::collections::BTreeMap<String, [usize; 2]> = std::collections::BTreeMap::new();
    let mut missing = Vec::new();
    for line in text.lines().skip(1) {
        let mut columns = line.split('\t').skip(1);
        let (method, path) = (columns.next().unwrap().to_lowercase(), columns.next().unwrap());
        let unstable = path.split('/').any(|part| part.contains("alpha") || part.contains("beta"));
        if unstable || ELSEWHERE.iter().any(|other| path.starts_with(other)) {
            continue;
        }
        let group = path.strip_prefix("/apis/").and_then(|rest| rest.split('/').next()).unwrap_or("core").to_owned();
        // The old paths of watches, and what goes through proxies, are served by rules instead of by paths.
        let rest = path.replace("/watch/", "/");
        let (path, rule) = match rest.strip_suffix("/{path}") {
            Some(proxy) => (proxy, true),
            None => (rest.as_str(), path.contains("/watch/") || path.ends_with("/proxy")),
        };
        let document = path.ends_with('/');
        let served = if document {
            let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
            catalogue.groups().iter().any(|(name, versions)| match parts.as_slice() {
                ["api"] | ["apis"] => true,
                ["api", version] => name.is_empty() && versions.contains(version),
                ["apis", group] => name == group,
                ["apis", group, version] => name == group && versions.contains(version),
                _ => false,
            })
        } else if rule {
            ours["paths"].get(path).is_some()
        } else {
            ours["paths"][path].get(&method).is_some()
        };
        let count = groups.entry(group).or_default();
        count[1] += 1;
        if served { count[0] += 1 } else { missing.push(format!("{method} {path}")) }
    }
    for (group, [served, all]) in &groups {
        println!("{group}: {served} of {all}");
    }
    // Groups without a stable version are not served at all.
    missing.retain(|one| !one.contains("internal.apiserver.k8s.io") && !one.contains("storagemigration.k8s.io"));
    assert_eq!(missing, Vec::<String>::new());
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
