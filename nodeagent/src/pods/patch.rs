//! What is sent to the API to make the object's status what the agent says it is. Pure.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};

/// The object's revision; 0 when it has none.
pub(crate) fn revision(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// A condition that did not change keeps its time, also if the object at hand does not show the last write yet.
pub(crate) fn keep_times(new: &mut PodStatus, old: &PodStatus) {
    for condition in new.conditions.iter_mut().flatten() {
        let before =
            old.conditions.iter().flatten().find(|c| c.type_ == condition.type_ && c.status == condition.status);
        if let Some(before) = before {
            condition.last_transition_time.clone_from(&before.last_transition_time);
        }
    }
}

/// The strategic merge patch that makes the status of the object the given one, whatever it was before.
pub(crate) fn patch(uid: &str, new: &PodStatus, old: Option<&PodStatus>) -> Value {
    let mut status = serde_json::to_value(new).unwrap_or_default();
    // Addresses are merged by their value: a changed one would stand beside the old. Where there was no list, there is
    // nothing to replace.
    let ips = |status: &PodStatus| status.pod_ips.as_ref().map(|ips| ips.iter().map(|ip| ip.ip.clone()).collect());
    let before: Option<Vec<String>> = old.and_then(ips);
    if before.is_some_and(|list| !list.is_empty() && Some(list) != ips(new))
        && let Some(list) = status.get_mut("podIPs").and_then(Value::as_array_mut)
    {
        list.insert(0, json!({"$patch": "replace"}));
    }
    // Conditions have several writers and are merged, so what no longer holds has to be taken away by name.
    for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        absent_is_null(condition, &["reason", "message"]);
    }
    let gone = |old: Option<&String>, new: Option<&String>| old.is_some() && new.is_none();
    let old = old.cloned().unwrap_or_default();
    for (field, is_gone) in [
        ("reason", gone(old.reason.as_ref(), new.reason.as_ref())),
        ("message", gone(old.message.as_ref(), new.message.as_ref())),
        ("podIP", gone(old.pod_ip.as_ref(), new.pod_ip.as_ref())),
        ("podIPs", old.pod_ips.is_some() && new.pod_ips.is_none()),
    ] {
        if is_gone {
            status[field] = Value::Null;
        }
    }
    json!({"metadata": {"uid": uid}, "status": status})
}

/// Says in a patch that fields which the value does not have are to be gone.
fn absent_is_null(value: &mut Value, fields: &[&str]) {
    for field in fields {
        if value.get(field).is_none() {
            value[*field] = Value::Null;
        }
    }
}

/// Whether somebody else has changed a condition that the agent keeps, as the node lifecycle controller does when it
/// takes the node for dead.
pub(crate) fn overruled(seen: Option<&PodStatus>, written: &PodStatus) -> bool {
    let seen = seen.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    written
        .conditions
        .iter()
        .flatten()
        .any(|own| !seen.iter().any(|condition| condition.type_ == own.type_ && condition.status == own.status))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_no_longer_holds_is_taken_away() {
        let old = status(json!({"reason": "Evicted", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}));
        let new = status(json!({
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "a", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {}}, "lastState": {}}],
            "podIPs": [{"ip": "10.0.0.2"}],
            "podIP": "10.0.0.2",
        }));
        let patch = patch("u", &new, Some(&old));
        let sent = &patch["status"];
        assert_eq!(patch["metadata"]["uid"], "u");
        assert_eq!(sent["conditions"][0]["reason"], Value::Null);
        assert!(sent["conditions"][0].as_object().unwrap().contains_key("message"));
        // Containers' statuses are an atomic list, which is replaced without being told so.
        assert_eq!(sent["containerStatuses"].as_array().map(Vec::len), Some(1));
        assert!(sent.as_object().unwrap().contains_key("reason"));
        assert_eq!(sent["podIPs"], json!([{"$patch": "replace"}, {"ip": "10.0.0.2"}]));
        assert_eq!(sent["podIP"], "10.0.0.2");
    }

    #[test]
    fn a_first_status_carries_no_directives() {
        let new = status(json!({"podIPs": [{"ip": "10.0.0.2"}]}));
        assert_eq!(patch("u", &new, None)["status"], json!({"podIPs": [{"ip": "10.0.0.2"}]}));
    }

    #[test]
    fn a_condition_that_another_writer_changed_is_seen() {
        let own = status(json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        let same = json!({"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]});
        assert!(!overruled(Some(&status(same)), &own));
        let other = json!({"conditions": [{"type": "Ready", "status": "False"}]});
        assert!(overruled(Some(&status(other)), &own));
        assert!(overruled(None, &own));
    }
}
