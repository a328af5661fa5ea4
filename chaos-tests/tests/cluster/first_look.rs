//! What one types first, with every kubectl against every master.

use anyhow::{Context, Result, ensure};

use trireme_chaos_tests::{Cluster, run};

/// Nodes, health, discovery and versions.
pub fn reads(cluster: &Cluster) -> Result<()> {
    for kubectl in &cluster.kubectls {
        for master in 1..=3 {
            let ask = |arguments: &[&str]| -> Result<String> {
                run(cluster.kubectl_at(kubectl, master).args(arguments))?
                    .ok()
                    .with_context(|| format!("kubectl {} against master-{master}", kubectl.version))
            };
            let nodes = ask(&["get", "nodes", "-o", "wide"])?;
            for node in ["node-1", "node-2"] {
                let line = nodes.lines().find(|line| line.starts_with(node)).with_context(|| nodes.clone())?;
                ensure!(line.split_whitespace().nth(1) == Some("Ready"), "{nodes}");
            }
            ensure!(nodes.contains("INTERNAL-IP") && nodes.contains(&format!("10.90.{}.101", cluster.subnet()?)));
            ensure!(ask(&["get", "--raw", "/readyz"])?.trim() == "ok");
            let info = ask(&["cluster-info"])?;
            ensure!(info.contains("is running at") && info.contains(":6443"), "{info}");
            let resources = ask(&["api-resources"])?;
            for kind in ["deployments", "replicationcontrollers", "endpointslices", "leases", "configmaps"] {
                ensure!(resources.contains(kind), "{kind} is missing from\n{resources}");
            }
            let version = ask(&["version", "-o", "json"])?;
            ensure!(version.contains("serverVersion") && version.contains("v1.36"), "{version}");
        }
    }
    Ok(())
}

/// An object applied twice, changed, and deleted.
pub fn applies(cluster: &Cluster) -> Result<()> {
    for (index, kubectl) in cluster.kubectls.iter().enumerate() {
        for master in 1..=3 {
            let name = format!("applied-{index}-{master}");
            let manifest = |value: &str| {
                format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  key: \"{value}\"\n")
            };
            let apply = |value: &str| -> Result<String> {
                let file = cluster.dir.join(format!("{name}.yaml"));
                std::fs::write(&file, manifest(value))?;
                run(cluster.kubectl_at(kubectl, master).arg("apply").arg("-f").arg(&file))?
                    .ok()
                    .with_context(|| format!("kubectl {} apply through master-{master}", kubectl.version))
            };
            ensure!(apply("one")?.contains("created"));
            ensure!(apply("one")?.contains("unchanged"));
            ensure!(apply("two")?.contains("configured"));
            // What one master acknowledged, the next one knows.
            let other = master % 3 + 1;
            let mut read = cluster.kubectl_at(kubectl, other);
            let value = run(read.args(["get", "configmap", &name, "-o", "jsonpath={.data.key}"]))?.ok()?;
            ensure!(value == "two", "master-{other} says {value:?}");
            run(cluster.kubectl_at(kubectl, master).args(["delete", "configmap", &name]))?.ok()?;
        }
    }
    Ok(())
}
