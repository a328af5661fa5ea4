//! Keeps a [`ServiceProxy`] in line with the cluster's services and endpoint slices.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ServiceProxy;

/// Changes that come together become one transaction.
const GATHER: Duration = Duration::from_millis(50);
/// After a failure it is tried again after this.
const RETRY: Duration = Duration::from_secs(2);

/// Follows services and slices until `shutdown`, once `ready` says that the pod network is configured. What is loaded
/// stays when this returns: traffic does not depend on the agent.
pub async fn run(
    proxy: ServiceProxy,
    client: kube::Client,
    mut ready: watch::Receiver<bool>,
    shutdown: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    let changed = Arc::new(Notify::new());
    let services: Store<Service> = follow(&mut tasks, client.clone(), changed.clone());
    let slices: Store<EndpointSlice> = follow(&mut tasks, client, changed.clone());
    let start = async {
        // Before both are complete, services would seem to have no endpoints.
        ready.wait_for(|ready| *ready).await.is_ok()
            && services.wait_until_ready().await.is_ok()
            && slices.wait_until_ready().await.is_ok()
    };
    tokio::select! {
        started = start => if !started { return },
        () = shutdown.cancelled() => return,
    }
    loop {
        let wait = match proxy.sync(&services.state(), &slices.state()).await {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(%error, "services not set up");
                Some(RETRY)
            }
        };
        let next = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => changed.notified().await,
            }
            tokio::time::sleep(GATHER).await;
        };
        tokio::select! {
            () = next => {}
            () = shutdown.cancelled() => return,
        }
    }
}

fn follow<K>(tasks: &mut JoinSet<()>, client: kube::Client, changed: Arc<Notify>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store::<K>();
    let stream = watcher(Api::<K>::all(client), watcher::Config::default());
    let stream = reflector::reflector(writer, stream.default_backoff());
    tasks.spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            match event {
                Ok(_) => changed.notify_one(),
                Err(error) => tracing::debug!(%error, kind = %K::kind(&()), "watch for services"),
            }
        }
    });
    store
}
