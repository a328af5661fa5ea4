//! `trireme status`, certificates that are renewed, and machines that are taken out of service.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use trireme_chaos_tests::{Cluster, Outcome, eventually, run};

use crate::beside::Beside;

fn local(cluster: &Cluster, more: &[&str]) -> Result<Outcome> {
    let mut command = cluster.trireme();
    command.args(["status", "--name", &cluster.name, "--dir"]).arg(cluster.dir.join(".trireme")).args(more);
    run(&mut command)
}

/// Asks as from another machine, with nothing but one master's kubeconfig.
fn remote(cluster: &Cluster, master: usize, more: &[&str]) -> Result<Outcome> {
    let mut command = cluster.trireme();
    let kubeconfig = cluster.root().join(format!("kubeconfig-master-{master}"));
    run(command.args(["status", "--kubeconfig"]).arg(kubeconfig).args(more))
}

fn json(outcome: Outcome, code: i32) -> Result<Value> {
    ensure!(outcome.code == Some(code), "exit code {:?}, not {code}:\n{}{}", outcome.code, outcome.out, outcome.err);
    serde_json::from_str(&outcome.out).with_context(|| outcome.out.clone())
}

fn row<'a>(report: &'a Value, list: &str, name: &str) -> &'a Value {
    let rows = report[list].as_array().into_iter().flatten();
    rows.into_iter().find(|row| row["name"] == name).unwrap_or(&Value::Null)
}

/// A cluster in which all is well, seen from the machine itself and from elsewhere.
pub fn healthy(cluster: &Cluster) -> Result<()> {
    // Certificates and disks come from the agents, which have just started.
    let screen = eventually(Duration::from_secs(20), || local(cluster, &[])?.ok())?;
    for part in [" is healthy: 3 masters and 2 nodes", "quorum 3 of 3, tolerates the loss of 1", "2 of 2 ready"] {
        ensure!(screen.contains(part), "{part:?} is missing from\n{screen}");
    }
    let report = json(local(cluster, &["-o", "json"])?, 0)?;
    let leader = cluster.leader()?;
    ensure!(report["quorum"]["leader"] == leader.as_str(), "{report:#}");
    for master in ["master-1", "master-2", "master-3"] {
        let row = row(&report, "masters", master);
        ensure!(row["healthy"] == true && row["reason"].is_null(), "{row:#}");
        ensure!(row["process"]["pid"] == cluster.pid(master)?, "{row:#}");
        for key in ["term", "revision", "appliedIndex", "dbSizeBytes", "residentBytes", "certificateSeconds"] {
            ensure!(row[key].as_i64().is_some_and(|n| n > 0), "{key}: {row:#}");
        }
        ensure!(row["disk"]["availableBytes"].as_u64().is_some_and(|n| n > 0), "{row:#}");
        ensure!(row["lag"].as_u64().is_some_and(|lag| lag < 1000), "{row:#}");
    }
    for node in ["node-1", "node-2"] {
        let row = row(&report, "nodes", node);
        ensure!(row["ready"] == true && row["podsCapacity"] == 110, "{row:#}");
        ensure!(row["disk"]["totalBytes"].as_u64().is_some_and(|n| n > 0), "{row:#}");
        ensure!(row["memory"]["totalBytes"].as_u64().is_some_and(|n| n > 0), "{row:#}");
        ensure!(row["certificateSeconds"].as_i64().is_some_and(|n| n > 300 * 86_400), "{row:#}");
        ensure!(row["heartbeatSeconds"].as_i64().is_some_and(|n| n < 60), "{row:#}");
    }
    // One master's kubeconfig shows all of them.
    let report = json(remote(cluster, 2, &["-o", "json"])?, 0)?;
    ensure!(report["masters"].as_array().map(Vec::len) == Some(3), "{report:#}");
    let unknown = run(cluster.trireme().args(["status", "--name", "nobody"]))?;
    ensure!(unknown.code == Some(2) && unknown.err.contains("there is no cluster"), "{unknown:?}");
    ensure!(run(cluster.trireme().args(["status", "--nonsense"]))?.code == Some(2));
    Ok(())
}

