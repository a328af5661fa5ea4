//! Tests of the catalogue.
#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn every_entry_has_its_type() {
    let catalogue = Catalogue::builtin();
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
