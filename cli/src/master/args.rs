//! Arguments of `trireme master`, and the configurations of the crates made from them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::ctl::time::duration;
use crate::joining::JoinArgs;

/// Where a master keeps its data unless it is told otherwise.
pub const DATA_DIR: &str = "/var/lib/trireme/master";

/// Port of the API and of joins.
pub const API_PORT: u16 = 6443;

/// What else `trireme master` does.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Remove everything that a master has left on this machine; takes it out of its cluster first, if that can be reached.
    Reset(crate::reset::MasterArgs),
}

/// `trireme master`
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Found a new cluster with this machine as its first master.
    #[arg(long, conflicts_with = "join")]
    pub init: bool,
    #[command(flatten)]
    pub join: JoinArgs,
    /// Where this master keeps its keys and its replica of the state.
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Address (and port, default 6443) under which the other machines reach this master.
    #[arg(long, value_name = "IP[:PORT]", default_value = "", hide_default_value = true)]
    pub advertise: String,
    /// Name of this master, unique in the cluster [default: the host name].
    #[arg(long)]
    pub name: Option<String>,
    /// Address to listen on [default: all addresses].
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub listen: IpAddr,
    /// Port for the traffic among masters.
    #[arg(long, value_name = "PORT", default_value_t = 2380)]
    pub peer_port: u16,
    /// Addresses for Services.
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/16")]
    pub service_cidr: String,
    /// Addresses for pods; each node gets a /24 of it.
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16")]
    pub cluster_cidr: String,
    /// DNS domain of the cluster.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Record every request in this file, one audit.k8s.io/v1 Event of level Metadata a line; "-" is standard output.
    #[arg(long, value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,
    /// MiB at which the audit log is put aside and begun anew; 0: never.
    #[arg(long, value_name = "MIB", default_value_t = 100)]
    pub audit_log_maxsize: u32,
    /// How many audit logs put aside are kept; 0: all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub audit_log_maxbackup: usize,
    /// How long Events are kept; give all masters the same.
    #[arg(long, value_name = "DURATION", default_value = "1h0m0s", value_parser = duration)]
    pub event_ttl: Duration,
    /// How long certificates are valid that this master signs, its own and those of nodes. They are renewed in time.
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = duration)]
    pub cluster_signing_duration: Duration,
    /// Versions and resources of the API that are served or not, as GROUP/VERSION=true, GROUP/VERSION/RESOURCE=false, and
    /// api/all, api/ga, api/beta, api/alpha for many at once; give all masters the same [default: everything stable].
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub runtime_config: Vec<String>,
    /// Who issues the tokens of service accounts [default: https://kubernetes.default.svc.DOMAIN]; give all masters the same.
    #[arg(long, value_name = "URL")]
    pub service_account_issuer: Option<String>,
    /// Audiences of which a token has to name one to be taken [default: the issuer].
    #[arg(long, value_name = "AUDIENCE", value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    /// Longest life of a token of a service account; 0: as long as asked for.
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = duration)]
    pub service_account_max_token_expiration: Duration,
    /// With --join: stay without a vote until `trireme member promote`.
    #[arg(long, requires = "join")]
    pub learner: bool,
    /// With --join: take the place of a dead master of the same name.
    #[arg(long, requires = "join")]
    pub replace: bool,
    /// After how long without a sign of life a master is removed for good, if a quorum is left; 0: never. Give all masters
    /// the same.
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = duration)]
    pub remove_dead_masters_after: Duration,
    /// How long former states are kept, for watches to resume and lists to go on; the leader's counts.
    #[arg(long, alias = "etcd-compaction-interval", value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub auto_compaction_retention: Duration,
    /// MiB of former states that are kept at most, however young they are; the leader's counts.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub auto_compaction_max_size: u64,
    /// Recover from the loss of a majority of the masters with what this one has, and end: it becomes the only master of a
    /// new lineage. Refused while a quorum can be reached. Start it without this afterwards; the others join anew.
    #[arg(long, conflicts_with_all = ["init", "join"])]
    pub recover: bool,
    /// With --recover: although a quorum answers, or another master has newer data.
    #[arg(long, requires = "recover")]
    pub force: bool,
    /// Snapshots by schedule.
    #[command(flatten)]
    pub backups: super::backups::BackupArgs,
    /// How nodes that are lost are dealt with.
    #[command(flatten)]
    pub losses: Losses,
}

