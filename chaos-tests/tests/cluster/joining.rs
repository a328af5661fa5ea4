//! Joins that are refused, and tokens.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use trireme_chaos_tests::{Cluster, Outcome, eventually, run, run_for};

fn token(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    Ok(run(cluster.trireme().args(["token", "create"]).args(arguments))?.ok()?.trim().to_owned())
}

/// Starts a machine beside the cluster that must not get in.
fn attempt(cluster: &Cluster, kind: &str, name: &str, url: &str, token: &str, data: &Path) -> Result<Outcome> {
    let gateway = format!("10.90.{}.1", cluster.subnet()?);
    let mut command = cluster.trireme();
    command.args([kind, "--join", url, "--name", name, "--data-dir"]).arg(data).env("TRIREME_TOKEN", token);
    match kind {
        "master" => command.args(["--advertise", &format!("{gateway}:26443"), "--peer-port", "22380"]),
        _ => command.args(["--address", &gateway, "--port", "20250"]),
    };
    run_for(&mut command, Duration::from_secs(20))
}

/// Wrong, expired and misused tokens, dead addresses, taken names.
pub fn refused(cluster: &Cluster) -> Result<()> {
    let url = format!("https://10.90.{}.11:6443", cluster.subnet()?);
    let dead = format!("https://10.90.{}.11:6444", cluster.subnet()?);
    let (master, node) = (token(cluster, &["--role", "master"])?, token(cluster, &["--role", "node"])?);
    let (secret, pin) = node.split_once('@').context("a token without a pin")?;
    let short = token(cluster, &["--role", "node", "--ttl", "1s"])?;
    let unknown = format!("zzzzzz.0123456789abcdef@{pin}");
    let elsewhere = format!("{secret}@sha256:{}", "5a".repeat(32));
    let members = cluster.members()?.len();
    std::thread::sleep(Duration::from_millis(1500));
    let cases = [
        ("node", "stranger", &url, unknown.as_str(), "not known to this cluster"),
        ("node", "stranger", &url, &short, "expired"),
        ("node", "stranger", &url, &master, "does not allow joining as a node"),
        ("master", "stranger", &url, &node, "does not allow joining as a master"),
        ("node", "stranger", &url, &elsewhere, "not a master of the cluster"),
        ("node", "stranger", &dead, &node, "cannot reach"),
        ("node", "stranger", &url, secret, "cut off"),
        ("node", "node-1", &url, &node, "another machine runs under this name"),
        ("master", "master-1", &url, &master, "master-1"),
    ];
    for (kind, name, url, token, word) in cases {
        let data = cluster.dir.join("stranger");
        let said = attempt(cluster, kind, name, url, token, &data)?.refused()?;
        ensure!(said.contains(word), "joining as {kind} {name}: {word:?} is missing from\n{said}");
        ensure!(!data.exists(), "{kind} {name} left something in {data:?}");
    }
    ensure!(cluster.members()?.len() == members, "the members have changed: {:?}", cluster.members()?);
    let nodes = cluster.kubectl(&["get", "nodes", "-o", "name"])?.ok()?;
    ensure!(!nodes.contains("stranger"), "{nodes}");
    Ok(())
}

/// Making, listing and deleting; a deleted token lets nobody in.
pub fn tokens(cluster: &Cluster) -> Result<()> {
    let made = token(cluster, &["--role", "node", "--ttl", "10m", "--description", "for the test"])?;
    let (id, secret) = made.split_once('.').context("no dot in the token")?;
    let list = run(cluster.trireme().args(["token", "list"]))?.ok()?;
    let line = list.lines().find(|line| line.starts_with(id)).with_context(|| list.clone())?;
    ensure!(line.contains("node") && line.contains("for the test"), "{line}");
    ensure!(!list.contains(&secret[..16]), "the list shows secrets");
    run(cluster.trireme().args(["token", "delete", id]))?.ok()?;
    let url = format!("https://10.90.{}.12:6443", cluster.subnet()?);
    let data = cluster.dir.join("stranger");
    let said = attempt(cluster, "node", "stranger", &url, &made, &data)?.refused()?;
    ensure!(said.contains("not known to this cluster"), "{said}");
    run(cluster.trireme().args(["token", "delete", id]))?.refused()?;
    eventually(Duration::from_secs(5), || {
        let members = cluster.members()?;
        for key in ["name", "address", "role", "healthy", "lag"] {
            ensure!(members.iter().all(|member| member.get(key).is_some()), "{key}: {members:?}");
        }
        ensure!(members.iter().filter(|member| member["role"] == "leader").count() == 1, "{members:?}");
        ensure!(members.iter().all(|member| member["healthy"] == true), "{members:?}");
        Ok(())
    })
}
