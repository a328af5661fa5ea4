//! Masters that die, the leader too.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::workloads::deploy_web;
use trireme_chaos_tests::{Cluster, eventually, run};

const HOSTS: [&str; 5] = ["master-1", "master-2", "master-3", "node-1", "node-2"];

fn pids(cluster: &Cluster) -> Result<Vec<i32>> {
    HOSTS.iter().map(|host| cluster.pid(host)).collect()
}

/// A second `up` changes nothing.
pub fn up_again(cluster: &Cluster) -> Result<()> {
    let before = pids(cluster)?;
    let said = cluster.up(&[])?;
    ensure!(said.contains("everything was running and is ready"), "{said}");
    ensure!(pids(cluster)? == before, "processes have changed");
    let status =
        run(cluster.trireme().args(["status", "--name", &cluster.name, "--dir"]).arg(cluster.dir.join(".trireme")))?;
    let screen = status.ok()?;
    ensure!(screen.lines().filter(|line| line.contains(" yes ")).count() == 5, "{screen}");
    Ok(())
}

/// The leader first, then each of the others.
pub fn any_master_may_die(cluster: &Cluster) -> Result<()> {
    deploy_web(cluster)?;
    let leader = cluster.leader()?;
    let mut order = vec![leader.clone()];
    order.extend(HOSTS[..3].iter().filter(|host| **host != leader).map(ToString::to_string));
    for master in order {
        one_dies(cluster, &master).with_context(|| format!("{master} was killed"))?;
    }
    Ok(())
}

fn one_dies(cluster: &Cluster, master: &str) -> Result<()> {
    // A namespace of their own is gone at once; by name they would take longer to delete than to write.
    let space = format!("kept-{master}");
    cluster.kubectl(&["create", "namespace", &space])?.ok()?;
    let stop = AtomicBool::new(false);
    let counter = AtomicUsize::new(0);
    let acknowledged: Mutex<Vec<(String, Instant)>> = Mutex::default();
    let killed = std::thread::scope(|scope| -> Result<Instant> {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let name = format!("kept-{}", counter.fetch_add(1, Ordering::Relaxed));
                    let create = ["create", "configmap", &name, "-n", &space, "--from-literal=key=value"];
                    let written = cluster.trictl(&create);
                    if written.is_ok_and(|outcome| outcome.code == Some(0))
                        && let Ok(mut list) = acknowledged.lock()
                    {
                        list.push((name, Instant::now()));
                    }
                }
            });
        }
        let while_dead = (|| {
            std::thread::sleep(Duration::from_secs(1));
            cluster.kill(master)?;
            let killed = Instant::now();
            trictl_works(cluster, master)?;
            a_new_pod_runs(cluster, master)?;
            Ok(killed)
        })();
        stop.store(true, Ordering::Relaxed);
        while_dead
    })?;
    let acknowledged = acknowledged.into_inner().map_err(|_| anyhow!("a writer panicked"))?;
    let after = acknowledged.iter().filter(|(_, at)| *at > killed).map(|(_, at)| *at - killed).min();
    let after = after.context("no write was acknowledged after the kill")?;
    println!("  {master}: {} writes acknowledged, the first {after:?} after the kill", acknowledged.len());
    ensure!(after < Duration::from_secs(5), "writes stood still for {after:?}");
    cluster.mend()?;
    caught_up(cluster, master, &space, acknowledged.into_iter().map(|(name, _)| name).collect())
}

/// Every verb through the masters that are left.
fn trictl_works(cluster: &Cluster, dead: &str) -> Result<()> {
    let get = cluster.trictl(&["get", "pods", "-o", "wide"])?.ok()?;
    ensure!(get.contains("web-"), "{get}");
    ensure!(cluster.trictl(&["describe", "deployment", "web"])?.ok()?.contains("Replicas:"));
    let file = cluster.dir.join("trictl.yaml");
    std::fs::write(
        &file,
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: by-trictl-{dead}\ndata: {{a: b}}\n"),
    )?;
    cluster.trictl(&["apply", "-f", &file.display().to_string()])?.ok()?;
    cluster.trictl(&["delete", "configmap", &format!("by-trictl-{dead}")])?.ok()?;
    for replicas in ["4", "3"] {
        cluster.trictl(&["scale", "deployment/web", &format!("--replicas={replicas}")])?.ok()?;
        pods_by_trictl(cluster, "app=web", replicas)?;
    }
    let pod = cluster.trictl(&["get", "pods", "-l", "app=web", "-o", "name"])?.ok()?;
    let pod = pod.lines().next().context("no pod")?.trim_start_matches("pod/").to_owned();
    ensure!(cluster.trictl(&["logs", &pod])?.ok()?.contains("serving as"));
    ensure!(cluster.trictl(&["exec", &pod, "--", "hostname"])?.ok()?.trim() == pod);
    Ok(())
}

/// Waits, through trictl, until so many pods run.
fn pods_by_trictl(cluster: &Cluster, selector: &str, count: &str) -> Result<()> {
    eventually(Duration::from_secs(60), || {
        let list = cluster.trictl(&["get", "pods", "-l", selector, "--no-headers"])?.ok()?;
        let running = list.lines().filter(|line| line.contains("Running") && line.contains("1/1")).count();
        ensure!(running.to_string() == count && list.lines().count() == running, "{list}");
        Ok(())
    })
}

fn a_new_pod_runs(cluster: &Cluster, dead: &str) -> Result<()> {
    let name = format!("born-without-{dead}");
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  \
         - {{name: c, image: \"busybox:1.35\", imagePullPolicy: IfNotPresent, command: [sleep, \"3600\"]}}\n"
    );
    let file = cluster.dir.join("pod.yaml");
    std::fs::write(&file, manifest)?;
    cluster.trictl(&["apply", "-f", &file.display().to_string()])?.ok()?;
    eventually(Duration::from_secs(30), || {
        let line = cluster.trictl(&["get", "pod", &name, "--no-headers"])?.ok()?;
        ensure!(line.contains("Running"), "{line}");
        Ok(())
    })?;
    cluster.trictl(&["delete", "pod", &name])?.ok().map(drop)
}

/// The master that came back knows every acknowledged write.
fn caught_up(cluster: &Cluster, master: &str, space: &str, names: Vec<String>) -> Result<()> {
    let number: usize = master.trim_start_matches("master-").parse()?;
    let mut list = cluster.kubectl_at(cluster.newest(), number);
    let text = run(list.args(["get", "configmaps", "-n", space, "-o", "name"]))?.ok()?;
    let present: std::collections::HashSet<&str> =
        text.lines().map(|line| line.trim_start_matches("configmap/")).collect();
    let lost: Vec<&String> = names.iter().filter(|name| !present.contains(name.as_str())).collect();
    ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    cluster.kubectl(&["delete", "namespace", space, "--wait=false"])?.ok().map(drop)
}
