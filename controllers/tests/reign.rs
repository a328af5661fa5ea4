//! All controllers against an API in memory: what they bring about, and that a reign that ends stops them.
#![allow(clippy::unwrap_used)]

mod fake;

use std::sync::Arc;
use std::time::Duration;

use fake::FakeApi;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trireme_client::informer::Informers;
use trireme_client::leadership::Reign;
use trireme_controllers::{Config, run};

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
        Self::with(Config::default().node_monitor_grace_period)
    }

    /// A cluster whose nodes may be silent for this long.
    fn with(node_monitor_grace_period: Duration) -> Self {
        let api = FakeApi::default();
        for name in ["default", "kube-system"] {
            api.put(
                "namespaces",
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name},
                "spec": {"finalizers": ["kubernetes"]}}),
            );
        }
        let shutdown = CancellationToken::new();
        let informers = Informers::start(api.client(None), shutdown.clone());
        let (leadership, rx) = watch::channel(None);
        let config = Config { root_ca_pem: "PEM".to_owned(), node_monitor_grace_period, ..Config::default() };
        tokio::spawn(run(informers.clone(), rx, config, shutdown.clone()));
        Self { api, informers, leadership, shutdown }
    }

    fn reign(&self) {
        let fence_revision = self.api.new_fence();
        let client = self.api.client(Some(fence_revision));
        self.leadership.send_replace(Some(Arc::new(Reign { client, fence_revision })));
    }
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}})
}

fn rc(replicas: i32) -> Value {
    json!({"apiVersion": "v1", "kind": "ReplicationController",
        "metadata": {"name": "rc", "namespace": "default", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"app": "web"}, "template": template()}})
}

fn deployment(image: &str) -> Value {
    let mut template = template();
    template["spec"]["containers"][0]["image"] = json!(image);
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default", "generation": 1, "uid": "d"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template}})
}

fn count(api: &FakeApi, plural: &str) -> usize {
    api.all(plural).len()
}

#[tokio::test]
async fn nothing_is_done_without_a_reign_and_nothing_after_it() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    api.put("replicationcontrollers", rc(2));
    let seen = || cluster.informers.replication_controllers.find("default", "rc").is_some();
    while !seen() {
        tokio::task::yield_now().await;
    }
    assert_eq!(api.writes(), Vec::<String>::new(), "nobody reigns");
    cluster.reign();
    api.until("two pods", |api| count(api, "pods") == 2).await;
    api.until("status", |api| api.all("replicationcontrollers")[0]["status"]["replicas"] == json!(2)).await;
    // Another leader: its fence makes every write of this one fail, also before it hears of it.
    api.new_fence();
    let (before, fenced) = (api.writes().len(), api.fenced());
    let name = api.all("pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    api.remove("pods", "default", &name);
    api.until("it tried", |api| api.fenced() > fenced).await;
    assert_eq!(count(api, "pods"), 1);
    assert_eq!(api.writes().len(), before);
    cluster.leadership.send_replace(None);
    cluster.reign();
    api.until("two pods again", |api| count(api, "pods") == 2).await;
}

#[tokio::test]
async fn a_deployment_becomes_pods_endpoints_and_rolls() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    cluster.reign();
    api.put(
        "nodes",
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
    );
    api.until("podCIDR", |api| api.all("nodes")[0]["spec"]["podCIDR"] == json!("10.244.0.0/24")).await;
    api.put("services", json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web",
        "namespace": "default"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}], "clusterIP": "10.96.0.9"}}));
    api.start_kubelet();
    api.put("deployments", deployment("v1"));
    api.until("three pods", |api| count(api, "pods") == 3).await;
    let available = |api: &FakeApi| api.all("deployments")[0]["status"]["availableReplicas"] == json!(3);
    api.until("available", available).await;
    let addresses = |api: &FakeApi| {
        let endpoints = api.all("endpoints");
        endpoints.first().and_then(|e| e["subsets"][0]["addresses"].as_array().map(Vec::len)).unwrap_or(0)
    };
    api.until("endpoints", |api| addresses(api) == 3).await;
    let slice = |api: &FakeApi| api.all("endpointslices").first().map(|s| s["endpoints"].as_array().unwrap().len());
    api.until("slice", |api| slice(api) == Some(3)).await;

    let mut next = api.all("deployments")[0].clone();
    next["spec"]["template"] = deployment("v2")["spec"]["template"].clone();
    next["metadata"]["generation"] = json!(2);
    api.put("deployments", next);
    let of_v2 = |api: &FakeApi| {
        let image = |pod: &&Value| pod["spec"]["containers"][0]["image"] == json!("v2");
        api.all("pods").iter().filter(image).count()
    };
    api.until("rolled", |api| of_v2(api) == 3 && count(api, "pods") == 3).await;
    assert_eq!(count(api, "replicasets"), 2);
    let revision = |api: &FakeApi| {
        api.all("deployments")[0]["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == json!("2")
    };
    api.until("revision", revision).await;
    let told = |api: &FakeApi| {
        api.all("events").iter().any(|e| e["message"].as_str().unwrap().starts_with("Scaled up replica set web-"))
    };
    api.until("events", told).await;

    // Without its owner everything goes.
    api.remove("deployments", "default", "web");
    api.until("all gone", |api| count(api, "pods") == 0 && count(api, "replicasets") == 0).await;
}

