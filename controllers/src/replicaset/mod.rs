//! The ReplicaSet controller: see `replicas` for how it works.

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::Selector;
use trireme_client::informer::{Informer, Informers, ObjectKey};

use crate::pods;
use crate::replicas::{Failure, Owner, ReplicaKind, Status};

const FAILURE: &str = "ReplicaFailure";

impl ReplicaKind for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset";

    fn informer(informers: &Informers) -> &Informer<Self> {
        &informers.replica_sets
    }

    fn owner(&self) -> Result<Owner, String> {
        let spec = self.spec.clone().unwrap_or_default();
        Ok(Owner {
            key: ObjectKey::of(&self.metadata),
            uid: pods::uid(&self.metadata).to_owned(),
            api_version: "apps/v1",
            kind: "ReplicaSet",
            generation: self.metadata.generation.unwrap_or(0),
            deleting: self.metadata.deletion_timestamp.is_some(),
            desired: spec.replicas.unwrap_or(1).max(0) as usize,
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            selector: Selector::try_from(spec.selector).map_err(|error| error.to_string())?,
            template: spec.template.unwrap_or_default(),
            tells_terminating: true,
            status: status_of(self.status.as_ref()),
        })
    }

    fn with_status(&self, status: &Status) -> Self {
        let mut conditions = self.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        conditions.retain(|condition| condition.type_ != FAILURE);
        conditions.extend(status.failure.as_ref().map(|failure| ReplicaSetCondition {
            type_: FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason.clone()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(failure.since)),
        }));
        let mut next = self.clone();
        next.status = Some(ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: nonzero(status.fully_labeled),
            ready_replicas: nonzero(status.ready),
            available_replicas: nonzero(status.available),
            terminating_replicas: status.terminating,
            observed_generation: Some(status.observed_generation),
            conditions: (!conditions.is_empty()).then_some(conditions),
        });
        next
    }
}

fn status_of(status: Option<&ReplicaSetStatus>) -> Status {
    let Some(status) = status else { return Status::default() };
    let failure = status.conditions.iter().flatten().find(|condition| condition.type_ == FAILURE);
    Status {
        replicas: status.replicas,
        fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
        ready: status.ready_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
        terminating: status.terminating_replicas,
        observed_generation: status.observed_generation.unwrap_or(0),
        failure: failure.map(|condition| Failure {
            reason: condition.reason.clone().unwrap_or_default(),
            message: condition.message.clone().unwrap_or_default(),
            since: condition.last_transition_time.as_ref().map(|time| time.0).unwrap_or_default(),
        }),
    }
}

/// Counts of zero are left out, as upstream does.
pub(crate) fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}
