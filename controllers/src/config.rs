//! What the controllers can be told.

use std::net::Ipv4Addr;
use std::time::Duration;

use thiserror::Error;

use crate::metrics::Metrics;

/// The controllers' settings. The defaults are upstream's.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where nodes' pod address ranges are taken from, for example `10.244.0.0/16`.
    pub cluster_cidr: String,
    /// The size of each node's range, as a prefix length.
    pub node_cidr_mask_size: u8,
    /// PEM of the cluster's CA, published to every namespace as `kube-root-ca.crt`; empty publishes nothing.
    pub root_ca_pem: String,
    /// How long a node may be silent before it counts as unreachable.
    pub node_monitor_grace_period: Duration,
    /// How many nodes of a zone may begin to lose their pods per second.
    pub node_eviction_rate: f64,
    /// The same, in a large zone most of which is lost.
    pub secondary_node_eviction_rate: f64,
    /// The share of lost nodes from which on a zone counts as mostly lost.
    pub unhealthy_zone_threshold: f64,
    /// Zones with more nodes than this are large.
    pub large_zone: usize,
    /// How often every object is looked at again although nothing changed.
    pub resync_period: Duration,
    /// How many keys of one controller may be worked on at the same time.
    pub concurrency: usize,
    /// How many pods that have ended may stay around before the oldest are deleted.
    pub terminated_pod_threshold: usize,
    /// Where the queues' metrics are kept.
    pub metrics: Metrics,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster_cidr: "10.244.0.0/16".to_owned(),
            node_cidr_mask_size: 24,
            root_ca_pem: String::new(),
            node_monitor_grace_period: Duration::from_secs(40),
            node_eviction_rate: 0.1,
            secondary_node_eviction_rate: 0.01,
            unhealthy_zone_threshold: 0.55,
            large_zone: 50,
            resync_period: Duration::from_secs(600),
            concurrency: 8,
            terminated_pod_threshold: 12_500,
            metrics: Metrics::default(),
        }
    }
}

/// Why settings cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The cluster's range is no IPv4 network.
    #[error("cluster CIDR {0:?} is not an IPv4 network such as 10.244.0.0/16")]
    ClusterCidr(String),
    /// The nodes' ranges do not fit into the cluster's.
    #[error("node CIDR mask size {node} must be between the cluster CIDR's {cluster} and 30")]
    NodeMask {
        /// The nodes' prefix length.
        node: u8,
        /// The cluster's prefix length.
        cluster: u8,
    },
    /// Something that must be positive is zero.
    #[error("{0} must be greater than zero")]
    Zero(&'static str),
    /// A number that has to lie in a range does not.
    #[error("{what} must be between {least} and {most}, not {given}")]
    Range {
        /// The setting.
        what: &'static str,
        /// The smallest possible value.
        least: &'static str,
        /// The greatest possible value.
        most: &'static str,
        /// What was given.
        given: String,
    },
}

impl Config {
    /// Checks that the settings make sense.
    ///
    /// # Errors
    /// Tells the first setting that does not.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let (_, prefix) = self.network()?;
        if self.node_cidr_mask_size < prefix || self.node_cidr_mask_size > 30 {
            return Err(ConfigError::NodeMask { node: self.node_cidr_mask_size, cluster: prefix });
        }
        if self.concurrency == 0 {
            return Err(ConfigError::Zero("concurrency"));
        }
        let grace = self.node_monitor_grace_period;
        if !(Duration::from_secs(1)..=Duration::from_secs(24 * 3600)).contains(&grace) {
            let (what, given) = ("--node-monitor-grace-period", format!("{grace:?}"));
            return Err(ConfigError::Range { what, least: "1s", most: "24h", given });
        }
        for (what, rate, most) in [
            ("--node-eviction-rate", self.node_eviction_rate, ("1000", 1000.0)),
            ("--secondary-node-eviction-rate", self.secondary_node_eviction_rate, ("1000", 1000.0)),
            ("--unhealthy-zone-threshold", self.unhealthy_zone_threshold, ("1", 1.0)),
        ] {
            if !(0.0..=most.1).contains(&rate) {
                return Err(ConfigError::Range { what, least: "0", most: most.0, given: rate.to_string() });
            }
        }
        if self.resync_period.is_zero() {
            return Err(ConfigError::Zero("resync period"));
        }
        Ok(())
    }

    /// The cluster's range: its first address and prefix length.
    pub(crate) fn network(&self) -> Result<(Ipv4Addr, u8), ConfigError> {
        parse_network(&self.cluster_cidr).ok_or_else(|| ConfigError::ClusterCidr(self.cluster_cidr.clone()))
    }
}

/// An IPv4 network in CIDR form, with the host bits cleared.
pub(crate) fn parse_network(cidr: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = cidr.split_once('/')?;
    let (address, prefix): (Ipv4Addr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
    if prefix > 32 {
        return None;
    }
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    Some((Ipv4Addr::from(u32::from(address) & mask), prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validates() {
        assert_eq!(Config::default().validate(), Ok(()));
        let bad = Config { cluster_cidr: "10.244.0.0".to_owned(), ..Config::default() };
        assert_eq!(bad.validate(), Err(ConfigError::ClusterCidr("10.244.0.0".to_owned())));
        let bad = Config { node_cidr_mask_size: 8, ..Config::default() };
        assert_eq!(bad.validate(), Err(ConfigError::NodeMask { node: 8, cluster: 16 }));
        let bad = Config { concurrency: 0, ..Config::default() };
        assert_eq!(bad.validate(), Err(ConfigError::Zero("concurrency")));
        for (bad, said) in [
            (
                Config { node_monitor_grace_period: Duration::from_millis(10), ..Config::default() },
                "--node-monitor-grace-period must be between 1s and 24h, not 10ms",
            ),
            (
                Config { unhealthy_zone_threshold: 1.5, ..Config::default() },
                "--unhealthy-zone-threshold must be between 0 and 1, not 1.5",
            ),
            (
                Config { node_eviction_rate: f64::NAN, ..Config::default() },
                "--node-eviction-rate must be between 0 and 1000, not NaN",
            ),
        ] {
            assert_eq!(bad.validate().map_err(|error| error.to_string()), Err(said.to_owned()));
        }
    }
}
