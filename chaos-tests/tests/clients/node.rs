//! The official JavaScript client: its folder of packages, and the process that runs the cases in `node.mjs`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use trireme_chaos_tests::suite::Scenario;
use trireme_chaos_tests::{Cluster, run_for};

use crate::runner::{self, Runner};

/// The package.
const PACKAGE: &str = "@kubernetes/client-node";
/// Longest time that node may take to say its version.
const LIMIT: Duration = Duration::from_secs(60);
/// Longest time for downloads.
const INSTALL: Duration = Duration::from_secs(300);
/// The oldest node that the pinned version of the package runs on.
const OLDEST_NODE: u32 = 18;

macro_rules! cases {
    ($($name:ident)*) => {
        $(fn $name(cluster: &Cluster) -> Result<()> { run(cluster, stringify!($name)) })*
        /// Every case in `node.mjs`.
        pub const CASES: &[Scenario] = &[$((stringify!($name), $name)),*];
    };
}

cases! {
    node_life_of_an_object
    node_patches
    node_lists_by_selector_and_page
    node_dynamic_objects
    node_watches_and_resumes
    node_informer
    node_elects_a_leader
    node_exec
    node_attach
    node_logs
    node_port_forward
    node_copies_files
    node_evicts
    node_reads_versions_groups_and_health
    node_custom_objects_that_are_not_there
}

/// Folder of the scripts.
fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// The version: the pinned one, or that in `$TRIREME_NODE_CLIENT`.
fn version() -> Result<String> {
    if let Ok(version) = std::env::var("TRIREME_NODE_CLIENT") {
        return Ok(version);
    }
    let text = std::fs::read_to_string(scripts().join("package.json"))?;
    let package: serde_json::Value = serde_json::from_str(&text)?;
    package["dependencies"][PACKAGE].as_str().map(str::to_owned).context("package.json pins no version")
}

/// The installed module, which is fetched on first use and kept in `~/.cache/trireme`.
fn module() -> Result<&'static Path> {
    static PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let path = PATH.get_or_init(|| prepare().map_err(|error| format!("{error:#}")));
    path.as_deref().map_err(|error| anyhow!("{error}"))
}

fn prepare() -> Result<PathBuf> {
    const HINT: &str = "\"make deps\" installs nodejs and npm";
    let node = run_for(Command::new("node").arg("--version"), LIMIT).context(HINT)?.ok().context(HINT)?;
    let major = node.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    let major = major.with_context(|| format!("node says it is {node:?}"))?;
    ensure!(major >= OLDEST_NODE, "node {} is too old for {PACKAGE}: {OLDEST_NODE} is the least", node.trim());
    let version = version()?;
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    let cache = home.join(".cache/trireme");
    std::fs::create_dir_all(&cache)?;
    // Two runs at the same time: one of them installs.
    let lock = std::fs::File::create(cache.join("node.lock"))?;
    lock.lock()?;
    let dir = cache.join(format!("node-client-{version}"));
    let module = dir.join("node_modules").join(PACKAGE).join("dist/index.js");
    if !module.exists() {
        println!("installing {PACKAGE} {version} into {}", dir.display());
        // What an earlier try left. The folder gets its name when it is complete.
        let part = cache.join(format!("node-client-{version}.part"));
        let _ = std::fs::remove_dir_all(&part);
        std::fs::create_dir_all(&part)?;
        let words =
            ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--omit=dev", "--loglevel=error", "--prefix"];
        let package = format!("{PACKAGE}@{version}");
        let mut npm = Command::new("npm");
        npm.args(words).arg(&part).arg(package).current_dir(&part);
        run_for(&mut npm, INSTALL).context(HINT)?.ok().context("the official JavaScript client cannot be installed")?;
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::rename(&part, &dir)?;
    }
    ensure!(module.exists(), "{PACKAGE} {version} is installed in {} and has no {}", dir.display(), module.display());
    println!("JavaScript client: {PACKAGE} {version} on node {}", node.trim());
    Ok(module)
}

/// Runs one case in the process that all share.
fn run(cluster: &Cluster, name: &str) -> Result<()> {
    static RUNNER: Mutex<Option<Runner>> = Mutex::new(None);
    let names: Vec<&str> = CASES.iter().map(|(name, _)| *name).collect();
    runner::run(&RUNNER, &names, name, || {
        let mut command = Command::new("node");
        command.arg(scripts().join("node.mjs")).arg(module()?).arg(cluster.root().join("kubeconfig"));
        Ok(command)
    })
}
