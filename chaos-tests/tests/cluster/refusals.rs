//! Bad input: a clear error, and nothing changed.

use anyhow::{Result, ensure};

use trireme_chaos_tests::{Cluster, run};

const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: bad\nspec:\n  replicas: REPLICAS\n  \
                          selector:\n    matchLabels: {app: bad}\n  template:\n    metadata:\n      labels: {app: LABEL}\n    \
                          spec:\n      containers:\n      - name: c\n        image: busybox:1.35\n";

/// Manifests and requests that cannot be accepted.
pub fn manifests(cluster: &Cluster) -> Result<()> {
    let before = state(cluster)?;
    let deployment = |replicas: &str, label: &str| DEPLOYMENT.replace("REPLICAS", replicas).replace("LABEL", label);
    let cases = [
        ("{a: [", vec!["error"]),
        ("apiVersion: v1\nkind: Nonsense\nmetadata: {name: bad}\n", vec!["Nonsense"]),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Bad_Name}\n", vec!["Invalid value", "Bad_Name"]),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\ndata: {a: [1]}\n", vec!["data"]),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad, labels: {a: \"b c\"}}\n",
            vec!["metadata.labels", "b c"],
        ),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad, namespace: nowhere}\n", vec!["nowhere", "not found"]),
    ];
    for (manifest, words) in cases {
        // Without its own validation, which words an unknown kind as it likes: the server's answer counts.
        let said = cluster.apply_unchecked(manifest)?.refused()?;
        ensure!(words.iter().all(|word| said.contains(word)), "{manifest}\n{said}");
    }
    let said = cluster.apply(&deployment("three", "bad"))?.refused()?;
    ensure!(said.contains("replicas"), "{said}");
    let said = cluster.apply(&deployment("1", "other"))?.refused()?;
    ensure!(said.contains("selector"), "{said}");
    let said = cluster.kubectl(&["get", "pod", "absent"])?.refused()?;
    ensure!(said.contains("pods \"absent\" not found"), "{said}");
    let said = cluster.kubectl(&["get", "--raw", "/apis/none.example/v1/things"])?.refused()?;
    ensure!(said.contains("the server could not find the requested resource"), "{said}");
    let big = cluster.dir.join("big");
    for (size, words) in [(1_200_000, ["Too long", "too large"]), (4_000_000, ["too large", "Too long"])] {
        std::fs::write(&big, "x".repeat(size))?;
        let from = format!("--from-file={}", big.display());
        let said = cluster.kubectl(&["create", "configmap", "bad", &from])?.refused()?;
        ensure!(words.iter().any(|word| said.contains(word)), "{size}: {said}");
    }
    let after = state(cluster)?;
    ensure!(before == after, "something has changed: {before} -> {after}");
    Ok(())
}

/// Names of what the refused manifests would have made.
fn state(cluster: &Cluster) -> Result<String> {
    cluster.kubectl(&["get", "configmaps,deployments", "-A", "-o", "name"])?.ok()
}

/// Clients without a certificate: trictl, since kubectl asks at the terminal who one is.
pub fn strangers(cluster: &Cluster) -> Result<()> {
    let ca = cluster.root().join("master-1/data/pki/ca.crt").display().to_string();
    let config = cluster.dir.join("kubeconfig-stranger");
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster: {{server: \"https://10.90.{}.11:6443\", \
         certificate-authority: {ca}}}\ncontexts:\n- name: c\n  context: {{cluster: c}}\ncurrent-context: c\n",
        cluster.subnet()?
    );
    std::fs::write(&config, text)?;
    let ask = |arguments: &[&str]| {
        let mut command = std::process::Command::new(cluster.root().join("bin/trictl"));
        command.env("KUBECONFIG", &config).env("HOME", &cluster.dir).current_dir(&cluster.dir);
        run(command.args(arguments))
    };
    let said = ask(&["get", "pods"])?.refused()?;
    ensure!(said.contains("Forbidden") && said.contains("system:anonymous"), "{said}");
    let said = ask(&["create", "configmap", "bad"])?.refused()?;
    ensure!(said.contains("Forbidden"), "{said}");
    ensure!(ask(&["get", "--raw", "/readyz"])?.ok()?.trim() == "ok");
    // Nobody may ask for members or tokens without a right to.
    let said = ask(&["get", "--raw", "/trireme.io/v1/members"])?.refused()?;
    ensure!(said.contains("orbidden"), "{said}");
    Ok(())
}
