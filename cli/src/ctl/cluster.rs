//! `trictl api-resources`, `api-versions`, `cluster-info`, `version`.

use clap::Args;
use serde_json::{Value, json};

use super::api::Call;
use super::errors::{CtlError, Result};
use super::print::table::aligned;
use super::print::{self, emit, yaml};
use super::session::{Global, Session};

/// Print the resources that the server supports.
#[derive(Debug, Clone, Default, Args)]
pub struct ResourcesArgs {
    /// Only resources of this group
    #[arg(long)]
    pub api_group: Option<String>,
    /// Only resources in these categories
    #[arg(long, value_delimiter = ',')]
    pub categories: Vec<String>,
    /// Only resources with (or without) namespaces
    #[arg(long, value_parser = super::flags::boolean, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub namespaced: Option<bool>,
    /// Only resources with these verbs
    #[arg(long, value_delimiter = ',')]
    pub verbs: Vec<String>,
    /// Output format: wide or name
    #[arg(short, long)]
    pub output: Option<String>,
    /// Do not print heads
    #[arg(long)]
    pub no_headers: bool,
    /// Sort by name or kind
    #[arg(long)]
    pub sort_by: Option<String>,
    /// Not used: nothing is kept between calls
    #[arg(long)]
    pub cached: bool,
    /// None is expected
    #[arg(hide = true)]
    pub words: Vec<String>,
}

/// Refuses words that a verb does not take.
pub fn no_words(words: &[String]) -> Result<()> {
    match words {
        [] => Ok(()),
        words => Err(CtlError::usage(format!("unexpected arguments: [{}]", words.join(" ")))),
    }
}

/// Words of a verb that takes none.
#[derive(Debug, Clone, Default, Args)]
pub struct NoWords {
    /// None is expected
    #[arg(hide = true)]
    pub words: Vec<String>,
}

/// Runs `api-resources`.
pub async fn resources(session: &Session, args: &ResourcesArgs) -> Result<()> {
    no_words(&args.words)?;
    if !matches!(args.sort_by.as_deref(), None | Some("" | "name" | "kind")) {
        return Err(CtlError::plain("--sort-by accepts only name or kind"));
    }
    if let Some(other) = args.output.as_deref().filter(|output| !matches!(*output, "" | "wide" | "name")) {
        return Err(CtlError::plain(format!("--output {other} is not available")));
    }
    let discovery = session.discovery().await?;
    let mut found: Vec<_> = discovery
        .resources()
        .iter()
        .filter(|entry| entry.preferred && !entry.verbs.is_empty())
        .filter(|entry| args.api_group.as_ref().is_none_or(|group| *group == entry.group))
        .filter(|entry| args.namespaced.is_none_or(|namespaced| namespaced == entry.namespaced))
        .filter(|entry| args.verbs.iter().all(|verb| entry.can(verb)))
        .filter(|entry| args.categories.iter().all(|category| entry.categories.contains(category)))
        .collect();
    match args.sort_by.as_deref() {
        None | Some("") => found.sort_by_key(|entry| (entry.group.clone(), entry.plural.clone())),
        Some("name") => found.sort_by_key(|entry| (entry.plural.clone(), entry.group.clone())),
        Some("kind") => found.sort_by_key(|entry| (entry.kind.clone(), entry.group.clone())),
        Some(_) => return Err(CtlError::plain("--sort-by accepts only name or kind")),
    }
    let wide = match args.output.as_deref() {
        Some("name") => return emit(&found.iter().map(|entry| entry.qualified() + "\n").collect::<String>()),
        Some("wide") => true,
        None | Some("") => false,
        Some(other) => return Err(CtlError::plain(format!("--output {other} is not available"))),
    };
    let mut rows = Vec::new();
    if !args.no_headers {
        let mut heads = vec!["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"];
        heads.extend(wide.then_some(["VERBS", "CATEGORIES"]).into_iter().flatten());
        rows.push(heads.into_iter().map(str::to_owned).collect());
    }
    for entry in found {
        let mut row = vec![
            entry.plural.clone(),
            entry.short_names.join(","),
            entry.api_version(),
            entry.namespaced.to_string(),
            entry.kind.clone(),
        ];
        if wide {
            row.push(entry.verbs.join(","));
            row.push(entry.categories.join(","));
        }
        rows.push(row);
    }
    emit(&aligned(&rows))
}

/// Runs `api-versions`.
pub async fn versions(session: &Session, args: &NoWords) -> Result<()> {
    no_words(&args.words)?;
    let discovery = session.discovery().await?;
    let mut versions: Vec<String> = discovery.resources().iter().map(|entry| entry.api_version()).collect();
    versions.sort();
    versions.dedup();
    emit(&versions.into_iter().map(|version| version + "\n").collect::<String>())
}

/// Runs `cluster-info`.
pub async fn info(session: &Session) -> Result<()> {
    // Asking first makes sure that the master that is named answers.
    session.api.json(&Call::get("/version")).await?;
    let health = session.masters.health();
    let current = health.iter().find(|master| master.preferred).or(health.first());
    let url = current.map(|master| master.url.clone()).unwrap_or_default();
    let mut text = format!("Kubernetes control plane is running at {url}\n");
    if health.len() > 1 {
        let urls: Vec<&str> = health.iter().map(|master| master.url.as_str()).collect();
        text.push_str(&format!("Masters: {}\n", urls.join(", ")));
    }
    emit(&format!("{text}\nTo further debug and diagnose cluster problems, use 'trictl cluster-info dump'.\n"))
}

/// `cluster-info`
#[derive(Debug, Clone, Default, Args)]
pub struct InfoArgs {
    /// dump
    #[command(subcommand)]
    pub verb: Option<InfoVerb>,
}

