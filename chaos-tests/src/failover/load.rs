//! The clients: writers and creators of pods on every master, and what watches tell of it all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Resource;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::ledger::{Ack, Failed, Ledger};
use super::observe::{Configs, Observed, Pods};
use super::{LABEL, NAMESPACE};
use crate::clients::{self, PATIENCE};
use crate::cluster::Cluster;
use crate::watching::{self, Seen};

/// Writers of each master.
const WRITERS: usize = 2;
/// Between two writes of a writer.
const PACE: Duration = Duration::from_millis(5);
/// Between two pods of a creator.
const POD_PACE: Duration = Duration::from_millis(500);
/// After a failure.
const AGAIN: Duration = Duration::from_millis(10);
/// Writes of one object before the writer turns to the next.
const WRITES: u64 = 10;
/// Pods of one creator that live at the same time.
const ALIVE: u64 = 4;
/// Longest time that a watch may take to tell of the last write.
const LAST_TOLD: Duration = Duration::from_secs(60);

/// The running load.
pub struct Load {
    clients: Vec<kube::Client>,
    ledger: Arc<Ledger>,
    pods: Vec<Pods>,
    stop: CancellationToken,
    stop_watching: CancellationToken,
    workers: Vec<JoinHandle<()>>,
    watches: Vec<JoinHandle<Result<Configs>>>,
    pod_watches: Vec<JoinHandle<Result<()>>>,
    /// The newest revision that each of the watches has told of, those of ConfigMaps first.
    told: [Vec<Arc<AtomicU64>>; 2],
}

/// What all clients saw.
pub struct Everything {
    /// Acknowledged writes.
    pub ledger: Arc<Ledger>,
    /// ConfigMaps as each master's watch told of them.
    pub configs: Vec<Configs>,
    /// Pods as each master's watch told of them.
    pub pods: Vec<Vec<Observed>>,
}

impl Load {
    /// Clients of each master that change something.
    pub const CLIENTS: usize = WRITERS + 1;

    /// Starts everything.
    pub async fn start(cluster: &Cluster) -> Result<Load> {
        let clients = clients::of_all_masters(cluster).await?;
        let ledger = Arc::new(Ledger::default());
        let (stop, stop_watching) = (CancellationToken::new(), CancellationToken::new());
        let listed = Api::<ConfigMap>::namespaced(clients[0].clone(), NAMESPACE).list(&ListParams::default()).await?;
        let from: u64 = listed.metadata.resource_version.unwrap_or_default().parse()?;
        let mut load = Load {
            clients: clients.clone(),
            ledger: ledger.clone(),
            pods: Vec::new(),
            stop: stop.clone(),
            stop_watching: stop_watching.clone(),
            workers: Vec::new(),
            watches: Vec::new(),
            pod_watches: Vec::new(),
            told: Default::default(),
        };
        for (index, client) in clients.into_iter().enumerate() {
            let master = index + 1;
            let (pods, configs) = (Api::<Pod>::namespaced(client.clone(), NAMESPACE), client.clone());
            let observed = Pods::default();
            load.pods.push(observed.clone());
            let [of_configs, of_pods] = load.told.each_mut().map(|told| {
                told.push(Arc::default());
                told[index].clone()
            });
            let ending = stop_watching.clone();
            load.pod_watches.push(tokio::spawn(async move {
                let sink = |seen: Seen<Pod>| {
                    observed.note(&seen);
                    of_pods.store(seen.revision, Ordering::SeqCst);
                };
                watching::follow(pods, LABEL, from, ending, sink).await
            }));
            let ending = stop_watching.clone();
            load.watches.push(tokio::spawn(async move {
                let mut told = Configs::default();
                let api = Api::<ConfigMap>::namespaced(configs, NAMESPACE);
                let sink = |seen: Seen<ConfigMap>| {
                    told.note(&seen);
                    of_configs.store(seen.revision, Ordering::SeqCst);
                };
                watching::follow(api, LABEL, from, ending, sink).await?;
                Ok(told)
            }));
            for number in 0..WRITERS {
                let writer = Writer { client: client.clone(), ledger: ledger.clone(), master, stop: stop.clone() };
                load.workers.push(tokio::spawn(writer.run(format!("kept-{master}-{number}"))));
            }
            load.workers.push(tokio::spawn(create_pods(client, master, stop.clone())));
        }
        Ok(load)
    }

