//! The Deployment controller: rolls from one pod template to the next by way of replica sets.

mod conditions;
mod plan;
mod revision;
mod scaling;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::Api;
use kube::core::{Selector, SelectorExt};
use trireme_client::events::EventType;
use trireme_client::informer::{Informers, ObjectKey, revision_of};

use crate::pods;
use crate::runtime::{Context, Next, Part, ReconcileError, Reconciler, Runner, Writer, is_conflict};
use plan::Plan;

struct Deployments {
    context: Context,
}

/// The loop that keeps deployments.
pub(crate) async fn run(context: Context) {
    let informers = context.informers.clone();
    let (for_sets, for_pods, all) = (informers.clone(), informers.clone(), informers.deployments.clone());
    let all = move || all.list().iter().map(|deployment| ObjectKey::of(&deployment.metadata)).collect();
    let config = context.config.clone();
    Runner::new(Deployments { context }, &config, all)
        .on(&informers.deployments, |deployment: &Deployment| vec![ObjectKey::of(&deployment.metadata)])
        .on(&informers.replica_sets, move |set: &ReplicaSet| concerned(&for_sets, set))
        .on(&informers.pods, move |pod: &Pod| waiting_for(&for_pods, pod))
        .run()
        .await;
}

/// The deployments that a change of this replica set concerns.
fn concerned(informers: &Informers, set: &ReplicaSet) -> Vec<ObjectKey> {
    let namespace = pods::namespace(&set.metadata);
    match pods::controller_of(&set.metadata) {
        Some(owner) if owner.kind == "Deployment" => vec![ObjectKey::new(namespace, &owner.name)],
        Some(_) => Vec::new(),
        None => {
            let labels = pods::labels(&set.metadata);
            let selects = |deployment: &Deployment| selector(deployment).is_ok_and(|selector| selector.matches(labels));
            let deployments = informers.deployments.in_namespace(namespace);
            let matching = deployments.iter().filter(|deployment| selects(deployment));
            matching.map(|deployment| ObjectKey::of(&deployment.metadata)).collect()
        }
    }
}

/// The deployment that may wait for this pod to go before it starts the next template.
fn waiting_for(informers: &Informers, pod: &Pod) -> Vec<ObjectKey> {
    let namespace = pods::namespace(&pod.metadata);
    let owner = pods::controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet");
    let set = owner.and_then(|owner| informers.replica_sets.find(namespace, &owner.name));
    let deployment = set.as_ref().and_then(|set| pods::controller_of(&set.metadata));
    let key = deployment.map(|owner| ObjectKey::new(namespace, &owner.name));
    let recreates = |key: &ObjectKey| informers.deployments.get(key).is_some_and(|found| view::is_recreate(&found));
    key.into_iter().filter(recreates).collect()
}

fn selector(deployment: &Deployment) -> Result<Selector, ReconcileError> {
    let selector = Selector::try_from(view::spec(deployment).selector.clone())
        .map_err(|error| ReconcileError::Object(error.to_string()))?;
    if selector.selects_all() {
        return Err(ReconcileError::Object("the selector selects all pods".to_owned()));
    }
    Ok(selector)
}

impl Reconciler for Deployments {
    type Key = ObjectKey;
    const NAME: &'static str = "deployment";

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ReconcileError> {
        let informers = &self.context.informers;
        let Some(deployment) = informers.deployments.get(&key) else { return Ok(Next::Done) };
        let sets = self.claim(&deployment).await?;
        let owned: Vec<ReplicaSet> = sets.iter().map(|set| ReplicaSet::clone(set)).collect();
        let old_pods_run = |new: Option<&ReplicaSet>| {
            let new = new.map(|set| pods::uid(&set.metadata));
            let old = sets.iter().map(|set| pods::uid(&set.metadata)).filter(|uid| Some(*uid) != new);
            old.into_iter().any(|uid| informers.pods.owned_by(uid).iter().any(|pod| !pods::is_terminal(pod)))
        };
        let plan = plan::plan(&deployment, &owned, old_pods_run, Timestamp::now());
        let again = plan.again;
        self.execute(&deployment, &sets, plan).await?;
        Ok(again.map_or(Next::Done, Next::After))
    }
}

