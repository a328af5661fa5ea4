//! Scenarios for planning the pods of a replica set, one line each.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::ReplicaKind;
use super::plan::{Owner, RoundError, next_look, plan, status};
use super::ranking::rank_for_deletion;
use crate::pods;

fn now() -> Timestamp {
    "2026-01-02T00:00:00Z".parse().unwrap()
}

fn ago(seconds: i64) -> String {
    (now() - SignedDuration::from_secs(seconds)).to_string()
}

fn set(replicas: i32, extra: &str) -> ReplicaSet {
    let deleting = extra.contains("deleting").then(|| ago(1));
    let min_ready = if extra.contains("minready") { 10 } else { 0 };
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "rs", "generation": 3, "deletionTimestamp": deleting},
        "spec": {"replicas": replicas, "minReadySeconds": min_ready, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web", "tier": "x"}}, "spec": {"containers": []}}},
    }))
    .unwrap()
}

fn owner(replicas: i32, extra: &str) -> Owner {
    set(replicas, extra).owner().unwrap()
}

/// A pod out of words: `name`, then any of `owner=UID`, `app=X`, `node=N`, `phase=P`, `ready=SECONDS_AGO`,
/// `age=SECONDS`, `restarts=N`, `cost=N`, `deleting`.
fn pod(line: &str) -> Arc<Pod> {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap();
    let mut facts: BTreeMap<&str, &str> = words.map(|word| word.split_once('=').unwrap_or((word, ""))).collect();
    let owners = match facts.remove("owner") {
        Some("none") => json!([]),
        uid => json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": uid.unwrap_or("rs"),
            "controller": true}]),
    };
    let ready = facts.get("ready").map(
        |seconds| json!([{"type": "Ready", "status": "True", "lastTransitionTime": ago(seconds.parse().unwrap())}]),
    );
    let age = facts.get("age").map_or(1000, |age| age.parse().unwrap());
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "ownerReferences": owners,
                "creationTimestamp": ago(age), "deletionTimestamp": facts.get("deleting").map(|_| ago(1)),
                "annotations": facts.get("cost").map(|cost| json!({"controller.kubernetes.io/pod-deletion-cost": cost})),
                "labels": {"app": facts.get("app").unwrap_or(&"web"), "tier": facts.get("tier").unwrap_or(&"x")}},
            "spec": {"containers": [], "nodeName": facts.get("node").unwrap_or(&"n1")},
            "status": {"phase": facts.get("phase").unwrap_or(&"Running"), "conditions": ready,
                "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true,
                    "restartCount": facts.get("restarts").map_or(0, |n| n.parse::<i32>().unwrap())}]},
        }))
        .unwrap(),
    )
}

fn pods_of(lines: &[&str]) -> Vec<Arc<Pod>> {
    lines.iter().map(|line| pod(line)).collect()
}

fn show(pods: &[Arc<Pod>]) -> String {
    pods.iter().map(|pod| pods::name(&pod.metadata)).collect::<Vec<_>>().join(",")
}

#[test]
fn plans() {
    // replicas, what is special, pods -> create, delete, adopt, release
    let cases: [(i32, &str, &[&str], &str); 13] = [
        (3, "", &[], "create 3 delete  adopt  release "),
        (3, "", &["a ready=60", "b"], "create 1 delete  adopt  release "),
        (2, "", &["a ready=60", "b ready=50"], "create 0 delete  adopt  release "),
        (1, "", &["a ready=60", "b"], "create 0 delete b adopt  release "),
        (0, "", &["a ready=60"], "create 0 delete a adopt  release "),
        (1, "", &["a deleting"], "create 1 delete  adopt  release "),
        (1, "", &["a phase=Failed", "b phase=Succeeded"], "create 1 delete  adopt  release "),
        (1, "", &["a owner=none"], "create 0 delete  adopt a release "),
        (1, "", &["a owner=other"], "create 1 delete  adopt  release "),
        (1, "", &["a app=db", "b app=db owner=none"], "create 1 delete  adopt  release a"),
        (1, "", &["a", "b owner=none phase=Pending node="], "create 0 delete b adopt b release "),
        (5, "deleting", &["a", "b owner=none", "c app=db"], "create 0 delete  adopt  release "),
        (900, "", &[], "create 500 delete  adopt  release "),
    ];
    for (replicas, extra, lines, want) in cases {
        let all = pods_of(lines);
        let plan = plan(&owner(replicas, extra), &all, &all, now());
        let (delete, adopt, release) = (show(&plan.delete), show(&plan.adopt), show(&plan.release));
        let got = format!("create {} delete {delete} adopt {adopt} release {release}", plan.create);
        assert_eq!(got, want, "{replicas} {extra} {lines:?}");
    }
}

#[test]
fn ranks_as_upstream() {
    let order = |lines: &[&str]| {
        let all = pods_of(lines);
        show(&rank_for_deletion(&all, &all, now()))
    };
    assert_eq!(order(&["bound", "unbound node="]), "unbound,bound");
    assert_eq!(order(&["running", "unknown phase=Unknown", "pending phase=Pending"]), "pending,unknown,running");
    assert_eq!(order(&["ready ready=9", "unready"]), "unready,ready");
    assert_eq!(order(&["dear cost=10 ready=9", "cheap cost=-5 ready=900"]), "cheap,dear");
    assert_eq!(order(&["a node=n1 ready=9", "b node=n2 ready=9", "c node=n2 ready=9"]), "b,c,a");
    assert_eq!(order(&["old ready=8000", "young ready=5"]), "young,old");
    assert_eq!(order(&["calm age=9", "restarted restarts=4 age=9"]), "restarted,calm");
    assert_eq!(order(&["old age=8000", "young age=5"]), "young,old");
    assert_eq!(order(&["b ready=1000", "a ready=1001"]), "a,b", "about the same age: by uid");
}

#[test]
fn counts_for_the_status() {
    let owner = owner(4, "minready");
    let all = pods_of(&["a ready=60", "b ready=3", "c", "d tier=y ready=60"]);
    let status = status(&owner, &all, 2, None, now());
    let got = (status.replicas, status.fully_labeled, status.ready, status.available, status.observed_generation);
    assert_eq!(got, (4, 3, 3, 2, 3));
    assert_eq!(status.terminating, Some(2));
    let own = plan(&owner, &pods_of(&["a", "b deleting", "c deleting phase=Failed", "d deleting owner=x"]), &[], now());
    assert_eq!(own.terminating, 1);
    assert_eq!(next_look(&owner, &all, now()), Some(Duration::from_secs(7)));
    let available = pods_of(&["a ready=60"]);
    assert_eq!(next_look(&owner, &available, now()), None);
}

#[test]
fn a_failed_round_sets_the_condition_and_a_good_one_clears_it() {
    let object = set(1, "");
    let owner = object.owner().unwrap();
    let error = RoundError { reason: "FailedCreate", message: "quota".to_owned() };
    let failed = object.with_status(&status(&owner, &[], 0, Some(&error), now()));
    let conditions = failed.status.as_ref().unwrap().conditions.clone().unwrap();
    assert_eq!((&*conditions[0].type_, conditions[0].reason.as_deref()), ("ReplicaFailure", Some("FailedCreate")));
    let owner = failed.owner().unwrap();
    let again = status(&owner, &[], 0, Some(&error), now() + SignedDuration::from_secs(5));
    assert_eq!(again, owner.status, "still failing: nothing new to write");
    let good = failed.with_status(&status(&owner, &[], 0, None, now()));
    assert_eq!(good.status.unwrap().conditions, None);
}
