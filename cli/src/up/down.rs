//! `trireme down`: stops a cluster and leaves nothing of it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail};

use super::layout::{Cluster, Host, Kind, Layout, MAX_MASTERS, MAX_NODES};
use super::progress::Progress;
use super::{network, process, registry, scrub};

/// Masters get this long to hand over leadership and to close their stores.
const GRACE: Duration = Duration::from_secs(10);

/// Stops the cluster and removes it.
pub async fn run(layout: &Layout, keep_data: bool) -> anyhow::Result<()> {
    let progress = Progress::new();
    registry::check_owner(layout)?;
    let lock = registry::lock(layout)?;
    // A damaged description must not keep a cluster from being removed: then all hosts that could be are looked for.
    let cluster = layout.load().ok().flatten();
    let all = Cluster::new(&layout.name, MAX_MASTERS, MAX_NODES);
    let every_host = layout.hosts(&all);
    if cluster.is_none() && !layout.root.exists() && scrub::leftovers(layout, &every_host, false).is_empty() {
        println!("There is no cluster {:?} in {}; nothing to do.", layout.name, parent(layout));
        drop(lock);
        registry::release(layout);
        return Ok(());
    }
    stop_gracefully(layout, &every_host, progress).await;
    let killed = scrub::processes(layout).await;
    let (_, foreign) = scrub::mounts(layout);
    let unmounted = scrub::unmount(layout, !keep_data)?;
    progress.say(format_args!("pods stopped: {killed} processes ended, {unmounted} mounts removed"));
    for path in foreign.iter().map(|path| path.display()) {
        if keep_data {
            progress.say(format_args!("{path} stays mounted: \"trireme up\" has not mounted it"));
        } else {
            progress.say(format_args!(
                "{path} was unmounted, which \"trireme up\" had not mounted; what is on it is left as it was"
            ));
        }
    }
    scrub::remove_cgroups(layout).await?;
    scrub::network(layout, &every_host)?;
    progress.say("namespaces, links and cgroups removed");
    if keep_data {
        for host in &every_host {
            let _ = fs::remove_file(process::pid_file(host));
            let _ = fs::remove_file(host.dir.join("pid.started"));
        }
    } else if layout.root.exists() {
        fs::remove_dir_all(&layout.root).with_context(|| format!("cannot remove {}", layout.root.display()))?;
        // Only if no other cluster is in it.
        if let Some(dir) = layout.root.parent().filter(|dir| dir.ends_with(".trireme")) {
            let _ = fs::remove_dir(dir);
        }
    }
    let left = scrub::leftovers(layout, &every_host, keep_data);
    if !left.is_empty() {
        bail!("not everything could be removed; still there: {}", left.join(", "));
    }
    if !keep_data {
        registry::release(layout);
    }
    progress.say(if keep_data { "stopped; the data is kept for the next up" } else { "nothing is left" });
    Ok(())
}

fn parent(layout: &Layout) -> String {
    layout.root.parent().unwrap_or(&layout.root).display().to_string()
}

/// Agents first, so that they do not report the end of their pods; then the masters, so that their stores are closed.
async fn stop_gracefully(layout: &Layout, hosts: &[Host], progress: Progress) {
    if network::namespaces(layout).is_empty() && process::running(layout).is_empty() {
        return;
    }
    for (kind, word) in [(Kind::Node, "agents"), (Kind::Master, "masters")] {
        let running: Vec<_> = hosts
            .iter()
            .filter(|host| host.kind == kind && host.dir.exists())
            .filter_map(|host| process::find(layout, host))
            .collect();
        if !running.is_empty() {
            process::stop(&running, GRACE).await;
            progress.say(format_args!("{} {word} stopped", running.len()));
        }
    }
}
