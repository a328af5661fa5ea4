//! The kubectls of this machine.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::command::run;

/// A kubectl of this machine.
#[derive(Clone, Debug)]
pub struct Kubectl {
    /// Where it is.
    pub path: PathBuf,
    /// What it says, as `v1.20.2`.
    pub version: String,
    /// The second number of its version.
    pub minor: u32,
}

/// Every kubectl: in `$PATH`, beside what links there point to, and Debian's.
///
/// # Errors
/// When there is none.
pub fn find_all() -> Result<Vec<Kubectl>> {
    let mut folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let mut links = Vec::new();
    for folder in &folders {
        if let Ok(target) = folder.join("kubectl").canonicalize() {
            links.extend(target.parent().map(PathBuf::from));
        }
    }
    folders.extend(links);
    if let Some(home) = std::env::var_os("HOME") {
        folders.push(PathBuf::from(home).join(".cache/trireme/kubectl-debian/usr/bin"));
    }
    let mut paths: Vec<PathBuf> = Vec::new();
    for folder in folders {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter(|entry| is_kubectl(&entry.file_name().to_string_lossy()));
        paths.extend(names.filter_map(|entry| entry.path().canonicalize().ok()));
    }
    paths.sort();
    paths.dedup();
    let found: Vec<Kubectl> = paths.into_iter().filter_map(|path| kubectl_of(path).ok()).collect();
    ensure!(!found.is_empty(), "no kubectl on this machine; \"make deps\" installs one");
    Ok(found)
}

/// `kubectl`, or one with a version behind it.
fn is_kubectl(name: &str) -> bool {
    name.strip_prefix("kubectl").is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix(['.', '-']).is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
    })
}

fn kubectl_of(path: PathBuf) -> Result<Kubectl> {
    let text = run(Command::new(&path).args(["version", "--client", "-o", "json"]))?.ok()?;
    let value: Value = serde_json::from_str(&text)?;
    let version = value["clientVersion"]["gitVersion"].as_str().context("no version")?.to_owned();
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse().ok()).context("no minor version")?;
    Ok(Kubectl { path, version, minor })
}
