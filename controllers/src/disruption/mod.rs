//! The disruption controller: counts the pods behind each PodDisruptionBudget, so that evictions know how many of them may go.

mod plan;
mod scale;
mod stale;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{Selector, SelectorExt};
use trireme_client::events::EventType;
use trireme_client::informer::{Informers, ObjectKey};

use crate::pods;
use crate::runtime::{Context, Next, Part, ReconcileError, Reconciler, Runner, Writer, is_conflict};

struct Disruption {
    context: Context,
}

/// The loops that keep the status of budgets, and take back what pods say of evictions that did not happen.
pub(crate) async fn run(context: Context) {
    tokio::join!(budgets(context.clone()), stale::run(context));
}

async fn budgets(context: Context) {
    let informers = context.informers.clone();
    let all = informers.disruption_budgets.clone();
    let all = move || all.list().iter().map(|budget| ObjectKey::of(&budget.metadata)).collect();
    let config = context.config.clone();
    let (for_pods, for_sets, for_controllers, for_deployments) =
        (informers.clone(), informers.clone(), informers.clone(), informers.clone());
    Runner::new(Disruption { context }, &config, all)
        .on(&informers.disruption_budgets, |budget: &PodDisruptionBudget| vec![ObjectKey::of(&budget.metadata)])
        .on_change(&informers.pods, move |old: Option<&Pod>, new| concerned(&for_pods, old, new))
        .on_change(&informers.replica_sets, move |old: Option<&ReplicaSet>, new| {
            let wanted = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.replicas);
            rescaled(
                &for_sets,
                old.map(|old| (&old.metadata, wanted(old))),
                new.map(|new| (&new.metadata, wanted(new))),
            )
        })
        .on_change(&informers.replication_controllers, move |old: Option<&ReplicationController>, new| {
            let wanted = |one: &ReplicationController| one.spec.as_ref().and_then(|spec| spec.replicas);
            let (old, new) = (old.map(|old| (&old.metadata, wanted(old))), new.map(|new| (&new.metadata, wanted(new))));
            rescaled(&for_controllers, old, new)
        })
        .on_change(&informers.deployments, move |old: Option<&Deployment>, new| {
            let wanted = |one: &Deployment| one.spec.as_ref().and_then(|spec| spec.replicas);
            let (old, new) = (old.map(|old| (&old.metadata, wanted(old))), new.map(|new| (&new.metadata, wanted(new))));
            rescaled(&for_deployments, old, new)
        })
        .run()
        .await;
}

/// The budgets of the namespace of something that wants another number of pods.
fn rescaled(
    informers: &Informers,
    old: Option<(&ObjectMeta, Option<i32>)>,
    new: Option<(&ObjectMeta, Option<i32>)>,
) -> Vec<ObjectKey> {
    let Some((meta, wanted)) = new.or(old) else { return Vec::new() };
    if new.is_some() && old.is_some_and(|(_, before)| before == wanted) {
        return Vec::new();
    }
    let budgets = informers.disruption_budgets.in_namespace(pods::namespace(meta));
    budgets.iter().map(|budget| ObjectKey::of(&budget.metadata)).collect()
}

/// The selector of a budget: none selects nothing, an empty one everything.
fn selector(budget: &PodDisruptionBudget) -> Result<Option<Selector>, String> {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.clone());
    selector.map(Selector::try_from).transpose().map_err(|error| error.to_string())
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = selector(budget).ok().flatten();
    selector.is_some_and(|selector| selector.matches(pods::labels(&pod.metadata)))
}

/// The budgets that a change from one pod to the other concerns.
fn concerned(informers: &Informers, old: Option<&Pod>, new: Option<&Pod>) -> Vec<ObjectKey> {
    let facts = |pod: &Pod| {
        let meta = &pod.metadata;
        (pods::is_ready(pod), meta.deletion_timestamp.is_some(), meta.uid.clone(), meta.labels.clone())
    };
    if let (Some(old), Some(new)) = (old, new)
        && facts(old) == facts(new)
    {
        return Vec::new();
    }
    let Some(pod) = new.or(old) else { return Vec::new() };
    let budgets = informers.disruption_budgets.in_namespace(pods::namespace(&pod.metadata));
    let selecting = budgets.iter().filter(|budget| [old, new].into_iter().flatten().any(|pod| selects(budget, pod)));
    selecting.map(|budget| ObjectKey::of(&budget.metadata)).collect()
}

