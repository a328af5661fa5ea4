//! What the state of a node says about its taints and about the pods on it. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const PREFIX: &str = "node.kubernetes.io/";
/// Conditions that a silent node leaves unknown.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// What a node says, or what is said, about its readiness; empty before anything was said.
pub(super) fn readiness(node: &Node) -> &str {
    value(node, "Ready")
}

/// Whether a node has one of the taints that take pods away from lost nodes.
pub(super) fn is_losing_pods(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let lost = |key: &str| matches!(key.strip_prefix(PREFIX), Some("not-ready" | "unreachable"));
    taints.into_iter().any(|taint| taint.effect == "NoExecute" && lost(&taint.key))
}

fn value<'a>(node: &'a Node, kind: &str) -> &'a str {
    condition(node, kind).map_or("", |condition| condition.status.as_str())
}

/// The node as it is when nothing was heard of it for too long.
pub(super) fn silent(node: &Node, now: Timestamp) -> Node {
    let mut next = node.clone();
    let conditions = next.status.get_or_insert_default().conditions.get_or_insert_default();
    for kind in REPORTED {
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(known) if known.status == "Unknown" => {}
            Some(known) => {
                known.status = "Unknown".to_owned();
                known.reason = Some("NodeStatusUnknown".to_owned());
                known.message = Some("Kubelet stopped posting node status.".to_owned());
                known.last_transition_time = Some(Time(now));
            }
            None => conditions.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    next
}

/// The taints that a node's state asks for, as suffix of the key and effect. Pods are taken away only if `evict`.
fn wanted(node: &Node, evict: bool) -> Vec<(&'static str, &'static str)> {
    let lost = |key| if evict { vec![(key, "NoSchedule"), (key, "NoExecute")] } else { vec![(key, "NoSchedule")] };
    let mut wanted = match readiness(node) {
        "True" => vec![],
        "False" => lost("not-ready"),
        "Unknown" => lost("unreachable"),
        // Nothing was said yet.
        _ => vec![("not-ready", "NoSchedule")],
    };
    let pressures = [
        ("MemoryPressure", "memory-pressure"),
        ("DiskPressure", "disk-pressure"),
        ("PIDPressure", "pid-pressure"),
        ("NetworkUnavailable", "network-unavailable"),
    ];
    wanted.extend(
        pressures.iter().filter(|(kind, _)| value(node, kind) == "True").map(|(_, taint)| (*taint, "NoSchedule")),
    );
    if node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) {
        wanted.push(("unschedulable", "NoSchedule"));
    }
    wanted
}

/// The taints that this controller gives and takes.
const OURS: [&str; 7] = [
    "not-ready",
    "unreachable",
    "memory-pressure",
    "disk-pressure",
    "pid-pressure",
    "network-unavailable",
    "unschedulable",
];

/// The node with the taints that its state asks for; those that take pods away only if `evict`.
pub(super) fn tainted(node: &Node, evict: bool, now: Timestamp) -> Node {
    let wanted = wanted(node, evict);
    let mut next = node.clone();
    let spec = next.spec.get_or_insert_default();
    let taints = spec.taints.get_or_insert_default();
    let is = |taint: &Taint, (key, effect): &(&str, &str)| {
        taint.key.strip_prefix(PREFIX) == Some(*key) && taint.effect == *effect
    };
    taints.retain(|taint| {
        let ours = taint.key.strip_prefix(PREFIX).is_some_and(|key| OURS.contains(&key));
        !ours || wanted.iter().any(|wish| is(taint, wish))
    });
    for wish in &wanted {
        if !taints.iter().any(|taint| is(taint, wish)) {
            taints.push(Taint {
                key: format!("{PREFIX}{}", wish.0),
                effect: wish.1.to_owned(),
                time_added: (wish.1 == "NoExecute").then_some(Time(now)),
                value: None,
            });
        }
    }
    if taints.is_empty() {
        spec.taints = None;
    }
    next
}

/// What a node's taints mean for a pod on it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stay {
    /// It may stay.
    Ever,
    /// It may stay for this time.
    For(Duration),
    /// It has to go.
    Over,
}

/// More seconds than this, added to a time, could overflow.
const LONGEST: i64 = 10 * 365 * 24 * 3600;

