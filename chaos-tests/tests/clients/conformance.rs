//! Rows of upstream's conformance list that are about clients, events and the shape of the cluster: the steps and the
//! assertions of the tests that they name, with the newest kubectl and with trictl, each in a namespace of its own.
//!
//! busybox stands in for upstream's images. docs/compatibility.md says which rows do not pass yet.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use trireme_chaos_tests::suite::Scenario;
use trireme_chaos_tests::{Cluster, Outcome, eventually, run_for};

mod cli;
mod events;

/// The rows that pass.
pub const ROWS: &[Scenario] = &[
    ("conformance_architecture_001", |cluster| with(cluster, "architecture-001", cli::untainted_nodes)),
    ("conformance_cli_002", |cluster| with(cluster, "cli-002", cli::api_versions)),
    ("conformance_cli_003", |cluster| with(cluster, "cli-003", cli::cluster_info)),
    ("conformance_cli_004", |cluster| with(cluster, "cli-004", cli::describe)),
    ("conformance_cli_005", |cluster| with(cluster, "cli-005", cli::diff)),
    ("conformance_cli_006", |cluster| with(cluster, "cli-006", cli::expose)),
    ("conformance_cli_007", |cluster| with(cluster, "cli-007", cli::label)),
    ("conformance_cli_008", |cluster| with(cluster, "cli-008", cli::patch)),
    ("conformance_cli_009", |cluster| with(cluster, "cli-009", cli::replace)),
    ("conformance_cli_010", |cluster| with(cluster, "cli-010", cli::run_pod)),
    ("conformance_cli_011", |cluster| with(cluster, "cli-011", cli::dry_run)),
    ("conformance_cli_012", |cluster| with(cluster, "cli-012", cli::version)),
    ("conformance_cli_013", |cluster| with(cluster, "cli-013", cli::update_demo)),
    ("conformance_cli_014", |cluster| with(cluster, "cli-014", cli::update_demo_scaled)),
    ("conformance_cli_015", |cluster| with(cluster, "cli-015", cli::logs)),
    ("conformance_instrumentation_001", |cluster| with(cluster, "instrumentation-001", events::collection_of_the_api)),
    ("conformance_instrumentation_002", |cluster| with(cluster, "instrumentation-002", events::life_in_the_api)),
    ("conformance_instrumentation_003", |cluster| with(cluster, "instrumentation-003", events::collection)),
    ("conformance_instrumentation_004", |cluster| with(cluster, "instrumentation-004", events::life)),
];

/// Longest time that one command may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How long upstream's tests wait at most for pods.
const PODS: Duration = Duration::from_secs(60);

/// One client in one namespace.
pub struct Row<'a> {
    cluster: &'a Cluster,
    client: PathBuf,
    /// The namespace.
    pub namespace: String,
}

/// Runs a row with both clients at the same time; their namespaces go whatever happens.
fn with(cluster: &Cluster, id: &str, steps: fn(&Row<'_>) -> Result<()>) -> Result<()> {
    let clients = [("k", cluster.newest().path.clone()), ("t", cluster.root().join("bin/trictl"))];
    let rows = clients.map(|(mark, client)| {
        let namespace = format!("row-{id}-{mark}-{:04x}", rand::random::<u16>());
        Row { cluster, client, namespace }
    });
    let outcomes: Vec<Result<()>> = std::thread::scope(|scope| {
        let one = |row: &Row<'_>| {
            row.plain(&["create", "namespace", &row.namespace])?.ok()?;
            let outcome = steps(row).with_context(|| format!("{id} with {}", row.client.display()));
            let gone = row.plain(&["delete", "namespace", &row.namespace, "--wait=false"])?.ok();
            outcome.and(gone.map(drop))
        };
        let threads: Vec<_> = rows.iter().map(|row| scope.spawn(move || one(row))).collect();
        let panicked = |_| Err(anyhow::anyhow!("{id} panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    });
    outcomes.into_iter().collect()
}

impl Row<'_> {
    fn command(&self) -> Command {
        self.cluster.command(&self.client, None)
    }

    /// The client without a namespace.
    pub fn plain(&self, words: &[&str]) -> Result<Outcome> {
        run_for(self.command().args(words), LIMIT)
    }

    /// The client in the row's namespace.
    pub fn tried(&self, words: &[&str]) -> Result<Outcome> {
        run_for(self.command().args(["--namespace", &self.namespace]).args(words), LIMIT)
    }

    /// What a command prints that has to succeed.
    pub fn does(&self, words: &[&str]) -> Result<String> {
        self.tried(words)?.ok()
    }

    /// The same with something on its standard input.
    pub fn fed(&self, input: &Value, words: &[&str]) -> Result<Outcome> {
        let file = self.cluster.dir.join(format!("{}-{:08x}.json", self.namespace, rand::random::<u32>()));
        std::fs::write(&file, input.to_string())?;
        let mut shell = self.cluster.command("bash".as_ref(), None);
        shell.args(["-c", "exec \"$0\" \"$@\" < \"$FILE\""]).env("FILE", &file).arg(&self.client);
        let outcome = run_for(shell.args(["--namespace", &self.namespace]).args(words), LIMIT);
        let _ = std::fs::remove_file(&file);
        outcome
    }

    /// Makes objects.
    pub fn creates(&self, object: &Value) -> Result<()> {
        self.fed(object, &["create", "-f", "-"])?.ok().map(drop)
    }

    /// What is there, as JSON.
    pub fn sees(&self, words: &[&str]) -> Result<Value> {
        let text = self.does(&[words, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| text)
    }

    /// The names of the pods of a label, once so many of them run and are ready.
    pub fn pods(&self, label: &str, count: usize) -> Result<Vec<String>> {
        eventually(PODS, || {
            let list = self.sees(&["get", "pods", "-l", label])?;
            let pods: Vec<&Value> = list["items"].as_array().into_iter().flatten().collect();
            let is_ready = |pod: &&&Value| {
                let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
                pod["metadata"]["deletionTimestamp"].is_null()
                    && conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
            };
            let ready: Vec<String> = pods.iter().filter(is_ready).map(|pod| text(&pod["metadata"]["name"])).collect();
            ensure!(ready.len() == count && pods.len() == count, "{} of {count} pods are ready", ready.len());
            Ok(ready)
        })
    }

    /// Waits until a pod runs.
    pub fn runs(&self, pod: &str) -> Result<()> {
        eventually(PODS, || {
            let phase = self.does(&["get", "pod", pod, "-o", "jsonpath={.status.phase}"])?;
            ensure!(phase == "Running", "{pod} is {phase}");
            Ok(())
        })
    }
}

/// A text.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Every part has to be there, in this order.
pub fn holds(page: &str, parts: &[&str]) -> Result<()> {
    let mut rest = page;
    for part in parts {
        let at = rest.find(part).with_context(|| format!("{part:?} is not where it should be in\n{page}"))?;
        rest = &rest[at + part.len()..];
    }
    Ok(())
}

/// A replication controller that serves a folder, as upstream's do with their own images.
pub fn controller(name: &str, labels: &Value, replicas: u32, script: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": name, "labels": labels},
        "spec": {"replicas": replicas, "selector": labels, "template": {"metadata": {"labels": labels}, "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": name, "image": "busybox:1.35", "command": ["sh", "-c", script],
                "ports": [{"containerPort": 6379, "name": "server"}]}]}}}})
}