impl Deployments {
    /// The replica sets of a deployment; takes those that match and are nobody's, lets go those that do not match.
    async fn claim(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, ReconcileError> {
        let selector = selector(deployment)?;
        let meta = &deployment.metadata;
        let (uid, deleting) = (pods::uid(meta), meta.deletion_timestamp.is_some());
        let mut claimed = Vec::new();
        for set in self.context.informers.replica_sets.in_namespace(pods::namespace(meta)) {
            let matches = selector.matches(pods::labels(&set.metadata));
            match pods::controller_of(&set.metadata) {
                Some(owner) if owner.uid == uid && matches => claimed.push(set),
                Some(owner) if owner.uid == uid && !deleting => {
                    let mut released = ReplicaSet::clone(&set);
                    let owners = released.metadata.owner_references.get_or_insert_default();
                    owners.retain(|owner| owner.uid != uid);
                    self.sets().update(Part::Main, &*set, &released).await?;
                }
                None if matches && !deleting && set.metadata.deletion_timestamp.is_none() => {
                    claimed.extend(self.adopt(deployment, &set).await?.map(Arc::new));
                }
                _ => {}
            }
        }
        Ok(claimed)
    }

    /// Adopts a set, if the deployment still exists as it is known.
    async fn adopt(&self, deployment: &Deployment, set: &ReplicaSet) -> Result<Option<ReplicaSet>, ReconcileError> {
        let meta = &deployment.metadata;
        let api: Api<Deployment> = Api::namespaced(self.context.client.clone(), pods::namespace(meta));
        let live = api.get(pods::name(meta)).await?;
        if live.metadata.uid != meta.uid || live.metadata.deletion_timestamp.is_some() {
            return Err(ReconcileError::Object("the deployment is gone or being deleted".to_owned()));
        }
        let mut adopted = set.clone();
        adopted.metadata.owner_references.get_or_insert_default().push(OwnerReference {
            api_version: "apps/v1".to_owned(),
            kind: "Deployment".to_owned(),
            name: pods::name(meta).to_owned(),
            uid: pods::uid(meta).to_owned(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        });
        self.sets().update(Part::Main, set, &adopted).await
    }

    fn sets(&self) -> Writer<'_, ReplicaSet> {
        Writer::new(&self.context.client, &self.context.informers.replica_sets)
    }

    fn deployments(&self) -> Writer<'_, Deployment> {
        Writer::new(&self.context.client, &self.context.informers.deployments)
    }

    async fn execute(
        &self,
        deployment: &Deployment,
        sets: &[Arc<ReplicaSet>],
        mut plan: Plan,
    ) -> Result<(), ReconcileError> {
        let mut collided = false;
        if let Some(set) = plan.create.take() {
            collided = self.create(deployment, &set).await?;
        }
        if collided {
            // The next round makes another hash out of the same template.
            let mut status = deployment.status.clone().unwrap_or_default();
            status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
            let counted = Deployment { status: Some(status), ..deployment.clone() };
            return self.deployments().update(Part::Status, deployment, &counted).await.map(|_| ());
        }
        for set in &plan.update {
            if let Some(old) = sets.iter().find(|old| old.metadata.name == set.metadata.name) {
                self.sets().update(Part::Main, &**old, set).await?;
            }
        }
        for event in &plan.events {
            self.context.recorder.record(deployment, EventType::Normal, "ScalingReplicaSet", event);
        }
        let mut current = deployment.clone();
        if let Some(revision) = plan.revision {
            let annotations = current.metadata.annotations.get_or_insert_default();
            annotations.insert(revision::REVISION.to_owned(), revision.to_string());
            if let Some(written) = self.deployments().update(Part::Main, deployment, &current).await? {
                current.metadata.resource_version = written.metadata.resource_version;
            }
        }
        let wanted = Deployment { status: Some(plan.status), ..current.clone() };
        self.deployments().update(Part::Status, &current, &wanted).await?;
        for set in &plan.delete {
            self.sets().delete(set).await?;
        }
        Ok(())
    }

    /// Creates a replica set. Tells whether another one has its name already, for a different template.
    async fn create(&self, deployment: &Deployment, set: &ReplicaSet) -> Result<bool, ReconcileError> {
        let name = pods::name(&set.metadata);
        match self.sets().create(set).await {
            Ok(_) => Ok(false),
            Err(ReconcileError::Api(error)) if is_conflict(&error) => {
                let namespace = pods::namespace(&deployment.metadata);
                let api: Api<ReplicaSet> = Api::namespaced(self.context.client.clone(), namespace);
                match api.get_opt(name).await? {
                    Some(live) if is_own(&live, deployment, set) => {
                        self.context.informers.replica_sets.wait_for(revision_of(&live.metadata)).await;
                        Ok(false)
                    }
                    Some(_) => Ok(true),
                    None => Err(error.into()),
                }
            }
            Err(error) => {
                self.tell_failed_create(deployment, name, &error).await?;
                Err(error)
            }
        }
    }

    async fn tell_failed_create(
        &self,
        deployment: &Deployment,
        name: &str,
        error: &ReconcileError,
    ) -> Result<(), ReconcileError> {
        let reason = match error {
            ReconcileError::Api(kube::Error::Api(status)) => status.message.clone(),
            other => other.to_string(),
        };
        let message = format!("Failed to create new replica set \"{name}\": {reason}");
        self.context.recorder.record(deployment, EventType::Warning, "ReplicaSetCreateError", &message);
        if view::progress_deadline(deployment).is_none() {
            return Ok(());
        }
        let mut failed = deployment.clone();
        let status = failed.status.get_or_insert_default();
        let now = Timestamp::now();
        let (kind, reason) = (conditions::PROGRESSING, "ReplicaSetCreateError");
        conditions::set(status, conditions::new_condition(kind, "False", reason, &message, now));
        self.deployments().update(Part::Status, deployment, &failed).await.map(|_| ())
    }
}

/// Whether a set that exists already is the one that was to be created.
fn is_own(live: &ReplicaSet, deployment: &Deployment, wanted: &ReplicaSet) -> bool {
    let owner = pods::controller_of(&live.metadata).map(|owner| owner.uid.as_str());
    let template = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    owner == deployment.metadata.uid.as_deref() && view::same_template(&template(live), &template(wanted))
}
