//! What a budget's status is to be: pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pods;

/// How long a pod whose eviction was granted may take until it is being deleted.
pub(super) const DELETION_TIMEOUT: Duration = Duration::from_secs(120);
const ALLOWED: &str = "DisruptionAllowed";

/// How many pods there should be, and how many of them have to be healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) expected: i32,
    pub(super) healthy: i32,
}

/// Whether the budget's numbers are about what the pods' controllers want, not about the pods that there are.
pub(super) fn asks_scale(spec: &PodDisruptionBudgetSpec) -> bool {
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// What a budget wants of so many pods that select it, of which its controllers want `scale`.
pub(super) fn wanted(spec: &PodDisruptionBudgetSpec, pods: usize, scale: i32) -> Result<Wanted, String> {
    if let Some(most) = &spec.max_unavailable {
        let healthy = scale.saturating_sub(scaled(most, scale)?).max(0);
        return Ok(Wanted { expected: scale, healthy });
    }
    Ok(match &spec.min_available {
        Some(IntOrString::Int(least)) => Wanted { expected: i32::try_from(pods).unwrap_or(i32::MAX), healthy: *least },
        Some(least) => Wanted { expected: scale, healthy: scaled(least, scale)? },
        None => Wanted::default(),
    })
}

/// Percentages are rounded up.
fn scaled(value: &IntOrString, total: i32) -> Result<i32, String> {
    let text = match value {
        IntOrString::Int(number) => return Ok(*number),
        IntOrString::String(text) => text,
    };
    let percent = text.strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok());
    let percent = percent.ok_or_else(|| format!("invalid value for IntOrString: invalid type: {text:?}"))?;
    let product = percent.saturating_mul(i64::from(total));
    Ok(i32::try_from(product / 100 + i64::from(product % 100 > 0)).unwrap_or(i32::MAX))
}

/// Pods whose eviction was granted and that are not being deleted yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Disrupted {
    /// Since when.
    pub(super) pods: BTreeMap<String, Time>,
    /// Those that were given up: nobody has deleted them.
    pub(super) overdue: Vec<String>,
    /// When to look again.
    pub(super) next: Option<Duration>,
}

/// Goes through what the status says of granted evictions.
pub(super) fn disrupted(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], now: Timestamp) -> Disrupted {
    let mut found = Disrupted::default();
    let known = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
    let Some(known) = known.filter(|known| !known.is_empty()) else { return found };
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let name = pods::name(&pod.metadata);
        let Some(since) = known.get(name) else { continue };
        match left(since.0, now) {
            Some(left) => {
                found.next = Some(found.next.map_or(left, |next| next.min(left)));
                found.pods.insert(name.to_owned(), since.clone());
            }
            None => found.overdue.push(name.to_owned()),
        }
    }
    found
}

/// How long something that was announced then may still take; none when its time is over.
pub(super) fn left(since: Timestamp, now: Timestamp) -> Option<Duration> {
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    DELETION_TIMEOUT.checked_sub(passed).filter(|left| !left.is_zero())
}

/// How many pods are ready and will be.
pub(super) fn healthy(pods: &[Arc<Pod>], disrupted: &Disrupted) -> i32 {
    let counts = |pod: &&Arc<Pod>| {
        pod.metadata.deletion_timestamp.is_none()
            && !disrupted.pods.contains_key(pods::name(&pod.metadata))
            && pods::is_ready(pod)
    };
    i32::try_from(pods.iter().filter(counts).count()).unwrap_or(i32::MAX)
}

/// The status that follows.
pub(super) fn status(
    budget: &PodDisruptionBudget,
    wanted: Wanted,
    healthy: i32,
    disrupted: BTreeMap<String, Time>,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let free = healthy.saturating_sub(wanted.healthy).max(0);
    // A budget without pods is safe when the first ones come before anybody has counted them.
    let allowed = if wanted.expected <= 0 { 0 } else { free };
    let generation = budget.metadata.generation;
    let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(wanted.healthy),
        expected_pods: Some(wanted.expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: generation,
        conditions: Some(with_condition(budget, (status, reason, ""), generation, now)),
    }
}

/// The status of a budget that cannot be calculated: nothing may be disrupted.
pub(super) fn failed(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    status.conditions = Some(with_condition(budget, ("False", "SyncFailed", why), status.observed_generation, now));
    status
}

/// The conditions with one that tells whether disruptions are allowed.
fn with_condition(
    budget: &PodDisruptionBudget,
    (status, reason, message): (&str, &str, &str),
    observed_generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut all = budget.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let known = all.iter().position(|condition| condition.type_ == ALLOWED);
    let since = known.map(|at| &all[at]).filter(|known| known.status == status);
    let condition = Condition {
        type_: ALLOWED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation,
        last_transition_time: since.map_or_else(|| Time(now), |known| known.last_transition_time.clone()),
    };
    match known {
        Some(at) => all[at] = condition,
        None => all.push(condition),
    }
    all
}