    /// Makes a last ConfigMap and a last pod, which everything acknowledged has to be told ahead of, and waits until
    /// every watch has told of them.
    async fn all_told(&self) -> Result<()> {
        let config = |name: &str| Ok(serde_json::from_value::<ConfigMap>(config(name, 1))?);
        let last = [mark(&self.clients, config).await?, mark(&self.clients, idle_pod).await?];
        let deadline = Instant::now() + LAST_TOLD;
        loop {
            let behind = ["ConfigMaps", "pods"].iter().zip(&self.told).zip(last).flat_map(|((kind, told), last)| {
                let told = told.iter().map(|told| told.load(Ordering::SeqCst)).enumerate();
                told.filter(move |(_, told)| *told < last).map(move |(index, told)| {
                    format!("the watch of {kind} on master-{} has told of {told}, not of {last}", index + 1)
                })
            });
            let behind: Vec<String> = behind.collect();
            // A watch that has ended has its own error to tell.
            let ended = self.watches.iter().any(JoinHandle::is_finished)
                || self.pod_watches.iter().any(JoinHandle::is_finished);
            if behind.is_empty() || ended {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "after {} s: {}", LAST_TOLD.as_secs(), behind.join("; "));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What was acknowledged so far.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The client of a master, counted from 1.
    pub fn client(&self, master: usize) -> &kube::Client {
        &self.clients[master - 1]
    }

    /// What the watch of a master told about pods.
    pub fn pods(&self, master: usize) -> &Pods {
        &self.pods[master - 1]
    }

    /// Ends all clients; the watches once they have told of a write after the last acknowledged one.
    pub async fn stop(mut self) -> Result<Everything> {
        self.stop.cancel();
        for worker in std::mem::take(&mut self.workers) {
            worker.await.context("a client panicked")?;
        }
        let all_told = self.all_told().await;
        self.stop_watching.cancel();
        let mut configs = Vec::new();
        for watch in self.watches {
            configs.push(watch.await.context("a watch panicked")??);
        }
        for watch in self.pod_watches {
            watch.await.context("a watch panicked")??;
        }
        all_told?;
        let pods = self.pods.iter().map(Pods::all).collect();
        Ok(Everything { ledger: self.ledger, configs, pods })
    }
}

/// Creates an object through any master; its revision.
async fn mark<K>(clients: &[kube::Client], object: impl Fn(&str) -> Result<K>) -> Result<u64>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + serde::Serialize
        + std::fmt::Debug,
    K::DynamicType: Default,
{
    let deadline = Instant::now() + LAST_TOLD;
    for turn in 0.. {
        let api: Api<K> = Api::namespaced(clients[turn % clients.len()].clone(), NAMESPACE);
        let wanted = object(&format!("last-{:x}-{turn}", rand::random::<u32>()))?;
        let params = PostParams::default();
        if let Ok(Ok(made)) = tokio::time::timeout(PATIENCE, api.create(&params, &wanted)).await {
            return Ok(made.meta().resource_version.as_deref().unwrap_or_default().parse()?);
        }
        ensure!(Instant::now() < deadline, "no master takes the last write");
        tokio::time::sleep(AGAIN).await;
    }
    unreachable!("the loop returns")
}

/// A pod that no scheduler is asked to bind.
fn idle_pod(name: &str) -> Result<Pod> {
    let mut pod = pod(name)?;
    if let Some(spec) = &mut pod.spec {
        spec.scheduler_name = Some("nobody".to_owned());
    }
    Ok(pod)
}

/// Writes ConfigMaps, one after the other, each several times.
struct Writer {
    client: kube::Client,
    ledger: Arc<Ledger>,
    master: usize,
    stop: CancellationToken,
}

enum Step {
    Create,
    Replace,
    Patch,
    Delete,
}

impl Writer {
    async fn run(self, prefix: String) {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), NAMESPACE);
        for object in 0u64.. {
            let name = format!("{prefix}-{object}");
            for value in 1..=WRITES {
                let step = match value {
                    1 => Step::Create,
                    WRITES if object % 3 == 0 => Step::Delete,
                    _ if value % 2 == 0 => Step::Replace,
                    _ => Step::Patch,
                };
                if self.stop.is_cancelled() {
                    return;
                }
                // What may have happened must not happen later, behind a newer value: the object is left alone then.
                if !self.write(&api, &name, value, step).await {
                    tokio::time::sleep(AGAIN).await;
                    break;
                }
                tokio::time::sleep(PACE).await;
            }
        }
    }

