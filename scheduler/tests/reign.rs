//! The scheduler against an API in memory: binding, telling why not, and stopping with its reign.
#![allow(clippy::unwrap_used)]

#[path = "../../controllers/tests/fake/mod.rs"]
mod fake;

use std::sync::Arc;

use fake::FakeApi;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trireme_client::informer::Informers;
use trireme_client::leadership::Reign;
use trireme_scheduler::{Config, run};

struct Cluster {
    api: FakeApi,
    informers: Arc<Informers>,
    leadership: watch::Sender<Option<Arc<Reign>>>,
    shutdown: CancellationToken,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Cluster {
    fn start() -> Self {
        let api = FakeApi::default();
        let shutdown = CancellationToken::new();
        let informers = Informers::start(api.client(None), shutdown.clone());
        let (leadership, rx) = watch::channel(None);
        tokio::spawn(run(informers.clone(), rx, Config::default(), shutdown.clone()));
        Self { api, informers, leadership, shutdown }
    }

    fn reign(&self) {
        let fence_revision = self.api.new_fence();
        let client = self.api.client(Some(fence_revision));
        self.leadership.send_replace(Some(Arc::new(Reign { client, fence_revision })));
    }
}

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "100"}}})
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": "Pending"}})
}

fn bound(api: &FakeApi) -> Vec<Value> {
    let pods = api.all("pods");
    pods.iter().map(|pod| pod["spec"]["nodeName"].clone()).filter(Value::is_string).collect()
}

#[tokio::test]
async fn pods_are_bound_in_turn_and_the_rest_told_why_not() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    api.put("nodes", node("n1"));
    api.put("nodes", node("n2"));
    for n in 0..4 {
        api.put("pods", pod(&format!("p{n}"), "400m"));
    }
    while cluster.informers.pods.len() < 4 || cluster.informers.nodes.len() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(bound(api).is_empty(), "nobody reigns");
    cluster.reign();
    api.until("four bound", |api| bound(api).len() == 4).await;
    assert_eq!(bound(api).iter().filter(|node| **node == json!("n1")).count(), 2);
    api.put("pods", pod("late", "400m"));
    let told = |api: &FakeApi| {
        let pods = api.all("pods");
        let late = pods.iter().find(|pod| pod["metadata"]["name"] == json!("late")).unwrap();
        late["status"]["conditions"][0]["message"]
            .as_str()
            .unwrap_or("")
            .starts_with("0/2 nodes are available: 2 Insufficient cpu.")
    };
    api.until("told why not", told).await;
    let warned = |api: &FakeApi| api.all("events").iter().any(|event| event["reason"] == json!("FailedScheduling"));
    api.until("event", warned).await;
    api.remove("pods", "default", "p0");
    api.until("room is used at once", |api| bound(api).len() == 4).await;
}

#[tokio::test]
async fn a_deposed_scheduler_binds_nothing() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    api.put("nodes", node("n1"));
    cluster.reign();
    api.put("pods", pod("first", "10m"));
    api.until("bound", |api| bound(api).len() == 1).await;
    // Another leader has its fence: this one does not know yet.
    api.new_fence();
    let fenced = api.fenced();
    api.put("pods", pod("second", "10m"));
    api.until("it tried", |api| api.fenced() > fenced).await;
    assert_eq!(bound(api).len(), 1);
    cluster.reign();
    api.until("bound by the new reign", |api| bound(api).len() == 2).await;
}
