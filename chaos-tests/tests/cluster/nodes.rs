//! Agents that die, clusters beside each other, and the end of a cluster.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::workloads::{deploy_web, fetch};
use trireme_chaos_tests::{Cluster, eventually, run, run_for};

/// Directories of a cgroup path in all hierarchies.
fn cgroups(path: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup")));
    let points = points.filter_map(|line| line.split(' ').nth(1));
    points.map(|point| Path::new(point).join(path)).filter(|dir| dir.is_dir()).collect()
}

fn processes_below(dir: &Path, into: &mut BTreeSet<i32>) {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    into.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
        processes_below(&entry.path(), into);
    }
}

/// All processes of a node's pods, their shims included.
pub fn processes(cluster: &Cluster, node: &str) -> BTreeSet<i32> {
    let mut all = BTreeSet::new();
    for dir in cgroups(&format!("trireme/{}/{node}", cluster.name)) {
        processes_below(&dir, &mut all);
    }
    all
}

/// The web servers that run on a node.
pub fn servers(cluster: &Cluster, node: &str) -> BTreeSet<i32> {
    let mut all = processes(cluster, node);
    let command = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    all.retain(|pid| command(pid).starts_with("httpd"));
    all
}

/// `kill -9` of an agent: pods go on serving, and after its restart they are the same processes.
pub fn agent_dies(cluster: &Cluster) -> Result<()> {
    let pods = deploy_web(cluster)?;
    let on = |node: &str| pods.iter().find(|pod| pod.node == node).with_context(|| format!("{pods:?}"));
    let (here, there) = (on("node-1")?, on("node-2")?);
    let before = servers(cluster, "node-1");
    ensure!(!before.is_empty(), "no web server in the cgroups of node-1");
    cluster.kill("node-1")?;
    for _ in 0..5 {
        let page = fetch(cluster, there, here)?;
        ensure!(page == here.name, "{page}");
    }
    ensure!(servers(cluster, "node-1") == before, "processes have changed while the agent was dead");
    cluster.mend()?;
    let after = eventually(Duration::from_secs(20), || {
        let after = cluster.pods("app=web", 3)?;
        let same = after.iter().find(|pod| pod.name == here.name).context("the pod is gone")?;
        ensure!(same.restarts == here.restarts && same.ip == here.ip, "{same:?}");
        cluster.kubectl(&["exec", &here.name, "--", "hostname"])?.ok()?;
        Ok(after)
    })?;
    ensure!(servers(cluster, "node-1") == before, "not the same processes: {after:?}");
    Ok(())
}

/// A second cluster boots beside this one, and its end does not touch it.
pub fn side_by_side(cluster: &Cluster) -> Result<()> {
    let name = format!("{}b", cluster.name);
    let dir = cluster.dir.join("second");
    let call = |verb: &str, more: &[&str]| -> Result<String> {
        let mut command = cluster.trireme();
        command.args([verb, "--name", &name, "--dir"]).arg(&dir).args(more);
        run_for(&mut command, Duration::from_secs(120))?.ok()
    };
    let booted = call("up", &["--masters", "1", "--nodes", "1"]);
    let nodes = booted.and_then(|_| {
        let mut kubectl = Command::new(&cluster.newest().path);
        kubectl.env("KUBECONFIG", dir.join(&name).join("kubeconfig")).env("HOME", &cluster.dir);
        run(kubectl.args(["get", "nodes", "-o", "name"]))?.ok()
    });
    call("down", &[])?;
    ensure!(nodes?.trim() == "node/node-1");
    let mine = cluster.kubectl(&["get", "nodes", "-o", "name"])?.ok()?;
    ensure!(mine.lines().count() == 2, "{mine}");
    Ok(())
}

/// Nothing of the cluster is left, and a second `down` says so.
pub fn down_leaves_nothing(cluster: &Cluster) -> Result<()> {
    deploy_web(cluster)?;
    let subnet = cluster.subnet()?;
    let down = || {
        let mut command = cluster.trireme();
        command.args(["down", "--name", &cluster.name, "--dir"]).arg(cluster.dir.join(".trireme"));
        run_for(&mut command, Duration::from_secs(90))?.ok()
    };
    println!("  {}", down()?.lines().last().unwrap_or_default());
    let namespaces = run(Command::new("ip").args(["netns", "list"]))?.ok()?;
    ensure!(!namespaces.contains(&format!("trireme-{}-", cluster.name)), "{namespaces}");
    let addresses = run(Command::new("ip").args(["-br", "address"]))?.ok()?;
    ensure!(!addresses.contains(&format!("10.90.{subnet}.")), "{addresses}");
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    ensure!(!mounts.contains(&cluster.dir.display().to_string()), "{mounts}");
    ensure!(cgroups(&format!("trireme/{}", cluster.name)).is_empty(), "cgroups are left");
    ensure!(!cluster.root().exists(), "{} is left", cluster.root().display());
    let running = run(Command::new("ps").args(["-eo", "args"]))?.ok()?;
    let ours = cluster.root().display().to_string();
    ensure!(!running.lines().any(|line| line.contains(&ours)), "{running}");
    ensure!(down()?.contains("nothing to do"));
    Ok(())
}
