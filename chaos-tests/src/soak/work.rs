//! What users do all day: Deployments and pods that come, change and go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{LABEL, NAMESPACE};
use crate::clients::Endpoints;

/// Deployments at the same time.
const DEPLOYMENTS: usize = 4;
/// Pods without a controller at the same time.
const PODS: usize = 4;
/// Replicas of one Deployment.
const REPLICAS: i32 = 4;
/// Between two changes.
const PACE: Duration = Duration::from_millis(1500);

/// A Deployment as it is desired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many pods.
    pub replicas: i32,
    /// Which template.
    pub round: u32,
}

/// What has to be there in the end.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Deployments, each with a Service of the same name.
    pub deployments: BTreeMap<String, Shape>,
    /// Pods without a controller.
    pub pods: BTreeSet<String>,
    /// Changes that were acknowledged.
    pub changes: usize,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Deploy(String, Shape),
    Adjust(String, Shape),
    Remove(String),
    AddPod(String),
    RemovePod(String),
}

/// Changes things until stopped.
pub async fn run(endpoints: Endpoints, seed: u64, stop: CancellationToken) -> Result<Wanted> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut wanted = Wanted::default();
    for number in 0u32.. {
        let change = choose(&mut random, &wanted, number);
        apply(&endpoints, &change).await?;
        wanted.take(change);
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(PACE) => {}
        }
    }
    Ok(wanted)
}

impl Wanted {
    fn take(&mut self, change: Change) {
        match change {
            Change::Deploy(name, shape) | Change::Adjust(name, shape) => drop(self.deployments.insert(name, shape)),
            Change::Remove(name) => drop(self.deployments.remove(&name)),
            Change::AddPod(name) => drop(self.pods.insert(name)),
            Change::RemovePod(name) => drop(self.pods.remove(&name)),
        }
        self.changes += 1;
    }
}

fn choose(random: &mut StdRng, wanted: &Wanted, number: u32) -> Change {
    let (dice, replicas) = (random.random_range(0..100), random.random_range(1..=REPLICAS));
    let pick = random.random_range(0..1024usize);
    let deployment = || wanted.deployments.iter().nth(pick % wanted.deployments.len().max(1));
    let pod = || wanted.pods.iter().nth(pick % wanted.pods.len().max(1));
    let fresh = || Change::Deploy(format!("soak-{number}"), Shape { replicas, round: 0 });
    match (dice, deployment(), pod()) {
        (0..20, ..) if wanted.deployments.len() < DEPLOYMENTS => fresh(),
        (20..45, Some((name, shape)), _) => Change::Adjust(name.clone(), Shape { replicas, ..shape.clone() }),
        (45..70, Some((name, shape)), _) => {
            Change::Adjust(name.clone(), Shape { round: shape.round + 1, ..shape.clone() })
        }
        (70..80, Some((name, _)), _) if wanted.deployments.len() > 1 => Change::Remove(name.clone()),
        (80..90, ..) if wanted.pods.len() < PODS => Change::AddPod(format!("lone-{number}")),
        (_, _, Some(name)) => Change::RemovePod(name.clone()),
        _ if wanted.deployments.len() < DEPLOYMENTS => fresh(),
        _ => Change::AddPod(format!("lone-{number}")),
    }
}

/// Brings a change about, whatever dies meanwhile: it may be sent more than once.
async fn apply(endpoints: &Endpoints, change: &Change) -> Result<()> {
    endpoints.until_done(&format!("{change:?}"), |client| send(client, change.clone())).await
}

async fn send(client: kube::Client, change: Change) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
    let (create, delete) = (PostParams::default(), DeleteParams::default());
    match change {
        Change::Deploy(name, shape) => {
            present(services.create(&create, &serde_json::from_value(service(&name))?).await.map(drop))?;
            present(deployments.create(&create, &serde_json::from_value(deployment(&name, &shape))?).await.map(drop))
        }
        Change::Adjust(name, shape) => {
            let patch = json!({"spec": {"replicas": shape.replicas, "template": {"metadata": {"annotations":
                {"trireme.io/round": shape.round.to_string()}}}}});
            deployments.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            Ok(())
        }
        Change::Remove(name) => {
            absent(services.delete(&name, &delete).await.map(drop))?;
            let background = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..delete };
            absent(deployments.delete(&name, &background).await.map(drop))
        }
        Change::AddPod(name) => present(pods.create(&create, &serde_json::from_value(lone(&name))?).await.map(drop)),
        Change::RemovePod(name) => absent(pods.delete(&name, &delete).await.map(drop)),
    }
}

/// What exists already was created by an earlier attempt.
fn present(answer: kube::Result<()>) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => Ok(other?),
    }
}

fn absent(answer: kube::Result<()>) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => Ok(other?),
    }
}

fn labels(app: &str) -> Value {
    let (key, value) = LABEL.split_once('=').unwrap_or_default();
    json!({key: value, "app": app})
}

fn container() -> Value {
    json!({"name": "c", "image": "busybox:1.35", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "86400"],
           "ports": [{"containerPort": 8080}]})
}

fn deployment(name: &str, shape: &Shape) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels(name)},
        "spec": {"replicas": shape.replicas, "selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": labels(name), "annotations": {"trireme.io/round": shape.round.to_string()}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container()]}}}})
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels(name)},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}})
}

fn lone(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels(name)},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container()]}})
}

/// Deletes everything that this has made.
pub async fn delete_all(endpoints: &Endpoints) -> Result<()> {
    endpoints
        .until_done("deleting everything", |client| async move {
            let (all, params) = (ListParams::default().labels(LABEL), DeleteParams::background());
            let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
            for service in services.list(&all).await? {
                absent(services.delete(&service.metadata.name.unwrap_or_default(), &params).await.map(drop))?;
            }
            let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
            deployments.delete_collection(&params, &all).await?;
            let pods: Api<Pod> = Api::namespaced(client, NAMESPACE);
            for pod in pods.list(&all).await? {
                if pod.metadata.owner_references.is_none() {
                    absent(pods.delete(&pod.metadata.name.unwrap_or_default(), &params).await.map(drop))?;
                }
            }
            if deployments.list(&all).await?.items.is_empty() { Ok(()) } else { bail!("Deployments are left") }
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_choices() {
        let choices = |seed| {
            let (mut random, mut wanted) = (StdRng::seed_from_u64(seed), Wanted::default());
            let made: Vec<Change> = (0..500)
                .map(|number| {
                    let change = choose(&mut random, &wanted, number);
                    wanted.take(change.clone());
                    change
                })
                .collect();
            (made, wanted)
        };
        let (made, wanted) = choices(7);
        assert_eq!(made, choices(7).0);
        assert_ne!(made, choices(8).0);
        assert!(wanted.deployments.len() <= DEPLOYMENTS && wanted.pods.len() <= PODS + 1);
        assert!(made.iter().any(|change| matches!(change, Change::Adjust(_, shape) if shape.round > 2)));
    }
}
