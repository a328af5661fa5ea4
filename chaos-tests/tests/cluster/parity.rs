//! `trictl` beside the newest `kubectl`: the same command lines have to give the same output and the same exit code.
//!
//! The command lines are in `parity/*.txt`, one a line, as a shell runs them, with `K` for the client. What cannot be
//! the same twice (ages, uids, versions of objects) is made the same before comparing. A line that is meant to differ
//! follows a line `#! reason`; it fails the test when it does not differ any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use trireme_chaos_tests::plain::plain;
use trireme_chaos_tests::{Cluster, Outcome, eventually, run, run_for};

const SETUP: &str = include_str!("parity/setup.yaml");
/// One of each kind that has a page of its own in `describe`.
const KINDS: &str = include_str!("parity/kinds.yaml");
const READS: &str = include_str!("parity/reads.txt");
const CHANGES: &str = include_str!("parity/changes.txt");
const ADMIN: &str = include_str!("parity/admin.txt");
const VERBS: &str = include_str!("parity/verbs.txt");

/// Longest time that one line may take.
const LINE: Duration = Duration::from_secs(90);

/// A client with a namespace, a node, a home and a kubeconfig of its own.
struct Side {
    program: PathBuf,
    namespace: &'static str,
    node: &'static str,
    hides_node: bool,
    home: PathBuf,
}

impl Side {
    fn new(cluster: &Cluster, program: PathBuf, namespace: &'static str, node: &'static str) -> Result<Side> {
        let home = cluster.dir.join(format!("home-{namespace}"));
        fs::create_dir_all(&home)?;
        fs::copy(cluster.root().join("kubeconfig-master-1"), home.join("kubeconfig"))?;
        fs::write(home.join("setup.yaml"), SETUP)?;
        fs::write(home.join("kinds.yaml"), KINDS)?;
        cluster.kubectl(&["create", "namespace", namespace])?.ok()?;
        Ok(Side { program, namespace, node, hides_node: false, home })
    }

    /// Both clients, ready to go.
    fn both(cluster: &Cluster) -> Result<[Side; 2]> {
        Ok([
            Side::new(cluster, cluster.newest().path.clone(), "own-k", "node-1")?,
            Side::new(cluster, cluster.root().join("bin/trictl"), "own-t", "node-2")?,
        ])
    }

    /// The same, in whose output the node's name is `NODE`.
    fn with_node_hidden(&self) -> Side {
        Side { hides_node: true, program: self.program.clone(), home: self.home.clone(), ..*self }
    }

    fn run(&self, line: &str) -> Result<[String; 3]> {
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("K() {{ \"$K\" \"$@\"; }}; {line}")])
            .env("K", &self.program)
            .env("NS", self.namespace)
            .env("NODE", self.node)
            .env("HOME", &self.home)
            .env("KUBECONFIG", self.home.join("kubeconfig"))
            .current_dir(&self.home);
        let outcome = run_for(&mut command, LINE)?;
        let same = |text: &str| {
            let text = text.replace(&self.home.display().to_string(), "HOME").replace(self.namespace, "own-X");
            let text = if self.hides_node { text.replace(self.node, "NODE") } else { text };
            let name = self.program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            plain(&text.replace(&name, "kubectl"))
        };
        Ok([same(&outcome.out), same(&outcome.err), format!("{:?}", outcome.code)])
    }
}

/// A line with the reason why it may differ.
struct Line<'a> {
    text: &'a str,
    reason: Option<&'a str>,
}

fn lines(table: &str) -> Vec<Line<'_>> {
    let mut reason = None;
    let mut lines = Vec::new();
    for text in table.lines().map(str::trim_end) {
        if let Some(found) = text.strip_prefix("#!") {
            reason = Some(found.trim());
        } else if !text.is_empty() && !text.starts_with("# ") {
            lines.push(Line { text, reason: reason.take() });
        }
    }
    lines
}

/// Runs a line with both clients at the same time; the answer is how they differ.
fn compare(sides: &[Side; 2], line: &str) -> Result<Option<String>> {
    let [left, right] = sides;
    let (left, right) = std::thread::scope(|scope| {
        let left = scope.spawn(|| left.run(line));
        let right = right.run(line);
        (left.join().unwrap_or_else(|_| Err(anyhow::anyhow!("panicked"))), right)
    });
    let (left, right) = (left?, right?);
    if left == right {
        return Ok(None);
    }
    let mut text = format!("=== {line}\n");
    for (name, (left, right)) in ["stdout", "stderr", "exit code"].iter().zip(left.iter().zip(&right)) {
        if left != right {
            text.push_str(&format!("--- kubectl's {name}\n{left}\n+++ trictl's {name}\n{right}\n"));
        }
    }
    Ok(Some(text))
}