impl Reconciler for Disruption {
    type Key = ObjectKey;
    const NAME: &'static str = "disruption";

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ReconcileError> {
        let Some(budget) = self.context.informers.disruption_budgets.get(&key) else { return Ok(Next::Done) };
        match self.sync(&budget).await {
            Err(ReconcileError::Api(error)) if is_conflict(&error) => Err(error.into()),
            Err(error) => {
                let status = plan::failed(&budget, &error.to_string(), Timestamp::now());
                self.write(&budget, status).await?;
                Err(error)
            }
            done => done,
        }
    }
}

impl Disruption {
    async fn sync(&self, budget: &Arc<PodDisruptionBudget>) -> Result<Next, ReconcileError> {
        let informers = &self.context.informers;
        let spec = budget.spec.clone().unwrap_or_default();
        let selector = selector(budget).map_err(ReconcileError::Object)?;
        let mut selected = match &selector {
            Some(_) => informers.pods.in_namespace(pods::namespace(&budget.metadata)),
            None => Vec::new(),
        };
        selected.retain(|pod| selector.as_ref().is_some_and(|s| s.matches(pods::labels(&pod.metadata))));
        if selected.is_empty() {
            self.tell(budget, EventType::Normal, "NoPods", "No matching pods found");
        }
        let scale = if plan::asks_scale(&spec) { self.scale(budget, &selected).await? } else { 0 };
        let wanted = plan::wanted(&spec, selected.len(), scale).map_err(ReconcileError::Object)?;
        let now = Timestamp::now();
        let disrupted = plan::disrupted(budget, &selected, now);
        for pod in selected.iter().filter(|pod| disrupted.overdue.iter().any(|name| name == pods::name(&pod.metadata)))
        {
            let why =
                format!("Pod was expected by PDB {} to be deleted but it wasn't", ObjectKey::of(&budget.metadata));
            self.context.recorder.record(&**pod, EventType::Warning, "NotDeleted", &why);
        }
        let (healthy, next) = (plan::healthy(&selected, &disrupted), disrupted.next);
        let status = plan::status(budget, wanted, healthy, disrupted.pods, now);
        self.write(budget, status).await?;
        Ok(next.map_or(Next::Done, Next::After))
    }

    /// How many pods the controllers of these pods want.
    async fn scale(&self, budget: &Arc<PodDisruptionBudget>, selected: &[Arc<Pod>]) -> Result<i32, ReconcileError> {
        let mut wanted: HashMap<String, i32> = HashMap::new();
        let mut asked: HashMap<&str, ()> = HashMap::new();
        let mut unmanaged = false;
        for pod in selected {
            let Some(owner) = pods::controller_of(&pod.metadata) else {
                unmanaged = true;
                continue;
            };
            if asked.insert(&owner.uid, ()).is_some() {
                continue;
            }
            let found = scale::of(&self.context, pods::namespace(&pod.metadata), owner).await;
            let missing =
                || ReconcileError::Object(format!("found no controllers for pod {:?}", pods::name(&pod.metadata)));
            let found = found.and_then(|found| found.ok_or_else(missing));
            let found = found.inspect_err(|error| {
                let why = format!("Failed to calculate the number of expected pods: {error}");
                self.tell(budget, EventType::Warning, "CalculateExpectedPodCountFailed", &why);
            })?;
            wanted.insert(found.uid, found.replicas);
        }
        if unmanaged {
            let why = "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the status of \
                       the PDB cannot be calculated correctly, which may result in undefined behavior. To account for \
                       these pods please set \".spec.minAvailable\" field of the PDB to an integer value.";
            self.tell(budget, EventType::Warning, "UnmanagedPods", why);
        }
        Ok(wanted.into_values().fold(0, i32::saturating_add))
    }

    fn tell(&self, budget: &Arc<PodDisruptionBudget>, kind: EventType, reason: &str, message: &str) {
        self.context.recorder.record(&**budget, kind, reason, message);
    }

    async fn write(
        &self,
        budget: &Arc<PodDisruptionBudget>,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), ReconcileError> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let next = PodDisruptionBudget { status: Some(status), ..PodDisruptionBudget::clone(budget) };
        let writer = Writer::new(&self.context.client, &self.context.informers.disruption_budgets);
        writer.update(Part::Status, &**budget, &next).await.map(drop)
    }
}
