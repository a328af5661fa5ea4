//! Questions about deployments and replica sets, answered as upstream answers them.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The label that tells the pods of one template from those of another.
pub(super) const HASH_LABEL: &str = "pod-template-hash";

pub(super) fn spec(deployment: &Deployment) -> &DeploymentSpec {
    static EMPTY: std::sync::LazyLock<DeploymentSpec> = std::sync::LazyLock::new(DeploymentSpec::default);
    deployment.spec.as_ref().unwrap_or(&EMPTY)
}

pub(super) fn desired(deployment: &Deployment) -> i32 {
    spec(deployment).replicas.unwrap_or(1)
}

pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = spec(deployment).strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    strategy == Some("Recreate")
}

pub(super) fn progress_deadline(deployment: &Deployment) -> Option<i32> {
    // Upstream means "none" by the largest number.
    spec(deployment).progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)
}

/// How many pods there may be too many, and how many too few, while rolling.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    if is_recreate(deployment) {
        return (0, 0);
    }
    let strategy = spec(deployment).strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let default = IntOrString::String("25%".to_owned());
    let surge = strategy.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&default);
    let unavailable = strategy.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&default);
    let replicas = desired(deployment);
    match (resolve(surge, replicas, true), resolve(unavailable, replicas, false)) {
        // Validation forbids both to be zero, but rounding may do it: something must be able to move.
        (0, 0) => (0, 1),
        posts => posts,
    }
}

fn resolve(value: &IntOrString, total: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let hundredths = percent * i64::from(total);
            let whole = if up { (hundredths + 99).div_euclid(100) } else { hundredths.div_euclid(100) };
            i32::try_from(whole.max(0)).unwrap_or(i32::MAX)
        }
    }
}

pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    fenceposts(deployment).0
}

pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    let replicas = desired(deployment);
    if replicas == 0 { 0 } else { fenceposts(deployment).1.min(replicas) }
}

/// How many replicas a set asks for.
pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// How many of its replicas are available.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// How many replicas it has.
pub(super) fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// How many of its replicas are ready.
pub(super) fn ready(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
}

/// How many pods of it are on their way out, if it tells.
pub(super) fn terminating(set: &ReplicaSet) -> Option<i32> {
    set.status.as_ref()?.terminating_replicas
}

/// Sums something over sets.
pub(super) fn sum(sets: &[ReplicaSet], of: fn(&ReplicaSet) -> i32) -> i32 {
    sets.iter().map(of).sum()
}

/// Whether two templates ask for the same pods.
pub(super) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let without_hash = |template: &PodTemplateSpec| {
        let mut template = template.clone();
        let mut meta = template.metadata.take().unwrap_or_default();
        if let Some(labels) = meta.labels.as_mut() {
            labels.remove(HASH_LABEL);
        }
        meta.labels = meta.labels.filter(|labels| !labels.is_empty());
        meta.annotations = meta.annotations.filter(|annotations| !annotations.is_empty());
        meta.creation_timestamp = None;
        (meta, template)
    };
    without_hash(a) == without_hash(b)
}

/// The hash of a template, in the letters that names use, different for every collision counted.
pub(super) fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let json = serde_json::to_vec(template).unwrap_or_default();
    let mut hash: u32 = 0x811c_9dc5;
    for byte in json.iter().chain(&collisions.to_le_bytes()[..if collisions == 0 { 0 } else { 4 }]) {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    // No vowels and nothing that looks like one, so that no words come out.
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|digit| LETTERS[usize::from(digit) % LETTERS.len()] as char).collect()
}
