//! Deployments, replication controllers and what one does with pods.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use trireme_chaos_tests::{Cluster, Pod, eventually, run};

use crate::rollouts::wait_rolled;

/// A manifest of the project's examples.
fn example(name: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default();
    root.join("examples").join(name).display().to_string()
}

/// Applies `examples/web.yaml`; its pods, ready.
pub fn deploy_web(cluster: &Cluster) -> Result<Vec<Pod>> {
    cluster.kubectl(&["apply", "-f", &example("web.yaml")])?.ok()?;
    cluster.kubectl(&["scale", "deployment/web", "--replicas=3"])?.ok()?;
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"])?.ok()?;
    cluster.pods("app=web", 3)
}

/// Creation, every way of looking, and every way of changing.
pub fn web(cluster: &Cluster) -> Result<()> {
    let pods = deploy_web(cluster)?;
    for node in ["node-1", "node-2"] {
        ensure!(pods.iter().any(|pod| pod.node == node), "no pod on {node}: {pods:?}");
    }
    let all = cluster.kubectl(&["get", "deploy,rs,po,ep", "-o", "wide"])?.ok()?;
    for part in
        ["deployment.apps/web", "replicaset.apps/web-", "pod/web-", "endpoints/web", "3/3", "httpd", "busybox:1.35"]
    {
        ensure!(all.contains(part), "{part} is missing from\n{all}");
    }
    ensure!(pods.iter().all(|pod| all.contains(&pod.ip)), "{all}");
    let yaml = cluster.kubectl(&["get", "deployment", "web", "-o", "yaml"])?.ok()?;
    ensure!(yaml.contains("progressDeadlineSeconds: 600") && yaml.contains("readyReplicas: 3"), "{yaml}");
    let pod = &pods[0];
    let described = cluster.kubectl(&["describe", "pod", &pod.name])?.ok()?;
    for part in ["Status:           Running", "Controlled By:  ReplicaSet/web-", "Scheduled", "Started"] {
        ensure!(described.contains(part), "{part:?} is missing from\n{described}");
    }
    look_inside(cluster, pod)?;
    change(cluster, &pods)
}

/// Logs and exec.
fn look_inside(cluster: &Cluster, pod: &Pod) -> Result<()> {
    let greeting = format!("serving as {}", pod.name);
    let logs = cluster.kubectl(&["logs", &pod.name])?.ok()?;
    ensure!(logs.contains(&greeting), "{logs}");
    let mut follow = cluster.background(&["logs", "-f", &pod.name])?;
    let followed = first_bytes(&mut follow, &greeting)?;
    ensure!(followed.contains(&greeting), "{followed}");
    let hostname = cluster.kubectl(&["exec", &pod.name, "--", "hostname"])?.ok()?;
    ensure!(hostname.trim() == pod.name, "{hostname}");
    let failing = cluster.kubectl(&["exec", &pod.name, "--", "sh", "-c", "exit 7"])?;
    ensure!(failing.code == Some(7), "{failing:?}");
    // A terminal of its own for kubectl -it.
    let typed =
        format!("{} exec -it {} -- sh -c 'test -t 0 && echo on-a-terminal'", cluster.newest().path.display(), pod.name);
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &typed, "/dev/null"]);
    script.env("KUBECONFIG", cluster.root().join("kubeconfig")).env("HOME", &cluster.dir);
    let terminal = run(&mut script)?.ok()?;
    ensure!(terminal.contains("on-a-terminal"), "{terminal}");
    Ok(())
}

