//! Names and places: everything that belongs to a cluster can be told from the cluster's name.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Most masters of a local cluster; Raft groups beyond this only get slower.
pub const MAX_MASTERS: u8 = 7;
/// Most nodes of a local cluster.
pub const MAX_NODES: u8 = 60;

/// What a host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A replica of the control plane.
    Master,
    /// An agent.
    Node,
}

impl Kind {
    /// `masters`, `nodes`.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Master => "masters",
            Kind::Node => "nodes",
        }
    }
}

/// One host: a network namespace and a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// What it runs.
    pub kind: Kind,
    /// `master-1`, `node-2`.
    pub name: String,
    /// Its address on the cluster's bridge.
    pub ip: Ipv4Addr,
    /// Name of its network namespace, as `ip netns` lists it.
    pub netns: String,
    /// The end of its link that is attached to the bridge.
    pub link: String,
    /// Its folder.
    pub dir: PathBuf,
}

impl Host {
    /// Where its process keeps its data.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// What its process prints.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// URL of its API, if it is a master.
    pub fn url(&self) -> String {
        format!("https://{}:6443", self.ip)
    }

    /// Whether its process has become a member before: only then can it start without joining.
    pub fn initialised(&self) -> bool {
        match self.kind {
            Kind::Master => trireme_raftstore::Store::has_data(&self.data().join("store")).unwrap_or(true),
            Kind::Node => self.data().join("pki/node.key").exists(),
        }
    }
}

/// What a cluster consists of, kept in `cluster.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Format of this file.
    pub version: u32,
    /// Name.
    pub name: String,
    /// Third byte of its /24.
    pub subnet: u8,
    /// Number of masters.
    pub masters: u8,
    /// Number of nodes.
    pub nodes: u8,
    /// What every master is given besides what belongs to its host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub master_args: Vec<String>,
    /// The same for nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_args: Vec<String>,
}

impl Cluster {
    /// A cluster of so many hosts with nothing special about it, on no subnet yet.
    pub fn new(name: &str, masters: u8, nodes: u8) -> Cluster {
        let (master_args, node_args) = (Vec::new(), Vec::new());
        Cluster { version: 1, name: name.to_owned(), subnet: 0, masters, nodes, master_args, node_args }
    }

    /// What hosts of this kind are given besides what belongs to the host.
    pub fn extra(&self, kind: Kind) -> &[String] {
        match kind {
            Kind::Master => &self.master_args,
            Kind::Node => &self.node_args,
        }
    }
}

/// Where a cluster of a name keeps things.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The name.
    pub name: String,
    /// `.trireme/<name>`, absolute.
    pub root: PathBuf,
    /// Short form of the name for links, which have 15 characters.
    tag: String,
}

impl Layout {
    /// Places of the cluster `name` under `dir`.
    pub fn new(dir: &Path, name: &str) -> anyhow::Result<Layout> {
        let fits = !name.is_empty()
            && name.len() <= 32
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        if !fits {
            bail!(
                "{name:?} cannot be the name of a cluster: use up to 32 lower-case letters, digits and \"-\", \
                 beginning and ending with a letter or digit"
            );
        }
        let dir = std::path::absolute(dir).with_context(|| format!("--dir {}", dir.display()))?;
        // Symbolic links are resolved, so that paths compare equal to those in /proc.
        let dir = dir.canonicalize().unwrap_or(dir);
        Ok(Layout { name: name.to_owned(), root: dir.join(name), tag: tag(name) })
    }

    /// Where the clusters are, this one among them.
    pub fn dir(&self) -> &Path {
        self.root.parent().unwrap_or(&self.root)
    }

    /// Whether this is where `up` looks when it is typed here without `--dir`.
    pub fn is_here(&self) -> bool {
        std::env::current_dir().is_ok_and(|here| here.join(".trireme") == self.dir())
    }

    /// What to type for this cluster: `trireme up --name x`, with its folder where another one would be meant.
    pub fn typed(&self, verb: &str) -> String {
        let command = format!("trireme {verb} --name {}", self.name);
        if self.is_here() { command } else { format!("{command} --dir {}", self.dir().display()) }
    }

    /// The cluster's bridge.
    pub fn bridge(&self) -> String {
        format!("tri-{}", self.tag)
    }

