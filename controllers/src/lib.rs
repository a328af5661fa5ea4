//! The control loops that the leading master runs.
//!
//! One folder a controller: observe, plan (pure), execute. A controller is given keys, never events, and starts
//! from the shared informers each time. Every master keeps the informers warm; only the one that reigns acts,
//! through the fenced client of its reign.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trireme_client::events::EventRecorder;
use trireme_client::informer::Informers;
use trireme_client::leadership::{LeadershipRx, Reign, while_reigning};

mod config;
mod deployment;
mod discovery;
mod disruption;
mod endpoints;
mod endpointslice;
mod flowschema;
mod garbage;
mod metrics;
mod namespace;
mod nodeipam;
mod nodelifecycle;
mod podgc;
mod pods;
mod replicas;
mod replicaset;
mod replicationcontroller;
mod runtime;
mod serviceaccount;
mod services;

pub use config::{Config, ConfigError};
pub use metrics::Metrics;
use runtime::Context;

/// Runs all controllers whenever this process reigns, until `shutdown`.
pub async fn run(informers: Arc<Informers>, leadership: LeadershipRx, config: Config, shutdown: CancellationToken) {
    let config = Arc::new(config);
    let body = |reign: Arc<Reign>| reign_over(informers.clone(), reign, config.clone());
    while_reigning(leadership, informers.clone(), shutdown, body).await;
}

/// Everything that belongs to one reign: dropped as a whole, with all that is under way, when the reign ends.
async fn reign_over(informers: Arc<Informers>, reign: Arc<Reign>, config: Arc<Config>) {
    tracing::info!(fence = reign.fence_revision, "controllers act");
    let mut tasks = JoinSet::new();
    let client = reign.client.clone();
    let mut context = |component: &str| {
        let (recorder, writer) = EventRecorder::new(client.clone(), component, None);
        tasks.spawn(writer.run());
        Context { client: client.clone(), informers: informers.clone(), config: config.clone(), recorder }
    };
    let replica_set = context("replicaset-controller");
    let replication = context("replication-controller");
    let deployment = context("deployment-controller");
    let endpoints = context("endpoint-controller");
    let slices = context("endpoint-slice-controller");
    let namespace = context("namespace-controller");
    let furnisher = context("serviceaccount-controller");
    let garbage = context("garbage-collector-controller");
    let lifecycle = context("node-controller");
    let pod_garbage = context("pod-garbage-collector");
    let ipam = context("cidrAllocator");
    let disruption = context("controllermanager");
    let flow = context("flow-control");
    tasks.spawn(replicas::run::<ReplicaSet>(replica_set));
    tasks.spawn(replicas::run::<ReplicationController>(replication));
    tasks.spawn(deployment::run(deployment));
    tasks.spawn(endpoints::run(endpoints));
    tasks.spawn(endpointslice::run(slices));
    tasks.spawn(namespace::run(namespace));
    tasks.spawn(serviceaccount::run(furnisher));
    tasks.spawn(garbage::run(garbage));
    tasks.spawn(nodelifecycle::run(lifecycle));
    tasks.spawn(podgc::run(pod_garbage));
    tasks.spawn(nodeipam::run(ipam));
    tasks.spawn(disruption::run(disruption));
    tasks.spawn(flowschema::run(flow));
    while tasks.join_next().await.is_some() {}
}
