//! Which cluster on this machine has which subnet: a small file for each under `/run/trireme`, which a reboot empties
//! together with the namespaces and links that the files are about.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::network;

const DIR: &str = "/run/trireme";

/// A claim of a name and a subnet.
#[derive(Debug, Serialize, Deserialize)]
struct Claim {
    /// `.trireme/<name>` of the cluster.
    root: PathBuf,
    subnet: u8,
}

fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(format!("{name}.json"))
}

fn read(name: &str) -> Option<Claim> {
    serde_json::from_slice(&fs::read(path(name)).ok()?).ok()
}

fn open_lock(name: &str) -> anyhow::Result<File> {
    fs::create_dir_all(DIR).with_context(|| format!("cannot create {DIR}"))?;
    let path = Path::new(DIR).join(format!("{name}.lock"));
    File::create(&path).with_context(|| format!("cannot write {}", path.display()))
}

/// Only one `up` or `down` works on a cluster at a time.
pub fn lock(layout: &Layout) -> anyhow::Result<Flock<File>> {
    match Flock::lock(open_lock(&layout.name)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((file, _)) => {
            println!("another \"trireme up\" or \"down\" is at work on the cluster {:?}; waiting for it", layout.name);
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| anyhow::anyhow!("lock: {errno}"))
        }
    }
}

/// Refuses to work on a cluster of the same name that lives in another folder.
pub fn check_owner(layout: &Layout) -> anyhow::Result<()> {
    let Some(claim) = read(&layout.name) else { return Ok(()) };
    if claim.root != layout.root && claim.root.join("cluster.json").exists() {
        bail!(
            "a cluster with the name {:?} exists on this machine in {}; choose another name (--name), or remove that one \
             first (trireme down --name {} --dir {})",
            layout.name,
            claim.root.display(),
            layout.name,
            claim.root.parent().unwrap_or(&claim.root).display()
        );
    }
    Ok(())
}

/// Claims the name, and the recorded subnet or a free one.
pub fn claim(layout: &Layout, recorded: Option<u8>) -> anyhow::Result<u8> {
    check_owner(layout)?;
    let _all = Flock::lock(open_lock(".subnets")?, FlockArg::LockExclusive)
        .map_err(|(_, errno)| anyhow::anyhow!("lock on {DIR}: {errno}"))?;
    let others = other_claims(layout)?;
    let routes = network::routes(&layout.bridge())?;
    let taken = |subnet: u8| -> Option<String> {
        if let Some((name, _)) = others.iter().find(|(_, claim)| claim.subnet == subnet) {
            return Some(format!("the cluster {name:?}"));
        }
        routes.iter().find(|route| route.overlaps(subnet)).map(|route| format!("{} on {}", route.text, route.device))
    };
    let subnet = match recorded {
        Some(subnet) => match taken(subnet) {
            None => subnet,
            Some(by) => bail!(
                "the addresses of this cluster, 10.90.{subnet}.0/24, are in use by {by}; free them, or make the cluster \
                 anew: {}, then up",
                layout.typed("down")
            ),
        },
        None => match (0..=254).find(|subnet| taken(*subnet).is_none()) {
            Some(subnet) => subnet,
            None => bail!("no free /24 is left in 10.90.0.0/16; remove a cluster (trireme down --name …)"),
        },
    };
    let claim = serde_json::to_vec(&Claim { root: layout.root.clone(), subnet })?;
    let path = path(&layout.name);
    fs::write(&path, claim).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(subnet)
}

fn other_claims(layout: &Layout) -> anyhow::Result<Vec<(String, Claim)>> {
    let mut claims = Vec::new();
    for entry in fs::read_dir(DIR).with_context(|| format!("cannot read {DIR}"))? {
        let file = entry?.file_name();
        let Some(name) = file.to_str().and_then(|f| f.strip_suffix(".json")) else { continue };
        if name == layout.name {
            continue;
        }
        // A claim counts while its folder is there; what was removed by hand does not block its addresses for ever.
        if let Some(claim) = read(name).filter(|claim| claim.root.join("cluster.json").exists()) {
            claims.push((name.to_owned(), claim));
        }
    }
    Ok(claims)
}

/// Gives name and subnet back.
pub fn release(layout: &Layout) {
    if read(&layout.name).is_some_and(|claim| claim.root == layout.root) {
        let _ = fs::remove_file(path(&layout.name));
    }
    let _ = fs::remove_file(Path::new(DIR).join(format!("{}.lock", layout.name)));
}

/// A route of this machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Route {
    /// As `ip route` prints it.
    pub text: String,
    /// Interface.
    pub device: String,
    base: u32,
    prefix: u8,
}

impl Route {
    /// Reads `10.0.0.0/8` or `10.1.2.3`.
    pub fn parse(text: &str, device: &str) -> Option<Route> {
        let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let base = u32::from(address.parse::<Ipv4Addr>().ok()?);
        Some(Route {
            text: text.into(),
            device: device.into(),
            base,
            prefix: prefix.parse().ok().filter(|p| *p <= 32)?,
        })
    }

    /// Whether the route is about addresses of `10.90.<subnet>.0/24`. Wide routes (a VPN's 10.0.0.0/8) do not count:
    /// the bridge's own is more specific and wins on this machine.
    fn overlaps(&self, subnet: u8) -> bool {
        let ours = u32::from(Ipv4Addr::new(10, 90, subnet, 0));
        let prefix = self.prefix.min(24);
        self.prefix >= 20 && (self.base ^ ours) >> (32 - u32::from(prefix)) == 0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn overlaps_are_found() {
        let route = |text| Route::parse(text, "eth0").unwrap();
        assert!(route("10.90.3.0/24").overlaps(3));
        assert!(!route("10.90.3.0/24").overlaps(4));
        assert!(route("10.90.3.77").overlaps(3));
        assert!(route("10.90.0.0/20").overlaps(3));
        assert!(!route("10.90.0.0/20").overlaps(16));
        assert!(!route("10.0.0.0/8").overlaps(3));
        assert_eq!(Route::parse("default", "eth0"), None);
    }
}