/// What else `cluster-info` does.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum InfoVerb {
    /// Print the objects and logs that matter for finding out what is wrong
    Dump(DumpArgs),
}

/// `cluster-info dump`
#[derive(Debug, Clone, Default, Args)]
pub struct DumpArgs {
    /// Dump all namespaces, not only the current one and kube-system
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Namespaces to dump
    #[arg(long, value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// Where to put the files; - is standard output
    #[arg(long, default_value = "-")]
    pub output_directory: String,
    /// Output format: json or yaml
    #[arg(short, long, default_value = "json")]
    pub output: String,
    /// How long to wait for at least one pod to be running
    #[arg(long, default_value = "20s", value_parser = super::flags::seconds)]
    pub pod_running_timeout: f64,
}

/// Lists of a namespace that are dumped: where they are, and how their files are called.
const DUMPED: [(&str, &str); 7] = [
    ("api/v1/namespaces/{}/events", "events"),
    ("api/v1/namespaces/{}/replicationcontrollers", "replication-controllers"),
    ("api/v1/namespaces/{}/services", "services"),
    ("apis/apps/v1/namespaces/{}/daemonsets", "daemonsets"),
    ("apis/apps/v1/namespaces/{}/deployments", "deployments"),
    ("apis/apps/v1/namespaces/{}/replicasets", "replicasets"),
    ("api/v1/namespaces/{}/pods", "pods"),
];

/// Runs `cluster-info dump`.
pub async fn dump(session: &Session, args: &DumpArgs) -> Result<()> {
    let mut namespaces = match args.namespaces.as_slice() {
        [] => vec!["kube-system".to_owned(), session.namespace.clone()],
        given => given.to_vec(),
    };
    if args.all_namespaces {
        let list = session.api.json(&Call::get("/api/v1/namespaces")).await?;
        let names = list["items"].as_array().into_iter().flatten();
        namespaces = names.filter_map(|entry| entry["metadata"]["name"].as_str().map(str::to_owned)).collect();
    }
    let show = |file: String, value: &Value| match args.output == "yaml" {
        true => write_dump(args, &file, "yaml", &yaml::document(value)),
        false => write_dump(args, &file, "json", &print::json(value)),
    };
    show("nodes".to_owned(), &session.api.json(&Call::get("/api/v1/nodes")).await?)?;
    for namespace in &namespaces {
        let mut list = Value::Null;
        for (path, name) in DUMPED {
            list = session.api.json(&Call::get(format!("/{}", path.replace("{}", namespace)))).await?;
            show(format!("{namespace}/{name}"), &list)?;
        }
        // The pods came last.
        for pod in list["items"].as_array().into_iter().flatten() {
            dump_logs(session, args, namespace, pod).await?;
        }
    }
    if args.output_directory != "-" {
        emit(&format!("Cluster info dumped to {}\n", args.output_directory))?;
    }
    Ok(())
}

fn write_dump(args: &DumpArgs, file: &str, end: &str, text: &str) -> Result<()> {
    if args.output_directory == "-" {
        return emit(text);
    }
    let path = std::path::Path::new(&args.output_directory).join(format!("{file}.{end}"));
    std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
    Ok(std::fs::write(path, text)?)
}

/// The logs of a pod's containers; of one that has none it is said why.
async fn dump_logs(session: &Session, args: &DumpArgs, namespace: &str, pod: &Value) -> Result<()> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let mut text = String::new();
    for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
        let container = container["name"].as_str().unwrap_or_default();
        let of = format!("logs for container {container} of pod {namespace}/{name} ====");
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/log");
        let log = match session.api.bytes(&Call::get(path).accept("*/*").query("container", container)).await {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("Request log error: {}\n", error.reason_text()),
        };
        text.push_str(&format!("==== START {of}\n{log}==== END {of}\n"));
    }
    write_dump(args, &format!("{namespace}/{name}/logs"), "txt", &text)
}

/// Print the versions of client and server.
#[derive(Debug, Clone, Default, Args)]
pub struct VersionArgs {
    /// Only the client's version
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub client: bool,
    /// Output format: json or yaml
    #[arg(short, long)]
    pub output: Option<String>,
    /// None is expected
    #[arg(hide = true)]
    pub words: Vec<String>,
}

/// Runs `version`.
pub async fn version(global: &Global, args: &VersionArgs) -> Result<()> {
    if !args.words.is_empty() {
        return Err(CtlError::plain(format!("extra arguments: [{}]", args.words.join(" "))));
    }
    if !matches!(args.output.as_deref(), None | Some("" | "json" | "yaml")) {
        return Err(CtlError::plain("--output must be 'yaml' or 'json'"));
    }
    let own = concat!("v", env!("CARGO_PKG_VERSION"));
    let mut document = json!({"clientVersion": {"gitVersion": own, "platform": platform()}});
    let mut failure = None;
    if !args.client {
        let server = async { Session::open(global)?.api.json(&Call::get("/version")).await };
        match server.await {
            Ok(server) => document["serverVersion"] = server,
            Err(error) => failure = Some(error),
        }
    }
    emit(&match args.output.as_deref() {
        Some("json") => print::pretty(&document, b"  "),
        Some("yaml") => yaml::document(&document),
        None | Some("") => {
            let text = |value: &Value| value["gitVersion"].as_str().unwrap_or_default().to_owned();
            let mut lines = format!("Client Version: {}\n", text(&document["clientVersion"]));
            if document["serverVersion"].is_object() {
                lines.push_str(&format!("Server Version: {}\n", text(&document["serverVersion"])));
            }
            lines
        }
        Some(_) => return Err(CtlError::plain("--output must be 'yaml' or 'json'")),
    })?;
    failure.map_or(Ok(()), Err)
}

fn platform() -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{arch}", std::env::consts::OS)
}
