//! Carries out what was planned for the pods of one owner, and waits until it can be seen.

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::Api;
use trireme_client::events::EventType;

use super::plan::{Owner, Plan, RoundError};
use super::{ReplicaKind, Replicas};
use crate::pods;
use crate::runtime::{Part, ReconcileError, Writer, is_in_vain};

/// How a round failed: for the condition, and for trying again.
pub(super) struct Failed(pub(super) RoundError, pub(super) ReconcileError);

impl<K: ReplicaKind> Replicas<K> {
    /// Carries out a plan. Gives how it went and the replicas that were there before.
    pub(super) async fn execute(
        &self,
        object: &K,
        owner: &Owner,
        plan: Plan,
    ) -> Result<(Result<(), Box<Failed>>, Vec<Arc<Pod>>), ReconcileError> {
        let writer = Writer::new(&self.context.client, &self.context.informers.pods);
        if !plan.adopt.is_empty() {
            self.check_alive(owner).await?;
        }
        for pod in &plan.adopt {
            let mut adopted = Pod::clone(pod);
            adopted.metadata.owner_references.get_or_insert_default().push(reference(owner));
            writer.update(Part::Main, &**pod, &adopted).await?;
        }
        for pod in &plan.release {
            let mut released = Pod::clone(pod);
            if let Some(owners) = released.metadata.owner_references.as_mut() {
                owners.retain(|reference| reference.uid != owner.uid);
            }
            writer.update(Part::Main, &**pod, &released).await?;
        }
        let result = if plan.create > 0 {
            self.create(&writer, object, owner, plan.create).await
        } else {
            self.delete(&writer, object, &plan.delete).await
        };
        Ok((result.map_err(Box::new), plan.replicas))
    }

    /// An owner in a cache may be gone, or another of the same name: adopting must not happen for those.
    async fn check_alive(&self, owner: &Owner) -> Result<(), ReconcileError> {
        let api: Api<K> = Api::namespaced(self.context.client.clone(), &owner.key.namespace);
        let live = api.get(&owner.key.name).await?;
        let meta = live.object_meta();
        if pods::uid(meta) != owner.uid || meta.deletion_timestamp.is_some() {
            return Err(ReconcileError::Object(format!("{} {} is gone or being deleted", owner.kind, owner.key)));
        }
        Ok(())
    }

    /// Creates pods in batches that double while all goes well, so that a refusal costs one request, not hundreds.
    async fn create(&self, writer: &Writer<'_, Pod>, object: &K, owner: &Owner, count: usize) -> Result<(), Failed> {
        let pod = pod_from_template(owner);
        let (mut left, mut batch) = (count, 1);
        let mut failure = None;
        while left > 0 && failure.is_none() {
            let size = batch.min(left);
            for result in join_all((0..size).map(|_| writer.create(&pod))).await {
                match result {
                    Ok(created) => {
                        let message = format!("Created pod: {}", pods::name(&created.metadata));
                        self.context.recorder.record(object, EventType::Normal, "SuccessfulCreate", &message);
                    }
                    Err(ReconcileError::Api(error)) if is_in_vain(&error) => return Ok(()),
                    Err(error) => failure = Some(error),
                }
            }
            (left, batch) = (left - size, batch * 2);
        }
        match failure {
            None => Ok(()),
            Some(error) => Err(self.failed(object, "FailedCreate", "Error creating", error)),
        }
    }

    async fn delete(&self, writer: &Writer<'_, Pod>, object: &K, victims: &[Arc<Pod>]) -> Result<(), Failed> {
        let results = join_all(victims.iter().map(|pod| async move { (pod, writer.delete(&**pod).await) })).await;
        let mut failed = Ok(());
        for (pod, result) in results {
            match result {
                Ok(()) => {
                    let message = format!("Deleted pod: {}", pods::name(&pod.metadata));
                    self.context.recorder.record(object, EventType::Normal, "SuccessfulDelete", &message);
                }
                Err(error) => failed = Err(self.failed(object, "FailedDelete", "Error deleting", error)),
            }
        }
        failed
    }

    /// Tells of a failure, and makes of it what the status says.
    fn failed(&self, object: &K, reason: &'static str, what: &str, error: ReconcileError) -> Failed {
        let message = describe(&error);
        self.context.recorder.record(object, EventType::Warning, reason, &format!("{what}: {message}"));
        Failed(RoundError { reason, message }, error)
    }
}

fn reference(owner: &Owner) -> OwnerReference {
    OwnerReference {
        api_version: owner.api_version.to_owned(),
        kind: owner.kind.to_owned(),
        name: owner.key.name.to_string(),
        uid: owner.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn pod_from_template(owner: &Owner) -> Pod {
    let meta = owner.template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.key.name)),
            namespace: Some(owner.key.namespace.to_string()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: owner.template.spec.clone(),
        status: None,
    }
}

fn describe(error: &ReconcileError) -> String {
    match error {
        ReconcileError::Api(kube::Error::Api(status)) => status.message.clone(),
        other => other.to_string(),
    }
}
