//! The graph of crates: ours, and those we depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::Finding;

/// Who may import whom among our own crates.
const EDGES: &[(&str, &[&str])] = &[
    (
        "trireme",
        &[
            "trireme-api",
            "trireme-apiserver",
            "trireme-client",
            "trireme-controllers",
            "trireme-nodeagent",
            "trireme-raftstore",
            "trireme-scheduler",
        ],
    ),
    ("trireme-apiserver", &["trireme-api", "trireme-raftstore"]),
    ("trireme-controllers", &["trireme-api", "trireme-client"]),
    ("trireme-scheduler", &["trireme-api", "trireme-client"]),
    ("trireme-nodeagent", &["trireme-api", "trireme-client"]),
    ("trireme-client", &["trireme-api"]),
    // The store's own client and vocabulary: docs/decisions/0009.
    ("trireme-chaos-tests", &["trireme-api", "trireme-client", "trireme-raftstore"]),
    ("trireme-raftstore", &[]),
    ("trireme-api", &[]),
];

/// External crates that only some of ours may depend on.
const OWNERS: &[(&str, &[&str])] = &[
    ("rocksdb", &["trireme-raftstore"]),
    ("openraft", &["trireme-raftstore"]),
    ("libcontainer", &["trireme-nodeagent"]),
    ("axum", &["trireme-apiserver", "trireme-raftstore", "trireme-nodeagent"]),
    ("anyhow", &["trireme", "trireme-chaos-tests"]),
];

fn metadata(root: &Path, arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(arguments)
        .current_dir(root)
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Undeclared edges among our crates, and external crates outside their owners.
pub fn edges(root: &Path) -> Vec<Finding> {
    let metadata = metadata(root, &["--no-deps"]);
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = text(package, "name");
        let place = format!("{name}/Cargo.toml");
        let Some((_, allowed)) = EDGES.iter().find(|(crate_name, _)| *crate_name == name) else {
            findings.push(Finding::new("edge", place, "this crate is not in the design's list"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let target = text(dependency, "name");
            if target.starts_with("trireme") && !allowed.contains(&target) {
                findings.push(Finding::new("edge", &place, format!("{name} may not import {target}")));
            }
            // Tests may use what they need; what ships may not.
            let shipped = dependency["kind"].is_null();
            let owner = OWNERS.iter().find(|(external, _)| *external == target);
            if shipped && owner.is_some_and(|(_, owners)| !owners.contains(&name)) {
                findings.push(Finding::new("owner", &place, format!("{name} may not depend on {target}")));
            }
        }
    }
    findings
}

/// Licenses, sources and bans of everything that ends up in the program, after `deny.toml`.
pub fn dependencies(root: &Path) -> Vec<Finding> {
    let policy = std::fs::read_to_string(root.join("deny.toml")).unwrap();
    let licenses = strings_of(&policy, "licenses", "allow");
    let banned = strings_of(&policy, "bans", "deny");
    let registries = strings_of(&policy, "sources", "allow-registry");
    assert!(
        licenses.contains("MIT") && banned.contains("aws-lc-rs") && !registries.is_empty(),
        "deny.toml is read wrongly"
    );
    let metadata = metadata(root, &["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let packages: BTreeMap<&str, &Value> =
        metadata["packages"].as_array().unwrap().iter().map(|p| (text(p, "id"), p)).collect();
    let mut findings = Vec::new();
    for id in used(&metadata) {
        let package = packages[id];
        let name = text(package, "name");
        if banned.contains(name) {
            findings.push(Finding::new("ban", name, "is banned by deny.toml"));
        }
        let Some(source) = package["source"].as_str() else { continue };
        // A mirror may stand in for the registry; the lock file says what is meant.
        if !source.starts_with("registry+") && !source.starts_with("sparse+") {
            findings.push(Finding::new("source", name, format!("comes from {source}")));
        }
        let license = text(package, "license");
        if !satisfied(license, &licenses) {
            findings.push(Finding::new("license", name, format!("license {license:?} is not on the list")));
        }
    }
    for source in lock_sources(root) {
        if !registries.iter().any(|registry| source.ends_with(registry.as_str())) {
            findings.push(Finding::new("source", "Cargo.lock", format!("unknown source {source}")));
        }
    }
    findings
}

/// Packages reachable without going through dependencies of tests alone.
fn used(metadata: &Value) -> BTreeSet<&str> {
    let nodes: BTreeMap<&str, &Value> =
        metadata["resolve"]["nodes"].as_array().unwrap().iter().map(|node| (text(node, "id"), node)).collect();
    let mut queue: Vec<&str> =
        metadata["workspace_members"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let mut seen = BTreeSet::new();
    while let Some(id) = queue.pop() {
        if !seen.insert(id) {
            continue;
        }
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            if kinds.iter().any(|kind| kind["kind"] != "dev") {
                queue.push(text(dependency, "pkg"));
            }
        }
    }
    seen
}

fn lock_sources(root: &Path) -> BTreeSet<String> {
    let lock = std::fs::read_to_string(root.join("Cargo.lock")).unwrap();
    lock.lines().filter_map(|line| line.strip_prefix("source = \"")?.strip_suffix('"').map(str::to_owned)).collect()
}

/// All quoted strings of an array in a section of a TOML text; enough for `deny.toml`.
fn strings_of(toml: &str, section: &str, key: &str) -> BTreeSet<String> {
    let body = toml.split_once(&format!("[{section}]")).unwrap().1;
    let body = body.split("\n[").next().unwrap();
    let array = body.split_once(&format!("\n{key} = [")).unwrap().1.split("\n]").next().unwrap();
    let array = array.split('\n').map(|line| line.split('#').next().unwrap()).collect::<Vec<_>>().join("\n");
    array.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met with the allowed licenses. `OR` binds weaker than `AND`; parentheses occur
/// around alternatives only.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.replace('/', " OR ");
    if let Some((before, rest)) = expression.split_once('(')
        && let Some((inner, after)) = rest.split_once(')')
    {
        let stand_in = if satisfied(inner, allowed) { "MIT" } else { "refused" };
        return satisfied(&format!("{before}{stand_in}{after}"), allowed);
    }
    expression.split(" OR ").any(|part| part.split(" AND ").all(|license| allowed.contains(license.trim())))
}

#[test]
fn license_expressions_are_understood() {
    let allowed: BTreeSet<String> = ["MIT", "ISC", "Unicode-3.0"].map(str::to_owned).into();
    for good in ["MIT", "GPL-2.0 OR MIT", "MIT/Apache-2.0", "(MIT OR Apache-2.0) AND Unicode-3.0", "ISC AND (MIT OR X)"]
    {
        assert!(satisfied(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-2.0", "MIT AND GPL-2.0", "(X OR Y) AND MIT"] {
        assert!(!satisfied(bad, &allowed), "{bad}");
    }
}
