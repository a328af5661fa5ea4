//! The status of a deployment. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::view::{actual, available, desired, max_unavailable, progress_deadline, ready, sum, terminating};
use crate::pods;
use crate::replicaset::nonzero;

pub(super) const AVAILABLE: &str = "Available";
pub(super) const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

pub(super) fn condition<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// A condition as of now.
pub(super) fn new_condition(
    kind: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Sets a condition, unless it says nothing new; its time changes only with its value.
pub(super) fn set(status: &mut DeploymentStatus, mut new: DeploymentCondition) {
    if let Some(known) = condition(status, &new.type_) {
        if known.status == new.status && known.reason == new.reason {
            return;
        }
        if known.status == new.status {
            new.last_transition_time = known.last_transition_time.clone();
        }
    }
    remove(status, &new.type_.clone());
    status.conditions.get_or_insert_default().push(new);
}

pub(super) fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = status.conditions.as_mut() {
        conditions.retain(|condition| condition.type_ != kind);
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}

/// Counts and availability.
pub(super) fn calculate(
    deployment: &Deployment,
    all: &[ReplicaSet],
    new: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let before = deployment.status.clone().unwrap_or_default();
    let (total, can_serve) = (sum(all, actual), sum(all, available));
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: nonzero(total),
        updated_replicas: nonzero(new.map_or(0, actual)),
        ready_replicas: nonzero(sum(all, ready)),
        available_replicas: nonzero(can_serve),
        unavailable_replicas: nonzero((total - can_serve).max(0)),
        // Told only if all sets tell.
        terminating_replicas: all.iter().map(terminating).sum(),
        ..before
    };
    let (value, reason, message) = if can_serve >= desired(deployment) - max_unavailable(deployment) {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut status, new_condition(AVAILABLE, value, reason, message, now));
    status
}

fn counts(status: &DeploymentStatus) -> [i32; 4] {
    [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas]
        .map(|count| count.unwrap_or(0))
}

/// Whether the rollout has arrived.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let [replicas, updated, _, available] = counts(status);
    let wanted = desired(deployment);
    updated == wanted
        && replicas == wanted
        && available == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn is_progressing(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let ([r0, u0, y0, a0], [r1, u1, y1, a1]) = (counts(before), counts(after));
    u1 > u0 || r1 - u1 < r0 - u0 || y1 > y0 || a1 > a0
}

fn is_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let (Some(seconds), Some(known)) = (progress_deadline(deployment), condition(status, PROGRESSING)) else {
        return false;
    };
    match known.reason.as_deref() {
        Some(COMPLETE) => false,
        Some(TIMED_OUT) => true,
        _ => {
            let since = known.last_update_time.as_ref().map_or(now, |time| time.0);
            since + SignedDuration::from_secs(i64::from(seconds)) < now
        }
    }
}

/// The status of a deployment that is rolling out, with its progress.
pub(super) fn rollout(
    deployment: &Deployment,
    all: &[ReplicaSet],
    new: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let before = deployment.status.clone().unwrap_or_default();
    let mut status = calculate(deployment, all, new, now);
    let known = condition(&status, PROGRESSING).cloned();
    let arrived = known.as_ref().is_some_and(|known| known.reason.as_deref() == Some(COMPLETE))
        && status.replicas.unwrap_or(0) == status.updated_replicas.unwrap_or(0);
    if progress_deadline(deployment).is_none() {
        remove(&mut status, PROGRESSING);
    } else if !arrived {
        let who = match new {
            Some(set) => format!("ReplicaSet \"{}\"", pods::name(&set.metadata)),
            None => format!("Deployment \"{}\"", pods::name(&deployment.metadata)),
        };
        let progress =
            |value, reason, what: &str| new_condition(PROGRESSING, value, reason, &format!("{who} {what}"), now);
        if is_complete(deployment, &status) {
            set(&mut status, progress("True", COMPLETE, "has successfully progressed."));
        } else if is_progressing(&before, &status) {
            let mut condition = progress("True", "ReplicaSetUpdated", "is progressing.");
            if let Some(known) = known.filter(|known| known.status == "True") {
                condition.last_transition_time = known.last_transition_time;
            }
            // Taken out first, so that the time of the last progress is always noted.
            remove(&mut status, PROGRESSING);
            set(&mut status, condition);
        } else if is_timed_out(deployment, &status, now) {
            set(&mut status, progress("False", TIMED_OUT, "has timed out progressing."));
        }
    }
    match replica_failure(all, new) {
        Some(failure) => set(&mut status, failure),
        None => remove(&mut status, REPLICA_FAILURE),
    }
    status
}

/// The failure of the present set, or of any other.
fn replica_failure(all: &[ReplicaSet], new: Option<&ReplicaSet>) -> Option<DeploymentCondition> {
    let mut failures = new.into_iter().chain(all).flat_map(|set| {
        let conditions = set.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().filter(|condition| condition.type_ == REPLICA_FAILURE)
    });
    failures.next().map(|failure| DeploymentCondition {
        type_: failure.type_.clone(),
        status: failure.status.clone(),
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        last_update_time: failure.last_transition_time.clone(),
        last_transition_time: failure.last_transition_time.clone(),
    })
}

/// What pausing and resuming do to the progress: while paused, no deadline runs.
pub(super) fn note_pause(deployment: &Deployment, status: &mut DeploymentStatus, now: Timestamp) {
    if progress_deadline(deployment).is_none() {
        return;
    }
    let paused = super::view::spec(deployment).paused.unwrap_or(false);
    let reason = condition(status, PROGRESSING).and_then(|known| known.reason.as_deref());
    let news = match (paused, reason) {
        (_, Some(TIMED_OUT)) => return,
        (true, reason) if reason != Some(PAUSED) => (PAUSED, "Deployment is paused"),
        (false, Some(PAUSED)) => (RESUMED, "Deployment is resumed"),
        _ => return,
    };
    set(status, new_condition(PROGRESSING, "Unknown", news.0, news.1, now));
}

/// When to look whether the deadline has passed.
pub(super) fn next_look(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let (seconds, known) = (progress_deadline(deployment)?, condition(status, PROGRESSING)?);
    let settled = matches!(known.reason.as_deref(), Some(TIMED_OUT | PAUSED | COMPLETE));
    if settled || is_complete(deployment, status) {
        return None;
    }
    let since = known.last_update_time.as_ref()?.0;
    let left = since + SignedDuration::from_secs(i64::from(seconds)) - now;
    let left = left.total(jiff::Unit::Second).unwrap_or(0.0).max(0.0);
    Some(Duration::from_secs_f64(left + 1.0))
}
