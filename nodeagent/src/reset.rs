//! Undoing everything that an agent has made on a machine, except for its data directory.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

use crate::agent::{AgentError, destroy, io};
use crate::config::Config;
use crate::network::services::ServiceProxy;
use crate::network::{Network, NetworkConfig};

/// What was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undone {
    /// Mounts below the data directory.
    pub mounts: usize,
    /// Whether links, routes and rules were looked at: only where this machine has the node's address, since the names of
    /// links are the same on every node.
    pub network: bool,
}

/// Ends all pods of a node whose agent does not run, and removes cgroups, mounts, links, routes and rules.
///
/// # Errors
/// With the first thing that cannot be removed; it may be repeated.
pub async fn reset(config: &Config) -> Result<Undone, AgentError> {
    let own = config.clone();
    let work = move || -> Result<usize, AgentError> {
        destroy(&own)?;
        unmount_below(&own.data_dir).map_err(io(format!("unmounting what is below {}", own.data_dir.display())))
    };
    let mounts = tokio::task::spawn_blocking(work).await.map_err(AgentError::Broken)??;
    let mut undone = Undone { mounts, network: false };
    if let IpAddr::V4(address) = config.node_ip {
        let settings = NetworkConfig::new(config.data_dir.join("network"), &config.node_name, address);
        let network = Network::open(settings).await?;
        if network.is_here().await? {
            network.reconcile(&BTreeSet::new()).await?;
            ServiceProxy::new(&network).cleanup().await?;
            network.cleanup().await?;
            undone.network = true;
        }
    }
    Ok(undone)
}

fn unmount_below(dir: &Path) -> std::io::Result<usize> {
    let mut count = 0;
    // A mount point can carry several mounts.
    for _ in 0..16 {
        let text = std::fs::read("/proc/self/mountinfo")?;
        let points = below(mount_points(&text), dir);
        if points.is_empty() {
            break;
        }
        for point in points.iter().rev() {
            umount2(point, MntFlags::MNT_DETACH)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Those inside a directory. It may be a mount point itself, and that is not ours to undo.
fn below(points: Vec<PathBuf>, dir: &Path) -> Vec<PathBuf> {
    points.into_iter().filter(|point| point.starts_with(dir) && point != dir).collect()
}

/// The mount points of a mountinfo file, parents first.
fn mount_points(text: &[u8]) -> Vec<PathBuf> {
    let points = text.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    points.map(unescape).collect()
}

/// Undoes the octal escapes of mountinfo.
fn unescape(field: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directorys_own_mount_stays() {
        let points = ["/", "/data", "/data/node", "/data/node/pods/a", "/data/node2"].map(PathBuf::from);
        assert_eq!(below(points.to_vec(), Path::new("/data/node")), [PathBuf::from("/data/node/pods/a")]);
    }

    #[test]
    fn mount_points_are_read() {
        let text = b"22 1 0:20 / / rw - ext4 /dev/a rw\n23 22 0:21 / /var/lib/a\\040b rw - tmpfs tmpfs rw\n";
        assert_eq!(mount_points(text), [PathBuf::from("/"), PathBuf::from("/var/lib/a b")]);
    }
}
