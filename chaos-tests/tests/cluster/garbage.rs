//! What becomes of objects whose owners go, and of a namespace that something holds on to.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use trireme_chaos_tests::{Cluster, eventually};

use crate::rollouts::wait_rolled;

const LIMIT: Duration = Duration::from_secs(20);

/// An owner reference.
#[derive(Clone)]
struct Owner {
    name: String,
    uid: String,
    block: bool,
}

/// Makes a config map; its uid.
fn make(cluster: &Cluster, name: &str, owners: &[Owner], finalizers: &[&str]) -> Result<String> {
    make_in(cluster, "default", name, owners, finalizers)
}

fn make_in(cluster: &Cluster, namespace: &str, name: &str, owners: &[Owner], finalizers: &[&str]) -> Result<String> {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": name, "namespace": namespace, "finalizers": finalizers, "ownerReferences": references(owners)}});
    cluster.apply(&object.to_string())?.ok()?;
    let made = cluster.json(&["get", "configmap", "-n", namespace, name])?;
    Ok(made["metadata"]["uid"].as_str().context("no uid")?.to_owned())
}

fn references(owners: &[Owner]) -> Value {
    let reference = |owner: &Owner| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner.name, "uid": owner.uid,
            "blockOwnerDeletion": owner.block})
    };
    owners.iter().map(reference).collect()
}

fn owner(name: &str, uid: &str, block: bool) -> Owner {
    Owner { name: name.to_owned(), uid: uid.to_owned(), block }
}

fn exists(cluster: &Cluster, name: &str) -> Result<bool> {
    let found = cluster.kubectl(&["get", "configmap", name, "--ignore-not-found", "-o", "name"])?.ok()?;
    Ok(!found.trim().is_empty())
}

fn gone(cluster: &Cluster, names: &[&str]) -> Result<()> {
    eventually(LIMIT, || {
        for name in names {
            ensure!(!exists(cluster, name)?, "{name} is still there");
        }
        Ok(())
    })
}

fn delete(cluster: &Cluster, name: &str, cascade: &str) -> Result<()> {
    let cascade = format!("--cascade={cascade}");
    cluster.kubectl(&["delete", "configmap", name, &cascade, "--wait=false"])?.ok().map(drop)
}

fn unhold(cluster: &Cluster, name: &str) -> Result<()> {
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    cluster.kubectl(&["patch", "configmap", name, "--type=merge", "-p", patch])?.ok().map(drop)
}

fn metadata(cluster: &Cluster, name: &str) -> Result<Value> {
    Ok(cluster.json(&["get", "configmap", name])?["metadata"].clone())
}

