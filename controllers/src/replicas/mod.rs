//! What replica sets and replication controllers have in common: keeping a number of pods.

mod execute;
mod plan;
mod ranking;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::core::SelectorExt;
use serde::Serialize;
use trireme_client::informer::{Informer, Informers, Object, ObjectKey};

use crate::pods;
use crate::runtime::{Context, Next, Part, ReconcileError, Reconciler, Runner, Writer};

pub(crate) use plan::{Failure, Owner, Status};

/// A kind that keeps a number of pods.
pub(crate) trait ReplicaKind:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope> + Object + Serialize + Debug
{
    /// For logs.
    const CONTROLLER: &'static str;
    /// Its informer.
    fn informer(informers: &Informers) -> &Informer<Self>;
    /// What it asks for; an error if it cannot be understood.
    fn owner(&self) -> Result<Owner, String>;
    /// Itself with another status.
    fn with_status(&self, status: &Status) -> Self;
}

/// The reconciler of one such kind.
pub(crate) struct Replicas<K> {
    context: Context,
    kind: PhantomData<fn() -> K>,
}

/// The loop that keeps the pods of all objects of this kind.
pub(crate) async fn run<K: ReplicaKind>(context: Context) {
    let informers = context.informers.clone();
    let (owners, pods) = (K::informer(&informers).clone(), informers.pods.clone());
    let all = owners.clone();
    let all = move || all.list().iter().map(|owner| ObjectKey::of(owner.object_meta())).collect();
    let config = context.config.clone();
    let reconciler = Replicas::<K> { context, kind: PhantomData };
    Runner::new(reconciler, &config, all)
        .on(&owners.clone(), |owner: &K| vec![ObjectKey::of(owner.object_meta())])
        .on(&pods, move |pod: &Pod| concerned(&owners, pod))
        .run()
        .await;
}

/// The owners that a change of this pod concerns.
fn concerned<K: ReplicaKind>(owners: &Informer<K>, pod: &Pod) -> Vec<ObjectKey> {
    let namespace = pods::namespace(&pod.metadata);
    match pods::controller_of(&pod.metadata) {
        Some(owner) if owner.kind == K::kind(&()) => vec![ObjectKey::new(namespace, &owner.name)],
        Some(_) => Vec::new(),
        None => {
            let labels = pods::labels(&pod.metadata);
            let matching = |owner: &Arc<K>| owner.owner().is_ok_and(|owner| owner.selector.matches(labels));
            let owners = owners.in_namespace(namespace).into_iter().filter(matching);
            owners.map(|owner| ObjectKey::of(owner.object_meta())).collect()
        }
    }
}

impl<K: ReplicaKind> Reconciler for Replicas<K> {
    type Key = ObjectKey;
    const NAME: &'static str = K::CONTROLLER;

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ReconcileError> {
        let informers = &self.context.informers;
        let Some(object) = K::informer(informers).get(&key) else { return Ok(Next::Done) };
        let owner = object.owner().map_err(ReconcileError::Object)?;
        let now = Timestamp::now();
        let in_namespace = informers.pods.in_namespace(&key.namespace);
        let related = self.related(&*object, &owner);
        let plan = plan::plan(&owner, &in_namespace, &related, now);
        let terminating = plan.terminating;
        let (result, replicas) = self.execute(&*object, &owner, plan).await?;
        let error = result.as_ref().err().map(|failed| &failed.0);
        let status = plan::status(&owner, &replicas, terminating, error, now);
        if status != owner.status {
            let writer = Writer::new(&self.context.client, K::informer(informers));
            writer.update(Part::Status, &*object, &object.with_status(&status)).await?;
        }
        result.map_err(|failed| failed.1)?;
        Ok(plan::next_look(&owner, &replicas, now).map_or(Next::Done, Next::After))
    }
}

impl<K: ReplicaKind> Replicas<K> {
    /// The pods of everything that has the same controller as this object, or of the object alone.
    fn related(&self, object: &K, owner: &Owner) -> Vec<Arc<Pod>> {
        let informers = &self.context.informers;
        let Some(parent) = pods::controller_of(object.object_meta()) else {
            return informers.pods.owned_by(&owner.uid);
        };
        let siblings = K::informer(informers).owned_by(&parent.uid);
        siblings.iter().flat_map(|sibling| informers.pods.owned_by(pods::uid(sibling.object_meta()))).collect()
    }
}
