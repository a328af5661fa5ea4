//! Which replicas go first when there are too many: upstream's order.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::pods;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The replicas in the order in which they should be deleted.
pub(crate) fn rank_for_deletion(replicas: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Vec<Arc<Pod>> {
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pods::is_active(pod)) {
        *crowd.entry(pods::node_of(pod).unwrap_or("")).or_default() += 1;
    }
    let crowded = |pod: &Pod| crowd.get(pods::node_of(pod).unwrap_or("")).copied().unwrap_or(0);
    let mut order = replicas.to_vec();
    order.sort_by(|a, b| {
        let nodes = crowded(b).cmp(&crowded(a));
        compare(a, b, nodes, now)
    });
    order
}

fn compare(a: &Pod, b: &Pod, by_crowd: Ordering, now: Timestamp) -> Ordering {
    pods::node_of(a)
        .is_some()
        .cmp(&pods::node_of(b).is_some())
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| pods::is_ready(a).cmp(&pods::is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then(by_crowd)
        .then_with(|| younger_first(a, b, pods::ready_since(a), pods::ready_since(b), now))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| {
            let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            younger_first(a, b, created(a), created(b), now)
        })
}

fn phase_rank(pod: &Pod) -> u8 {
    match pods::phase(pod) {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(DELETION_COST)).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0)
}

/// The younger first, but ages are compared by their logarithm and ties broken by uid, so that pods of about the
/// same age go in no particular order.
fn younger_first(a: &Pod, b: &Pod, at: Option<Timestamp>, bt: Option<Timestamp>, now: Timestamp) -> Ordering {
    match (at, bt) {
        (Some(at), Some(bt)) if at != bt => {
            magnitude(at, now).cmp(&magnitude(bt, now)).then_with(|| pods::uid(&a.metadata).cmp(pods::uid(&b.metadata)))
        }
        _ => Ordering::Equal,
    }
}

fn magnitude(at: Timestamp, now: Timestamp) -> i64 {
    let nanos = now.duration_since(at).as_nanos();
    if nanos > 0 { i64::from(nanos.ilog2()) } else { -1 }
}
