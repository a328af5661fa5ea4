//! Nodes whose hosts are cut off or die, and come back. The cluster's settings are fast ones: see `main`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use trireme_chaos_tests::{Cluster, Pod, eventually, run};

use crate::nodes::{processes, servers};
use crate::workloads::deploy_web;

/// What the cluster's masters have as `--node-monitor-grace-period`, in seconds.
pub const GRACE: u64 = 5;
/// What new pods tolerate by default, in seconds.
pub const STAY: u64 = 25;
/// What the pods of these scenarios tolerate, in seconds.
const SHORT_STAY: u64 = 2;
/// What a crowded machine may need on top: heartbeats, binding, starting.
const SLACK: u64 = 20;

/// Sets the end of a host's link on the cluster's bridge up or down: from outside, while everything on the host runs on.
fn link(cluster: &Cluster, node: &str, state: &str) -> Result<()> {
    let number = node.rsplit('-').next().unwrap_or_default();
    let link = format!("tr{}n{number}", cluster.name);
    run(Command::new("ip").args(["link", "set", &link, state]))?.ok().map(drop)
}

/// A host that is cut off; whatever happens, the link comes up again.
struct Cut<'a>(&'a Cluster, &'a str);

impl<'a> Cut<'a> {
    fn off(cluster: &'a Cluster, node: &'a str) -> Result<Cut<'a>> {
        link(cluster, node, "down")?;
        Ok(Cut(cluster, node))
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        if let Err(error) = link(self.0, self.1, "up") {
            eprintln!("{error:#}");
        }
    }
}

/// `kill -9` of everything on a host: agent, shims, containers.
fn kill_host(cluster: &Cluster, node: &str) -> Result<()> {
    cluster.kill(node)?;
    for pid in processes(cluster, node) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    eventually(Duration::from_secs(10), || {
        let left = processes(cluster, node);
        ensure!(left.is_empty(), "{left:?} are left on {node}");
        Ok(())
    })
}

fn other(node: &str) -> &'static str {
    if node == "node-1" { "node-2" } else { "node-1" }
}

fn ready(cluster: &Cluster, node: &str) -> Result<String> {
    let node = cluster.json(&["get", "node", node])?;
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let mut ready = conditions.filter(|c| c["type"] == "Ready").filter_map(|c| c["status"].as_str());
    Ok(ready.next().unwrap_or_default().to_owned())
}

fn taints(cluster: &Cluster, node: &str) -> Result<BTreeSet<String>> {
    let node = cluster.json(&["get", "node", node])?;
    let text = |taint: &Value, key: &str| taint[key].as_str().unwrap_or_default().to_owned();
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    Ok(taints.map(|taint| format!("{}:{}", text(taint, "key"), text(taint, "effect"))).collect())
}

fn until_ready_is(cluster: &Cluster, node: &str, wanted: &str) -> Result<()> {
    eventually(Duration::from_secs(GRACE + SLACK), || {
        let now = ready(cluster, node)?;
        ensure!(now == wanted, "{node} is ready: {now}");
        Ok(())
    })
}

fn until_untainted(cluster: &Cluster, node: &str) -> Result<()> {
    eventually(Duration::from_secs(SLACK), || {
        let taints = taints(cluster, node)?;
        ensure!(taints.is_empty(), "{node} has {taints:?}");
        Ok(())
    })
}

/// Pods of a selector that are not on their way out and ready.
fn serving(cluster: &Cluster, selector: &str) -> Result<Vec<Pod>> {
    let list = cluster.json(&["get", "pods", "-l", selector])?;
    Ok(list["items"].as_array().into_iter().flatten().map(Pod::read).filter(|pod| pod.ready).collect())
}

/// Waits until so many pods serve on one node alone; how long it took.
fn until_on(cluster: &Cluster, selector: &str, count: usize, node: &str) -> Result<Duration> {
    let begun = Instant::now();
    eventually(Duration::from_secs(GRACE + SHORT_STAY + SLACK), || {
        let pods = serving(cluster, selector)?;
        ensure!(pods.len() == count && pods.iter().all(|pod| pod.node == node), "{pods:?}");
        Ok(begun.elapsed())
    })
}

