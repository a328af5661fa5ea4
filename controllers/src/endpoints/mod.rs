//! The Endpoints controller: the addresses behind each service, in one object.

mod plan;
#[cfg(test)]
pub(crate) mod tests;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use trireme_client::informer::ObjectKey;

use crate::runtime::{Context, Next, Part, ReconcileError, Reconciler, Runner, Writer};
use crate::services::{concerned, selected, selector};

struct EndpointsController {
    context: Context,
}

/// The loop that keeps Endpoints.
pub(crate) async fn run(context: Context) {
    let informers = context.informers.clone();
    let (for_pods, all) = (informers.clone(), informers.services.clone());
    let all = move || all.list().iter().map(|service| ObjectKey::of(&service.metadata)).collect();
    let config = context.config.clone();
    Runner::new(EndpointsController { context }, &config, all)
        .on(&informers.services, |service: &Service| vec![ObjectKey::of(&service.metadata)])
        .on(&informers.endpoints, |endpoints: &Endpoints| vec![ObjectKey::of(&endpoints.metadata)])
        .on_change(&informers.pods, move |old: Option<&Pod>, new| concerned(&for_pods, old, new))
        .run()
        .await;
}

impl Reconciler for EndpointsController {
    type Key = ObjectKey;
    const NAME: &'static str = "endpoints";

    async fn reconcile(&self, key: ObjectKey) -> Result<Next, ReconcileError> {
        let informers = &self.context.informers;
        let writer = Writer::new(&self.context.client, &informers.endpoints);
        let present = informers.endpoints.get(&key);
        let Some(service) = informers.services.get(&key) else {
            if let Some(orphan) = present.filter(|present| plan::is_ours(present)) {
                writer.delete(&*orphan).await?;
            }
            return Ok(Next::Done);
        };
        if selector(&service).is_none() || service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let wanted = plan::wanted(&service, &selected(informers, &service), present.as_deref());
        match present {
            Some(present) => writer.update(Part::Main, &*present, &wanted).await.map(|_| ())?,
            None => writer.create(&wanted).await.map(|_| ())?,
        }
        Ok(Next::Done)
    }
}
