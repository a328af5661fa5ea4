//! What an agent must be told, and the checks on it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

use crate::certificate::NodeCertificate;
use crate::images::GcPolicy;

/// Certificates of the agent's HTTPS server.
#[derive(Clone)]
pub struct AgentTls {
    /// The authority that client certificates must come from.
    pub ca_pem: Vec<u8>,
    /// The node's certificate with its key.
    pub certificate: Arc<NodeCertificate>,
}

impl std::fmt::Debug for AgentTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentTls(..)")
    }
}

/// Configuration of one node agent. Every path is this node's own, since several nodes may share one machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the Node object.
    pub node_name: String,
    /// The address other nodes and the API servers reach this node by.
    pub node_ip: IpAddr,
    /// Where pods, logs and images live.
    pub data_dir: PathBuf,
    /// Address of the HTTPS server (logs, exec, health).
    pub listen: SocketAddr,
    /// A folder of image archives that are imported at start; it may be missing.
    pub images_dir: PathBuf,
    /// Absolute cgroup path below which all of this node's cgroups are made.
    pub cgroup_root: String,
    /// Labels beyond the well-known ones.
    pub labels: BTreeMap<String, String>,
    /// Taints given to the Node object when it is created.
    pub taints: Vec<Taint>,
    /// How many pods the node says it can hold.
    pub max_pods: u32,
    /// Domain of the cluster's services.
    pub cluster_domain: String,
    /// Name servers for pods with `dnsPolicy: ClusterFirst`; empty means the node's own.
    pub cluster_dns: Vec<IpAddr>,
    /// What the node reports as its kubelet version.
    pub kubelet_version: String,
    /// What the node reports behind `trireme://` as its container runtime version.
    pub runtime_version: String,
    /// The program that is started as shim; by default the running one.
    pub shim_program: PathBuf,
    /// A container's log file is rotated beyond this many bytes.
    pub log_max_bytes: u64,
    /// How many log files a container may have, the current one included.
    pub log_max_files: u32,
    /// When unused images are removed.
    pub image_gc: GcPolicy,
    /// How often it is looked whether the node's status has changed, which is told at once.
    pub status_update_frequency: Duration,
    /// How often the status is told although nothing changed.
    pub status_report_frequency: Duration,
    /// How long the node's lease holds; it is renewed four times as often.
    pub lease_duration_seconds: u32,
}

impl Config {
    /// A configuration with defaults for everything that has one.
    pub fn new(node_name: &str, node_ip: IpAddr, data_dir: &Path) -> Config {
        Config {
            node_name: node_name.to_owned(),
            node_ip,
            data_dir: data_dir.to_owned(),
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 10250)),
            images_dir: data_dir.join("archives"),
            cgroup_root: format!("/trireme/{node_name}"),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            max_pods: 110,
            cluster_domain: "cluster.local".to_owned(),
            cluster_dns: Vec::new(),
            kubelet_version: concat!("v1.36.0+trireme", env!("CARGO_PKG_VERSION")).to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            shim_program: PathBuf::from("/proc/self/exe"),
            log_max_bytes: 10 << 20,
            log_max_files: 5,
            image_gc: GcPolicy::default(),
            status_update_frequency: Duration::from_secs(10),
            status_report_frequency: Duration::from_secs(300),
            lease_duration_seconds: 40,
        }
    }

    /// Says what is wrong with the configuration.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let name_ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        let edge_ok = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let name = &self.node_name;
        if name.len() > 253
            || !name.chars().all(name_ok)
            || !edge_ok(name.chars().next())
            || !edge_ok(name.chars().last())
        {
            return Err(ConfigError::NodeName(name.clone()));
        }
        if self.node_ip.is_unspecified() {
            return Err(ConfigError::NodeIp(self.node_ip));
        }
        if !self.data_dir.is_absolute() {
            return Err(ConfigError::Relative("data directory", self.data_dir.clone()));
        }
        let root = &self.cgroup_root;
        let parts_ok = root.split('/').skip(1).all(|part| !part.is_empty() && part != "." && part != "..");
        if !root.starts_with('/') || root.len() < 2 || !parts_ok {
            return Err(ConfigError::CgroupRoot(root.clone()));
        }
        if self.max_pods == 0 {
            return Err(ConfigError::MaxPods);
        }
        if self.log_max_bytes < 4096 || self.log_max_files < 2 {
            return Err(ConfigError::LogBounds);
        }
        let day = Duration::from_secs(24 * 3600);
        for (flag, period) in [
            ("--node-status-update-frequency", self.status_update_frequency),
            ("--node-status-report-frequency", self.status_report_frequency),
        ] {
            if !(Duration::from_millis(100)..=day).contains(&period) {
                return Err(ConfigError::Period(flag, period));
            }
        }
        if !(1..=86_400).contains(&self.lease_duration_seconds) {
            return Err(ConfigError::LeaseDuration(self.lease_duration_seconds));
        }
        if let Some(why) = trireme_api::node_labels::refused("--label", self.labels.keys().map(String::as_str)) {
            return Err(ConfigError::Labels(why));
        }
        self.image_gc.validate().map_err(ConfigError::ImageGc)
    }
}