/// Compares every line of a table, so many at a time; `again` takes up lines that differ once more, each alone, since the
/// cluster moves on and a machine may be busy.
fn table(sides: &[Side; 2], table: &str, at_a_time: usize, again: usize) -> Result<()> {
    let (lines, next, found) = (lines(table), AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || {
        while let Some((i, line)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, lines.get(i)?))) {
            let compared = compare(sides, line.text);
            found.lock().unwrap_or_else(PoisonError::into_inner).insert(i, compared);
        }
    };
    std::thread::scope(|scope| (0..at_a_time).for_each(|_| drop(scope.spawn(work))));
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut wrong = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let mut difference = found.remove(&i).context("a line was not compared")??;
        for _ in 0..again {
            if difference.is_none() || line.reason.is_some() {
                break;
            }
            difference = compare(sides, line.text)?;
        }
        match (difference, line.reason) {
            (Some(difference), None) => wrong.push(difference),
            (None, Some(reason)) => wrong.push(format!("=== {}\ndoes not differ any more: {reason}\n", line.text)),
            _ => {}
        }
    }
    ensure!(wrong.is_empty(), "{} lines differ:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

fn clean(cluster: &Cluster) -> Result<()> {
    let namespaces = ["own-k", "own-t", "own-k-x", "own-t-x", "parity"];
    let mut words = vec!["delete", "--ignore-not-found", "namespace"];
    words.extend(namespaces);
    run_for(cluster.command(&cluster.newest().path, None).args(words), Duration::from_secs(120))?.ok()?;
    // Of these, the client that is compared may have left some.
    for name in ["own-k", "own-t"] {
        let (role, binding) = (format!("clusterrole/{name}-cr1"), format!("clusterrolebinding/{name}-crb1"));
        cluster.kubectl(&["delete", "--ignore-not-found", &role, &binding])?.ok()?;
    }
    cluster.kubectl(&["uncordon", "node-1", "node-2"])?.ok()?;
    let classes = ["delete", "--ignore-not-found", "priorityclass/parity", "runtimeclass/parity"];
    cluster.kubectl(&classes)?.ok()?;
    let of_no_namespace = [
        "ingressclass/parity-ic",
        "pv/parity-pv",
        "pv/parity-pv2",
        "sc/parity-sc",
        "sc/parity-sc2",
        "clusterrole/parity-cr",
        "clusterrole/parity-cr2",
        "clusterrolebinding/parity-crb",
        "csr/parity-csr",
        "csidriver/parity.csi",
        "csinode/parity-node",
    ];
    cluster.kubectl(&[&["delete", "--ignore-not-found"], &of_no_namespace[..]].concat())?.ok()?;
    Ok(())
}

/// Runs a part of this on a clean slate, and cleans up whatever happens.
fn with_sides(cluster: &Cluster, part: impl FnOnce(&[Side; 2]) -> Result<()>) -> Result<()> {
    clean(cluster)?;
    let outcome = Side::both(cluster).and_then(|sides| part(&sides));
    clean(cluster)?;
    outcome
}

/// What only looks.
pub fn reads(cluster: &Cluster) -> Result<()> {
    with_sides(cluster, |sides| {
        cluster.apply(SETUP)?.ok()?;
        cluster.apply(KINDS)?.ok()?;
        let settled = |name: &str, phase: &str| -> Result<()> {
            let pod = cluster.json(&["get", "pod", name, "-n", "parity"])?;
            ensure!(pod["status"]["phase"] == phase, "{name} is {}", pod["status"]["phase"]);
            Ok(())
        };
        eventually(Duration::from_secs(60), || settled("loner", "Running").and_then(|()| settled("done", "Failed")))?;
        let rollout = ["rollout", "status", "deploy/web", "-n", "parity", "--timeout=60s"];
        cluster.kubectl(&rollout)?.ok()?;
        table(sides, READS, 3, 2)
    })
}

/// What changes objects and files, in the order of the table, each client in its own namespace.
pub fn changes(cluster: &Cluster) -> Result<()> {
    with_sides(cluster, |sides| table(sides, CHANGES, 1, 0))
}

/// What keeps rights, budgets and nodes, as `changes`; each client has a node to itself too.
pub fn admin(cluster: &Cluster) -> Result<()> {
    with_sides(cluster, |sides| {
        // Whose node it is, only these lines may tell.
        let named = sides.each_ref().map(|side| side.with_node_hidden());
        table(&named, ADMIN, 1, 0)
    })
}

/// The flags that a program's help names.
fn flags(program: &Path, verb: &str) -> Result<BTreeSet<String>> {
    let Outcome { out, .. } = run(Command::new(program).args(verb.split(' ')).arg("--help"))?;
    let mut flags = BTreeSet::new();
    for line in out.lines().map(str::trim_start).filter(|line| line.starts_with('-')) {
        for word in line.split([' ', ',', '=', ':', '[']).filter(|word| !word.is_empty()).take(2) {
            // A default of -1 is no flag.
            if word.starts_with('-') && !word.ends_with(|c: char| c.is_ascii_digit()) {
                flags.insert(word.to_owned());
            }
        }
    }
    Ok(flags)
}

/// Every flag of every verb that both have.
pub fn every_flag(cluster: &Cluster) -> Result<()> {
    let (kubectl, trictl) = (&cluster.newest().path, cluster.root().join("bin/trictl"));
    let mut missing = Vec::new();
    for line in lines(VERBS) {
        let (verb, but) = line.text.split_once(" -- ").unwrap_or((line.text, ""));
        let but: BTreeSet<&str> = but.split(' ').collect();
        let wanted = flags(kubectl, verb).with_context(|| verb.to_owned())?;
        let known = flags(&trictl, verb)?;
        // Some verbs of kubectl have no flags of their own; trictl's help always has the global ones.
        ensure!(!known.is_empty(), "trictl {verb}: no flags");
        let lacking: Vec<&String> =
            wanted.iter().filter(|flag| !known.contains(*flag) && !but.contains(flag.as_str())).collect();
        if !lacking.is_empty() {
            missing.push(format!("{verb}: {lacking:?}"));
        }
    }
    ensure!(missing.is_empty(), "kubectl's flags that trictl lacks:\n{}", missing.join("\n"));
    Ok(())
}
