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

/// Mount points below the cluster's folder, the deepest last: those that it has made itself, and those of somebody else.
pub fn mounts(layout: &Layout) -> (Vec<PathBuf>, Vec<PathBuf>) {
    below(mounts::points().unwrap_or_default(), layout)
}

fn below(points: Vec<PathBuf>, layout: &Layout) -> (Vec<PathBuf>, Vec<PathBuf>) {
    points.into_iter().filter(|path| path.starts_with(&layout.root)).partition(|path| made(path, layout))
}

/// Whether the cluster made a mount: only agents do, deep in their data directories (`node-1/data/pods/UID/…`). A disk for
/// the data directory of a host, or for a folder in it, was mounted by somebody else.
fn made(path: &Path, layout: &Layout) -> bool {
    let inside = path.strip_prefix(&layout.root).unwrap_or(path);
    let names: Vec<_> = inside.iter().map(|name| name.to_string_lossy()).collect();
    matches!(&names[..], [host, data, _, _, ..] if host.starts_with("node-") && data == "data")
}

/// Unmounts what the cluster has mounted below its folder, and, if asked for, what others have.
pub fn unmount(layout: &Layout, others: bool) -> anyhow::Result<usize> {
    let chosen = |points| {
        let (made, foreign) = below(points, layout);
        if others { foreign.into_iter().chain(made).collect() } else { made }
    };
    mounts::undo(chosen).context("a mount stays")
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
    let (made, foreign) = mounts(layout);
    let wrong = made.iter().chain(foreign.iter().filter(|_| !keep_data));
    found.extend(wrong.map(|path| format!("mount {}", path.display())));
    found.extend(network::namespaces(layout).into_iter().map(|name| format!("network namespace {name}")));
    let links = network::cluster_links(layout, hosts).unwrap_or_default();
    found.extend(links.into_iter().map(|name| format!("interface {name}")));
    found.extend(cgroups(layout).iter().map(|path| format!("cgroup {}", path.display())));
    if !keep_data && layout.root.exists() {
        found.push(format!("folder {}", layout.root.display()));
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_disk_that_somebody_mounted_is_told_from_what_agents_mount() {
        let layout = Layout::new(Path::new("/c"), "x").unwrap();
        let made =
            ["/c/x/node-1/data/pods/u/rootfs", "/c/x/node-1/data/pods/u/volumes/a", "/c/x/node-12/data/network/n"];
        let theirs = [
            "/c/x",
            "/c/x/images",
            "/c/x/master-1/data",
            "/c/x/master-1/data/store/db",
            "/c/x/node-1/data",
            "/c/x/node-1/data/images",
        ];
        let all = ["/", "/c", "/c/x2/node-1/data/pods/u"].iter().chain(&made).chain(&theirs).map(PathBuf::from);
        let (found, foreign) = below(all.collect(), &layout);
        assert_eq!(found, made.map(PathBuf::from));
        assert_eq!(foreign, theirs.map(PathBuf::from));
    }
}
