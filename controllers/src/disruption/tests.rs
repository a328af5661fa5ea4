//! The numbers of a budget.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use super::plan::{Wanted, asks_scale, disrupted, failed, healthy, status, wanted};
use super::{selector, selects};

fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
    let metadata = json!({"name": "b", "namespace": "d", "generation": 3});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
}

fn pod(name: &str, ready: &str, deleted: bool) -> Arc<Pod> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "d", "labels": {"a": "b"},
                         "deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z")},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap(),
    )
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + seconds).unwrap()
}

#[test]
fn what_is_wanted() {
    let cases = [
        (json!({"minAvailable": 2}), false, 5, 9, Some((5, 2))),
        (json!({"minAvailable": "50%"}), true, 5, 9, Some((9, 5))),
        (json!({"minAvailable": "100%"}), true, 5, 9, Some((9, 9))),
        (json!({"maxUnavailable": 1}), true, 5, 9, Some((9, 8))),
        (json!({"maxUnavailable": "30%"}), true, 5, 10, Some((10, 7))),
        (json!({"maxUnavailable": "25%"}), true, 5, 10, Some((10, 7))),
        (json!({"maxUnavailable": 20}), true, 5, 10, Some((10, 0))),
        (json!({"maxUnavailable": "x"}), true, 5, 10, None),
        (json!({}), false, 5, 10, Some((0, 0))),
    ];
    for (spec, scale, pods, wants, want) in cases {
        let budget = budget(spec.clone(), Value::Null);
        let given = budget.spec.as_ref().unwrap();
        assert_eq!(asks_scale(given), scale, "{spec}");
        let got = wanted(given, pods, wants).ok();
        assert_eq!(got, want.map(|(expected, healthy)| Wanted { expected, healthy }), "{spec}");
    }
}

#[test]
fn granted_evictions_do_not_count_as_healthy_until_they_are_given_up() {
    let pods = [pod("a", "True", false), pod("b", "True", true), pod("c", "False", false), pod("d", "True", false)];
    let times = json!({"a": "2026-01-01T00:00:00Z", "b": "2026-01-01T00:00:00Z", "gone": "2026-01-01T00:00:00Z"});
    let budget = budget(json!({"minAvailable": 1}), json!({"disruptedPods": times}));
    let now = disrupted(&budget, &pods, at(30));
    assert_eq!(now.pods.keys().collect::<Vec<_>>(), ["a"], "b is being deleted, the other is gone");
    assert_eq!((now.next, healthy(&pods, &now)), (Some(Duration::from_secs(90)), 1));
    let later = disrupted(&budget, &pods, at(120));
    assert_eq!((later.overdue.as_slice(), later.next, healthy(&pods, &later)), (&["a".to_owned()][..], None, 2));
}

#[test]
fn conditions_tell_whether_something_may_go() {
    let empty = budget(json!({}), Value::Null);
    let made = |budget: &PodDisruptionBudget, expected, wants, healthy, seconds| {
        status(budget, Wanted { expected, healthy: wants }, healthy, BTreeMap::new(), at(seconds))
    };
    let two = made(&empty, 3, 1, 3, 0);
    assert_eq!((two.disruptions_allowed, two.observed_generation), (Some(2), Some(3)));
    assert_eq!(two.conditions.as_ref().unwrap()[0].reason, "SufficientPods");
    let before = PodDisruptionBudget { status: Some(two.clone()), ..empty.clone() };
    let one = made(&before, 3, 2, 3, 60);
    assert_eq!(one.conditions, two.conditions, "the time stays while the state does");
    let none = made(&before, 3, 3, 3, 60);
    let condition = &none.conditions.as_ref().unwrap()[0];
    assert_eq!((none.disruptions_allowed, condition.reason.as_str()), (Some(0), "InsufficientPods"));
    assert_eq!((condition.status.as_str(), condition.last_transition_time.0), ("False", at(60)));
    assert_eq!(made(&empty, 0, 0, 3, 0).disruptions_allowed, Some(0), "nothing is expected");
    assert_eq!(made(&empty, 3, 5, 3, 0).disruptions_allowed, Some(0));
    let broken = failed(&before, "why", at(90));
    let condition = &broken.conditions.as_ref().unwrap()[0];
    assert_eq!((condition.reason.as_str(), condition.message.as_str()), ("SyncFailed", "why"));
    assert_eq!((broken.disruptions_allowed, broken.expected_pods), (Some(0), Some(3)));
}

#[test]
fn an_empty_selector_selects_everything_and_none_nothing() {
    let of = |spec: Value| selects(&budget(spec, Value::Null), &pod("p", "True", false));
    assert!(of(json!({"selector": {}})) && of(json!({"selector": {"matchLabels": {"a": "b"}}})));
    assert!(!of(json!({})) && !of(json!({"selector": {"matchLabels": {"a": "c"}}})));
    let bad = json!({"selector": {"matchExpressions": [{"key": "a", "operator": "Nonsense"}]}});
    assert!(selector(&budget(bad, Value::Null)).is_err());
}
