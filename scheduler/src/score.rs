//! Which of the possible nodes is best: each rule gives 0 to 100, weighted as upstream.

use k8s_openapi::api::core::v1::{Node, PreferredSchedulingTerm};

use crate::filter::{matches_term, tolerates};
use crate::state::{Cluster, NodeInfo, PodInfo, selects};

const FULL: i64 = 100;

/// The possible nodes with their scores, in the order given.
pub(crate) fn score(pod: &PodInfo, cluster: &Cluster, nodes: &[&str]) -> Vec<i64> {
    let infos: Vec<&NodeInfo> = nodes.iter().filter_map(|name| cluster.nodes.get(*name)).collect();
    let selectors = cluster.selectors_of(pod);
    let alike = |other: &PodInfo| {
        let same_controller = pod.controller.is_some() && pod.controller == other.controller;
        let same_service = || selectors.iter().any(|selector| selects(selector, &other.pod));
        other.key.namespace == pod.key.namespace && (same_controller || same_service())
    };
    let crowd: Vec<i64> =
        infos.iter().map(|info| info.pods.values().filter(|other| alike(other)).count() as i64).collect();
    let bothered: Vec<i64> = infos.iter().map(|info| soft_taints(pod, info)).collect();
    let preferred: Vec<i64> = infos.iter().map(|info| preference(pod, info)).collect();
    let (crowd, bothered) = (fewer_is_better(&crowd), fewer_is_better(&bothered));
    let preferred = more_is_better(&preferred);
    infos
        .iter()
        .enumerate()
        .map(|(i, info)| {
            least_allocated(pod, info) + balanced(pod, info) + 2 * crowd[i] + 3 * bothered[i] + 2 * preferred[i]
        })
        .collect()
}

fn fewer_is_better(counts: &[i64]) -> Vec<i64> {
    let most = counts.iter().copied().max().unwrap_or(0);
    counts.iter().map(|count| if most == 0 { FULL } else { FULL * (most - count) / most }).collect()
}

fn more_is_better(counts: &[i64]) -> Vec<i64> {
    let most = counts.iter().copied().max().unwrap_or(0);
    counts.iter().map(|count| if most == 0 { 0 } else { FULL * count / most }).collect()
}

/// How much of cpu and memory would be left, on average.
fn least_allocated(pod: &PodInfo, info: &NodeInfo) -> i64 {
    let left = |name: &str| {
        let have = info.allocatable.get(name);
        let used = info.scored.get(name) + pod.scored.get(name);
        if have <= 0 || used > have {
            0
        } else {
            i64::try_from(FULL as i128 * i128::from(have - used) / i128::from(have)).unwrap_or(0)
        }
    };
    (left("cpu") + left("memory")) / 2
}

/// How evenly cpu and memory would be used.
fn balanced(pod: &PodInfo, info: &NodeInfo) -> i64 {
    let fraction = |name: &str| {
        let have = info.allocatable.get(name) as f64;
        let used = (info.requested.get(name) + pod.requests.get(name)) as f64;
        if have <= 0.0 { 1.0 } else { (used / have).min(1.0) }
    };
    let deviation = (fraction("cpu") - fraction("memory")).abs() / 2.0;
    ((1.0 - deviation) * FULL as f64) as i64
}

/// How many taints there are that ask the pod to stay away.
fn soft_taints(pod: &PodInfo, info: &NodeInfo) -> i64 {
    let node = info.node.as_ref().and_then(|node| node.spec.as_ref());
    let taints = node.and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
    let tolerations = pod.pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or(&[]);
    let soft = taints.filter(|taint| taint.effect == "PreferNoSchedule");
    soft.filter(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint))).count() as i64
}

/// The weight of the pod's preferences that the node meets.
fn preference(pod: &PodInfo, info: &NodeInfo) -> i64 {
    let affinity = pod.pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let affinity = affinity.and_then(|affinity| affinity.node_affinity.as_ref());
    let terms = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    let met = |term: &&PreferredSchedulingTerm, node: &Node| matches_term(&term.preference, node);
    let Some(node) = &info.node else { return 0 };
    terms.into_iter().flatten().filter(|term| met(term, node)).map(|term| i64::from(term.weight)).sum()
}
