//! What a replica set or replication controller has to do about its pods. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::core::{Selector, SelectorExt};
use trireme_client::informer::ObjectKey;

use super::ranking::rank_for_deletion;
use crate::pods;

/// What both kinds have in common.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    pub(crate) key: ObjectKey,
    pub(crate) uid: String,
    pub(crate) api_version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) generation: i64,
    pub(crate) deleting: bool,
    pub(crate) desired: usize,
    pub(crate) min_ready_seconds: i32,
    pub(crate) selector: Selector,
    pub(crate) template: PodTemplateSpec,
    /// Whether the kind tells of pods on their way out.
    pub(crate) tells_terminating: bool,
    pub(crate) status: Status,
}

/// The status both kinds report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) replicas: i32,
    pub(crate) fully_labeled: i32,
    pub(crate) ready: i32,
    pub(crate) available: i32,
    /// Pods on their way out, for kinds that tell of them.
    pub(crate) terminating: Option<i32>,
    pub(crate) observed_generation: i64,
    pub(crate) failure: Option<Failure>,
}

/// The `ReplicaFailure` condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) since: Timestamp,
}

/// What to do about the pods.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Pods without a controller that match: to be owned, after a live check that the owner still exists.
    pub(crate) adopt: Vec<Arc<Pod>>,
    /// Pods that do not match any more: to be let go.
    pub(crate) release: Vec<Arc<Pod>>,
    /// How many to create.
    pub(crate) create: usize,
    /// Which to delete.
    pub(crate) delete: Vec<Arc<Pod>>,
    /// All that count as replicas, those to be adopted included.
    pub(crate) replicas: Vec<Arc<Pod>>,
    /// How many of its pods are on their way out.
    pub(crate) terminating: usize,
}

/// The most pods created or deleted in one go.
const BURST: usize = 500;

/// Compares an owner with the pods of its namespace. `related` are the pods of everything that the owner's own
/// controller owns: they tell how crowded a node is.
pub(crate) fn plan(owner: &Owner, in_namespace: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Plan {
    let ends = |pod: &&Arc<Pod>| !pods::is_terminal(pod) && pod.metadata.deletion_timestamp.is_some();
    let own = |pod: &&Arc<Pod>| pods::controller_of(&pod.metadata).is_some_and(|reference| reference.uid == owner.uid);
    let matches = |pod: &&Arc<Pod>| owner.selector.matches(pods::labels(&pod.metadata));
    let terminating = in_namespace.iter().filter(ends).filter(own).filter(matches).count();
    let mut plan = Plan { terminating, ..Plan::default() };
    for pod in in_namespace.iter().filter(|pod| pods::is_active(pod)) {
        let matches = owner.selector.matches(pods::labels(&pod.metadata));
        match pods::controller_of(&pod.metadata) {
            Some(reference) if reference.uid == owner.uid => {
                if matches {
                    plan.replicas.push(pod.clone());
                } else if !owner.deleting {
                    plan.release.push(pod.clone());
                }
            }
            None if matches && !owner.deleting => {
                plan.adopt.push(pod.clone());
                plan.replicas.push(pod.clone());
            }
            _ => {}
        }
    }
    if owner.deleting {
        return plan;
    }
    let have = plan.replicas.len();
    if have < owner.desired {
        plan.create = (owner.desired - have).min(BURST);
    } else {
        let surplus = (have - owner.desired).min(BURST);
        plan.delete = rank_for_deletion(&plan.replicas, related, now).into_iter().take(surplus).collect();
    }
    plan
}

/// How a round of creating or deleting failed, for the `ReplicaFailure` condition.
pub(crate) struct RoundError {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// The status that follows from the replicas and from how the round went.
pub(crate) fn status(
    owner: &Owner,
    replicas: &[Arc<Pod>],
    terminating: usize,
    error: Option<&RoundError>,
    now: Timestamp,
) -> Status {
    let template = owner.template.metadata.as_ref().map(pods::labels);
    let empty = BTreeMap::new();
    let template = template.unwrap_or(&empty);
    let labelled = |pod: &Pod| {
        let labels = pods::labels(&pod.metadata);
        template.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    let available = |pod: &Pod| pods::available_in(pod, owner.min_ready_seconds, now) == Some(Duration::ZERO);
    let count = |test: &dyn Fn(&Pod) -> bool| replicas.iter().filter(|pod| test(pod)).count() as i32;
    let failure = match (error, &owner.status.failure) {
        (Some(_), Some(known)) => Some(known.clone()),
        (Some(error), None) => {
            Some(Failure { reason: error.reason.to_owned(), message: error.message.clone(), since: now })
        }
        (None, _) => None,
    };
    Status {
        replicas: replicas.len() as i32,
        fully_labeled: count(&labelled),
        ready: count(&pods::is_ready),
        available: count(&available),
        terminating: owner.tells_terminating.then_some(terminating as i32),
        observed_generation: owner.generation,
        failure,
    }
}

/// When to look again because a ready pod will have become available only by the passing of time.
pub(crate) fn next_look(owner: &Owner, replicas: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let waits = replicas.iter().filter_map(|pod| pods::available_in(pod, owner.min_ready_seconds, now));
    waits.filter(|wait| !wait.is_zero()).min()
}
