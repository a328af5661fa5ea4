//! Tests of the catalogue.
#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn every_entry_has_its_type() {
    let catalogue = Catalogue::everything();
    for resource in catalogue.resources() {
        let name = catalogue.schemas().get(resource.root).name.as_ref();
        assert_eq!(name, resource.definition, "{}", resource.qualified());
    }
}

#[test]
fn look_ups_and_keys() {
    let catalogue = Catalogue::builtin();
    let pods = catalogue.resource("", "v1", "pods").unwrap();
    assert_eq!(pods.key("default", "a"), "/registry/pods/default/a");
    assert_eq!((pods.api_version(), pods.singular.as_ref()), ("v1".into(), "pod"));
    let deployments = catalogue.by_kind("apps", "v1", "Deployment").unwrap();
    assert_eq!(deployments.namespace_prefix("x"), "/registry/apps/deployments/x/");
    assert_eq!(deployments.qualified(), "deployments.apps");
    let nodes = catalogue.resource("", "v1", "nodes").unwrap();
    assert_eq!(nodes.key("", "n"), "/registry/nodes/n");
    let events = catalogue.resource("events.k8s.io", "v1", "events").unwrap();
    assert_eq!(events.prefix(), catalogue.resource("", "v1", "events").unwrap().prefix());
    assert!(events.converts() && !pods.converts());
    assert!(catalogue.resource("", "v1", "deployments").is_none());
    assert!(catalogue.with([pods]).is_err());
}

fn chosen(items: &[&str]) -> Arc<Catalogue> {
    Catalogue::chosen(&RuntimeConfig::parse(items.iter().copied()).unwrap()).unwrap()
}

fn versions(catalogue: &Catalogue, group: &str) -> Vec<String> {
    let groups = catalogue.groups();
    let found = groups.iter().find(|(name, _)| *name == group);
    found.map(|(_, versions)| versions.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

#[test]
fn versions_and_resources_are_chosen_the_most_special_key_wins() {
    let resources = "resource.k8s.io";
    assert_eq!(versions(&Catalogue::builtin(), resources), ["v1"]);
    assert_eq!(versions(&chosen(&["api/all=true"]), resources), ["v1", "v1beta2", "v1beta1", "v1alpha3"]);
    assert_eq!(versions(&chosen(&["api/beta"]), resources), ["v1", "v1beta2", "v1beta1"]);
    assert_eq!(versions(&chosen(&["resource.k8s.io/v1alpha3=true"]), resources), ["v1", "v1alpha3"]);
    let mixed = chosen(&["batch/v1/jobs=true", "batch/v1=false", "api/ga=true"]);
    assert!(mixed.resource("batch", "v1", "jobs").is_some() && mixed.resource("batch", "v1", "cronjobs").is_none());
    let one = chosen(&["networking.k8s.io/v1beta1/ipaddresses=true"]);
    assert!(one.resource("networking.k8s.io", "v1beta1", "ipaddresses").is_some());
    assert!(one.resource("networking.k8s.io", "v1beta1", "servicecidrs").is_none());
    assert!(chosen(&["api/v1=false"]).resource("", "v1", "pods").is_none());
    assert!(chosen(&["v1/secrets=false"]).resource("", "v1", "secrets").is_none());
    for (key, said) in
        [("batch/v1=maybe", "invalid value of batch/v1=maybe"), ("x=", "unknown api groups, versions or resources: x")]
    {
        let found = RuntimeConfig::parse([key]).and_then(|config| Catalogue::chosen(&config));
        assert_eq!(found.unwrap_err().to_string(), said);
    }
    assert!(Catalogue::chosen(&RuntimeConfig::parse(["batch/v2=true", "batch/v1/jab=true"]).unwrap()).is_err());
}

#[test]
fn unstable_versions_show_the_objects_of_their_stable_siblings() {
    let everything = Catalogue::everything();
    let mut shared = 0;
    for resource in everything.resources().iter().filter(|r| r.converts()) {
        let storage = &resource.storage;
        let stored = everything.resource(&storage.group, &storage.version, &storage.plural).unwrap();
        assert!(!stored.converts(), "{}", resource.qualified());
        shared += 1;
        let mut object = serde_json::json!({"apiVersion": resource.api_version(), "kind": &*resource.kind, "metadata": {"name": "x"}});
        resource.to_storage(&mut object);
        assert_eq!(object["apiVersion"], stored.api_version());
        resource.from_storage(&mut object);
        assert_eq!(object["apiVersion"], resource.api_version());
    }
    assert_eq!(shared, 20);
    let only = chosen(&["certificates.k8s.io/v1alpha1=true"]);
    assert!(only.stored().iter().any(|r| r.plural == "clustertrustbundles" && r.version == "v1beta1"));
    assert!(!Catalogue::builtin().stored().iter().any(|r| r.plural == "clustertrustbundles"));
    let kinds: std::collections::HashSet<_> = everything.stored().iter().map(|r| r.prefix()).collect();
    assert_eq!(kinds.len(), everything.stored().len());
}