/// Reads until a text has come, or some seconds have gone.
fn first_bytes(child: &mut std::process::Child, wanted: &str) -> Result<String> {
    let mut out = child.stdout.take().context("no output")?;
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0u8; 4096];
        while let Ok(count) = out.read(&mut buffer) {
            if count == 0 || sender.send(String::from_utf8_lossy(&buffer[..count]).into_owned()).is_err() {
                break;
            }
        }
    });
    let mut text = String::new();
    while !text.contains(wanted) {
        match receiver.recv_timeout(Duration::from_secs(15)) {
            Ok(more) => text.push_str(&more),
            Err(_) => break,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    Ok(text)
}

/// Scale, edit, label, annotate, watch, roll, delete.
fn change(cluster: &Cluster, pods: &[Pod]) -> Result<()> {
    cluster.kubectl(&["scale", "deployment", "web", "--replicas=5"])?.ok()?;
    cluster.pods("app=web", 5)?;
    let mut edit = std::process::Command::new(&cluster.newest().path);
    edit.args(["edit", "deployment", "web"]);
    edit.env("KUBECONFIG", cluster.root().join("kubeconfig")).env("HOME", &cluster.dir);
    edit.env("KUBE_EDITOR", editor(cluster)?);
    ensure!(run(&mut edit)?.ok()?.contains("edited"));
    let pods_now = cluster.pods("app=web", 3)?;
    let mut watch = cluster.background(&["get", "pods", "-w", "-L", "seen"])?;
    cluster.kubectl(&["label", "pod", &pods_now[0].name, "seen=labelled"])?.ok()?;
    let watched = first_bytes(&mut watch, "labelled")?;
    ensure!(watched.contains("labelled"), "{watched}");
    cluster.kubectl(&["annotate", "pod", &pods_now[0].name, "note=written"])?.ok()?;
    let noted = cluster.json(&["get", "pod", &pods_now[0].name])?;
    ensure!(noted["metadata"]["annotations"]["note"] == "written", "{noted}");
    roll(cluster)?;
    let fresh = cluster.pods("app=web", 3)?;
    ensure!(fresh.iter().all(|new| pods.iter().all(|old| old.name != new.name)), "{fresh:?}");
    cluster.kubectl(&["delete", "deployment,service", "web", "--wait=true"])?.ok()?;
    eventually(Duration::from_secs(60), || {
        let left = cluster.kubectl(&["get", "pods,rs,ep", "-l", "app=web", "-o", "name"])?.ok()?;
        ensure!(left.trim().is_empty(), "still there: {left}");
        Ok(())
    })
}

/// An editor that asks for three replicas.
fn editor(cluster: &Cluster) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = cluster.dir.join("editor");
    std::fs::write(&path, "#!/bin/sh\nexec sed -i 's/^  replicas: 5/  replicas: 3/' \"$1\"\n")?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn roll(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["set", "env", "deployment/web", "ROUND=two"])?.ok()?;
    wait_rolled(cluster, "web")
}

/// A page of a pod, fetched from another one.
pub fn fetch(cluster: &Cluster, from: &Pod, to: &Pod) -> Result<String> {
    let url = format!("http://{}:8080/", to.ip);
    let page = cluster.kubectl(&["exec", &from.name, "--", "wget", "-q", "-O", "-", &url])?.ok()?;
    Ok(page.trim().to_owned())
}

/// Both directions between the nodes, by pod address.
pub fn across_nodes(cluster: &Cluster) -> Result<()> {
    let pods = deploy_web(cluster)?;
    let on = |node: &str| pods.iter().find(|pod| pod.node == node).with_context(|| format!("{pods:?}"));
    let (one, two) = (on("node-1")?, on("node-2")?);
    for (from, to) in [(one, two), (two, one)] {
        let page = eventually(Duration::from_secs(10), || fetch(cluster, from, to))?;
        ensure!(page == to.name, "{} got {page:?} from {}", from.name, to.name);
    }
    Ok(())
}

/// Pods that are deleted come back under new names.
pub fn replication_controller(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["apply", "-f", &example("rc.yaml")])?.ok()?;
    let before = cluster.pods("app=echo", 2)?;
    cluster.kubectl(&["delete", "pods", "-l", "app=echo", "--wait=true"])?.ok()?;
    let after = cluster.pods("app=echo", 2)?;
    ensure!(after.iter().all(|new| before.iter().all(|old| old.name != new.name)), "{before:?} {after:?}");
    cluster.kubectl(&["delete", "rc", "echo"])?.ok()?;
    eventually(Duration::from_secs(60), || {
        let left = cluster.kubectl(&["get", "pods", "-l", "app=echo", "-o", "name"])?.ok()?;
        ensure!(left.trim().is_empty(), "still there: {left}");
        Ok(())
    })
}
