//! What an API server has to be told.

use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use trireme_api::catalogue::RuntimeConfig;

use crate::audit::AuditConfig;
use crate::error::ServerError;

/// An IPv4 network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: u32,
    prefix: u8,
}

impl Cidr {
    /// Number of addresses, the network and broadcast address included.
    pub fn size(&self) -> u64 {
        1u64 << (32 - u32::from(self.prefix))
    }

    /// The `n`-th address, counted from the network address.
    pub fn nth(&self, n: u64) -> Option<Ipv4Addr> {
        (n < self.size()).then(|| Ipv4Addr::from(self.base + n as u32))
    }

    /// Whether the address is part of the network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.base);
        u32::from(address) >= self.base && u64::from(offset) < self.size()
    }
}

impl FromStr for Cidr {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ServerError::Config(format!("{text:?} is not an IPv4 CIDR such as 10.96.0.0/16"));
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if !(1..=30).contains(&prefix) {
            return Err(bad());
        }
        let mask = u32::MAX << (32 - u32::from(prefix));
        Ok(Self { base: u32::from(address) & mask, prefix })
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

/// Bounds of everything that a client could make grow.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections open at the same time.
    pub connections: usize,
    /// Requests in work at the same time, long-running ones not counted.
    pub in_flight: usize,
    /// Watches, log streams and sessions at the same time.
    pub long_running: usize,
    /// Bytes of a request body.
    pub body_bytes: usize,
    /// Time for a request that is not long-running.
    pub request_timeout: Duration,
    /// How long a client may take nothing of a list that is sent to it.
    pub list_stall: Duration,
    /// Changes of one kind that are kept to resume watches from.
    pub window_events: usize,
    /// Bytes of them, about.
    pub window_bytes: usize,
    /// Changes of one kind that a watcher may be behind before it is cut.
    pub watcher_backlog: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            in_flight: 600,
            long_running: 20_000,
            body_bytes: 3 * 1024 * 1024,
            request_timeout: Duration::from_secs(60),
            list_stall: Duration::from_secs(30),
            window_events: 2048,
            window_bytes: 4 << 20,
            watcher_backlog: 1024,
        }
    }
}

/// Configuration of an API server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address the server listens on; the caller binds it.
    pub listen: SocketAddr,
    /// URL under which clients reach this server, for example `https://10.0.0.1:6443`.
    pub advertise_url: String,
    /// Network that ClusterIPs come from.
    pub service_cidr: String,
    /// Network that nodes' pod ranges come from.
    pub pod_cidr: String,
    /// DNS domain of the cluster.
    pub cluster_domain: String,
    /// Seconds that new pods stay on a node that is not ready, unless they say so themselves.
    pub default_not_ready_toleration_seconds: u32,
    /// Seconds that new pods stay on an unreachable node, unless they say so themselves.
    pub default_unreachable_toleration_seconds: u32,
    /// Versions and resources that are served beside the stable ones, or are not.
    pub runtime_config: RuntimeConfig,
    /// Who issues tokens of service accounts; `https://kubernetes.default.svc.<domain>` unless given.
    pub service_account_issuer: Option<String>,
    /// Audiences of which a token has to name one to be taken here; the issuer unless given.
    pub api_audiences: Vec<String>,
    /// Longest life of a token; what asks for more gets this.
    pub max_token_life: Option<Duration>,
    /// What `/version` answers as `gitVersion`.
    pub version: String,
    /// How long Events are kept.
    pub event_ttl: Duration,
    /// Where requests are recorded, if anywhere.
    pub audit: Option<AuditConfig>,
    /// Bounds.
    pub limits: Limits,
    /// How often an idle watch with bookmarks gets one.
    pub bookmark_interval: Duration,
}

impl Config {
    /// Defaults around the two values that differ for each server.
    pub fn new(listen: SocketAddr, advertise_url: impl Into<String>) -> Self {
        Self {
            listen,
            advertise_url: advertise_url.into(),
            service_cidr: "10.96.0.0/16".into(),
            pod_cidr: "10.244.0.0/16".into(),
            cluster_domain: "cluster.local".into(),
            default_not_ready_toleration_seconds: 300,
            default_unreachable_toleration_seconds: 300,
            runtime_config: RuntimeConfig::default(),
            service_account_issuer: None,
            api_audiences: Vec::new(),
            max_token_life: None,
            version: concat!("v1.36.0+trireme", env!("CARGO_PKG_VERSION")).into(),
            event_ttl: Duration::from_secs(3600),
            audit: None,
            limits: Limits::default(),
            bookmark_interval: Duration::from_secs(60),
        }
    }

    /// Refuses what could not work.
    pub fn validate(&self) -> Result<(), ServerError> {
        self.service_cidr.parse::<Cidr>()?;
        self.pod_cidr.parse::<Cidr>()?;
        if !self.advertise_url.starts_with("https://") {
            return Err(ServerError::Config(format!(
                "advertise_url {:?} must begin with https://",
                self.advertise_url
            )));
        }
        if self.max_token_life.is_some_and(|life| life < Duration::from_secs(3600)) {
            return Err(ServerError::Config("service-account-max-token-expiration must be at least an hour".into()));
        }
        if self.service_account_issuer.as_deref().is_some_and(|issuer| issuer.is_empty() || issuer.contains(' ')) {
            return Err(ServerError::Config("service-account-issuer must be a name or a URL without spaces".into()));
        }
        if self.event_ttl < Duration::from_secs(1) {
            return Err(ServerError::Config("event-ttl must be at least a second".into()));
        }
        let limits = &self.limits;
        if limits.connections == 0 || limits.in_flight == 0 || limits.long_running == 0 || limits.body_bytes == 0 {
            return Err(ServerError::Config("limits must be greater than zero".into()));
        }
        if limits.window_events == 0 || limits.window_bytes == 0 || limits.watcher_backlog == 0 {
            return Err(ServerError::Config(
                "window_events, window_bytes and watcher_backlog must be greater than zero".into(),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn cidr_arithmetic() {
        let cidr: Cidr = "10.96.0.7/16".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.96.0.0/16");
        assert_eq!(cidr.nth(1), Some(Ipv4Addr::new(10, 96, 0, 1)));
        assert_eq!(cidr.size(), 65536);
        assert!(cidr.nth(65536).is_none());
        assert!(cidr.contains(Ipv4Addr::new(10, 96, 255, 255)));
        assert!(!cidr.contains(Ipv4Addr::new(10, 97, 0, 0)));
        for bad in ["10.96.0.0", "x/16", "10.0.0.0/33", "10.0.0.0/0"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