#[tokio::test]
async fn a_creation_that_went_unanswered_is_counted_at_once() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    cluster.reign();
    // Nothing but the pod itself tells the informer how far the store is: there are no bookmarks here.
    api.stumble("pods");
    api.put("replicationcontrollers", rc(3));
    let replicas = |api: &FakeApi| api.all("replicationcontrollers")[0]["status"]["replicas"].clone();
    api.until("three", |api| replicas(api) == json!(3)).await;
    assert_eq!(count(api, "pods"), 3, "the one that was not acknowledged is one of them");
}

#[tokio::test]
async fn pods_of_a_deleted_node_go_at_once() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    cluster.reign();
    api.put("nodes", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {}}));
    api.put(
        "pods",
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": "n1", "containers": []}, "status": {"phase": "Running"}}),
    );
    while cluster.informers.nodes.find("", "n1").is_none() || cluster.informers.pods.find("default", "p").is_none() {
        tokio::task::yield_now().await;
    }
    // The informers may be there before the controllers are, who have to see the node go.
    let act = |api: &FakeApi| api.writes().contains(&"PATCH /api/v1/nodes/n1".to_owned());
    api.until("the controllers act", act).await;
    api.remove("nodes", "", "n1");
    api.until("its pod is gone", |api| count(api, "pods") == 0).await;
    assert!(api.writes().contains(&"PATCH /api/v1/namespaces/default/pods/p/status".to_owned()), "failed first");
}

#[tokio::test]
async fn foreground_deletion_waits_and_orphans_live_on() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    cluster.reign();
    api.put("replicationcontrollers", rc(2));
    api.until("two pods", |api| count(api, "pods") == 2).await;
    let mut deleted = api.all("replicationcontrollers")[0].clone();
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    deleted["metadata"]["finalizers"] = json!(["orphan"]);
    api.put("replicationcontrollers", deleted);
    api.until("gone", |api| count(api, "replicationcontrollers") == 0).await;
    assert!(api.all("pods").iter().all(|pod| pod["metadata"]["ownerReferences"] == json!([])));
    // A new one adopts them.
    api.put("replicationcontrollers", rc(2));
    let owned = |api: &FakeApi| api.all("pods").iter().all(|pod| pod["metadata"]["ownerReferences"][0].is_object());
    api.until("adopted", owned).await;
    assert_eq!(count(api, "pods"), 2);
    let mut deleted = api.all("replicationcontrollers")[0].clone();
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    deleted["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
    api.put("replicationcontrollers", deleted);
    api.until("gone", |api| count(api, "replicationcontrollers") == 0).await;
    assert_eq!(count(api, "pods"), 0, "its pods went before it");
}

#[tokio::test]
async fn namespaces_are_furnished_and_emptied() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    cluster.reign();
    api.put(
        "namespaces",
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"},
        "spec": {"finalizers": ["kubernetes"]}}),
    );
    let furnished = |api: &FakeApi| count(api, "serviceaccounts") == 3 && count(api, "configmaps") == 3;
    api.until("account and CA", furnished).await;
    api.put(
        "secrets",
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "x",
        "finalizers": ["example.com/hold"]}}),
    );
    let mut namespace = api.all("namespaces").into_iter().find(|n| n["metadata"]["name"] == json!("x")).unwrap();
    namespace["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    api.put("namespaces", namespace);
    let told = |api: &FakeApi| {
        let namespaces = api.all("namespaces");
        let namespace = namespaces.iter().find(|n| n["metadata"]["name"] == json!("x")).unwrap().to_string();
        namespace.contains("secrets. has 1 resource instances") && namespace.contains("example.com/hold in 1 resource")
    };
    api.until("what remains is told", told).await;
    assert_eq!(count(api, "configmaps"), 2);
    api.remove("secrets", "x", "s");
    api.until("gone", |api| count(api, "namespaces") == 2).await;
}

