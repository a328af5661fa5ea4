//! What every case has: a namespace of its own and a client made from the kubeconfig, as kube-rs' documentation does it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{conditions, wait};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use trireme_chaos_tests::Cluster;

/// Longest time for one case.
const LIMIT: Duration = Duration::from_secs(40);

/// A namespace and how to reach it.
pub struct Space {
    /// Its name.
    pub name: String,
    /// A client of the user's kubeconfig.
    pub client: Client,
}

impl Space {
    /// An API in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Config maps in the namespace.
    pub fn maps(&self) -> Api<ConfigMap> {
        self.api()
    }

    /// Makes a pod and waits until it runs, with kube-rs' own condition.
    pub async fn running(&self, name: &str, command: &[&str], more: Value) -> Result<Api<Pod>> {
        let pods: Api<Pod> = self.api();
        pods.create(&PostParams::default(), &pod(name, command, more)?).await?;
        let running = wait::await_condition(pods.clone(), name, conditions::is_pod_running());
        within(30, running).await.with_context(|| format!("pod {name}"))??;
        Ok(pods)
    }
}

/// Runs a case in a namespace of its own, which is deleted whatever happens.
pub fn with(cluster: &Cluster, case: impl AsyncFnOnce(&Space) -> Result<()>) -> Result<()> {
    runtime()?.block_on(async {
        let client = client_of(&cluster.root().join("kubeconfig")).await?;
        let space = Space { name: format!("rs-{:08x}", rand::random::<u32>()), client };
        let namespaces: Api<Namespace> = Api::all(space.client.clone());
        let named: Namespace = serde_json::from_value(json!({"metadata": {"name": space.name}}))?;
        namespaces.create(&PostParams::default(), &named).await?;
        let outcome = tokio::time::timeout(LIMIT, case(&space)).await;
        let gone = namespaces.delete(&space.name, &DeleteParams::background()).await;
        outcome.map_err(|_| anyhow!("it took longer than {} s", LIMIT.as_secs()))??;
        gone.map(drop).context("deleting the namespace")
    })
}

/// A runtime for one case.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// A client of a kubeconfig.
pub async fn client_of(path: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Waits for something that has to happen in so many seconds.
pub async fn within<T>(seconds: u64, work: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(Duration::from_secs(seconds), work).await.map_err(|_| anyhow!("not within {seconds} s"))
}

/// Tries until it works.
pub async fn eventually<T>(seconds: u64, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if tokio::time::Instant::now() > deadline => {
                return Err(error.context(format!("still so after {seconds} s")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A call that the server has to refuse with this code and reason; its message.
pub fn refused<T: std::fmt::Debug>(answer: kube::Result<T>, code: u16, reason: &str) -> Result<kube::core::Status> {
    match answer {
        Err(kube::Error::Api(status)) => {
            ensure!((status.code, status.reason.as_str()) == (code, reason), "{status:?}");
            Ok(*status)
        }
        Err(other) => bail!("should be refused with {reason}, but: {other}"),
        Ok(value) => bail!("should be refused with {reason}, but: {value:?}"),
    }
}

/// A config map with one key, `k`.
pub fn config_map(name: &str, labels: &[(&str, &str)], value: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    if !labels.is_empty() {
        map.metadata.labels = Some(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
    }
    map.data = Some([("k".to_owned(), value.to_owned())].into());
    map
}

/// A pod of one container; `more` is merged into the container.
pub fn pod(name: &str, command: &[&str], more: Value) -> Result<Pod> {
    let mut container =
        json!({"name": "main", "image": "busybox:1.35", "imagePullPolicy": "IfNotPresent", "command": command});
    for (key, value) in more.as_object().into_iter().flatten() {
        container[key] = value.clone();
    }
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"name": name}},
        "spec": {"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [container]},
    }))?)
}
