//! Removing what a cluster leaves outside its folder: processes, mounts, namespaces, links, cgroups.
//!
//! Everything is looked up from the cluster's name and folder alone, so that it also works after a crash at any point
//! and a second time.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use trireme_nodeagent::mounts;

use super::layout::{Host, Layout};
use super::network;
use super::process::{self, Process};

/// Kills everything that runs for the cluster: agents, shims, what is in its cgroups and in its namespaces.
pub async fn processes(layout: &Layout) -> usize {
    let mut killed = HashSet::new();
    // Killing a shim can show processes that were not found before; a few rounds find them all.
    for _ in 0..10 {
        let found = remaining(layout);
        if found.is_empty() {
            break;
        }
        killed.extend(found.iter().map(|process| process.pid));
        process::kill_all(&found).await;
    }
    killed.len()
}

/// What still runs for the cluster.
pub fn remaining(layout: &Layout) -> Vec<Process> {
    let mut found = process::running(layout);
    found.extend(process::inside(&network::namespaces(layout)));
    let in_cgroups = cgroups(layout).into_iter().flat_map(|dir| {
        let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| line.trim().parse().ok()).collect::<Vec<i32>>()
    });
    found.extend(in_cgroups.filter_map(Process::of));
    found.sort_by_key(|process| process.pid);
    found.dedup();
    found.retain(|process| process.pid != std::process::id() as i32);
    found
}

/// Mount points below the cluster's folder, the deepest last.
pub fn mounts(layout: &Layout) -> Vec<PathBuf> {
    below(mounts::points().unwrap_or_default(), layout)
}

fn below(points: Vec<PathBuf>, layout: &Layout) -> Vec<PathBuf> {
    points.into_iter().filter(|path| path.starts_with(&layout.root)).collect()
}

/// Unmounts everything below the cluster's folder.
pub fn unmount(layout: &Layout) -> anyhow::Result<usize> {
    mounts::undo(|points| below(points, layout)).context("a mount stays")
}

/// The cluster's cgroups in all hierarchies, parents before children.
pub fn cgroups(layout: &Layout) -> Vec<PathBuf> {
    let name = layout.cgroup();
    let mut all = Vec::new();
    for mount in hierarchies() {
        let top = mount.join(name.trim_start_matches('/'));
        if top.is_dir() {
            collect(&top, &mut all);
        }
    }
    all
}

fn collect(dir: &Path, all: &mut Vec<PathBuf>) {
    all.push(dir.to_path_buf());
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        collect(&entry.path(), all);
    }
}

/// Where cgroup file systems are mounted.
fn hierarchies() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut mounts: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let point = fields.nth(1)?;
            matches!(fields.next(), Some("cgroup" | "cgroup2")).then(|| mounts::unescape(point.as_bytes()))
        })
        .collect();
    mounts.sort();
    mounts.dedup();
    mounts
}

/// Removes the cluster's cgroups. The kernel frees those of processes that have just died a moment later.
pub async fn remove_cgroups(layout: &Layout) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let all = cgroups(layout);
        let mut failure = None;
        for dir in all.iter().rev() {
            if let Err(error) = fs::remove_dir(dir)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                failure = Some((dir.clone(), error));
            }
        }
        match failure {
            None => break,
            Some((dir, error)) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("cannot remove the cgroup {}", dir.display()));
            }
            Some(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    // The common parent stays while another cluster has something in it.
    for mount in hierarchies() {
        let _ = fs::remove_dir(mount.join("trireme"));
    }
    Ok(())
}

/// Removes namespaces and links.
pub fn network(layout: &Layout, hosts: &[Host]) -> anyhow::Result<()> {
    // Links first: taking one end away removes both at once, while a namespace is emptied by the kernel some time later.
    for link in network::cluster_links(layout, hosts)? {
        network::remove_link(&link)?;
    }
    for name in network::namespaces(layout) {
        network::remove_netns(&name)?;
    }
    Ok(())
}

/// What is still there, in words.
pub fn leftovers(layout: &Layout, hosts: &[Host], keep_data: bool) -> Vec<String> {
    let mut found: Vec<String> = remaining(layout).iter().map(|process| format!("process {}", process.pid)).collect();
    found.extend(mounts(layout).iter().map(|path| format!("mount {}", path.display())));
    found.extend(network::namespaces(layout).into_iter().map(|name| format!("network namespace {name}")));
    let links = network::cluster_links(layout, hosts).unwrap_or_default();
    found.extend(links.into_iter().map(|name| format!("interface {name}")));
    found.extend(cgroups(layout).iter().map(|path| format!("cgroup {}", path.display())));
    if !keep_data && layout.root.exists() {
        found.push(format!("folder {}", layout.root.display()));
    }
    found
}
