//! What the API shows in the end: every Deployment complete, every pod as wanted, nothing that nobody owns.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use kube::{Resource, ResourceExt};

use super::work::Wanted;
use super::{LABEL, NAMESPACE};
use crate::cluster::Cluster;

/// A pod whose containers live, as hosts have to show it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Living {
    /// Name, for people.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its address.
    pub ip: String,
}

/// Pods by uid, and the addresses of Services.
#[derive(Clone, Debug, Default)]
pub struct All {
    /// Pods on their nodes.
    pub pods: BTreeMap<String, Living>,
    /// Addresses that Services have.
    pub services: BTreeSet<String>,
}

/// All pods of all namespaces.
pub async fn living(cluster: &Cluster) -> Result<All> {
    cluster
        .endpoints()
        .await?
        .until_done("listing pods", |client| async move {
            let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await?;
            let services = Api::<Service>::all(client).list(&ListParams::default()).await?;
            let mut all = All::default();
            for pod in pods {
                let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
                let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default();
                let living = Living { name: pod.name_any(), node, ip };
                all.pods.insert(pod.metadata.uid.unwrap_or_default(), living);
            }
            all.services = services.into_iter().filter_map(|service| service.spec?.cluster_ip).collect();
            Ok(all)
        })
        .await
}

/// Waits until everything is as wanted; how long it took.
pub async fn wait(cluster: &Cluster, wanted: &Wanted, limit: Duration) -> Result<Duration> {
    let begun = Instant::now();
    let endpoints = cluster.endpoints().await?;
    loop {
        let wrong = endpoints.until_done("reading the state", |client| differences(client, wanted)).await?;
        if wrong.is_empty() {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > limit {
            bail!("not as desired after {} s:\n  {}", limit.as_secs(), wrong.join("\n  "));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn differences(client: kube::Client, wanted: &Wanted) -> Result<Vec<String>> {
    let params = ListParams::default().labels(LABEL);
    let deployments = Api::<Deployment>::namespaced(client.clone(), NAMESPACE).list(&params).await?.items;
    let sets = Api::<ReplicaSet>::namespaced(client.clone(), NAMESPACE).list(&params).await?.items;
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE).list(&params).await?.items;
    let slices = Api::<EndpointSlice>::namespaced(client, NAMESPACE).list(&ListParams::default()).await?.items;
    let mut wrong = deployments_differ(&deployments, wanted);
    wrong.extend(orphans(&sets, &deployments));
    let owners: BTreeMap<String, String> = sets
        .iter()
        .map(|set| (set.uid().unwrap_or_default(), set.labels().get("app").cloned().unwrap_or_default()))
        .collect();
    let mut counts: BTreeMap<String, i32> = BTreeMap::new();
    for pod in &pods {
        let name = pod.name_any();
        match pod.owner_references().iter().find(|owner| owner.controller == Some(true)) {
            Some(owner) => match owners.get(&owner.uid) {
                Some(app) => *counts.entry(app.clone()).or_default() += 1,
                None => wrong.push(format!("pod {name} is owned by {}, which is gone", owner.name)),
            },
            None if wanted.pods.contains(&name) => {}
            None => wrong.push(format!("pod {name} should be gone")),
        }
        wrong.extend(unwell(pod).map(|why| format!("pod {name} {why}")));
    }
    for name in &wanted.pods {
        if !pods.iter().any(|pod| pod.name_any() == *name) {
            wrong.push(format!("pod {name} is missing"));
        }
    }
    for (name, shape) in &wanted.deployments {
        let count = counts.get(name).copied().unwrap_or_default();
        if count != shape.replicas {
            wrong.push(format!("deployment {name} has {count} pods, not {}", shape.replicas));
        }
    }
    wrong.extend(endpoints_differ(&slices, &pods, wanted));
    Ok(wrong)
}

fn deployments_differ(found: &[Deployment], wanted: &Wanted) -> Vec<String> {
    let mut wrong = Vec::new();
    for deployment in found.iter().filter(|d| !wanted.deployments.contains_key(&d.name_any())) {
        wrong.push(format!("deployment {} should be gone", deployment.name_any()));
    }
    for (name, shape) in &wanted.deployments {
        let Some(deployment) = found.iter().find(|deployment| deployment.name_any() == *name) else {
            wrong.push(format!("deployment {name} is missing"));
            continue;
        };
        let status = deployment.status.clone().unwrap_or_default();
        let of = |count: Option<i32>| count.unwrap_or_default();
        let counts = [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas];
        let round = deployment.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref()?.annotations.clone());
        let round = round.and_then(|all| all.get("trireme.io/round").cloned()).unwrap_or_default();
        let complete = status.observed_generation == deployment.metadata.generation
            && of(status.unavailable_replicas) == 0
            && deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(shape.replicas)
            && round == shape.round.to_string()
            && counts.iter().all(|count| of(*count) == shape.replicas);
        if !complete {
            wrong.push(format!("deployment {name}, wanted {shape:?}, is in round {round} with {counts:?}"));
        }
    }
    wrong
}

fn orphans(sets: &[ReplicaSet], deployments: &[Deployment]) -> Vec<String> {
    let alive: BTreeSet<String> = deployments.iter().filter_map(ResourceExt::uid).collect();
    let mut wrong = Vec::new();
    let mut active: BTreeMap<String, usize> = BTreeMap::new();
    for set in sets {
        let owned = set.owner_references().iter().find(|owner| alive.contains(&owner.uid));
        match owned {
            None => wrong.push(format!("replicaset {} is owned by nobody", set.name_any())),
            Some(owner) if set.spec.as_ref().and_then(|spec| spec.replicas) != Some(0) => {
                *active.entry(owner.name.clone()).or_default() += 1;
            }
            Some(_) => {}
        }
    }
    let several = active.iter().filter(|(_, count)| **count > 1);
    wrong.extend(several.map(|(name, count)| format!("deployment {name} has {count} active replicasets")));
    wrong
}

fn unwell(pod: &Pod) -> Option<String> {
    if pod.meta().deletion_timestamp.is_some() {
        return Some("is still going".to_owned());
    }
    let status = pod.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    let restarts: i32 = status.container_statuses.iter().flatten().map(|container| container.restart_count).sum();
    match status.phase.as_deref() {
        Some("Running") if ready && restarts == 0 => None,
        phase => Some(format!("is {}, ready: {ready}, restarted {restarts} times", phase.unwrap_or("without a phase"))),
    }
}

/// Endpoints of each Service against the addresses of its pods.
fn endpoints_differ(slices: &[EndpointSlice], pods: &[Pod], wanted: &Wanted) -> Vec<String> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for slice in slices {
        let service = slice.labels().get("kubernetes.io/service-name").cloned().unwrap_or_default();
        let addresses = slice.endpoints.iter().flatten().flat_map(|endpoint| endpoint.addresses.clone());
        found.entry(service).or_default().extend(addresses);
    }
    found.remove("kubernetes");
    let mut wrong = Vec::new();
    for name in wanted.deployments.keys() {
        let own = pods.iter().filter(|pod| pod.labels().get("app") == Some(name));
        let right: BTreeSet<String> = own.filter_map(|pod| pod.status.as_ref()?.pod_ip.clone()).collect();
        let has = found.remove(name).unwrap_or_default();
        if has != right {
            wrong.push(format!("service {name} has the endpoints {has:?}, not {right:?}"));
        }
    }
    wrong.extend(found.keys().map(|service| format!("endpoints of {service} should be gone")));
    wrong
}