/// A dead leader is one row with the reason, told quickly; so is a dead agent.
pub fn losses(cluster: &Cluster) -> Result<()> {
    let leader = cluster.leader()?;
    cluster.kill(&leader)?;
    let begun = Instant::now();
    let report = eventually(Duration::from_secs(20), || {
        let report = json(local(cluster, &["-o", "json"])?, 1)?;
        ensure!(report["quorum"]["present"] == true, "{report:#}");
        Ok(report)
    })?;
    ensure!(begun.elapsed() < Duration::from_secs(20));
    let dead = row(&report, "masters", &leader);
    ensure!(dead["healthy"] == false && dead["reason"] == "its process is not running", "{dead:#}");
    ensure!(report["problems"][0]["hint"].as_str().is_some_and(|hint| hint.starts_with("trireme up")), "{report:#}");
    ensure!(report["quorum"]["tolerates"] == 0, "{report:#}");
    let other = ["master-1", "master-2", "master-3"].iter().position(|name| *name != leader).context("no other")? + 1;
    let screen = remote(cluster, other, &[])?;
    ensure!(screen.code == Some(1), "{screen:?}");
    let line = screen.out.lines().find(|line| line.trim_start().starts_with(&format!("! {leader}: ")));
    ensure!(
        line.is_some_and(|line| line.contains("connection refused") || line.contains("not running")),
        "{}",
        screen.out
    );
    cluster.mend()?;
    cluster.kill("node-1")?;
    let report = json(local(cluster, &["-o", "json"])?, 1)?;
    let node = row(&report, "nodes", "node-1");
    ensure!(node["ready"] == false && node["process"]["pid"].is_null(), "{node:#}");
    ensure!(row(&report, "nodes", "node-2")["ready"] == true, "{report:#}");
    cluster.mend()
}

/// Without a quorum every master that lives still tells what it knows, and no master at all is another exit code.
pub fn without_quorum(cluster: &Cluster) -> Result<()> {
    cluster.kill("master-1")?;
    cluster.kill("master-2")?;
    let report = eventually(Duration::from_secs(20), || {
        let report = json(local(cluster, &["-o", "json"])?, 1)?;
        ensure!(report["quorum"]["present"] == false, "{report:#}");
        Ok(report)
    })?;
    ensure!(report["problems"][0]["about"] == "quorum", "{report:#}");
    ensure!(row(&report, "masters", "master-3")["revision"].as_u64().is_some_and(|n| n > 0), "{report:#}");
    ensure!(report["stale"] == true && report["nodes"].as_array().map(Vec::len) == Some(2), "{report:#}");
    cluster.kill("master-3")?;
    let begun = Instant::now();
    let report = json(local(cluster, &["-o", "json"])?, 2)?;
    ensure!(report["verdict"] == "unreachable" && begun.elapsed() < Duration::from_secs(10), "{report:#}");
    cluster.mend()
}

