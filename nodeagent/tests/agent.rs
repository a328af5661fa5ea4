//! A whole agent with real containers and a pod network of its own, against an API server made of a map.
//!
//! Runs as root in a network namespace of its own. The test program is the shim's program as well, so it has no
//! harness.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/api.rs"]
mod api;
#[path = "support/https.rs"]
mod https;

use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use api::Api;
use https::Authority;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trireme_nodeagent::{AgentTls, Config, NodeCertificate, destroy, images, run, shim};

const ADDRESS: [u8; 4] = [10, 213, 0, 1];

/// One node; leaves nothing behind, also when the test fails.
struct Node {
    config: Config,
    api: Api,
    tls: AgentTls,
    authority: Authority,
    stop: CancellationToken,
    _files: tempfile::TempDir,
}

impl Node {
    fn new() -> Node {
        let files = tempfile::tempdir().unwrap();
        let name = format!("n{}", std::process::id());
        let mut config = Config::new(&name, IpAddr::from(ADDRESS), &files.path().join("data"));
        config.cgroup_root = format!("/trireme-test/{name}");
        config.images_dir = files.path().join("archives");
        fs::create_dir_all(&config.images_dir).unwrap();
        images::build::busybox_archive(Path::new("/bin/busybox"), &config.images_dir.join("busybox.tar")).unwrap();
        let authority = Authority::new();
        let (cert_pem, key_pem) = authority.issue("system:node:n", "system:nodes");
        let certificate = NodeCertificate::new(&cert_pem, &key_pem).unwrap();
        let tls = AgentTls { ca_pem: authority.pem.clone().into_bytes(), certificate };
        Node { config, api: Api::new(), tls, authority, stop: CancellationToken::new(), _files: files }
    }

    fn start(&self) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let shutdown = self.stop.child_token();
        let (config, client, tls, token) = (self.config.clone(), self.api.client(), self.tls.clone(), shutdown.clone());
        let task = tokio::spawn(async move { run(config, client, tls, token).await.unwrap() });
        (shutdown, task)
    }

    fn node_path(&self) -> String {
        format!("/api/v1/nodes/{}", self.config.node_name)
    }

    fn create(&self, name: &str, spec: Value) -> String {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "generation": 1,
                "labels": {"app": "test"}},
            "spec": spec, "status": {"phase": "Pending"},
        });
        pod["spec"]["nodeName"] = json!(self.config.node_name);
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        self.api.put(&path, pod);
        path
    }

    async fn wait(&self, path: &str, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let now = self.api.get(path).unwrap_or_default();
            if done(&now) {
                return now;
            }
            let events = self.api.events();
            assert!(begun.elapsed() < Duration::from_secs(30), "no {what}; {now:#}\nevents: {events:#?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn running(&self, path: &str) -> Value {
        self.wait(path, "ready pod", |pod| condition(pod, "Ready") == "True").await
    }

    fn log(&self, name: &str, attempt: u32) -> String {
        let directory = self.config.data_dir.join(format!("logs/default_{name}_uid-{name}/main"));
        fs::read_to_string(directory.join(format!("{attempt}.log"))).unwrap_or_default()
    }

    /// Deletes a pod as the API does it for a client, and waits until the agent has let it go.
    async fn delete(&self, path: &str, grace: i64) {
        self.api.patch(
            path,
            &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}}),
        );
        self.wait(path, "deletion", Value::is_null).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // After a failure the agent still runs, and would bring back what is taken away.
        self.stop.cancel();
        std::thread::sleep(Duration::from_millis(100));
        let _ = destroy(&self.config);
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            // Fails while another test uses it.
            let _ = fs::remove_dir(controller.path().join("trireme-test"));
        }
    }
}

fn condition<'a>(object: &'a Value, name: &str) -> &'a str {
    let all = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|c| c["type"] == name).and_then(|c| c["status"].as_str()).unwrap_or_default()
}