/// How long a pod may stay on a node.
pub(super) fn stay(pod: &Pod, node: &Node, now: Timestamp) -> Stay {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or(&[]);
    let mut until: Option<Timestamp> = None;
    for taint in taints.filter(|taint| taint.effect == "NoExecute") {
        let Some(seconds) = tolerated_for(taint, tolerations) else { continue };
        let since = taint.time_added.as_ref().map_or(now, |time| time.0);
        let end = since.checked_add(SignedDuration::from_secs(seconds.min(LONGEST))).unwrap_or(Timestamp::MAX);
        until = Some(until.map_or(end, |known| known.min(end)));
    }
    match until {
        None => Stay::Ever,
        Some(end) if end <= now => Stay::Over,
        Some(end) => {
            let left = end.duration_since(now);
            Stay::For(Duration::try_from(left).unwrap_or_default())
        }
    }
}

/// For how many seconds a taint is tolerated; none for ever.
fn tolerated_for(taint: &Taint, tolerations: &[Toleration]) -> Option<i64> {
    let matching: Vec<&Toleration> = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
    if matching.is_empty() {
        return Some(0);
    }
    matching.iter().filter_map(|toleration| toleration.toleration_seconds).map(|seconds| seconds.max(0)).min()
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let same = |own: Option<&str>, other: &str| own.is_none_or(|own| own.is_empty() || own == other);
    let exists = toleration.operator.as_deref() == Some("Exists");
    let key = toleration.key.as_deref().unwrap_or("");
    let value = toleration.value.as_deref().unwrap_or("") == taint.value.as_deref().unwrap_or("");
    same(toleration.effect.as_deref(), &taint.effect)
        && same(Some(key), &taint.key)
        && (exists || (value && !key.is_empty()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().unwrap()
    }

    fn node(ready: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "spec": {"taints": [{"key": "own", "effect": "NoSchedule"}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    fn taints(node: &Node) -> String {
        let taints = node.spec.as_ref().unwrap().taints.iter().flatten();
        taints.map(|taint| format!("{}:{}", taint.key.replace(PREFIX, ""), taint.effect)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn taints_follow_the_state() {
        assert_eq!(taints(&tainted(&node("True"), true, now())), "own:NoSchedule");
        let down = tainted(&node("False"), true, now());
        assert_eq!(taints(&down), "own:NoSchedule not-ready:NoSchedule not-ready:NoExecute");
        let quiet = tainted(&silent(&down, now()), true, now());
        assert_eq!(taints(&quiet), "own:NoSchedule unreachable:NoSchedule unreachable:NoExecute");
        assert_eq!(tainted(&quiet, true, now() + SignedDuration::from_secs(9)), quiet, "nothing new to write");
        assert!(is_losing_pods(&quiet) && !is_losing_pods(&node("False")));
        let spared = tainted(&quiet, false, now());
        assert_eq!(taints(&spared), "own:NoSchedule unreachable:NoSchedule", "pods may stay, but no new ones come");
        let mut cordoned = node("True");
        cordoned.spec.as_mut().unwrap().unschedulable = Some(true);
        assert_eq!(taints(&tainted(&cordoned, true, now())), "own:NoSchedule unschedulable:NoSchedule");
    }

    #[test]
    fn a_silent_node_is_unknown_in_everything_it_reports() {
        let quiet = silent(&node("True"), now());
        let ready = condition(&quiet, "Ready").unwrap();
        assert_eq!((&*ready.status, ready.reason.as_deref()), ("Unknown", Some("NodeStatusUnknown")));
        let pressure = condition(&quiet, "DiskPressure").unwrap();
        assert_eq!(pressure.reason.as_deref(), Some("NodeStatusNeverUpdated"));
        assert_eq!(silent(&quiet, now() + SignedDuration::from_secs(9)), quiet);
    }

    #[test]
    fn pods_stay_as_long_as_they_tolerate() {
        let gone = silent(&node("True"), now());
        let node = tainted(&gone, true, now());
        let pod = |tolerations| -> Pod {
            serde_json::from_value(json!({"spec": {"containers": [], "tolerations": tolerations}})).unwrap()
        };
        let key = "node.kubernetes.io/unreachable";
        let at = |seconds| now() + SignedDuration::from_secs(seconds);
        let short = pod(json!([{"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}]));
        assert_eq!(stay(&short, &node, at(10)), Stay::For(Duration::from_secs(20)));
        assert_eq!(stay(&short, &node, at(30)), Stay::Over);
        let long = json!([{"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": i64::MAX}]);
        assert!(matches!(stay(&pod(long), &node, at(30)), Stay::For(_)));
        assert_eq!(stay(&pod(json!([{"operator": "Exists"}])), &node, at(9999)), Stay::Ever);
        assert_eq!(stay(&pod(json!([])), &node, at(0)), Stay::Over, "admission gives pods their tolerations");
    }
}
