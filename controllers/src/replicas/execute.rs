//! Carries out what was planned for the pods of one owner, and waits until it can be seen.

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::core::Status as ApiStatus;
use trireme_client::events::EventType;
use trireme_client::informer::{ObjectKey, revision_of};

use super::plan::{Owner, Plan, RoundError};
use super::{ReplicaKind, Replicas};
use crate::pods;
use crate::runtime::{Part, ReconcileError, current_revision, is_not_found, outcome_unknown, patch};

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
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &owner.key.namespace);
        if !plan.adopt.is_empty() {
            self.check_alive(owner).await?;
        }
        for pod in &plan.adopt {
            let mut adopted = Pod::clone(pod);
            adopted.metadata.owner_references.get_or_insert_default().push(reference(owner));
            self.write_pod(&api, pod, &adopted).await?;
        }
        for pod in &plan.release {
            let mut released = Pod::clone(pod);
            if let Some(owners) = released.metadata.owner_references.as_mut() {
                owners.retain(|reference| reference.uid != owner.uid);
            }
            self.write_pod(&api, pod, &released).await?;
        }
        let result = if plan.create > 0 {
            self.create(&api, object, owner, plan.create).await
        } else {
            self.delete(&api, object, &plan.delete).await
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

    async fn write_pod(&self, api: &Api<Pod>, old: &Pod, new: &Pod) -> Result<(), ReconcileError> {
        match patch(api, Part::Main, old, new).await {
            Ok(Some(written)) => {
                self.context.informers.pods.wait_for(revision_of(&written.metadata)).await;
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(ReconcileError::Api(error)) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Creates pods in batches that double while all goes well, so that a refusal costs one request, not hundreds.
    async fn create(&self, api: &Api<Pod>, object: &K, owner: &Owner, count: usize) -> Result<(), Failed> {
        let pod = pod_from_template(owner);
        let (mut left, mut batch) = (count, 1);
        let mut newest = 0;
        let mut failure = None;
        while left > 0 && failure.is_none() {
            let size = batch.min(left);
            let params = PostParams::default();
            let results = join_all((0..size).map(|_| api.create(&params, &pod))).await;
            for result in results {
                match result {
                    Ok(created) => {
                        newest = newest.max(revision_of(&created.metadata));
                        let message = format!("Created pod: {}", pods::name(&created.metadata));
                        self.context.recorder.record(object, EventType::Normal, "SuccessfulCreate", &message);
                    }
                    Err(error) if namespace_is_terminating(&error) => return Ok(()),
                    Err(error) => failure = Some(error),
                }
            }
            (left, batch) = (left - size, batch * 2);
        }
        self.context.informers.pods.wait_for(newest).await;
        let Some(error) = failure else { return Ok(()) };
        self.settle(owner, &error).await;
        let message = describe(&error);
        let event = format!("Error creating: {message}");
        self.context.recorder.record(object, EventType::Warning, "FailedCreate", &event);
        Err(Failed(RoundError { reason: "FailedCreate", message }, error.into()))
    }

    async fn delete(&self, api: &Api<Pod>, object: &K, victims: &[Arc<Pod>]) -> Result<(), Failed> {
        let results = join_all(victims.iter().map(|pod| async move {
            let uid = pod.metadata.uid.clone();
            let preconditions = Preconditions { uid, resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            let result = api.delete(pods::name(&pod.metadata), &params).await;
            if result.is_ok() {
                let key = ObjectKey::of(&pod.metadata);
                self.context.informers.pods.wait_deleting(&key, pods::uid(&pod.metadata)).await;
            }
            (pod, result)
        }))
        .await;
        let mut failure = None;
        for (pod, result) in results {
            let name = pods::name(&pod.metadata);
            match result {
                Ok(_) => {
                    let message = format!("Deleted pod: {name}");
                    self.context.recorder.record(object, EventType::Normal, "SuccessfulDelete", &message);
                }
                Err(error) if is_not_found(&error) => {}
                Err(error) => {
                    let message = format!("Error deleting: {}", describe(&error));
                    self.context.recorder.record(object, EventType::Warning, "FailedDelete", &message);
                    failure = Some(error);
                }
            }
        }
        match failure {
            None => Ok(()),
            Some(error) => Err(Failed(RoundError { reason: "FailedDelete", message: describe(&error) }, error.into())),
        }
    }

    /// After a create whose outcome is unknown: waits until the cache is as new as the store, so that a pod which
    /// did come into being is counted.
    async fn settle(&self, owner: &Owner, error: &kube::Error) {
        if outcome_unknown(error) {
            let path = format!("/api/v1/namespaces/{}/pods", owner.key.namespace);
            if let Ok(revision) = current_revision(&self.context.client, &path).await {
                self.context.informers.pods.wait_for(revision).await;
            }
        }
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

fn namespace_is_terminating(error: &kube::Error) -> bool {
    let terminating = |status: &ApiStatus| {
        let causes = status.details.iter().flat_map(|details| &details.causes);
        causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
    };
    matches!(error, kube::Error::Api(status) if status.code == 403 && terminating(status))
}

fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