fn main_container(script: &str) -> Value {
    json!({"name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]})
}

/// What operators look at: summary and metrics, and a certificate that is renewed while the server runs.
async fn tells_what_it_uses(node: &Node) {
    let path = node.create("busy", json!({"containers": [main_container("sleep 1000")]}));
    node.running(&path).await;
    let client = node.authority.client(Some("system:masters"));
    let (code, text) = client.get("/stats/summary").await.unwrap();
    assert_eq!(code, 200, "{text}");
    let summary: Value = serde_json::from_str(&text).unwrap();
    for path in ["/node/fs/availableBytes", "/node/fs/capacityBytes", "/node/runtime/imageFs/capacityBytes"] {
        assert!(summary.pointer(path).and_then(Value::as_u64).is_some_and(|n| n > 0), "{path}: {summary:#}");
    }
    assert!(summary["node"]["memory"]["workingSetBytes"].as_u64().is_some_and(|n| n > 0));
    let pods = summary["pods"].as_array().unwrap();
    let pod = pods.iter().find(|pod| pod["podRef"]["name"] == "busy").unwrap();
    assert_eq!(pod["containers"][0]["name"], "main");
    assert!(pod["memory"]["usageBytes"].as_u64().is_some_and(|n| n > 0), "{pod:#}");
    let (_, brief) = client.get("/stats/summary?only_cpu_and_memory=true").await.unwrap();
    assert!(!brief.contains("imageFs"), "{brief}");
    assert_eq!(node.authority.client(Some("system:nodes")).get("/stats/summary").await.unwrap().0, 403);
    let left = |text: &str| -> f64 {
        let name = "kubelet_certificate_manager_server_ttl_seconds ";
        text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap()
    };
    let (_, before) = client.get("/metrics").await.unwrap();
    assert!(left(&before) > 0.0, "{before}");
    let (certificate, key) = node.authority.issue("system:node:n", "system:nodes");
    node.tls.certificate.replace(&certificate, &key).unwrap();
    assert!(node.tls.certificate.replace(b"rubbish", &key).is_err());
    assert_eq!(client.get("/healthz").await.unwrap().0, 200);
    node.delete(&path, 0).await;
}

async fn registers_and_waits_for_its_range(node: &Node) {
    let path = node.node_path();
    let object = node.wait(&path, "node status", |n| condition(n, "Ready") == "False").await;
    assert_eq!(object["metadata"]["labels"]["kubernetes.io/hostname"], json!(node.config.node_name));
    assert_eq!(object["status"]["addresses"][0], json!({"type": "InternalIP", "address": "10.213.0.1"}));
    assert!(object["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap().starts_with("trireme://"));
    node.api.patch(&path, &json!({"spec": {"podCIDR": "10.244.7.0/24", "podCIDRs": ["10.244.7.0/24"]}}));
    node.wait(&path, "ready node", |n| condition(n, "Ready") == "True").await;
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}", node.config.node_name);
    node.wait(&lease, "lease", |lease| lease["spec"]["holderIdentity"] == json!(node.config.node_name)).await;
}

async fn a_pod_runs_serves_and_goes(node: &Node) {
    node.api.put(
        "/api/v1/namespaces/default/configmaps/settings",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "default"},
            "data": {"color": "blue", "page": "hello from a volume"}}),
    );
    let mut main = main_container("echo $GREETING; mkdir -p /tmp; exec httpd -f -p 8080 -h /pages");
    main["env"] = json!([
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
        {"name": "GREETING", "value": "$(COLOR) $(ME) $$(COLOR)"},
        {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "GREETING", "value": "$(COLOR) $(ME) $$(COLOR)"},
    ]);
    main["volumeMounts"] =
        json!([{"name": "pages", "mountPath": "/pages"}, {"name": "scratch", "mountPath": "/scratch"}]);
    main["readinessProbe"] =
        json!({"httpGet": {"path": "/page", "port": 8080}, "periodSeconds": 1, "failureThreshold": 3});
    main["resources"] =
        json!({"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "100m", "memory": "32Mi"}});
    let begun = Instant::now();
    let path = node.create(
        "web",
        json!({"containers": [main], "restartPolicy": "Always", "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "pages", "configMap": {"name": "settings"}}, {"name": "scratch", "emptyDir": {"medium": "Memory"}}]}),
    );
    let pod = node.running(&path).await;
    println!("    ready after {:?}", begun.elapsed());
    let status = &pod["status"];
    assert_eq!((&status["phase"], &status["qosClass"]), (&json!("Running"), &json!("Burstable")));
    assert_eq!(status["hostIP"], "10.213.0.1");
    let container = &status["containerStatuses"][0];
    assert_eq!(container["image"], "docker.io/library/busybox:latest");
    assert!(container["containerID"].as_str().unwrap().starts_with("trireme://"));
    assert_eq!((&container["ready"], &container["restartCount"]), (&json!(true), &json!(0)));
    let ip = status["podIP"].as_str().unwrap();
    assert!(ip.starts_with("10.244.7."), "{ip}");
    let page = Command::new("busybox").args(["wget", "-qO-", &format!("http://{ip}:8080/page")]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&page.stdout), "hello from a volume");
    assert!(node.log("web", 0).contains("stdout F blue web $(COLOR)"), "{}", node.log("web", 0));
    let reasons: Vec<String> = node.api.events().iter().filter(|e| e.contains("web")).cloned().collect();
    for reason in ["Pulled", "Created", "Started"] {
        assert!(reasons.iter().any(|e| e.contains(reason)), "{reason} in {reasons:?}");
    }
    let begun = Instant::now();
    node.delete(&path, 1).await;
    println!("    gone after {:?}", begun.elapsed());
    assert!(!node.config.data_dir.join("pods/uid-web").exists());
}

async fn pods_end_as_they_should(node: &Node) {
    let begun = Instant::now();
    let mut init = main_container("echo first > /shared/f");
    init["name"] = json!("init");
    init["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
    let mut main = main_container("cat /shared/f; echo last words > /dev/termination-log; exit 4");
    main["volumeMounts"] = init["volumeMounts"].clone();
    let spec = json!({"containers": [main], "initContainers": [init], "restartPolicy": "Never",
        "volumes": [{"name": "shared", "emptyDir": {}}]});
    let path = node.create("job", spec);
    let pod = node.wait(&path, "failed pod", |pod| pod["status"]["phase"] == "Failed").await;
    println!("    ended after {:?}", begun.elapsed());
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&ended["exitCode"], &ended["reason"], &ended["message"]),
        (&json!(4), &json!("Error"), &json!("last words\n"))
    );
    assert_eq!(pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert!(node.log("job", 0).contains("stdout F first"));
    node.delete(&path, 30).await;

    let path = node.create("crash", json!({"containers": [main_container("exit 1")], "restartPolicy": "Always"}));
    let pod = node
        .wait(&path, "back-off", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;
    let container = &pod["status"]["containerStatuses"][0];
    assert_eq!((&container["restartCount"], &container["lastState"]["terminated"]["exitCode"]), (&json!(1), &json!(1)));
    node.delete(&path, 30).await;

    let mut missing = main_container("true");
    missing["image"] = json!("no-such-image:1");
    missing["imagePullPolicy"] = json!("Never");
    let path = node.create("never", json!({"containers": [missing]}));
    node.wait(&path, "reason", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ErrImageNeverPull"
    })
    .await;
    node.delete(&path, 30).await;
}

async fn the_server_lets_masters_in(node: &Node) {
    let path = node.create(
        "shell",
        json!({"containers": [main_container("echo one; echo two >&2; trap 'exit 0' TERM; while :; do sleep 0.1; done")]}),
    );
    node.running(&path).await;
    node.wait(&path, "output", |_| node.log("shell", 0).contains("two")).await;
    assert!(node.authority.client(None).get("/healthz").await.is_err());
    let (code, text) = node.authority.client(Some("system:nodes")).get("/healthz").await.unwrap();
    assert_eq!(code, 403, "{text}");
    let client = node.authority.client(Some("system:masters"));
    assert_eq!(client.get("/healthz").await.unwrap(), (200, "ok".to_owned()));
    assert!(client.get("/pods").await.unwrap().1.contains("\"shell\""));
    assert!(client.get("/metrics").await.unwrap().1.contains("kubelet_running_containers 1"));
    let logs = "/containerLogs/default/shell/main";
    assert_eq!(client.get(logs).await.unwrap(), (200, "one\ntwo\n".to_owned()));
    assert_eq!(client.get(&format!("{logs}?tailLines=1")).await.unwrap().1, "two\n");
    assert_eq!(client.get(&format!("{logs}?previous=true")).await.unwrap().0, 400);
    assert_eq!(client.get("/containerLogs/default/nobody/main").await.unwrap().0, 404);

    let exec = "/exec/default/shell/main?output=1&error=1";
    let command = "&command=sh&command=-c&command=";
    let url = format!("{exec}&input=1{command}cat;echo%20$0%20err%20%3E%262;exit%203");
    let [_, out, err, status] = client.session(&url, &[(0, b"typed\n"), (0, b"more\n"), (255, &[0])]).await;
    assert_eq!((out.as_str(), err.as_str()), ("typed\nmore\n", "sh err\n"));
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!((&status["status"], &status["reason"]), (&json!("Failure"), &json!("NonZeroExitCode")));
    assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
    let [_, out, _, status] = client.session(&format!("{exec}{command}echo%20fine"), &[]).await;
    assert_eq!((out.as_str(), status.as_str()), ("fine\n", r#"{"metadata":{},"status":"Success"}"#));
    let terminal = format!("{exec}&input=1&tty=1{command}read%20a;stty%20size;echo%20got%20$a");
    let size: &[u8] = br#"{"Width":91,"Height":31}"#;
    let [_, out, _, status] = client.session(&terminal, &[(4, size), (0, b"x\r")]).await;
    assert_eq!((out.as_str(), status.contains("Success")), ("x\r\n31 91\r\ngot x\r\n", true));
    let [_, _, _, status] = client.session(&format!("{exec}&command=no-such-program"), &[]).await;
    assert!(status.contains("InternalError") && status.contains("no-such-program"), "{status}");
    let begun = Instant::now();
    for _ in 0..10 {
        client.session(&format!("{exec}&command=true"), &[]).await;
    }
    println!("    exec through the server: {:?} each", begun.elapsed() / 10);
    let followed = format!("{logs}?follow=true");
    let (all, ()) = tokio::join!(client.get(&followed), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        node.delete(&path, 10).await;
    });
    assert_eq!(all.unwrap().1, "one\ntwo\n", "following ends with the container");
}

/// The agent ends and comes back: the same processes go on, and what ended meanwhile is reported.
async fn agents_come_and_go(
    node: &Node,
    agent: (CancellationToken, tokio::task::JoinHandle<()>),
) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let stays = node.create("stays", json!({"containers": [main_container("exec sleep 1000")]}));
    let leaves =
        node.create("leaves", json!({"containers": [main_container("sleep 1; exit 5")], "restartPolicy": "Never"}));
    let orphan = node.create("orphan", json!({"containers": [main_container("exec sleep 1000")]}));
    let before = node.running(&stays).await;
    node.running(&leaves).await;
    node.running(&orphan).await;
    let node_before = node.api.get(&node.node_path()).unwrap();
    agent.0.cancel();
    agent.1.await.unwrap();
    // Deleted by force while nobody looks.
    node.api.remove(&orphan);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let agent = node.start();
    let ended = node.wait(&leaves, "end", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 5);
    assert_eq!(ended["status"]["containerStatuses"][0]["restartCount"], 0);
    let after = node.running(&stays).await;
    let object = node.wait(&node.node_path(), "report of the new agent", |n| condition(n, "Ready") == "True").await;
    let ready = |object: &Value| {
        let all = object["status"]["conditions"].as_array().unwrap();
        all.iter().find(|c| c["type"] == "Ready").unwrap()["lastTransitionTime"].clone()
    };
    assert_eq!(ready(&object), ready(&node_before), "the node stayed ready");
    let id = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    assert_eq!((id(&before), &before["status"]["podIP"]), (id(&after), &after["status"]["podIP"]));
    assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], 0);
    let left = node.config.data_dir.join("pods/uid-orphan");
    let begun = Instant::now();
    while left.exists() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the orphan is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node.delete(&leaves, 0).await;
    // Its shim dies: the container is replaced.
    let pid = shim_of(&node.config.data_dir.join("pods/uid-stays"));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    let again = node
        .wait(&stays, "restart", |pod| {
            condition(pod, "Ready") == "True" && pod["status"]["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
    assert_ne!(id(&again), id(&after));
    node.delete(&stays, 0).await;
    agent
}

/// The process of a pod's shim.
fn shim_of(directory: &Path) -> i32 {
    let wanted = format!("trireme\0shim\0{}\0", directory.display());
    let mut processes = fs::read_dir("/proc").unwrap().flatten();
    let found = processes.find(|p| fs::read(p.path().join("cmdline")).is_ok_and(|line| line == wanted.as_bytes()));
    found.unwrap().file_name().to_str().unwrap().parse().unwrap()
}

async fn all(filter: &str) {
    let node = Node::new();
    let agent = node.start();
    println!("test registers_and_waits_for_its_range ...");
    registers_and_waits_for_its_range(&node).await;
    macro_rules! run {
        ($($test:ident),*) => {$(
            if stringify!($test).contains(filter) {
                println!("test {} ...", stringify!($test));
                let begun = Instant::now();
                $test(&node).await;
                println!("test {} ... ok ({:?})", stringify!($test), begun.elapsed());
            }
        )*};
    }
    run!(a_pod_runs_serves_and_goes, pods_end_as_they_should, the_server_lets_masters_in, tells_what_it_uses);
    println!("test agents_come_and_go ...");
    let agent = agents_come_and_go(&node, agent).await;
    println!("test agents_come_and_go ... ok");
    let memory = fs::read_to_string("/proc/self/status").unwrap();
    println!("memory of agent and test: {}", memory.lines().find(|l| l.starts_with("VmRSS")).unwrap());
    agent.0.cancel();
    agent.1.await.unwrap();
    let left: Vec<_> = fs::read_dir(node.config.data_dir.join("pods")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

fn main() {
    let args: Vec<OsString> = std::env::args_os().collect();
    if shim::is_shim(&args) {
        shim::main(&args);
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("this test needs root");
        std::process::exit(1);
    }
    // Before any thread exists, so that all of them are inside.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    for line in ["link set lo up", "link add up0 type bridge", "addr add 10.213.0.1/24 dev up0", "link set up0 up"] {
        assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "{line}");
    }
    let filter = args.get(1).and_then(|arg| arg.to_str()).filter(|arg| !arg.starts_with('-')).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(all(filter));
}
