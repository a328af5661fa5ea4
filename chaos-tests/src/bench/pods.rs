//! Pods that are created one after the other, timed by what a watch tells.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clients;
use crate::cluster::Cluster;
use crate::report::ms;
use crate::watching;

const LABEL: &str = "trireme.io/bench=1";
const NAMESPACE: &str = "default";
/// Longest time for one step of a pod.
const LIMIT: Duration = Duration::from_secs(60);

/// What one pod took, in milliseconds from before its creation was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// The creation was acknowledged.
    pub created: f64,
    /// The watch told of its node.
    pub bound: f64,
    /// The watch told that it runs.
    pub running: f64,
}

/// What the watch has told about the pod of now.
#[derive(Clone, Debug, Default)]
struct Stage {
    name: String,
    bound: Option<Instant>,
    running: Option<Instant>,
    gone: bool,
}

fn pod(name: &str) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"trireme.io/bench": "1"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "c", "image": "busybox:1.35", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "3600"]}
        ]}
    }))?)
}

/// Runs so many pods, each after the one before is gone. A few before them warm up both nodes and are not counted.
pub async fn one_after_the_other(cluster: &Cluster, count: usize) -> Result<Vec<Timing>> {
    let api: Api<Pod> = Api::namespaced(clients::of_master(cluster, 1).await?, NAMESPACE);
    let from = api.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default().parse()?;
    let (sender, mut receiver) = watch::channel(Stage::default());
    let sender = Arc::new(Mutex::new(sender));
    let stop = CancellationToken::new();
    let watching = tokio::spawn({
        let (api, sender, stop) = (api.clone(), sender.clone(), stop.clone());
        async move {
            watching::follow(api, LABEL, from, stop, |seen| {
                let sender = sender.lock().unwrap_or_else(PoisonError::into_inner);
                sender.send_if_modified(|stage| note(stage, &seen));
            })
            .await
        }
    });
    let warm_up = 4;
    let mut timings = Vec::new();
    for number in 0..warm_up + count {
        let name = format!("bench-{number}");
        let fresh = Stage { name: name.clone(), ..Stage::default() };
        sender.lock().unwrap_or_else(PoisonError::into_inner).send_replace(fresh);
        let timing = one(&api, &name, &mut receiver).await.with_context(|| format!("pod {number}"))?;
        if number >= warm_up {
            timings.push(timing);
        }
    }
    stop.cancel();
    watching.await??;
    Ok(timings)
}

fn note(stage: &mut Stage, seen: &watching::Seen<Pod>) -> bool {
    if seen.object.metadata.name.as_deref() != Some(&stage.name) {
        return false;
    }
    let spec = seen.object.spec.as_ref();
    if spec.is_some_and(|spec| spec.node_name.is_some()) {
        stage.bound.get_or_insert(seen.at);
    }
    let phase = seen.object.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase == Some("Running") {
        stage.running.get_or_insert(seen.at);
    }
    stage.gone = seen.deleted;
    true
}

async fn one(api: &Api<Pod>, name: &str, told: &mut watch::Receiver<Stage>) -> Result<Timing> {
    let wanted = pod(name)?;
    let begun = Instant::now();
    api.create(&PostParams::default(), &wanted).await?;
    let created = begun.elapsed();
    let running = tokio::time::timeout(LIMIT, told.wait_for(|stage| stage.name == name && stage.running.is_some()));
    let stage = running.await.with_context(|| format!("{name} does not run"))??.clone();
    api.delete(name, &DeleteParams::default()).await?;
    let gone = tokio::time::timeout(LIMIT, told.wait_for(|stage| stage.name == name && stage.gone));
    drop(gone.await.with_context(|| format!("{name} does not go"))??);
    let (Some(bound), Some(running)) = (stage.bound, stage.running) else { bail!("{stage:?}") };
    Ok(Timing {
        created: ms(created),
        bound: ms(bound.saturating_duration_since(begun)),
        running: ms(running.saturating_duration_since(begun)),
    })
}

/// Leaves so many pods running; how many there are.
pub async fn keep(cluster: &Cluster, count: usize) -> Result<usize> {
    let api: Api<Pod> = Api::namespaced(clients::of_master(cluster, 1).await?, NAMESPACE);
    for number in 0..count {
        api.create(&PostParams::default(), &pod(&format!("kept-{number}"))?).await?;
    }
    let deadline = Instant::now() + LIMIT;
    loop {
        let list = api.list(&ListParams::default().labels(LABEL)).await?;
        let running = |pod: &&Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
        if list.items.iter().filter(running).count() == count {
            return Ok(count);
        }
        ensure!(Instant::now() < deadline, "{count} pods do not run");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
