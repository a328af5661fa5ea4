//! Deployments that roll, are paused, fail and are taken back, under clients that look on.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use trireme_chaos_tests::{Cluster, eventually, run_for};

use crate::eyes;
use crate::workloads::deploy_web;

/// Waits for a rollout, as a user does.
pub fn wait_rolled(cluster: &Cluster, name: &str) -> Result<()> {
    let mut wait = cluster.command(&cluster.newest().path, None);
    wait.args(["rollout", "status", &format!("deployment/{name}"), "--timeout=90s"]);
    run_for(&mut wait, Duration::from_secs(100))?.ok().map(drop)
}

/// The service's address and port.
fn service(cluster: &Cluster, name: &str) -> Result<SocketAddr> {
    let service = cluster.json(&["get", "service", name])?;
    let ip = service["spec"]["clusterIP"].as_str().context("no clusterIP")?;
    Ok(SocketAddr::new(ip.parse()?, 80))
}

fn images(cluster: &Cluster, selector: &str) -> Result<Vec<String>> {
    let pods = cluster.json(&["get", "pods", "-l", selector])?;
    let image = |pod: &Value| pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
    Ok(pods["items"].as_array().into_iter().flatten().map(image).collect())
}

/// A rolling update and its rollback: never fewer ready pods than promised, never more than allowed, and whoever
/// fetches pages over the Service notices nothing.
pub fn rolling_update(cluster: &Cluster) -> Result<()> {
    deploy_web(cluster)?;
    let address = service(cluster, "web")?;
    let pods = eyes::pods(cluster, "app=web")?;
    let readers = [eyes::pages(cluster, "node-1", address)?, eyes::pages(cluster, "node-2", address)?];
    let rolled = (|| {
        cluster.kubectl(&["set", "image", "deployment/web", "httpd=busybox:latest"])?.ok()?;
        wait_rolled(cluster, "web")?;
        let now = images(cluster, "app=web,pod-template-hash")?;
        ensure!(now.iter().filter(|image| *image == "busybox:latest").count() >= 3, "{now:?}");
        cluster.kubectl(&["rollout", "undo", "deployment/web"])?.ok()?;
        wait_rolled(cluster, "web")
    })();
    let seen = pods.end()?;
    let fetched = readers.into_iter().map(eyes::Watch::end).collect::<Result<Vec<_>>>()?;
    rolled?;
    let asked: usize = fetched.iter().map(|fetched| fetched.requests).sum();
    println!("  {seen:?}; {asked} pages");
    ensure!(seen.looks > 100 && seen.failures == 0, "{seen:?}");
    // A quarter of three: none may be missing, one may be too many.
    ensure!(seen.least_ready >= 3 && seen.most <= 4, "promises broken: {seen:?}");
    ensure!(asked > 100 && fetched.iter().all(|fetched| fetched.failed.is_empty()), "{fetched:?}");
    cluster.pods("app=web", 3)?;
    let now = images(cluster, "app=web")?;
    ensure!(now.iter().all(|image| image == "busybox:1.35"), "not rolled back: {now:?}");
    let history = cluster.kubectl(&["rollout", "history", "deployment/web"])?.ok()?;
    let newest = history.lines().filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok()).max();
    let deployment = cluster.json(&["get", "deployment", "web"])?;
    let noted = deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str();
    ensure!(noted.map(str::to_owned) == newest.map(|newest| newest.to_string()), "{noted:?}\n{history}");
    Ok(())
}

