//! Compatibility with upstream's API, measured: every stable operation of `endpoints.tsv` is tried against a cluster with real
//! requests and counts only when its effect is read back. Prints a table, names what does not work, and writes the table into
//! docs/compatibility.md.
//!
//! `FACTS` is the folder with upstream's facts; `ONLY` a word of kinds or paths to be tried alone (nothing is written then).

mod api;
mod kinds;
mod operations;
mod special;
mod streams;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::json;

use crate::cluster::{Cluster, Options};
use crate::report;
use api::Api;
use operations::Ledger;

/// Where everything that has a namespace is made.
const NAMESPACE: &str = "compat";
const BEGIN: &str = "<!-- make compat: begin -->";
const END: &str = "<!-- make compat: end -->";
const DOCUMENT: &str = "docs/compatibility.md";
/// What is not served, and why; everything else that fails makes the program fail.
const ABSENT: [(&str, &str); 2] = [
    ("logFileHandler", "the machine's logs over the API: off in upstream unless asked for, and deprecated"),
    ("logFileListHandler", "the same"),
];

/// The whole program.
///
/// # Errors
/// When the facts or the cluster are not there, or an operation that should be served is not.
pub async fn program(kubeconfig: Option<PathBuf>) -> Result<()> {
    let facts = std::env::var_os("FACTS").map_or_else(|| PathBuf::from("../shared/kubernetes"), PathBuf::from);
    let mut ledger = Ledger::read(&facts)?;
    let only = std::env::var("ONLY").unwrap_or_default();
    let kubectl = streams::kubectl(&only, crate::kubectl::find_all()?)?;
    let (cluster, kubeconfig) = match kubeconfig {
        Some(given) => (None, given.canonicalize().with_context(|| given.display().to_string())?),
        None => {
            let own = own_cluster()?;
            let path = own.root().join("kubeconfig-master-1");
            (Some(own), path)
        }
    };
    let config = Kubeconfig::read_from(&kubeconfig)?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    let api = Api(kube::Client::try_from(config)?);
    try_all(&api, &mut ledger, &streams::Sessions { kubectl, kubeconfig }, &only).await?;
    let complete = only.is_empty();
    let tried = |one: &&operations::Operation| complete || one.outcome.is_some();
    let wrong: Vec<String> = ledger
        .operations
        .iter()
        .filter(tried)
        .filter(|one| !one.served() && !ABSENT.iter().any(|(id, _)| *id == one.id))
        .map(|one| {
            let why = one.outcome.clone().and_then(Result::err).unwrap_or_else(|| "not tried".to_owned());
            format!("{} {} ({}): {why}", one.method, one.path, one.id)
        })
        .collect();
    print(&ledger);
    if complete {
        write(Path::new(DOCUMENT), &ledger)?;
    }
    drop(tokio::task::block_in_place(|| cluster));
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("{} operations do not work:\n{}", wrong.len(), wrong.join("\n"))
}

fn own_cluster() -> Result<Cluster> {
    let options = Options {
        prefix: "c",
        nodes: 1,
        master_args: vec!["--runtime-config=api/all=true".to_owned()],
        ..Options::default()
    };
    tokio::task::block_in_place(|| Cluster::boot(&options))
}

async fn try_all(api: &Api, ledger: &mut Ledger, sessions: &streams::Sessions, only: &str) -> Result<()> {
    let nodes = api.get("/api/v1/nodes").await.context("the cluster does not answer")?;
    let node = nodes["items"][0]["metadata"]["name"].as_str().context("the cluster has no node")?.to_owned();
    api.write("POST", "/api/v1/namespaces", &json!({"metadata": {"name": NAMESPACE}})).await?;
    let account = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default");
    api.until(&account, "there", |answer| answer.code == 200).await?;
    for (i, kind) in kinds::all()?.into_iter().enumerate() {
        if only.is_empty() || format!("{}/{}", kind.root, kind.plural).contains(only) {
            kinds::try_kind(api, ledger, &kind, i + 1).await;
        }
    }
    if only.is_empty() || only == "special" {
        special::try_all(api, ledger, &node).await;
    }
    if only.is_empty() || only == streams::NAME {
        streams::try_all(api, ledger, sessions, &node).await;
    }
    api.send("DELETE", &format!("/api/v1/namespaces/{NAMESPACE}"), "", None).await?.ok().map(drop)
}

/// Rows of the table, with a sum at the end.
fn rows(ledger: &Ledger) -> Vec<Vec<String>> {
    let groups = ledger.groups();
    let mut sum = [0; 4];
    let row = |name: &str, counts: [usize; 4]| {
        let share = |served: usize, all: usize| if all == 0 { "-".to_owned() } else { format!("{served} / {all}") };
        vec![name.to_owned(), share(counts[0], counts[1]), share(counts[2], counts[3])]
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (name, counts) in &groups {
        rows.push(row(name, *counts));
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    rows.push(row("all", sum));
    rows
}

fn print(ledger: &Ledger) {
    println!();
    report::table(&["group and version", "served / all", "of those in conformance"], &rows(ledger));
    println!();
}

/// Puts the table between its markers.
fn write(path: &Path, ledger: &Ledger) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("{}: no {BEGIN}", path.display()))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{}: no {END}", path.display()))?;
    let mut table = String::from("| group and version | served / all | of those in conformance |\n|---|---|---|\n");
    for row in rows(ledger) {
        table.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    for (id, why) in ABSENT {
        table.push_str(&format!("\nNot served: `{id}`, {why}."));
    }
    std::fs::write(path, format!("{before}{BEGIN}\n{}\n{END}{after}", table.trim_end()))?;
    println!("written: {}", path.display());
    Ok(())
}
