//! Tests of preparation.
#![allow(clippy::unwrap_used)]

use crate::catalogue::{Catalogue, NewObject};
use serde_json::json;

fn fresh() -> NewObject<'static> {
    NewObject { now: "2026-01-02T03:04:05Z".parse().unwrap(), uid: "u-1", name_suffix: "abcde", namespace: "default" }
}

#[test]
fn a_new_object_gets_system_metadata_and_loses_its_status() {
    let resource = Catalogue::builtin().resource("apps", "v1", "deployments").unwrap();
    let mut object = json!({
        "metadata": {"generateName": "web-", "uid": "forged", "resourceVersion": "7", "generation": 9},
        "spec": {"replicas": 2}, "status": {"replicas": 5}
    });
    resource.prepare_create(&mut object, &fresh());
    assert_eq!(object["metadata"]["name"], "web-abcde");
    assert_eq!(object["metadata"]["uid"], "u-1");
    assert_eq!(object["metadata"]["namespace"], "default");
    assert_eq!(object["metadata"]["generation"], 1);
    assert_eq!(object["metadata"]["creationTimestamp"], "2026-01-02T03:04:05Z");
    assert!(object["metadata"].get("resourceVersion").is_none());
    assert_eq!(object["status"], json!({}));
}

#[test]
fn spec_and_status_are_written_apart() {
    let resource = Catalogue::builtin().resource("apps", "v1", "deployments").unwrap();
    let old = json!({"kind": "Deployment", "apiVersion": "apps/v1",
        "metadata": {"name": "a", "namespace": "d", "uid": "u", "generation": 3}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
    let new = json!({"metadata": {"name": "a", "generation": 77}, "spec": {"replicas": 2}, "status": {"replicas": 2}});

    let mut main = new.clone();
    resource.prepare_update(&mut main, &old, None);
    assert_eq!(main["status"], old["status"]);
    assert_eq!(main["spec"]["replicas"], 2);
    assert_eq!(main["metadata"]["generation"], 4);
    assert_eq!(main["metadata"]["uid"], "u");

    let mut status = new;
    resource.prepare_update(&mut status, &old, Some("status"));
    assert_eq!(status["status"]["replicas"], 2);
    assert_eq!(status["spec"], old["spec"]);
    assert_eq!(status["metadata"]["generation"], 3);
}

#[test]
fn a_pod_status_write_keeps_labels_finalizers_and_owners() {
    let resource = Catalogue::builtin().resource("", "v1", "pods").unwrap();
    let old = json!({"kind": "Pod", "apiVersion": "v1", "spec": {"nodeName": "n"}, "status": {"phase": "Pending"},
        "metadata": {"name": "a", "labels": {"app": "a"}, "finalizers": ["x/y"], "ownerReferences": [{"uid": "u"}]}});
    let mut new = json!({"status": {"phase": "Running"}, "metadata": {"name": "a", "annotations": {"k": "v"},
        "labels": {"app": "b"}, "ownerReferences": [{"uid": "w"}]}});
    resource.prepare_update(&mut new, &old, Some("status"));
    for key in ["labels", "finalizers", "ownerReferences"] {
        assert_eq!(new["metadata"][key], old["metadata"][key], "{key}");
    }
    assert_eq!(new["metadata"]["annotations"]["k"], "v");
    assert_eq!(new["status"]["phase"], "Running");
    // What the old object does not have is not added either.
    let bare = json!({"metadata": {"name": "a"}, "spec": {}, "status": {}});
    let mut new = json!({"metadata": {"name": "a", "labels": {"app": "b"}, "finalizers": ["x/y"]}, "status": {}});
    resource.prepare_update(&mut new, &bare, Some("status"));
    assert!(new["metadata"].get("labels").is_none() && new["metadata"].get("finalizers").is_none());
}

#[test]
fn deletion_is_marked_once_and_only_shortened() {
    let now = "2026-01-02T03:04:05Z".parse().unwrap();
    let mut pod = json!({"metadata": {"name": "a", "generation": 1}});
    assert!(super::mark_deleted(&mut pod, now, 30));
    assert_eq!(pod["metadata"]["deletionTimestamp"], "2026-01-02T03:04:35Z");
    assert_eq!(pod["metadata"]["generation"], 2);
    assert!(!super::mark_deleted(&mut pod, now, 60));
    assert!(super::mark_deleted(&mut pod, now, 5));
    assert_eq!(pod["metadata"]["deletionTimestamp"], "2026-01-02T03:04:10Z");
    assert_eq!(pod["metadata"]["generation"], 2);
}

#[test]
fn a_binding_is_no_new_generation() {
    let resource = Catalogue::builtin().resource("", "v1", "pods").unwrap();
    let old = json!({"kind": "Pod", "apiVersion": "v1", "spec": {}, "metadata": {"name": "a", "generation": 1}});
    let mut bound = json!({"spec": {"nodeName": "n"}, "metadata": {"name": "a"}});
    resource.prepare_update(&mut bound, &old, Some("binding"));
    assert_eq!(bound["metadata"]["generation"], 1);
    let mut changed = json!({"spec": {"activeDeadlineSeconds": 9}, "metadata": {"name": "a"}});
    resource.prepare_update(&mut changed, &old, None);
    assert_eq!(changed["metadata"]["generation"], 2);
}

#[test]
fn pods_tolerate_lost_nodes_for_as_long_as_is_set_unless_they_say_so_themselves() {
    let own = json!({"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": 5});
    let mut pod = json!({"spec": {"tolerations": [own]}});
    super::kinds::tolerate_lost_nodes(&mut pod, 7, 9);
    let not_ready = json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": 7});
    assert_eq!(pod["spec"]["tolerations"], json!([own, not_ready]));
    let mut all = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
    super::kinds::tolerate_lost_nodes(&mut all, 7, 9);
    assert_eq!(all["spec"]["tolerations"].as_array().unwrap().len(), 1);
}

#[test]
fn a_signing_request_says_all_that_is_known_of_who_makes_it() {
    let mut request = json!({"spec": {"request": "x", "username": "forged", "extra": {"forged": ["y"]}}});
    let user = json!({"username": "u", "uid": "i", "groups": ["g"], "extra": {"e": ["v"]}});
    super::storage::sign_request(&mut request, &user);
    let wanted = json!({"request": "x", "username": "u", "uid": "i", "groups": ["g"], "extra": {"e": ["v"]}});
    assert_eq!(request["spec"], wanted);
    super::storage::sign_request(&mut request, &json!({"username": "u", "groups": ["g"]}));
    assert_eq!(request["spec"], json!({"request": "x", "username": "u", "groups": ["g"]}));
}