/// Exactly so many pods are there, each with an address of its own, and the Service leads to them and nowhere else.
fn exact(cluster: &Cluster, name: &str, count: usize) -> Result<()> {
    let pods = cluster.pods(&format!("app={name}"), count)?;
    let ips: BTreeSet<&str> = pods.iter().map(|pod| pod.ip.as_str()).collect();
    ensure!(ips.len() == count, "double addresses: {pods:?}");
    eventually(Duration::from_secs(SLACK), || {
        let endpoints = cluster.json(&["get", "endpoints", name])?;
        let subsets = endpoints["subsets"].as_array().into_iter().flatten();
        let listed: BTreeSet<&str> = subsets
            .flat_map(|subset| subset["addresses"].as_array().into_iter().flatten())
            .filter_map(|address| address["ip"].as_str())
            .collect();
        ensure!(listed == ips, "endpoints {listed:?} for pods {ips:?}");
        Ok(())
    })?;
    eventually(Duration::from_secs(SLACK), || {
        let mut running = BTreeMap::new();
        for node in ["node-1", "node-2"] {
            let wanted = pods.iter().filter(|pod| pod.node == node).count();
            running.insert(node, (wanted, sleepers(cluster, node, name).len()));
        }
        ensure!(running.values().all(|(wanted, found)| wanted == found), "wanted and running: {running:?}");
        Ok(())
    })
}

/// Processes of the containers of one of our deployments on a node, by a word in their command line.
fn sleepers(cluster: &Cluster, node: &str, name: &str) -> BTreeSet<i32> {
    let command = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut all = processes(cluster, node);
    all.retain(|pid| command(pid).starts_with("sleep\0") && command(pid).contains(&marker(name)));
    all
}

/// A number of seconds that only the containers of this deployment sleep.
fn marker(name: &str) -> String {
    let sum: u64 = name.bytes().map(u64::from).sum();
    (100_000 + sum).to_string()
}

