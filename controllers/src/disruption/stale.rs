//! Pods that say that they are being disrupted, while nobody has deleted them: the condition is taken back.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use trireme_client::informer::ObjectKey;

use super::plan::left;
use crate::pods;
use crate::runtime::{Context, Next, Part, ReconcileError, Reconciler, Runner, Writer};

const TARGET: &str = "DisruptionTarget";

struct Stale {
    context: Context,
}

pub(super) async fn run(context: Context) {
    let informers = context.informers.clone();
    let all = informers.pods.clone();
    let all = move || keys(&all.list());
    let config = context.config.clone();
    Runner::new(Stale { context }, &config, all)
        .on_change(&informers.pods, |old: Option<&Pod>, new: Option<&Pod>| {
            let news = new.filter(|new| since(new).is_some() && old.and_then(since) != since(new));
            news.map(|pod| ObjectKey::of(&pod.metadata)).into_iter().collect()
        })
        .run()
        .await;
}

fn keys(pods: &[std::sync::Arc<Pod>]) -> Vec<ObjectKey> {
    pods.iter().filter(|pod| since(pod).is_some()).map(|pod| ObjectKey::of(&pod.metadata)).collect()
}

/// Since when a pod that is not being deleted says so.
fn since(pod: &Pod) -> Option<Timestamp> {
    if !pods::is_active(pod) {
        return None;
    }
    let told = pods::condition(pod, TARGET).filter(|told| told.status == "True")?;
    Some(told.last_transition_time.as_ref().map(|time| time.0).unwrap_or_default())
}

/// How long it may stand, zero if it is to be taken back now.
fn stands(pod: &Pod, now: Timestamp) -> Option<Duration> {
    since(pod).map(|since| left(since, now).unwrap_or_default())
}

impl Reconciler for Stale {
    type Key = ObjectKey;
    const NAME: &'static str = "stale-pod-disruption";

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ReconcileError> {
        let informer = &self.context.informers.pods;
        let Some(pod) = informer.get(&key) else { return Ok(Next::Done) };
        let now = Timestamp::now();
        match stands(&pod, now) {
            None => return Ok(Next::Done),
            Some(left) if !left.is_zero() => return Ok(Next::After(left)),
            Some(_) => {}
        }
        let mut next = Pod::clone(&pod);
        let conditions = next.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
        for condition in conditions.filter(|condition| condition.type_ == TARGET) {
            condition.status = "False".to_owned();
            condition.last_transition_time = Some(Time(now));
            condition.reason = None;
            condition.message = None;
        }
        Writer::new(&self.context.client, informer).update(Part::Status, &*pod, &next).await?;
        Ok(Next::Done)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn only_old_announcements_of_pods_that_live_are_taken_back() {
        let pod = |status: &str, deleted: bool, phase: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": "p", "deletionTimestamp": deleted.then_some("2026-01-01T00:00:00Z")},
                "status": {"phase": phase, "conditions": [
                    {"type": TARGET, "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            }))
            .unwrap()
        };
        let at = |seconds: i64| Timestamp::from_second(1_767_225_600 + seconds).unwrap();
        let running = pod("True", false, "Running");
        assert_eq!(stands(&running, at(30)), Some(Duration::from_secs(90)));
        assert_eq!(stands(&running, at(120)), Some(Duration::ZERO));
        assert_eq!(stands(&running, at(9999)), Some(Duration::ZERO));
        for other in [pod("False", false, "Running"), pod("True", true, "Running"), pod("True", false, "Failed")] {
            assert_eq!(stands(&other, at(9999)), None);
        }
    }
}