/// Why a [`Config`] cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Node names are DNS sub-domains.
    #[error(
        "node name {0:?} is not valid: it must consist of lower case letters, digits, '-' and '.', and start and end with a letter or digit"
    )]
    NodeName(String),
    /// Nobody can reach the unspecified address.
    #[error("node address {0} cannot be reached by others")]
    NodeIp(IpAddr),
    /// A path must not depend on the working directory.
    #[error("{0} {1:?} must be an absolute path")]
    Relative(&'static str, PathBuf),
    /// The cgroup root must be a path of its own.
    #[error("cgroup root {0:?} must be an absolute path below '/', without '.', '..' or empty parts")]
    CgroupRoot(String),
    /// A node without room makes no sense.
    #[error("a node must be able to hold at least one pod")]
    MaxPods,
    /// The thresholds of image garbage collection do not fit together.
    #[error("{0}")]
    ImageGc(String),
    /// The masters would not let the node set them.
    #[error("{0}")]
    Labels(String),
    /// Rotation needs room for a current and an old file.
    #[error("container logs need at least 2 files of 4096 bytes")]
    LogBounds,
    /// A heartbeat that never comes, or comes all the time.
    #[error("{0} must be between 100ms and 24h, not {1:?}")]
    Period(&'static str, Duration),
    /// Upstream's leases are counted in whole seconds.
    #[error("--node-lease-duration-seconds must be between 1 and 86400, not {0}")]
    LeaseDuration(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Config {
        Config::new("node-1", IpAddr::from([10, 0, 0, 1]), Path::new("/var/lib/x"))
    }

    #[test]
    fn defaults_are_valid() {
        assert_eq!(good().validate(), Ok(()));
    }

    #[test]
    fn each_mistake_is_named() {
        assert!(matches!(Config { node_name: "Node".into(), ..good() }.validate(), Err(ConfigError::NodeName(_))));
        assert!(matches!(Config { node_name: "-n".into(), ..good() }.validate(), Err(ConfigError::NodeName(_))));
        let node_ip = IpAddr::from([0, 0, 0, 0]);
        assert!(matches!(Config { node_ip, ..good() }.validate(), Err(ConfigError::NodeIp(_))));
        let data_dir = PathBuf::from("x");
        assert!(matches!(Config { data_dir, ..good() }.validate(), Err(ConfigError::Relative(..))));
        let bad = Config { status_update_frequency: Duration::ZERO, ..good() };
        assert!(matches!(bad.validate(), Err(ConfigError::Period("--node-status-update-frequency", _))));
        assert!(Config { lease_duration_seconds: 0, ..good() }.validate().is_err());
        let labels = [("node-role.kubernetes.io/worker".to_owned(), String::new())].into();
        assert!(matches!(Config { labels, ..good() }.validate(), Err(ConfigError::Labels(_))));
        for root in ["/", "x", "/a/../b", "/a//b", "/a/"] {
            let bad = Config { cgroup_root: root.into(), ..good() };
            assert!(matches!(bad.validate(), Err(ConfigError::CgroupRoot(_))), "{root}");
        }
    }
}