/// What happens about nodes that are silent or not ready; give all masters the same, since any of them may lead.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Lost nodes")]
pub struct Losses {
    /// How long a node may be silent before it counts as unreachable; several times what agents have as
    /// --node-status-update-frequency.
    #[arg(long, value_name = "DURATION", default_value = "40s", value_parser = duration)]
    pub node_monitor_grace_period: Duration,
    /// How long new pods stay on a node that is not ready, unless they tolerate that themselves.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub default_not_ready_toleration_seconds: u32,
    /// How long new pods stay on an unreachable node, unless they tolerate that themselves.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub default_unreachable_toleration_seconds: u32,
    /// Nodes of a zone that may begin to lose their pods per second.
    #[arg(long, value_name = "RATE", default_value_t = 0.1)]
    pub node_eviction_rate: f64,
    /// The same, while most of a large zone is lost; in a small zone none does then.
    #[arg(long, value_name = "RATE", default_value_t = 0.01)]
    pub secondary_node_eviction_rate: f64,
    /// Share of a zone's nodes that must be lost, and at least three, for that.
    #[arg(long, value_name = "SHARE", default_value_t = 0.55)]
    pub unhealthy_zone_threshold: f64,
    /// Zones with more nodes than this are large.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub large_cluster_size_threshold: usize,
    /// How many pods that have ended are kept before the oldest are deleted; 0 keeps all.
    #[arg(long, value_name = "N", default_value_t = 12_500)]
    pub terminated_pod_gc_threshold: usize,
}

/// The name of a master, which is the host's if none is given.
///
/// # Errors
/// When it is not a valid object name.
pub fn master_name(given: Option<&str>) -> anyhow::Result<String> {
    let name = given.map_or_else(crate::host_name, |name| Ok(name.to_owned()))?;
    match trireme_api::names::dns1123_subdomain(&name).into_iter().next() {
        Some(problem) => bail!("the name {name:?} cannot be used: {problem}"),
        None => Ok(name),
    }
}

impl Args {
    /// Checks what clap cannot.
    ///
    /// # Errors
    /// The first thing that is wrong, in words for the person who typed it.
    pub fn validate(&self) -> anyhow::Result<()> {
        self.advertise()?;
        if self.cluster_signing_duration < Duration::from_secs(10) {
            bail!("--cluster-signing-duration: less than 10s cannot be renewed in time");
        }
        for (flag, cidr) in [("--service-cidr", &self.service_cidr), ("--cluster-cidr", &self.cluster_cidr)] {
            let parsed = cidr
                .split_once('/')
                .and_then(|(ip, len)| Some((ip.parse::<Ipv4Addr>().ok()?, len.parse::<u8>().ok()?)));
            if !matches!(parsed, Some((_, 8..=24))) {
                bail!("{flag} {cidr:?} is not an IPv4 network such as 10.96.0.0/16 with a prefix of 8 to 24 bits");
            }
        }
        self.name()?;
        self.backups.schedule()?;
        if self.auto_compaction_retention < Duration::from_secs(10) || self.auto_compaction_max_size < 16 {
            bail!(
                "--auto-compaction-retention, --auto-compaction-max-size: at least 10s and 16 MiB are needed to page through lists"
            );
        }
        let after = self.remove_dead_masters_after;
        if !after.is_zero() && after < Duration::from_secs(10) {
            bail!("--remove-dead-masters-after: less than 10s is no time to be sure; a restart takes longer");
        }
        self.apiserver_config()?;
        self.controllers_config("").map(drop)
    }

