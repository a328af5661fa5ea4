//! Watches the pods bound to this node and keeps a worker for each.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use tokio_util::sync::CancellationToken;
use trireme_client::reconnect::Reconnect;

use crate::pods::machine::Event;
use crate::pods::worker::{self, Handle};
use crate::pods::{Context, launch, teardown, volumes};

/// How often the content of volumes is compared with the objects it comes from.
const VOLUME_PERIOD: Duration = Duration::from_secs(60);
/// How often it is tried to bring the pod network in line at the start.
const RECONCILE_ATTEMPTS: usize = 5;

struct Manager {
    context: Arc<Context>,
    workers: HashMap<String, Handle>,
    shutdown: CancellationToken,
    /// What the list that is under way has shown so far.
    listed: BTreeSet<String>,
    cleaned: bool,
}

/// Runs until `shutdown`; pods are left as they are then.
pub(crate) async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let api: Api<Pod> = Api::all(context.client.clone());
    let config = watcher::Config::default().fields(&format!("spec.nodeName={}", context.config.node_name));
    let stream = watcher(api, config).backoff(Reconnect::default());
    let mut stream = std::pin::pin!(stream);
    let mut manager = Manager {
        context,
        workers: HashMap::new(),
        shutdown: shutdown.clone(),
        listed: BTreeSet::new(),
        cleaned: false,
    };
    let mut volumes = tokio::time::interval(VOLUME_PERIOD);
    volumes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = stream.next() => match event {
                Some(Ok(event)) => manager.on_event(event).await,
                Some(Err(error)) => tracing::warn!(%error, "watch of this node's pods"),
                None => return,
            },
            _ = volumes.tick() => refresh_volumes(manager.context.clone()),
            () = shutdown.cancelled() => return,
        }
    }
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

impl Manager {
    async fn on_event(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(pod) => {
                self.listed.insert(uid(&pod));
                self.apply(pod).await;
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let gone: Vec<String> = self.workers.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
                for uid in gone {
                    self.remove(&uid).await;
                }
                if !self.cleaned {
                    self.cleaned = true;
                    clean_up(&self.context, &listed).await;
                }
            }
            watcher::Event::Apply(pod) => self.apply(pod).await,
            watcher::Event::Delete(pod) => self.remove(&uid(&pod)).await,
        }
    }

    async fn apply(&mut self, pod: Pod) {
        let (uid, pod) = (uid(&pod), Arc::new(pod));
        if let Some(handle) = self.workers.get(&uid)
            && handle.send(Event::Updated(pod.clone())).await
        {
            return;
        }
        let handle = worker::start(self.context.clone(), pod, self.shutdown.clone());
        self.workers.insert(uid, handle);
    }

    async fn remove(&mut self, uid: &str) {
        if let Some(handle) = self.workers.remove(uid) {
            // The worker may have ended by itself, since it deletes the object as its last deed.
            handle.send(Event::Removed).await;
        }
    }
}

/// Removes what pods that no longer exist have left, for example deleted while this agent was down.
async fn clean_up(context: &Context, live: &BTreeSet<String>) {
    let root = context.config.data_dir.join("pods");
    let entries = fs::read_dir(&root).into_iter().flatten().flatten();
    let found: BTreeSet<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    for orphan in found.difference(live) {
        tracing::info!(uid = %orphan, "removing an orphaned pod");
        let base = format!("{}/pods", context.config.cgroup_root);
        let cgroups = ["", "/burstable", "/besteffort"].map(|class| format!("{base}{class}/pod{orphan}"));
        if let Err(error) = teardown::remove_pod(context, orphan, &cgroups).await {
            // As long as its directory is there, the next start of the agent finds it again.
            tracing::warn!(uid = %orphan, %error, "orphaned pod not removed");
            continue;
        }
        if let Err(error) = fs::remove_dir_all(root.join(orphan)) {
            tracing::warn!(uid = %orphan, %error, "orphaned pod directory not removed");
        }
    }
    let logs = context.config.data_dir.join("logs");
    for entry in fs::read_dir(&logs).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.rsplit('_').next().is_some_and(|uid| live.contains(uid)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    for attempt in 1..=RECONCILE_ATTEMPTS {
        match context.network.reconcile(live).await {
            Ok(released) if released.is_empty() => return,
            Ok(released) => return tracing::info!(?released, "released addresses of gone pods"),
            // Links that come and go while they are listed make the kernel refuse.
            Err(error) if attempt < RECONCILE_ATTEMPTS => {
                tracing::debug!(%error, "pod network not reconciled yet");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => tracing::warn!(%error, "pod network not reconciled"),
        }
    }
}

/// Brings config maps, secrets and the like up to date in the volumes of running pods.
fn refresh_volumes(context: Arc<Context>) {
    tokio::spawn(async move {
        for view in context.register.all() {
            let changing = view.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).any(|volume| {
                volume.config_map.is_some()
                    || volume.secret.is_some()
                    || volume.downward_api.is_some()
                    || volume.projected.is_some()
            });
            if !changing || !view.containers.values().any(|container| container.running.is_some()) {
                continue;
            }
            let ips = view.pod.status.as_ref().and_then(|s| s.pod_ips.as_ref()).into_iter().flatten();
            let ips: Vec<String> = ips.map(|ip| ip.ip.clone()).collect();
            let facts = launch::facts(&context, &ips);
            if let Err(error) = volumes::set_up(&context.client, &view.pod, &view.directory, &facts).await {
                tracing::debug!(%error, "volume not refreshed");
            }
        }
    });
}