/// A deployment that leaves lost nodes soon, and its service.
fn deploy(cluster: &Cluster, name: &str, replicas: usize) -> Result<Vec<Pod>> {
    let tolerate = |what: &str| {
        format!(
            "        - {{key: node.kubernetes.io/{what}, operator: Exists, effect: NoExecute, tolerationSeconds: {SHORT_STAY}}}\n"
        )
    };
    let manifest = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  selector: \
         {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 1\n      tolerations:\n{}{}      containers:\n        - {{name: c, image: \
         \"busybox:1.35\", imagePullPolicy: IfNotPresent, command: [sleep, \"{}\"]}}\n---\napiVersion: v1\nkind: \
         Service\nmetadata: {{name: {name}}}\nspec:\n  selector: {{app: {name}}}\n  ports: [{{port: 80}}]\n",
        tolerate("unreachable"),
        tolerate("not-ready"),
        marker(name)
    );
    cluster.apply(&manifest)?.ok()?;
    cluster.pods(&format!("app={name}"), replicas)
}

fn remove(cluster: &Cluster, name: &str) -> Result<()> {
    cluster.kubectl(&["delete", "deployment,service", name, "--wait=false"])?.ok().map(drop)
}

/// A node that is back before its pods' time is over: they are the same ones, and the same processes.
pub fn back_in_time(cluster: &Cluster) -> Result<()> {
    let before = deploy_web(cluster)?;
    let here = before.iter().find(|pod| pod.node == "node-1").context("no pod on node-1")?;
    let pod = cluster.json(&["get", "pod", &here.name])?;
    let tolerated = pod["spec"]["tolerations"].as_array().into_iter().flatten();
    let seconds: Vec<u64> = tolerated.filter_map(|toleration| toleration["tolerationSeconds"].as_u64()).collect();
    ensure!(seconds == [STAY, STAY], "tolerations by default: {}", pod["spec"]["tolerations"]);
    let processes = servers(cluster, "node-1");
    let cut = Cut::off(cluster, "node-1")?;
    until_ready_is(cluster, "node-1", "Unknown")?;
    eventually(Duration::from_secs(SLACK), || {
        let taints = taints(cluster, "node-1")?;
        let wanted = ["NoExecute", "NoSchedule"].map(|effect| format!("node.kubernetes.io/unreachable:{effect}"));
        ensure!(taints == BTreeSet::from(wanted), "{taints:?}");
        let endpoints = cluster.json(&["get", "endpoints", "web"])?;
        ensure!(!endpoints["subsets"][0]["addresses"].to_string().contains(&here.ip), "{endpoints}");
        Ok(())
    })?;
    drop(cut);
    until_ready_is(cluster, "node-1", "True")?;
    until_untainted(cluster, "node-1")?;
    let after = cluster.pods("app=web", 3)?;
    let names = |pods: &[Pod]| pods.iter().map(|p| (p.name.clone(), p.ip.clone(), p.restarts)).collect::<BTreeSet<_>>();
    ensure!(names(&before) == names(&after), "before {before:?}, after {after:?}");
    ensure!(servers(cluster, "node-1") == processes, "not the same processes");
    eventually(Duration::from_secs(SLACK), || {
        let endpoints = cluster.json(&["get", "endpoints", "web"])?;
        let addresses = endpoints["subsets"][0]["addresses"].as_array().map_or(0, Vec::len);
        ensure!(addresses == 3, "{endpoints}");
        Ok(())
    })
}

/// A pod that exists on one node only, whatever becomes of that.
fn bound(name: &str, node: &str, seconds: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  nodeName: {node}\n  \
         terminationGracePeriodSeconds: 1\n  tolerations: [{{operator: Exists}}]\n  containers:\n    - {{name: c, image: \
         \"busybox:1.35\", imagePullPolicy: IfNotPresent, command: [sleep, \"{seconds}\"]}}\n"
    )
}

/// A host that is cut off goes on running its pods, which run elsewhere too by then; when it is back, nothing runs twice.
/// Nor does what was deleted and made anew under the same name meanwhile.
pub fn cut_off(cluster: &Cluster) -> Result<()> {
    let pods = deploy(cluster, "torn", 4)?;
    ensure!(pods.iter().any(|pod| pod.node == "node-1"), "{pods:?}");
    cluster.apply(&bound("solo", "node-1", "200001"))?.ok()?;
    cluster.pods("app=solo", 1)?;
    let old = sleepers(cluster, "node-1", "torn");
    let cut = Cut::off(cluster, "node-1")?;
    let took = until_on(cluster, "app=torn", 4, "node-2")?;
    println!(
        "  cut off: its pods run elsewhere after {:.1} s (settings: {GRACE} s and {SHORT_STAY} s)",
        took.as_secs_f64()
    );
    ensure!(sleepers(cluster, "node-1", "torn") == old, "containers of a host that is cut off run on");
    cluster.kubectl(&["delete", "pod", "solo", "--force", "--grace-period=0"])?.ok()?;
    cluster.apply(&bound("solo", "node-1", "200002"))?.ok()?;
    drop(cut);
    until_ready_is(cluster, "node-1", "True")?;
    until_untainted(cluster, "node-1")?;
    exact(cluster, "torn", 4)?;
    cluster.pods("app=solo", 1)?;
    eventually(Duration::from_secs(SLACK), || {
        let seconds = |wanted: &str| {
            let all = processes(cluster, "node-1");
            let line = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            all.iter().filter(|pid| line(pid) == format!("sleep\0{wanted}\0")).count()
        };
        let found = (seconds("200001"), seconds("200002"));
        ensure!(found == (0, 1), "of the old and the new pod of one name run {found:?}");
        Ok(())
    })?;
    cluster.kubectl(&["delete", "pod", "solo", "--wait=false"])?.ok()?;
    remove(cluster, "torn")
}

/// The same, and the host dies while it is cut off: it comes back with nothing running.
pub fn cut_off_and_killed(cluster: &Cluster) -> Result<()> {
    let pods = deploy(cluster, "dead", 4)?;
    let node = if pods.iter().any(|pod| pod.node == "node-2") { "node-2" } else { "node-1" };
    let cut = Cut::off(cluster, node)?;
    let took = until_on(cluster, "app=dead", 4, other(node))?;
    println!("  its pods run elsewhere after {:.1} s", took.as_secs_f64());
    kill_host(cluster, node)?;
    drop(cut);
    cluster.mend()?;
    until_untainted(cluster, node)?;
    exact(cluster, "dead", 4)?;
    remove(cluster, "dead")
}

/// Deleting the Node of a dead host frees its pods at once, however long they would have tolerated it; the host that
/// comes back is a node as before.
pub fn deleted_node(cluster: &Cluster) -> Result<()> {
    let before = deploy_web(cluster)?;
    ensure!(before.iter().any(|pod| pod.node == "node-1"), "{before:?}");
    kill_host(cluster, "node-1")?;
    until_ready_is(cluster, "node-1", "Unknown")?;
    let begun = Instant::now();
    cluster.kubectl(&["delete", "node", "node-1"])?.ok()?;
    let after = eventually(Duration::from_secs(STAY - GRACE), || {
        let list = cluster.json(&["get", "pods", "-l", "app=web"])?;
        let pods: Vec<Pod> = list["items"].as_array().into_iter().flatten().map(Pod::read).collect();
        ensure!(pods.len() == 3 && pods.iter().all(|pod| pod.ready && pod.node == "node-2"), "{pods:?}");
        Ok(pods)
    })?;
    println!("  all three run elsewhere {:.1} s after the node was deleted", begun.elapsed().as_secs_f64());
    let _: Ipv4Addr = after[0].ip.parse()?;
    cluster.mend()?;
    until_ready_is(cluster, "node-1", "True")?;
    ensure!(servers(cluster, "node-1").is_empty(), "something runs on the node that came back");
    let again = cluster.pods("app=web", 3)?;
    ensure!(again.iter().all(|pod| after.iter().any(|old| old.name == pod.name)), "{again:?}");
    Ok(())
}
