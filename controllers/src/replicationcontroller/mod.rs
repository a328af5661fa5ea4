//! The ReplicationController controller: see `replicas` for how it works.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::Selector;
use trireme_client::informer::{Informer, Informers, ObjectKey};

use crate::pods;
use crate::replicas::{Failure, Owner, ReplicaKind, Status};
use crate::replicaset::nonzero;

const FAILURE: &str = "ReplicaFailure";

impl ReplicaKind for ReplicationController {
    const CONTROLLER: &'static str = "replicationcontroller";

    fn informer(informers: &Informers) -> &Informer<Self> {
        &informers.replication_controllers
    }

    fn owner(&self) -> Result<Owner, String> {
        let spec = self.spec.clone().unwrap_or_default();
        Ok(Owner {
            key: ObjectKey::of(&self.metadata),
            uid: pods::uid(&self.metadata).to_owned(),
            api_version: "v1",
            kind: "ReplicationController",
            generation: self.metadata.generation.unwrap_or(0),
            deleting: self.metadata.deletion_timestamp.is_some(),
            desired: spec.replicas.unwrap_or(1).max(0) as usize,
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            selector: selector(spec.selector)?,
            template: spec.template.unwrap_or_default(),
            tells_terminating: false,
            status: status_of(self.status.as_ref()),
        })
    }

    fn with_status(&self, status: &Status) -> Self {
        let before = self.status.as_ref().and_then(|status| status.conditions.clone());
        let mut conditions = before.unwrap_or_default();
        conditions.retain(|condition| condition.type_ != FAILURE);
        conditions.extend(status.failure.as_ref().map(|failure| ReplicationControllerCondition {
            type_: FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason.clone()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(failure.since)),
        }));
        let mut next = self.clone();
        next.status = Some(ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: nonzero(status.fully_labeled),
            ready_replicas: nonzero(status.ready),
            available_replicas: nonzero(status.available),
            observed_generation: Some(status.observed_generation),
            conditions: (!conditions.is_empty()).then_some(conditions),
        });
        next
    }
}

fn status_of(status: Option<&ReplicationControllerStatus>) -> Status {
    let Some(status) = status else { return Status::default() };
    let failure = status.conditions.iter().flatten().find(|condition| condition.type_ == FAILURE);
    Status {
        replicas: status.replicas,
        fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
        ready: status.ready_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
        terminating: None,
        observed_generation: status.observed_generation.unwrap_or(0),
        failure: failure.map(|condition| Failure {
            reason: condition.reason.clone().unwrap_or_default(),
            message: condition.message.clone().unwrap_or_default(),
            since: condition.last_transition_time.as_ref().map(|time| time.0).unwrap_or_default(),
        }),
    }
}

/// An absent or empty selector is filled in from the template when the object is created; one that is empty all the
/// same must not match every pod.
fn selector(labels: Option<BTreeMap<String, String>>) -> Result<Selector, String> {
    let labels = labels.filter(|labels| !labels.is_empty()).ok_or("the selector is empty")?;
    Ok(labels.into_iter().collect())
}
