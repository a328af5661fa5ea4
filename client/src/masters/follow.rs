//! Learning the masters from the Endpoints `default/kubernetes`.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Endpoints;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};

use super::Masters;
use crate::reconnect::Reconnect;

/// Keeps `masters` at what the cluster says, for as long as it is polled.
pub(super) async fn follow(masters: &Masters, client: kube::Client, mut persist: impl FnMut(&[String]) + Send) {
    let api: Api<Endpoints> = Api::namespaced(client, "default");
    let only = watcher::Config::default().fields("metadata.name=kubernetes");
    let mut events = watcher(api, only).backoff(Reconnect::default()).boxed();
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Apply(endpoints) | watcher::Event::InitApply(endpoints))) => {
                let urls = urls_of_endpoints(&endpoints);
                // An empty list would cut us off; it can only be a transient state.
                if urls.is_empty() || same_set(&urls, &masters.urls()) {
                    continue;
                }
                match masters.set(&urls) {
                    Ok(()) => {
                        tracing::info!(masters = ?urls, "the cluster's masters changed");
                        persist(&urls);
                    }
                    Err(error) => tracing::warn!(%error, "the cluster lists a master that cannot be used"),
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(error) => tracing::debug!(%error, "cannot watch the masters, trying again"),
        }
    }
}

fn same_set(left: &[String], right: &[String]) -> bool {
    left.len() == right.len() && left.iter().all(|url| right.contains(url))
}

/// The API URLs in an Endpoints object, sorted, ready addresses only.
pub fn urls_of_endpoints(endpoints: &Endpoints) -> Vec<String> {
    let mut urls = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = subset.ports.as_deref().unwrap_or_default();
        let Some(port) = ports.iter().find(|port| port.name.as_deref() == Some("https")).or(ports.first()) else {
            continue;
        };
        for address in subset.addresses.iter().flatten() {
            let host = if address.ip.contains(':') { format!("[{}]", address.ip) } else { address.ip.clone() };
            urls.push(format!("https://{host}:{}", port.port));
        }
    }
    urls.sort();
    urls.dedup();
    urls
}