    /// Whether it was acknowledged.
    async fn write(&self, api: &Api<ConfigMap>, name: &str, value: u64, step: Step) -> bool {
        let written = (!matches!(step, Step::Delete)).then_some(value);
        self.ledger.sending(name, written);
        let begun = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, send(api, name, value, &step)).await;
        let at = Instant::now();
        let failed = |why: String| self.ledger.failed(Failed { at, master: self.master, why });
        match answer {
            Ok(Ok(revision)) => {
                let (master, name) = (self.master, name.to_owned());
                self.ledger.acknowledged(Ack { master, name, value: written, revision, begun, at });
                return true;
            }
            Ok(Err(error)) => failed(format!("{error:#}")),
            Err(_) => failed(format!("no answer within {} s", PATIENCE.as_secs())),
        }
        false
    }
}

fn config(name: &str, value: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels()},
           "data": {"value": value.to_string()}})
}

fn labels() -> Value {
    let (key, value) = LABEL.split_once('=').unwrap_or_default();
    json!({key: value})
}

async fn send(api: &Api<ConfigMap>, name: &str, value: u64, step: &Step) -> Result<u64> {
    let object = || serde_json::from_value::<ConfigMap>(config(name, value));
    let answer = match step {
        Step::Create => api.create(&PostParams::default(), &object()?).await?,
        Step::Replace => api.replace(name, &PostParams::default(), &object()?).await?,
        Step::Patch => {
            let change = json!({"data": {"value": value.to_string()}});
            api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await?
        }
        Step::Delete => match api.delete(name, &DeleteParams::default()).await?.left() {
            Some(object) => object,
            None => return Ok(0),
        },
    };
    Ok(answer.metadata.resource_version.as_deref().unwrap_or("0").parse()?)
}

/// A pod that runs at once and ends at once.
pub fn pod(name: &str) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels()},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "c", "image": "busybox:1.35", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "3600"]}
        ]}
    }))?)
}

/// Creates pods and deletes the oldest. A pod of which it is not known whether it was created is created again under the
/// same name, so that at no time more than a few are there.
async fn create_pods(client: kube::Client, master: usize, stop: CancellationToken) {
    let api: Api<Pod> = Api::namespaced(client, NAMESPACE);
    let is = |error: &kube::Error, code: u16| matches!(error, kube::Error::Api(status) if status.code == code);
    let name = |number: u64| format!("load-{master}-{number}");
    let (mut oldest, mut next) = (0, 0);
    while !stop.is_cancelled() {
        let full = next - oldest > ALIVE;
        let done = match full {
            true => {
                let (name, params) = (name(oldest), DeleteParams::default());
                let deleted = tokio::time::timeout(PATIENCE, api.delete(&name, &params)).await;
                deleted.is_ok_and(|deleted| deleted.map_or_else(|error| is(&error, 404), |_| true))
            }
            false => {
                let Ok(wanted) = pod(&name(next)) else { return };
                let params = PostParams::default();
                let created = tokio::time::timeout(PATIENCE, api.create(&params, &wanted)).await;
                created.is_ok_and(|created| created.map_or_else(|error| is(&error, 409), |_| true))
            }
        };
        let pause = match (done, full) {
            (false, _) => AGAIN,
            (true, true) => {
                oldest += 1;
                continue;
            }
            (true, false) => {
                next += 1;
                POD_PACE
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