    /// Cgroup below which all pods of the cluster run, without the mount point.
    pub fn cgroup(&self) -> String {
        format!("/trireme/{}", self.name)
    }

    /// What all network namespaces of the cluster begin with.
    pub fn netns_prefix(&self) -> String {
        format!("trireme-{}-", self.name)
    }

    /// The copy of the program that the cluster runs.
    pub fn binary(&self) -> PathBuf {
        self.root.join("bin/trireme")
    }

    /// The kubeconfig for users.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Folder of image archives that nodes import.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    fn file(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    /// What the cluster consists of; `None` if there is none.
    pub fn load(&self) -> anyhow::Result<Option<Cluster>> {
        let path = self.file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let cluster: Cluster = serde_json::from_str(&text).with_context(|| {
            format!("{} is damaged; remove this cluster with: {}", path.display(), self.typed("down"))
        })?;
        if cluster.version != 1 {
            bail!("{} was written by a newer trireme (format {})", path.display(), cluster.version);
        }
        Ok(Some(cluster))
    }

    /// Remembers what the cluster consists of.
    pub fn save(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let path = self.file();
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(&self.root)?;
            let temporary = path.with_extension("json.tmp");
            fs::write(&temporary, serde_json::to_vec_pretty(cluster)?)?;
            fs::rename(&temporary, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// All hosts of a cluster, masters first.
    pub fn hosts(&self, cluster: &Cluster) -> Vec<Host> {
        let masters = (1..=cluster.masters).map(|n| self.host(cluster, Kind::Master, n));
        let nodes = (1..=cluster.nodes).map(|n| self.host(cluster, Kind::Node, n));
        masters.chain(nodes).collect()
    }

    fn host(&self, cluster: &Cluster, kind: Kind, n: u8) -> Host {
        let (word, letter, offset) = match kind {
            Kind::Master => ("master", 'm', 10),
            Kind::Node => ("node", 'n', 100),
        };
        let name = format!("{word}-{n}");
        Host {
            kind,
            ip: Ipv4Addr::new(10, 90, cluster.subnet, offset + n),
            netns: format!("{}{name}", self.netns_prefix()),
            link: format!("tr{}{letter}{n}", self.tag),
            dir: self.root.join(&name),
            name,
        }
    }
}

/// Address of the bridge: how hosts reach the machine.
pub fn gateway(subnet: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 90, subnet, 1)
}

/// At most eight characters that stand for a name.
fn tag(name: &str) -> String {
    if name.len() <= 8 {
        return name.to_owned();
    }
    let digest = Sha256::digest(name);
    format!("{}{:02x}{:02x}", &name[..4], digest[0], digest[1])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn links_fit_and_differ() {
        let cluster = |name: &str| Cluster { subnet: 7, ..Cluster::new(name, 7, 60) };
        let mut seen = std::collections::HashSet::new();
        for name in ["default", "a", "t1234567-upgrade", "t1234567-members", "x2345678"] {
            let layout = Layout::new(Path::new("/tmp"), name).unwrap();
            assert!(layout.bridge().len() <= 15);
            assert!(seen.insert(layout.bridge()));
            for host in layout.hosts(&cluster(name)) {
                assert!(host.link.len() <= 15, "{}", host.link);
                assert!(seen.insert(host.link.clone()));
            }
        }
        let hosts = Layout::new(Path::new("/tmp"), "default").unwrap().hosts(&cluster("default"));
        assert_eq!(hosts[0].ip.to_string(), "10.90.7.11");
        assert_eq!(hosts[66].ip.to_string(), "10.90.7.160");
        assert_eq!(hosts[7].name, "node-1");
    }

    #[test]
    fn what_is_to_be_typed_means_this_folder() {
        let elsewhere = Layout::new(Path::new("/nowhere/clusters"), "x").unwrap();
        assert_eq!(elsewhere.typed("up"), "trireme up --name x --dir /nowhere/clusters");
        let here = Layout::new(&std::env::current_dir().unwrap().join(".trireme"), "x").unwrap();
        assert_eq!(here.typed("down"), "trireme down --name x");
    }

    #[test]
    fn names_are_checked() {
        for bad in ["", "A", "a_b", "-a", "a-", "../x", "a/b", &"x".repeat(33)] {
            assert!(Layout::new(Path::new("/tmp"), bad).is_err(), "{bad}");
        }
    }
}