fn manifest(name: &str, replicas: u32, more: &str, command: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n{more}  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 1\n      containers:\n        - {{name: c, image: \"busybox:1.35\", \
         imagePullPolicy: IfNotPresent, command: {command}}}\n"
    )
}

const SLEEP: &str = "[sleep, \"3600\"]";

/// With Recreate, no pod of the next template begins before the last of the former one is gone.
pub fn recreate(cluster: &Cluster) -> Result<()> {
    cluster.apply(&manifest("once", 3, "  strategy: {type: Recreate}\n", SLEEP))?.ok()?;
    wait_rolled(cluster, "once")?;
    let pods = eyes::pods(cluster, "app=once")?;
    let rolled = (|| {
        cluster.kubectl(&["set", "env", "deployment/once", "ROUND=two"])?.ok()?;
        wait_rolled(cluster, "once")?;
        cluster.kubectl(&["rollout", "undo", "deployment/once"])?.ok()?;
        wait_rolled(cluster, "once")
    })();
    let seen = pods.end()?;
    rolled?;
    println!("  {seen:?}");
    ensure!(seen.most_versions == 1 && seen.least_ready == 0 && seen.most <= 3, "{seen:?}");
    cluster.kubectl(&["delete", "deployment", "once", "--wait=true"])?.ok().map(drop)
}

fn condition(cluster: &Cluster, name: &str, kind: &str) -> Result<Value> {
    let deployment = cluster.json(&["get", "deployment", name])?;
    let conditions = deployment["status"]["conditions"].as_array().cloned().unwrap_or_default();
    Ok(conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default())
}

fn progress_is(cluster: &Cluster, name: &str, status: &str, reason: &str) -> Result<()> {
    eventually(Duration::from_secs(20), || {
        let progress = condition(cluster, name, "Progressing")?;
        ensure!(progress["status"] == status && progress["reason"] == reason, "{progress}");
        Ok(())
    })
}

fn sets(cluster: &Cluster, name: &str) -> Result<Vec<Value>> {
    let sets = cluster.json(&["get", "replicasets", "-l", &format!("app={name}")])?;
    Ok(sets["items"].as_array().cloned().unwrap_or_default())
}

/// Paused changes wait; a bad image runs into its deadline and is taken back; old sets go beyond the limit; a change of
/// size while a rollout is stuck is spread in proportion.
pub fn pause_deadline_history(cluster: &Cluster) -> Result<()> {
    let more = "  revisionHistoryLimit: 2\n  minReadySeconds: 1\n";
    cluster.apply(&manifest("fickle", 4, more, SLEEP))?.ok()?;
    wait_rolled(cluster, "fickle")?;
    progress_is(cluster, "fickle", "True", "NewReplicaSetAvailable")?;
    paused(cluster)?;
    stuck(cluster)?;
    for round in 0..3 {
        cluster.kubectl(&["set", "env", "deployment/fickle", &format!("ROUND={round}")])?.ok()?;
        wait_rolled(cluster, "fickle")?;
    }
    eventually(Duration::from_secs(10), || {
        let sets = sets(cluster, "fickle")?;
        ensure!(sets.len() == 3, "{} sets are left of a history of two", sets.len());
        Ok(())
    })?;
    let before = cluster.pods("app=fickle", 4)?;
    cluster.kubectl(&["rollout", "restart", "deployment/fickle"])?.ok()?;
    wait_rolled(cluster, "fickle")?;
    let after = cluster.pods("app=fickle", 4)?;
    ensure!(after.iter().all(|pod| before.iter().all(|old| old.name != pod.name)), "not restarted: {after:?}");
    cluster.kubectl(&["delete", "deployment", "fickle", "--wait=true"])?.ok().map(drop)
}

fn paused(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["rollout", "pause", "deployment/fickle"])?.ok()?;
    progress_is(cluster, "fickle", "Unknown", "DeploymentPaused")?;
    cluster.kubectl(&["set", "env", "deployment/fickle", "WHILE=paused"])?.ok()?;
    let generation = cluster.json(&["get", "deployment", "fickle"])?["metadata"]["generation"].clone();
    eventually(Duration::from_secs(10), || {
        let deployment = cluster.json(&["get", "deployment", "fickle"])?;
        ensure!(deployment["status"]["observedGeneration"] == generation, "{deployment}");
        Ok(())
    })?;
    ensure!(sets(cluster, "fickle")?.len() == 1, "rolled although paused");
    // Scaling goes on.
    cluster.kubectl(&["scale", "deployment/fickle", "--replicas=5"])?.ok()?;
    cluster.pods("app=fickle", 5)?;
    cluster.kubectl(&["scale", "deployment/fickle", "--replicas=4"])?.ok()?;
    cluster.kubectl(&["rollout", "resume", "deployment/fickle"])?.ok()?;
    wait_rolled(cluster, "fickle")?;
    ensure!(sets(cluster, "fickle")?.len() == 2);
    Ok(())
}

fn deadline(cluster: &Cluster, seconds: u32) -> Result<()> {
    let patch = format!("{{\"spec\":{{\"progressDeadlineSeconds\":{seconds}}}}}");
    cluster.kubectl(&["patch", "deployment", "fickle", "-p", &patch])?.ok().map(drop)
}

fn stuck(cluster: &Cluster) -> Result<()> {
    deadline(cluster, 3)?;
    cluster.kubectl(&["set", "image", "deployment/fickle", "c=127.0.0.1:9/no/such:image"])?.ok()?;
    progress_is(cluster, "fickle", "False", "ProgressDeadlineExceeded")?;
    let mut status = cluster.command(&cluster.newest().path, None);
    status.args(["rollout", "status", "deployment/fickle", "--timeout=20s"]);
    let said = run_for(&mut status, Duration::from_secs(30))?.refused()?;
    ensure!(said.contains("exceeded its progress deadline"), "{said}");
    // One of four may be missing and one too many: three old ones and two new ones. Of eight two may be too many.
    let available = condition(cluster, "fickle", "Available")?;
    ensure!(available["status"] == "True", "{available}");
    cluster.kubectl(&["scale", "deployment/fickle", "--replicas=8"])?.ok()?;
    eventually(Duration::from_secs(10), || {
        let mut sizes: Vec<u64> =
            sets(cluster, "fickle")?.iter().filter_map(|set| set["spec"]["replicas"].as_u64()).collect();
        sizes.retain(|size| *size > 0);
        sizes.sort_unstable();
        ensure!(sizes == [4, 6], "{sizes:?}");
        Ok(())
    })?;
    deadline(cluster, 600)?;
    cluster.kubectl(&["rollout", "undo", "deployment/fickle"])?.ok()?;
    cluster.kubectl(&["scale", "deployment/fickle", "--replicas=4"])?.ok()?;
    wait_rolled(cluster, "fickle")?;
    cluster.pods("app=fickle", 4).map(drop)
}
