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
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
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
}

/// Runs `api-resources`.
pub async fn resources(session: &Session, args: &ResourcesArgs) -> Result<()> {
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
        None => found.sort_by_key(|entry| (entry.group.clone(), entry.plural.clone())),
        Some("name") => found.sort_by_key(|entry| (entry.plural.clone(), entry.group.clone())),
        Some("kind") => found.sort_by_key(|entry| (entry.kind.clone(), entry.group.clone())),
        Some(other) => return Err(CtlError::Usage(format!("--sort-by accepts only name or kind, not {other:?}"))),
    }
    let wide = match args.output.as_deref() {
        Some("name") => return emit(&found.iter().map(|entry| entry.qualified() + "\n").collect::<String>()),
        Some("wide") => true,
        None | Some("") => false,
        Some(other) => return Err(CtlError::Usage(format!("--output {other:?} is not available, use wide or name"))),
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
pub async fn versions(session: &Session) -> Result<()> {
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
    emit(&text)
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
}

/// Runs `version`.
pub async fn version(global: &Global, args: &VersionArgs) -> Result<()> {
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
        Some("json") => print::json(&document),
        Some("yaml") => yaml::document(&document),
        None | Some("") => {
            let text = |value: &Value| value["gitVersion"].as_str().unwrap_or_default().to_owned();
            let mut lines = format!("Client Version: {}\n", text(&document["clientVersion"]));
            if document["serverVersion"].is_object() {
                lines.push_str(&format!("Server Version: {}\n", text(&document["serverVersion"])));
            }
            lines
        }
        Some(other) => return Err(CtlError::Usage(format!("--output must be 'yaml' or 'json', not {other:?}"))),
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
