//! Revisions and the annotations that carry them.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::view::{desired, max_surge};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
const HISTORY_LENGTH: usize = 2000;

/// Annotations of a deployment that its replica sets do not get.
const NOT_COPIED: [&str; 6] = [LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS, ROLLBACK_TO];

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The revision of an object, zero if it has none.
pub(super) fn revision(meta: &ObjectMeta) -> i64 {
    annotation(meta, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// What the deployment asked for when it last scaled the set.
pub(super) fn desired_annotation(set: &ReplicaSet) -> Option<i32> {
    annotation(&set.metadata, DESIRED_REPLICAS)?.parse().ok()
}

/// How many pods the deployment could have had when it last scaled the set.
pub(super) fn max_annotation(set: &ReplicaSet) -> Option<i32> {
    annotation(&set.metadata, MAX_REPLICAS)?.parse().ok()
}

fn put(annotations: &mut BTreeMap<String, String>, key: &str, value: String) -> bool {
    annotations.insert(key.to_owned(), value.clone()) != Some(value)
}

/// Notes on a set what the deployment asks for. Tells whether that is news.
pub(super) fn note_replicas(set: &mut ReplicaSet, deployment: &Deployment) -> bool {
    let annotations = set.metadata.annotations.get_or_insert_default();
    let replicas = desired(deployment);
    let first = put(annotations, DESIRED_REPLICAS, replicas.to_string());
    let second = put(annotations, MAX_REPLICAS, (replicas + max_surge(deployment)).to_string());
    first || second
}

/// Gives the set of the present template its annotations: the deployment's own, and the revision.
pub(super) fn note_revision(set: &mut ReplicaSet, deployment: &Deployment, newest: i64, exists: bool) {
    let before = annotation(&set.metadata, REVISION).map(str::to_owned);
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let old: i64 = before.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
    let raised = old < newest;
    if raised {
        annotations.insert(REVISION.to_owned(), newest.to_string());
    }
    if !exists {
        note_replicas(set, deployment);
    } else if raised && let Some(before) = before.filter(|before| !before.is_empty()) {
        remember(annotations, &before);
    }
}

/// An old template came back: its former revision goes into the set's history.
fn remember(annotations: &mut BTreeMap<String, String>, before: &str) {
    let history = annotations.get(REVISION_HISTORY).filter(|history| !history.is_empty());
    let Some(history) = history else {
        annotations.insert(REVISION_HISTORY.to_owned(), before.to_owned());
        return;
    };
    let mut entries: Vec<&str> = history.split(',').collect();
    entries.push(before);
    while entries.len() > 1 && entries.iter().map(|entry| entry.len() + 1).sum::<usize>() > HISTORY_LENGTH {
        entries.remove(0);
    }
    let history = entries.join(",");
    annotations.insert(REVISION_HISTORY.to_owned(), history);
}
