//! Discovery documents: legacy (`/api`, `/apis`, per group and version) and aggregated.

use crate::catalogue::{Catalogue, Resource, Scope, Text};
use base64::Engine as _;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Freshness text of aggregated discovery: all entries are served by this very server.
const FRESHNESS: &str = "Current";

/// `/api`. `server_address` is host:port of the master that answers.
pub fn api_versions(catalogue: &Catalogue, server_address: &str) -> Value {
    let groups = catalogue.groups();
    let versions = groups.iter().find(|(group, _)| group.is_empty()).map_or(Vec::new(), |(_, v)| v.clone());
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

fn group_body(group: &str, versions: &[&str]) -> Map<String, Value> {
    let version = |v: &&str| json!({"groupVersion": format!("{group}/{v}"), "version": v});
    let mut body = Map::new();
    body.insert("name".into(), group.into());
    body.insert("versions".into(), versions.iter().map(version).collect());
    if let Some(first) = versions.first() {
        body.insert("preferredVersion".into(), version(first));
    }
    body
}

/// `/apis`.
pub fn api_group_list(catalogue: &Catalogue) -> Value {
    let groups: Vec<Value> = catalogue
        .groups()
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| Value::Object(group_body(group, versions)))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub fn api_group(catalogue: &Catalogue, group: &str) -> Option<Value> {
    let groups = catalogue.groups();
    let (group, versions) = groups.iter().find(|(name, _)| *name == group && !name.is_empty())?;
    let mut body = Map::new();
    body.insert("kind".into(), "APIGroup".into());
    body.insert("apiVersion".into(), "v1".into());
    body.append(&mut group_body(group, versions));
    Some(Value::Object(body))
}

fn texts(list: &[Text]) -> Value {
    let mut list: Vec<&str> = list.iter().map(AsRef::as_ref).collect();
    list.sort_unstable();
    list.into()
}

/// Upstream's hash of where objects are stored, by which clients notice equal storage.
pub fn storage_version_hash(group: &str, version: &str, kind: &str) -> String {
    let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

fn legacy_resource(resource: &Resource) -> Value {
    let mut body = json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced(),
        "kind": resource.kind, "verbs": texts(&resource.verbs),
    });
    if !resource.short_names.is_empty() {
        body["shortNames"] = resource.short_names.iter().map(AsRef::as_ref).collect::<Vec<&str>>().into();
    }
    if !resource.categories.is_empty() {
        body["categories"] = texts(&resource.categories);
    }
    if resource.is_stored() {
        let storage = &resource.storage;
        body["storageVersionHash"] = storage_version_hash(&storage.group, &storage.version, &storage.kind).into();
    }
    body
}

/// `/api/v1` or `/apis/<group>/<version>`.
pub fn api_resource_list(catalogue: &Catalogue, group: &str, version: &str) -> Option<Value> {
    let mut out = Vec::new();
    for resource in catalogue.resources().iter().filter(|r| r.group == group && r.version == version) {
        if !resource.verbs.is_empty() {
            out.push(legacy_resource(resource));
        }
        for sub in &resource.subresources {
            let mut body = json!({
                "name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
                "namespaced": resource.namespaced(), "kind": sub.kind, "verbs": texts(&sub.verbs),
            });
            if sub.group != group || sub.version != version {
                body["group"] = sub.group.as_ref().into();
                body["version"] = sub.version.as_ref().into();
            }
            out.push(body);
        }
    }
    if out.is_empty() {
        return None;
    }
    out.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let group_version = crate::names::api_version(group, version);
    let mut body = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": out});
    if !group.is_empty() {
        body = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": body["resources"]});
    }
    Some(body)
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut body = json!({
        "resource": resource.plural,
        "responseKind": kind(&resource.group, &resource.version, &resource.kind),
        "scope": if resource.scope == Scope::Namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": texts(&resource.verbs),
    });
    if !resource.short_names.is_empty() {
        body["shortNames"] = resource.short_names.iter().map(AsRef::as_ref).collect::<Vec<&str>>().into();
    }
    if !resource.categories.is_empty() {
        body["categories"] = texts(&resource.categories);
    }
    if !resource.subresources.is_empty() {
        let subs = resource.subresources.iter().map(|sub| {
            json!({
                "subresource": sub.name, "responseKind": kind(&sub.group, &sub.version, &sub.kind), "verbs": texts(&sub.verbs),
            })
        });
        body["subresources"] = subs.collect();
    }
    body
}

/// The aggregated document: of `/api` with `core`, else of `/apis`; `version` is `v2` or `v2beta1`.
pub fn aggregated(catalogue: &Catalogue, core: bool, version: &str) -> Value {
    let items: Vec<Value> = catalogue
        .groups()
        .iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| aggregated_group(catalogue, group, versions))
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items,
    })
}

fn aggregated_group(catalogue: &Catalogue, group: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            let mut own: Vec<_> =
                catalogue.resources().iter().filter(|r| r.group == group && r.version == *version).collect();
            own.sort_by(|a, b| a.plural.cmp(&b.plural));
            let resources: Vec<Value> = own.into_iter().map(|r| aggregated_resource(r)).collect();
            json!({"version": version, "resources": resources, "freshness": FRESHNESS})
        })
        .collect();
    let metadata = if group.is_empty() {
        json!({"creationTimestamp": null})
    } else {
        json!({"name": group, "creationTimestamp": null})
    };
    json!({"metadata": metadata, "versions": versions})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hashes_are_upstreams() {
        let cases = [
            ("", "v1", "Pod", "xPOwRZ+Yhw8="),
            ("", "v1", "Node", "XwShjMxG9Fs="),
            ("", "v1", "Service", "0/CO1lhkEBI="),
            ("apps", "v1", "Deployment", "8aSe+NMegvE="),
        ];
        for (group, version, kind, hash) in cases {
            assert_eq!(storage_version_hash(group, version, kind), hash, "{kind}");
        }
    }

    #[test]
    fn documents() {
        let catalogue = Catalogue::builtin();
        assert_eq!(api_versions(&catalogue, "h:1")["versions"], json!(["v1"]));
        let groups = api_group_list(&catalogue);
        assert!(groups["groups"].as_array().unwrap().iter().any(|g| g["name"] == "apps"));
        assert_eq!(api_group(&catalogue, "apps").unwrap()["preferredVersion"]["groupVersion"], "apps/v1");
        assert!(api_group(&catalogue, "nope").is_none());
        let list = api_resource_list(&catalogue, "apps", "v1").unwrap();
        let scale = list["resources"].as_array().unwrap().iter().find(|r| r["name"] == "deployments/scale").unwrap();
        assert_eq!((&scale["group"], &scale["kind"]), (&json!("autoscaling"), &json!("Scale")));
        let core = aggregated(&catalogue, true, "v2");
        assert_eq!(core["items"].as_array().unwrap().len(), 1);
        let apis = aggregated(&catalogue, false, "v2beta1");
        assert_eq!(apis["apiVersion"], "apidiscovery.k8s.io/v2beta1");
        let events = |group: &str| {
            let list = api_resource_list(&catalogue, group, "v1").unwrap();
            list["resources"].as_array().unwrap().iter().find(|r| r["name"] == "events").unwrap()["storageVersionHash"]
                .clone()
        };
        assert_eq!(events(""), events("events.k8s.io"));
    }
}
