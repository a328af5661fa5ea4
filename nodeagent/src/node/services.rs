//! Follows services and their endpoints: for the pods' environment, and for the rules that carry services' traffic.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{Lookup, Store};
use kube::runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trireme_client::reconnect::Reconnect;

use crate::network::services::ServiceProxy;

/// Changes that come in one burst are loaded together.
const GATHER: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_secs(2);

/// Keeps a store of all objects of one kind up to date, and counts the changes.
pub(crate) async fn follow<K>(client: kube::Client, writer: Writer<K>, changes: watch::Sender<u64>)
where
    K: kube::Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + DeserializeOwned,
    K: std::fmt::Debug + Send + Sync + 'static,
{
    let stream = watcher::watcher(Api::<K>::all(client), watcher::Config::default()).backoff(Reconnect::default());
    let mut stream = std::pin::pin!(stream.reflect(writer));
    while let Some(event) = stream.next().await {
        match event {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Ok(_) => changes.send_modify(|count| *count += 1),
            Err(error) => tracing::warn!(%error, kind = %<K as kube::Resource>::kind(&()), "watch"),
        }
    }
}

/// Loads the rules whenever services or endpoints have changed, until `shutdown`.
pub(crate) async fn run_proxy(
    proxy: ServiceProxy,
    (services, slices): (Store<Service>, Store<EndpointSlice>),
    mut changes: watch::Receiver<u64>,
    mut network: watch::Receiver<bool>,
    shutdown: CancellationToken,
) {
    let work = async {
        if network.wait_for(|ready| *ready).await.is_err()
            || services.wait_until_ready().await.is_err()
            || slices.wait_until_ready().await.is_err()
        {
            return;
        }
        loop {
            changes.borrow_and_update();
            if let Err(error) = proxy.sync(&services.state(), &slices.state()).await {
                tracing::warn!(%error, "rules of the services not loaded");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            if changes.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(GATHER).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}