/// A process whose output is read line by line.
struct Watching {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Watching {
    fn start(cluster: &Cluster) -> Result<Watching> {
        let mut command = cluster.trireme();
        command.args(["status", "--watch", "--name", &cluster.name, "--dir"]).arg(cluster.dir.join(".trireme"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let out = child.stdout.take().context("no output")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Watching { child, lines })
    }

    fn wait_for(&self, part: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut seen = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).with_context(|| format!("no line with {part:?} in\n{seen}"))?;
            if line.contains(part) {
                return Ok(());
            }
            seen.push_str(&line);
            seen.push('\n');
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `--watch` tells of a new pod and of a master that dies, and ends well.
pub fn watch(cluster: &Cluster) -> Result<()> {
    let mut watching = Watching::start(cluster)?;
    watching.wait_for("is healthy")?;
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: seen-by-status}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
               containers:\n  - {name: c, image: \"nowhere.invalid/none:1\", imagePullPolicy: Never}\n";
    cluster.apply(pod)?.ok()?;
    watching.wait_for("default/seen-by-status  ErrImageNeverPull")?;
    cluster.kubectl(&["delete", "pod", "seen-by-status"])?.ok()?;
    cluster.kill("master-3")?;
    watching.wait_for("is DEGRADED")?;
    cluster.mend()?;
    watching.wait_for("is healthy")?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(watching.child.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
    let ended = eventually(Duration::from_secs(5), || watching.child.try_wait()?.context("it goes on"))?;
    ensure!(ended.success(), "{ended}");
    Ok(())
}

fn not_after(second: &Beside<'_>, owner: &str, name: &str) -> Result<String> {
    let outcome = second.call("status", &["-o", "json"])?;
    let report: Value = serde_json::from_str(&outcome.out).with_context(|| outcome.err.clone())?;
    let mut all = report["certificates"].as_array().into_iter().flatten();
    let found = all.find(|c| c["owner"] == owner && c["name"] == name);
    let found = found.and_then(|c| c["notAfter"].as_str().map(str::to_owned));
    found.with_context(|| format!("no certificate {name} of {owner} in {report:#}"))
}

/// Certificates of masters and nodes are renewed while everything runs, and go on working after the first have expired.
pub fn certificates(cluster: &Cluster) -> Result<()> {
    // They live for half a minute.
    let life = "--master-arg=--cluster-signing-duration=30s";
    let second = Beside::boot(cluster, 'c', &["--masters", "1", "--nodes", "1", life])?;
    let kinds = [("master-1", "server"), ("master-1", "peer"), ("node-1", "node")];
    let limit = Duration::from_secs(20);
    let first = kinds.map(|(owner, name)| eventually(limit, || not_after(&second, owner, name)));
    let before = (second.pid("master-1")?, second.pid("node-1")?);
    for ((owner, name), first) in kinds.into_iter().zip(first) {
        let first = first?;
        eventually(Duration::from_secs(60), || {
            let now = not_after(&second, owner, name)?;
            ensure!(now > first, "the {name} certificate of {owner} still ends at {now}");
            Ok(())
        })?;
    }
    // The first ones have expired by now, in every connection.
    std::thread::sleep(Duration::from_secs(30));
    let screen = eventually(Duration::from_secs(20), || second.call("status", &[])?.ok())?;
    ensure!(screen.contains("is healthy: 1 master and 1 node"), "{screen}");
    ensure!(before == (second.pid("master-1")?, second.pid("node-1")?), "something was restarted");
    reset(&second)
}

/// `trireme kubeconfig`, `node reset` and `master reset`, where an operator would type them.
fn reset(second: &Beside<'_>) -> Result<()> {
    let data = |host: &str| second.data(host).display().to_string();
    let file = second.dir.join("made").display().to_string();
    let made =
        second.inside("master-1", &["kubeconfig", "--data-dir", &data("master-1"), "--duration", "1h", "-o", &file]);
    ensure!(made?.ok()?.contains("valid until"));
    let status = run(second.cluster.trireme().args(["status", "--kubeconfig", &file]))?;
    ensure!(status.out.contains("is healthy"), "{status:?}");
    let node = data("node-1");
    let running = second.inside("node-1", &["node", "reset", "--force", "--data-dir", &node])?.refused()?;
    ensure!(running.contains("stop that one first"), "{running}");
    second.end("node-1", Signal::SIGTERM)?;
    let unasked = eventually(Duration::from_secs(15), || {
        let said = second.inside("node-1", &["node", "reset", "--data-dir", &node])?.refused()?;
        ensure!(said.contains("--force"), "{said}");
        Ok(said)
    })?;
    ensure!(PathBuf::from(&node).exists(), "{unasked}");
    let links = |second: &Beside<'_>| -> Result<String> {
        let mut command = Command::new("ip");
        run(command.args(["-n", &format!("trireme-{}-node-1", second.name), "-br", "link"]))?.ok()
    };
    let bridges = links(second)?.lines().count();
    let said = second.inside("node-1", &["node", "reset", "--force", "--data-dir", &node])?.ok()?;
    ensure!(said.contains("kubectl delete node node-1"), "{said}");
    ensure!(!PathBuf::from(&node).exists(), "{said}");
    let left = links(second)?;
    ensure!(left.lines().count() < bridges && !left.contains("trv"), "{left}");
    let mut tables = Command::new("ip");
    tables.args(["netns", "exec", &format!("trireme-{}-node-1", second.name), "nft", "list", "tables"]);
    ensure!(!run(&mut tables)?.ok()?.contains("trireme"), "nftables rules are left");
    let again = second.inside("node-1", &["node", "reset", "--force", "--data-dir", &node])?.ok()?;
    ensure!(again.contains("nothing to do"), "{again}");
    let odd = second.inside("node-1", &["node", "reset", "--force", "--data-dir", "/usr"])?.refused()?;
    ensure!(odd.contains("does not look like"), "{odd}");
    let master = data("master-1");
    second.inside("master-1", &["master", "reset", "--force", "--data-dir", &master])?.refused()?;
    second.end("master-1", Signal::SIGTERM)?;
    eventually(Duration::from_secs(20), || {
        second.inside("master-1", &["master", "reset", "--force", "--data-dir", &master])?.ok()
    })?;
    ensure!(!PathBuf::from(&master).exists());
    Ok(())
}
