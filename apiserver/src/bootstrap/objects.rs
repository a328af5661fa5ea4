//! The objects that clients look for in any cluster: upstream's priority classes, flow control, APIServices and roles, the
//! network of Services, and the authority of client certificates. What is there stays as it is.

use futures::StreamExt;
use http::Method;
use serde_json::{Value, json};
use trireme_api::bootstrap::{api_service, flow, priority_classes, roles};
use trireme_api::status::Status;

use super::call;
use crate::error::ServerError;
use crate::in_process::InProcess;
use crate::server::ApiServer;
use crate::storage::keys;

/// How many are made at the same time.
const AT_ONCE: usize = 16;

/// Makes those that are missing.
pub(super) async fn ensure(server: &ApiServer, api: &InProcess) -> Result<(), ServerError> {
    server.barrier().await.map_err(ServerError::Bootstrap)?;
    let missing: Vec<(String, Value)> = all(server).into_iter().filter_map(|object| place(server, object)).collect();
    let made = futures::stream::iter(missing).map(|(collection, object)| async move {
        match call(api, Method::POST, &collection, Some(&object)).await {
            Err(status) if status.code != 409 => Err(status),
            _ => Ok(()),
        }
    });
    let outcomes: Vec<Result<(), Status>> = made.buffer_unordered(AT_ONCE).collect().await;
    outcomes.into_iter().collect::<Result<(), Status>>().map_err(ServerError::Bootstrap)?;
    ready(server, api).await
}

fn all(server: &ApiServer) -> Vec<Value> {
    let mut all = priority_classes();
    all.extend(flow::all());
    all.extend(roles::all());
    for (group, versions) in server.inner.catalogue.groups() {
        all.extend(versions.into_iter().map(|version| api_service(group, version)));
    }
    all.push(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [server.inner.service_cidr.to_string()]},
    }));
    let ca = server.inner.pki.ca_pem();
    all.push(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"client-ca-file": ca},
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
    }));
    all
}

/// Where an object is made, unless it is there or its kind is not served.
fn place(server: &ApiServer, object: Value) -> Option<(String, Value)> {
    let resource = server.inner.catalogue.by_kind_of(&object)?;
    let (name, namespace) = (object["metadata"]["name"].as_str()?, object["metadata"]["namespace"].as_str());
    let storage = &resource.storage;
    let cache = server.inner.feed.cache(&storage.group, &storage.plural)?;
    if cache.get(&keys::suffix(namespace, name)).is_some() {
        return None;
    }
    let root = if resource.group.is_empty() { "/api" } else { "/apis" };
    let inside = namespace.map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
    Some((format!("{root}/{}{inside}/{}", resource.api_version(), resource.plural), object))
}

/// Says of the network of Services that it is in use, once.
async fn ready(server: &ApiServer, api: &InProcess) -> Result<(), ServerError> {
    let path = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes";
    if server.inner.catalogue.resource("networking.k8s.io", "v1", "servicecidrs").is_none() {
        return Ok(());
    }
    let network = call(api, Method::GET, path, None).await.map_err(ServerError::Bootstrap)?;
    if network["status"]["conditions"].is_array() {
        return Ok(());
    }
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": network["metadata"]["creationTimestamp"],
    });
    let mut network = network;
    network["status"] = json!({"conditions": [condition]});
    match call(api, Method::PUT, &format!("{path}/status"), Some(&network)).await {
        // Somebody else has said so.
        Err(status) if status.code != 409 => Err(ServerError::Bootstrap(status)),
        _ => Ok(()),
    }
}
