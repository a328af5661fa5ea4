//! How far a rollout is, from the object alone.

use serde_json::Value;

/// The state of a rollout with the line that says so.
#[derive(Debug, PartialEq)]
pub enum Progress {
    /// Still at it.
    Waiting(String),
    /// Complete.
    Done(String),
    /// It will not complete by itself.
    Failed(String),
}

/// Reads a workload's status.
pub fn progress(object: &Value) -> Progress {
    match object["kind"].as_str().unwrap_or_default() {
        "Deployment" => deployment(object),
        "DaemonSet" => daemon_set(object),
        "StatefulSet" => stateful_set(object),
        kind => {
            let version = object["apiVersion"].as_str().unwrap_or_default();
            let group = version.split_once('/').map(|(group, _)| format!(".{group}")).unwrap_or_default();
            Progress::Failed(format!("no status viewer has been implemented for {kind}{group}"))
        }
    }
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn unobserved(object: &Value) -> bool {
    number(&object["status"]["observedGeneration"]) < number(&object["metadata"]["generation"])
}

fn deployment(object: &Value) -> Progress {
    let (spec, status) = (&object["spec"], &object["status"]);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if unobserved(object) {
        return Progress::Waiting("Waiting for deployment spec update to be observed...".to_owned());
    }
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    if conditions
        .any(|condition| condition["type"] == "Progressing" && condition["reason"] == "ProgressDeadlineExceeded")
    {
        return Progress::Failed(format!("deployment {name:?} exceeded its progress deadline"));
    }
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let (all, updated) = (number(&status["replicas"]), number(&status["updatedReplicas"]));
    let available = number(&status["availableReplicas"]);
    let waiting =
        |rest: String| Progress::Waiting(format!("Waiting for deployment {name:?} rollout to finish: {rest}..."));
    if updated < wanted {
        waiting(format!("{updated} out of {wanted} new replicas have been updated"))
    } else if all > updated {
        waiting(format!("{} old replicas are pending termination", all - updated))
    } else if available < updated {
        waiting(format!("{available} of {updated} updated replicas are available"))
    } else {
        Progress::Done(format!("deployment {name:?} successfully rolled out"))
    }
}

fn daemon_set(object: &Value) -> Progress {
    let status = &object["status"];
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if unobserved(object) {
        return Progress::Waiting("Waiting for daemon set spec update to be observed...".to_owned());
    }
    let wanted = number(&status["desiredNumberScheduled"]);
    let (updated, available) = (number(&status["updatedNumberScheduled"]), number(&status["numberAvailable"]));
    let waiting =
        |rest: String| Progress::Waiting(format!("Waiting for daemon set {name:?} rollout to finish: {rest}..."));
    if updated < wanted {
        waiting(format!("{updated} out of {wanted} new pods have been updated"))
    } else if available < wanted {
        waiting(format!("{available} of {wanted} updated pods are available"))
    } else {
        Progress::Done(format!("daemon set {name:?} successfully rolled out"))
    }
}

fn stateful_set(object: &Value) -> Progress {
    let (spec, status) = (&object["spec"], &object["status"]);
    if unobserved(object) {
        return Progress::Waiting("Waiting for statefulset spec update to be observed...".to_owned());
    }
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let (ready, updated) = (number(&status["readyReplicas"]), number(&status["updatedReplicas"]));
    if ready < wanted {
        Progress::Waiting(format!("Waiting for {} pods to be ready...", wanted - ready))
    } else if status["updateRevision"] != status["currentRevision"] && updated < wanted {
        Progress::Waiting(format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision {}...",
            status["updateRevision"].as_str().unwrap_or_default()
        ))
    } else {
        let revision = status["currentRevision"].as_str().unwrap_or_default();
        Progress::Done(format!(
            "statefulset rolling update complete {} pods at revision {revision}...",
            number(&status["currentReplicas"])
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(replicas: i64, updated: i64, all: i64, available: i64) -> Progress {
        progress(
            &json!({"kind": "Deployment", "metadata": {"name": "web", "generation": 2}, "spec": {"replicas": replicas},
            "status": {"observedGeneration": 2, "replicas": all, "updatedReplicas": updated, "availableReplicas": available}}),
        )
    }

    #[test]
    fn deployments_go_through_all_stages() {
        let waiting =
            |text: &str| Progress::Waiting(format!("Waiting for deployment \"web\" rollout to finish: {text}..."));
        assert_eq!(of(3, 1, 3, 3), waiting("1 out of 3 new replicas have been updated"));
        assert_eq!(of(3, 3, 4, 3), waiting("1 old replicas are pending termination"));
        assert_eq!(of(3, 3, 3, 2), waiting("2 of 3 updated replicas are available"));
        assert_eq!(of(3, 3, 3, 3), Progress::Done("deployment \"web\" successfully rolled out".to_owned()));
        let stale = json!({"kind": "Deployment", "metadata": {"generation": 2}, "status": {"observedGeneration": 1}});
        assert!(matches!(progress(&stale), Progress::Waiting(_)));
        assert!(matches!(progress(&json!({"kind": "Pod"})), Progress::Failed(_)));
    }
}
