//! The EndpointSlice controller: the addresses behind each service, in slices of bounded size.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use trireme_client::informer::ObjectKey;

use crate::pods;
use crate::runtime::{Context, Next, Part, ReconcileError, Reconciler, Runner, Writer};
use crate::services::{concerned, selected, selector};
use plan::{CONTROLLER, MANAGED_BY, SERVICE_NAME, plan};

struct Slices {
    context: Context,
}

/// The loop that keeps slices.
pub(crate) async fn run(context: Context) {
    let informers = context.informers.clone();
    let (for_pods, all) = (informers.clone(), informers.services.clone());
    let all = move || all.list().iter().map(|service| ObjectKey::of(&service.metadata)).collect();
    let config = context.config.clone();
    Runner::new(Slices { context }, &config, all)
        .on(&informers.services, |service: &Service| vec![ObjectKey::of(&service.metadata)])
        .on(&informers.endpoint_slices, |slice: &EndpointSlice| service_of(slice).into_iter().collect())
        .on_change(&informers.pods, move |old: Option<&Pod>, new| concerned(&for_pods, old, new))
        .run()
        .await;
}

/// The service whose slice this is, if it is one of ours.
fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let labels = pods::labels(&slice.metadata);
    let ours = labels.get(MANAGED_BY).map(String::as_str) == Some(CONTROLLER);
    let name = labels.get(SERVICE_NAME).filter(|_| ours)?;
    Some(ObjectKey::new(pods::namespace(&slice.metadata), name))
}

impl Reconciler for Slices {
    type Key = ObjectKey;
    const NAME: &'static str = "endpointslice";

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ReconcileError> {
        let informers = &self.context.informers;
        // Slices of a service that is gone are collected as garbage.
        let Some(service) = informers.services.get(&key) else { return Ok(Next::Done) };
        if selector(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let mut present = informers.endpoint_slices.in_namespace(&key.namespace);
        present.retain(|slice| service_of(slice).as_ref() == Some(&key) && slice.metadata.deletion_timestamp.is_none());
        let plan = plan(&service, &selected(informers, &service), &present, |node| informers.nodes.find("", node));
        self.execute(&present, plan).await?;
        Ok(Next::Done)
    }
}

impl Slices {
    async fn execute(&self, present: &[Arc<EndpointSlice>], plan: plan::Plan) -> Result<(), ReconcileError> {
        let writer = Writer::new(&self.context.client, &self.context.informers.endpoint_slices);
        // New and changed first: an endpoint is rather in two slices for a moment than in none.
        for slice in &plan.create {
            writer.create(slice).await?;
        }
        for slice in &plan.update {
            if let Some(old) = present.iter().find(|old| old.metadata.name == slice.metadata.name) {
                writer.update(Part::Main, &**old, slice).await?;
            }
        }
        for slice in &plan.delete {
            writer.delete(slice).await?;
        }
        Ok(())
    }
}