/// `kubectl delete --cascade` of a Deployment in its three forms, with real pods.
pub fn cascades(cluster: &Cluster) -> Result<()> {
    let manifest = |replicas: u32| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: tree}}\nspec:\n  replicas: {replicas}\n  selector: \
             {{matchLabels: {{app: tree}}}}\n  template:\n    metadata: {{labels: {{app: tree}}}}\n    spec:\n      \
             terminationGracePeriodSeconds: 1\n      containers:\n        - {{name: c, image: \"busybox:1.35\", \
             imagePullPolicy: IfNotPresent, command: [sleep, \"3600\"]}}\n"
        )
    };
    cluster.apply(&manifest(2))?.ok()?;
    wait_rolled(cluster, "tree")?;
    let before = cluster.pods("app=tree", 2)?;
    cluster.kubectl(&["delete", "deployment", "tree", "--cascade=orphan"])?.ok()?;
    let sets = cluster.json(&["get", "replicasets", "-l", "app=tree"])?;
    ensure!(sets["items"].as_array().map_or(0, Vec::len) == 1, "{sets}");
    let owners = &sets["items"][0]["metadata"]["ownerReferences"];
    ensure!(owners.as_array().is_none_or(Vec::is_empty), "{owners}");
    // Another of that name and selector adopts what is there.
    cluster.apply(&manifest(2))?.ok()?;
    wait_rolled(cluster, "tree")?;
    let after = cluster.pods("app=tree", 2)?;
    ensure!(after.iter().all(|pod| before.iter().any(|old| old.name == pod.name)), "{before:?} {after:?}");
    cluster.kubectl(&["delete", "deployment", "tree", "--cascade=foreground", "--wait=false"])?.ok()?;
    let mut seen_waiting = false;
    eventually(LIMIT, || {
        let owner = cluster.kubectl(&["get", "deployment", "tree", "--ignore-not-found", "-o", "json"])?.ok()?;
        let pods = cluster.kubectl(&["get", "pods,rs", "-l", "app=tree", "-o", "name"])?.ok()?;
        if owner.trim().is_empty() {
            ensure!(pods.trim().is_empty(), "the owner went before {pods}");
            return Ok(());
        }
        seen_waiting |= owner.contains("foregroundDeletion");
        anyhow::bail!("still there: {pods}")
    })?;
    ensure!(seen_waiting, "nobody saw the deployment wait for its pods");
    cluster.apply(&manifest(1))?.ok()?;
    wait_rolled(cluster, "tree")?;
    cluster.kubectl(&["delete", "deployment", "tree", "--cascade=background"])?.ok()?;
    eventually(LIMIT, || {
        let left = cluster.kubectl(&["get", "pods,rs", "-l", "app=tree", "-o", "name"])?.ok()?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
}

/// Only a dependent that blocks its owner is waited for.
pub fn blocking(cluster: &Cluster) -> Result<()> {
    let boss = make(cluster, "boss", &[], &[])?;
    make(cluster, "blocker", &[owner("boss", &boss, true)], &["example.com/hold"])?;
    make(cluster, "bystander", &[owner("boss", &boss, false)], &["example.com/hold"])?;
    delete(cluster, "boss", "foreground")?;
    eventually(LIMIT, || {
        for name in ["blocker", "bystander"] {
            ensure!(!metadata(cluster, name)?["deletionTimestamp"].is_null(), "{name} is not being deleted");
        }
        Ok(())
    })?;
    let waiting = metadata(cluster, "boss")?;
    ensure!(waiting["finalizers"] == json!(["foregroundDeletion"]), "{waiting}");
    unhold(cluster, "blocker")?;
    gone(cluster, &["blocker", "boss"])?;
    ensure!(exists(cluster, "bystander")?);
    unhold(cluster, "bystander")?;
    gone(cluster, &["bystander"])?;
    // Orphans live on, without the owner.
    let boss = make(cluster, "boss", &[], &[])?;
    make(cluster, "orphan", &[owner("boss", &boss, true)], &[])?;
    delete(cluster, "boss", "orphan")?;
    gone(cluster, &["boss"])?;
    let orphan = metadata(cluster, "orphan")?;
    ensure!(orphan["ownerReferences"].as_array().is_none_or(Vec::is_empty), "{orphan}");
    delete(cluster, "orphan", "background")
}

/// Owners in a circle, of another namespace, of another uid, that never were, and two of them.
pub fn odd_owners(cluster: &Cluster) -> Result<()> {
    for cascade in ["background", "foreground"] {
        let one = make(cluster, "one", &[], &[])?;
        let two = make(cluster, "two", &[owner("one", &one, true)], &[])?;
        let patch = json!({"metadata": {"ownerReferences": references(&[owner("two", &two, true)])}}).to_string();
        cluster.kubectl(&["patch", "configmap", "one", "--type=merge", "-p", &patch])?.ok()?;
        delete(cluster, "one", cascade)?;
        gone(cluster, &["one", "two"])?;
    }
    let elsewhere = make_in(cluster, "kube-public", "elsewhere", &[], &[])?;
    let (first, second) = (make(cluster, "first", &[], &[])?, make(cluster, "second", &[], &[])?);
    let never = "00000000-0000-4000-8000-000000000000";
    // Applied without being read back: some are gone before that.
    for (name, owners) in [
        ("of-nobody", vec![owner("never-was", never, false)]),
        ("of-a-namesake", vec![owner("first", never, false)]),
        ("of-another-namespace", vec![owner("elsewhere", &elsewhere, false)]),
        ("of-two", vec![owner("first", &first, false), owner("second", &second, false)]),
        ("of-one-and-nobody", vec![owner("first", &first, false), owner("never-was", never, false)]),
    ] {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": name, "ownerReferences": references(&owners)}});
        cluster.apply(&object.to_string())?.ok()?;
    }
    gone(cluster, &["of-nobody", "of-a-namesake", "of-another-namespace"])?;
    let only = |name: &str, uid: &str| {
        eventually(LIMIT, || {
            let owners = metadata(cluster, name)?["ownerReferences"].clone();
            ensure!(owners.as_array().is_some_and(|all| all.len() == 1) && owners[0]["uid"] == uid, "{name}: {owners}");
            Ok(())
        })
    };
    only("of-one-and-nobody", &first)?;
    delete(cluster, "second", "background")?;
    gone(cluster, &["second"])?;
    only("of-two", &first)?;
    delete(cluster, "first", "background")?;
    gone(cluster, &["first", "of-two", "of-one-and-nobody"])?;
    cluster.kubectl(&["delete", "configmap", "-n", "kube-public", "elsewhere"])?.ok().map(drop)
}

/// The leader that would have collected dies at that moment: the next one does it.
pub fn leader_dies(cluster: &Cluster) -> Result<()> {
    let root = make(cluster, "root", &[], &[])?;
    let names: Vec<String> = (0..20).map(|n| format!("leaf-{n}")).collect();
    for name in &names {
        make(cluster, name, &[owner("root", &root, false)], &[])?;
    }
    let leader = cluster.leader()?;
    let survivor = if leader == "master-1" { 2 } else { 1 };
    let kubectl = cluster.newest().clone();
    trireme_chaos_tests::run(cluster.kubectl_at(&kubectl, survivor).args(["delete", "configmap", "root"]))?.ok()?;
    cluster.kill(&leader)?;
    eventually(LIMIT, || {
        let left = cluster.trictl(&["get", "configmaps", "-o", "name"])?.ok()?;
        ensure!(!left.contains("leaf-"), "{left}");
        Ok(())
    })?;
    // The dead master is no endpoint of the API any more, until it is back.
    announced(cluster, 2)?;
    cluster.mend()?;
    announced(cluster, 3)
}

/// Waits until so many masters are endpoints of the service `kubernetes`.
fn announced(cluster: &Cluster, count: usize) -> Result<()> {
    eventually(Duration::from_secs(30), || {
        let text = cluster.trictl(&["get", "endpoints", "kubernetes", "-o", "json"])?.ok()?;
        let endpoints: Value = serde_json::from_str(&text)?;
        let addresses = endpoints["subsets"][0]["addresses"].as_array().map_or(0, Vec::len);
        ensure!(addresses == count, "{}", endpoints["subsets"]);
        Ok(())
    })
}

/// A namespace tells what keeps it, and goes when that does.
pub fn namespace(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "namespace", "held"])?.ok()?;
    make_in(cluster, "held", "anchor", &[], &["example.com/hold"])?;
    cluster.kubectl(&["create", "-n", "held", "secret", "generic", "loose", "--from-literal=a=b"])?.ok()?;
    cluster.kubectl(&["delete", "namespace", "held", "--wait=false"])?.ok()?;
    eventually(LIMIT, || {
        let namespace = cluster.json(&["get", "namespace", "held"])?;
        let conditions = namespace["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let says = |kind: &str, status: &str, reason: &str, message: &str| {
            conditions
                .iter()
                .any(|c| c["type"] == kind && c["status"] == status && c["reason"] == reason && c["message"] == message)
        };
        ensure!(
            says(
                "NamespaceContentRemaining",
                "True",
                "SomeResourcesRemain",
                "Some resources are remaining: configmaps. has 1 resource instances",
            ) && says(
                "NamespaceFinalizersRemaining",
                "True",
                "SomeFinalizersRemain",
                "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
            ) && says(
                "NamespaceDeletionContentFailure",
                "False",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
            "{}",
            namespace["status"]
        );
        Ok(())
    })?;
    let refused = cluster.kubectl(&["create", "-n", "held", "configmap", "late"])?.refused()?;
    ensure!(refused.contains("because it is being terminated"), "{refused}");
    let patch = r#"{"metadata":{"finalizers":null}}"#;
    cluster.kubectl(&["patch", "configmap", "-n", "held", "anchor", "--type=merge", "-p", patch])?.ok()?;
    eventually(LIMIT, || {
        let left = cluster.kubectl(&["get", "namespace", "held", "--ignore-not-found"])?.ok()?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    })
}
