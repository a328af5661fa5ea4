//! Clients that look on while something happens: at the pods through the API, and at a Service from a node.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use trireme_chaos_tests::Cluster;
use trireme_client::kubeconfig::{Kubeconfig, Overrides};
use trireme_client::masters;

/// Pause between two looks at the pods.
const LOOK: Duration = Duration::from_millis(5);
/// Pause between two pages.
const FETCH: Duration = Duration::from_millis(10);

/// A client of the cluster's API, to be used inside a runtime.
fn client(cluster: &Cluster) -> Result<kube::Client> {
    let config = Kubeconfig::read(&cluster.root().join("kubeconfig"))?;
    Ok(masters::connect(config.resolve(&Overrides::default())?.masters)?.0)
}

/// What was seen of a selector's pods.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// How often it was looked.
    pub looks: usize,
    /// The fewest that were ready and not on their way out.
    pub least_ready: usize,
    /// The most that were not on their way out.
    pub most: usize,
    /// The most values of what the first container is at one time, of pods that are there in whatever state.
    pub most_versions: usize,
    /// Looks that failed.
    pub failures: usize,
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

impl Seen {
    fn take(&mut self, pods: &[Pod]) {
        let staying: Vec<&Pod> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
        let ready = staying.iter().filter(|pod| is_ready(pod)).count();
        let mut versions: Vec<String> = pods
            .iter()
            .filter(|pod| !matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Failed" | "Succeeded")))
            .map(|pod| pod.metadata.labels.clone().unwrap_or_default().remove("pod-template-hash").unwrap_or_default())
            .collect();
        versions.sort();
        versions.dedup();
        self.least_ready = if self.looks == 0 { ready } else { self.least_ready.min(ready) };
        self.most = self.most.max(staying.len());
        self.most_versions = self.most_versions.max(versions.len());
        self.looks += 1;
    }
}

/// Something that goes on until it is asked what it has seen.
pub struct Watch<T> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<T>>,
}

impl<T: Send + 'static> Watch<T> {
    fn start(work: impl FnOnce(&AtomicBool) -> Result<T> + Send + 'static) -> Watch<T> {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        Watch { stop, thread: std::thread::spawn(move || work(&flag)) }
    }

    /// Ends it.
    pub fn end(self) -> Result<T> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("an onlooker panicked"))?
    }
}

/// Looks at a selector's pods every few milliseconds.
pub fn pods(cluster: &Cluster, selector: &str) -> Result<Watch<Seen>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = runtime.block_on(async { client(cluster) })?;
    let params = ListParams::default().labels(selector);
    Ok(Watch::start(move |stop| {
        let api: Api<Pod> = Api::default_namespaced(client);
        let mut seen = Seen::default();
        runtime.block_on(async {
            while !stop.load(Ordering::Relaxed) {
                match api.list(&params).await {
                    Ok(list) => seen.take(&list.items),
                    Err(_) => seen.failures += 1,
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Ok(seen)
    }))
}

/// What became of requests for a page.
#[derive(Debug, Default, Clone)]
pub struct Fetched {
    /// How many there were.
    pub requests: usize,
    /// Those that failed, with the reason and the time since the first.
    pub failed: Vec<String>,
}

/// Fetches a page over and over from the host of a node, each time over a new connection.
pub fn pages(cluster: &Cluster, node: &str, address: SocketAddr) -> Result<Watch<Fetched>> {
    let file = format!("/run/netns/trireme-{}-{node}", cluster.name);
    let netns = File::open(&file).with_context(|| file.clone())?;
    Ok(Watch::start(move |stop| {
        // Of this thread alone.
        nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET)?;
        let (mut fetched, begun) = (Fetched::default(), Instant::now());
        while !stop.load(Ordering::Relaxed) {
            fetched.requests += 1;
            if let Err(error) = page(address) {
                fetched.failed.push(format!("{:.3} s: {error:#}", begun.elapsed().as_secs_f64()));
            }
            std::thread::sleep(FETCH);
        }
        Ok(fetched)
    }))
}

fn page(address: SocketAddr) -> Result<()> {
    let limit = Duration::from_secs(3);
    let mut stream = TcpStream::connect_timeout(&address, limit).context("connecting")?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").context("asking")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("reading")?;
    anyhow::ensure!(answer.starts_with("HTTP/1.") && answer.contains(" 200 "), "answer: {answer:?}");
    Ok(())
}