#[tokio::test]
async fn a_silent_node_is_unreachable_until_it_is_heard_again() {
    let cluster = Cluster::with(Duration::from_secs(2));
    let api = &cluster.api;
    let lease = |at: &str| {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "n1", "namespace": "kube-node-lease"}, "spec": {"renewTime": at}})
    };
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    api.put("nodes", node.clone());
    api.put(
        "pods",
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"nodeName": "n1", "containers": []}, "status": {"phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}]}}),
    );
    cluster.reign();
    let taints = |api: &FakeApi| api.all("nodes")[0]["spec"]["taints"].to_string();
    api.until("unreachable", |api| taints(api).contains("node.kubernetes.io/unreachable")).await;
    let ready = |api: &FakeApi| api.all("pods")[0]["status"]["conditions"][0]["status"].clone();
    api.until("its pod is not ready", |api| ready(api) == json!("False")).await;
    assert_eq!(api.all("nodes")[0]["status"]["conditions"][0]["reason"], json!("NodeStatusUnknown"));

    // The agent is back, and says first that its node is not ready: what it says of its pods is left alone.
    api.put("leases", lease("2026-01-01T00:00:01.000000Z"));
    let mut back = api.all("nodes")[0].clone();
    back["status"]["conditions"][0]["status"] = json!("False");
    api.put("nodes", back);
    let mut pod = api.all("pods")[0].clone();
    pod["status"]["conditions"][0]["status"] = json!("True");
    api.put("pods", pod);
    api.until("not ready", |api| taints(api).contains("not-ready") && !taints(api).contains("unreachable")).await;
    assert_eq!(ready(api), json!("True"));
    let mut back = api.all("nodes")[0].clone();
    back["status"]["conditions"][0]["status"] = json!("True");
    api.put("nodes", back);
    api.until("no taints", |api| taints(api) == "null").await;
}

#[tokio::test]
async fn budgets_are_counted_and_flow_schemas_say_what_they_miss() {
    let cluster = Cluster::start();
    let api = &cluster.api;
    cluster.reign();
    api.start_kubelet();
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "default", "generation": 1},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    api.put("poddisruptionbudgets", budget);
    let status = |api: &FakeApi| api.all("poddisruptionbudgets")[0]["status"].clone();
    let reason = |api: &FakeApi| status(api)["conditions"][0]["reason"].clone();
    api.until("nothing to disrupt", |api| reason(api) == json!("InsufficientPods")).await;
    api.put("deployments", deployment("v1"));
    let numbers = |api: &FakeApi| {
        let status = status(api);
        ["expectedPods", "desiredHealthy", "currentHealthy", "disruptionsAllowed"].map(|key| status[key].as_i64())
    };
    api.until("three of three", |api| numbers(api) == [3, 2, 3, 1].map(Some)).await;
    assert_eq!((reason(api), status(api)["observedGeneration"].clone()), (json!("SufficientPods"), json!(1)));
    let mut pod = api.all("pods")[0].clone();
    pod["status"]["conditions"][0]["status"] = json!("False");
    api.put("pods", pod);
    api.until("one is not ready", |api| numbers(api) == [3, 2, 2, 0].map(Some)).await;
    let mut next = api.all("deployments")[0].clone();
    next["spec"]["replicas"] = json!(2);
    api.put("deployments", next);
    api.until("the scale counts", |api| numbers(api)[..2] == [Some(2), Some(1)]).await;
    // Nobody can say how many pods such an owner wants.
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "n", "controller": true});
    api.put(
        "pods",
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mirror", "namespace": "default",
        "labels": {"app": "web"}, "ownerReferences": [owner]}, "spec": {"containers": []}}),
    );
    api.until("it failed", |api| reason(api) == json!("SyncFailed")).await;
    let why = status(api)["conditions"][0]["message"].as_str().unwrap().to_owned();
    assert_eq!(why, "nodes does not implement the scale subresource");

    let schema = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "s"},
        "spec": {"priorityLevelConfiguration": {"name": "l"}}});
    api.put("flowschemas", schema);
    let reason = |api: &FakeApi| api.all("flowschemas")[0]["status"]["conditions"][0]["reason"].clone();
    api.until("dangling", |api| reason(api) == json!("NotFound")).await;
    api.put("prioritylevelconfigurations", json!({"metadata": {"name": "l"}}));
    api.until("found", |api| reason(api) == json!("Found")).await;
    api.remove("prioritylevelconfigurations", "", "l");
    api.until("dangling again", |api| reason(api) == json!("NotFound")).await;
}
