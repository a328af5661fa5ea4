//! How many pods the controller of a pod wants.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::Request;
use trireme_client::informer::Informers;

use crate::pods;
use crate::runtime::{Context, ReconcileError, is_not_found};

/// Who wants how many pods.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) uid: String,
    pub(super) replicas: i32,
}

/// What the owner wants, or the Deployment behind it; none if it is gone.
pub(super) async fn of(
    context: &Context,
    namespace: &str,
    owner: &OwnerReference,
) -> Result<Option<Found>, ReconcileError> {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    match (group, owner.kind.as_str()) {
        ("apps", "ReplicaSet") => Ok(of_replica_set(&context.informers, namespace, owner)),
        ("", "ReplicationController") => {
            let found = context.informers.replication_controllers.find(namespace, &owner.name);
            let found = found.filter(|found| found.metadata.uid.as_ref() == Some(&owner.uid));
            let wanted = found.map(|found| found.spec.as_ref().and_then(|spec| spec.replicas));
            Ok(wanted.map(|wanted| Found { uid: owner.uid.clone(), replicas: wanted.unwrap_or(1) }))
        }
        _ => asked(context, namespace, owner).await,
    }
}

fn of_replica_set(informers: &Informers, namespace: &str, owner: &OwnerReference) -> Option<Found> {
    let set = informers.replica_sets.find(namespace, &owner.name)?;
    if set.metadata.uid.as_ref() != Some(&owner.uid) {
        return None;
    }
    if let Some(parent) = pods::controller_of(&set.metadata).filter(|parent| parent.kind == "Deployment") {
        let deployment = informers.deployments.find(namespace, &parent.name)?;
        let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let same = deployment.metadata.uid.as_ref() == Some(&parent.uid);
        return same.then(|| Found { uid: parent.uid.clone(), replicas });
    }
    let wanted = |set: &ReplicaSet| set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    Some(Found { uid: owner.uid.clone(), replicas: wanted(&set) })
}

/// Asks the owner's sub-resource `scale`, whatever its kind.
async fn asked(context: &Context, namespace: &str, owner: &OwnerReference) -> Result<Option<Found>, ReconcileError> {
    let list = match owner.api_version.split_once('/') {
        Some(_) => context.client.list_api_group_resources(&owner.api_version).await,
        None => context.client.list_core_api_resources(&owner.api_version).await,
    };
    let resources = list?.resources;
    let plural = resources.iter().find(|one| one.kind == owner.kind && !one.name.contains('/'));
    let plural = plural.map(|one| one.name.as_str()).ok_or_else(|| {
        ReconcileError::Object(format!("no matches for kind {:?} in version {:?}", owner.kind, owner.api_version))
    })?;
    if !resources.iter().any(|one| one.name.strip_suffix("/scale") == Some(plural)) {
        let group = owner.api_version.split_once('/').map_or(String::new(), |(group, _)| format!(".{group}"));
        return Err(ReconcileError::Object(format!("{plural}{group} does not implement the scale subresource")));
    }
    let root = if owner.api_version.contains('/') { "apis" } else { "api" };
    let path = format!("/{root}/{}/namespaces/{namespace}/{plural}", owner.api_version);
    let request = Request::new(path).get_subresource("scale", &owner.name).map_err(kube::Error::BuildRequest)?;
    let scale: Scale = match context.client.request(request).await {
        Err(error) if is_not_found(&error) => return Ok(None),
        answer => answer?,
    };
    let same = scale.metadata.uid.as_ref() == Some(&owner.uid);
    let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
    Ok(same.then(|| Found { uid: owner.uid.clone(), replicas }))
}