    /// Address and port of this master's API, as others see it.
    ///
    /// # Errors
    /// When `--advertise` is neither `IP` nor `IP:PORT`, or is an address nobody else can reach.
    pub fn advertise(&self) -> anyhow::Result<SocketAddr> {
        if self.advertise.is_empty() {
            bail!("give the address that other machines reach this one at: --advertise IP");
        }
        let address = self
            .advertise
            .parse::<SocketAddr>()
            .or_else(|_| self.advertise.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, API_PORT)))
            .with_context(|| format!("--advertise {:?} is not an address such as 10.0.0.11", self.advertise))?;
        if address.ip().is_unspecified() {
            bail!("--advertise {address}: give the address that other machines reach this one at");
        }
        Ok(address)
    }

    /// Name of this master.
    ///
    /// # Errors
    /// When the name, or the host's name in its place, is not a valid object name.
    pub fn name(&self) -> anyhow::Result<String> {
        master_name(self.name.as_deref())
    }

    /// Where the API listens.
    pub fn listen_api(&self, advertise: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.listen, advertise.port())
    }

    /// Where the peers' server listens.
    pub fn listen_peer(&self) -> SocketAddr {
        SocketAddr::new(self.listen, self.peer_port)
    }
}

impl Args {
    /// Configuration of the API server.
    ///
    /// # Errors
    /// When a value does not fit.
    pub fn apiserver_config(&self) -> anyhow::Result<trireme_apiserver::Config> {
        let advertise = self.advertise()?;
        let mut config = trireme_apiserver::Config::new(self.listen_api(advertise), format!("https://{advertise}"));
        config.service_cidr = self.service_cidr.clone();
        config.pod_cidr = self.cluster_cidr.clone();
        config.cluster_domain = self.cluster_domain.clone();
        config.default_not_ready_toleration_seconds = self.losses.default_not_ready_toleration_seconds;
        config.default_unreachable_toleration_seconds = self.losses.default_unreachable_toleration_seconds;
        config.event_ttl = self.event_ttl;
        let chosen = trireme_api::catalogue::RuntimeConfig::parse(self.runtime_config.iter().map(String::as_str));
        config.runtime_config = chosen.context("--runtime-config")?;
        trireme_api::Catalogue::chosen(&config.runtime_config).context("--runtime-config")?;
        config.service_account_issuer = self.service_account_issuer.clone();
        config.api_audiences = self.api_audiences.clone();
        let life = self.service_account_max_token_expiration;
        config.max_token_life = Some(life).filter(|life| !life.is_zero());
        config.audit = self.audit_log_path.clone().map(|path| trireme_apiserver::AuditConfig {
            path,
            max_size: self.audit_log_maxsize.into(),
            max_backups: self.audit_log_maxbackup,
        });
        config.validate()?;
        Ok(config)
    }

    /// Configuration of the controllers.
    ///
    /// # Errors
    /// When a value does not fit.
    pub fn controllers_config(&self, root_ca_pem: &str) -> anyhow::Result<trireme_controllers::Config> {
        let config = trireme_controllers::Config {
            cluster_cidr: self.cluster_cidr.clone(),
            root_ca_pem: root_ca_pem.to_owned(),
            node_monitor_grace_period: self.losses.node_monitor_grace_period,
            node_eviction_rate: self.losses.node_eviction_rate,
            secondary_node_eviction_rate: self.losses.secondary_node_eviction_rate,
            unhealthy_zone_threshold: self.losses.unhealthy_zone_threshold,
            large_zone: self.losses.large_cluster_size_threshold,
            terminated_pod_threshold: self.losses.terminated_pod_gc_threshold,
            ..Default::default()
        };
        config.validate()?;
        Ok(config)
    }
}
