//! `trireme node`: the agent of one machine.

mod renewal;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use trireme_apiserver::pki::CertificateInfo;
use trireme_client::masters::{self, MastersConfig};
use trireme_client::tls::Identity;
use trireme_nodeagent::{AgentTls, NodeCertificate};

use renewal::Renewal;

use crate::ctl::time::duration;
use crate::joining::{self, Fresh, JoinArgs, JoinToken, NodeJoin};
use crate::terminate;

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Stop all pods and remove everything that the agent has left on this machine.
    Reset(crate::reset::NodeArgs),
}

/// `trireme node`
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    join: JoinArgs,
    /// Where this node keeps its certificate, images and pods.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/trireme/node")]
    data_dir: PathBuf,
    /// Address of this machine that masters and other nodes reach [default: that of the route to the master].
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Name of the node [default: the host name].
    #[arg(long)]
    name: Option<String>,
    /// Folder of OCI or docker image archives that are imported at start.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Cgroup below which all of this node's pods live.
    #[arg(long, value_name = "PATH")]
    cgroup_root: Option<String>,
    /// Labels of the Node object, KEY=VALUE.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// How many pods may run here.
    #[arg(long, value_name = "N", default_value_t = 110)]
    max_pods: u32,
    /// Percent of the disk in use from which on unused images are removed; 100 never.
    #[arg(long, value_name = "PERCENT", default_value_t = 85)]
    image_gc_high_threshold: u8,
    /// Percent of the disk in use down to which they are.
    #[arg(long, value_name = "PERCENT", default_value_t = 80)]
    image_gc_low_threshold: u8,
    /// Younger images are not removed.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    minimum_image_ttl_duration: Duration,
    /// Port of the agent's HTTPS server.
    #[arg(long, value_name = "PORT", default_value_t = 10250)]
    port: u16,
    /// How often it is looked whether the node's status has changed.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    node_status_update_frequency: Duration,
    /// How often the status is told although nothing changed.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    node_status_report_frequency: Duration,
    /// How long the node's lease holds; the agent renews it four times as often.
    #[arg(long, value_name = "SECONDS", default_value_t = 40)]
    node_lease_duration_seconds: u32,
}

const CA: &str = "pki/ca.crt";
const CERT: &str = "pki/node.crt";
const KEY: &str = "pki/node.key";
const MASTERS: &str = "masters.json";

/// Runs the agent until it is told to stop. Containers go on running.
///
/// # Errors
/// When the arguments do not fit, the join is refused, or the agent cannot work on this machine.
pub async fn run(args: Args) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("trireme node runs containers and needs root; try: sudo trireme node …");
    }
    if let Some(Command::Reset(reset)) = args.command {
        return crate::reset::node(reset).await;
    }
    // What was typed is checked before anything is touched.
    let (member, joining) = args.entry()?;
    let fresh = Fresh::make(&args.data_dir)?;
    let data_dir = std::fs::canonicalize(&args.data_dir)?;
    let _lock = crate::master::lock(&data_dir)?;
    let ready = async {
        let (name, address) = (args.name()?, args.address(&data_dir).await?);
        // What cannot work is told before anything is joined.
        let agent = args.config(&name, address, &data_dir)?;
        drop(crate::master::bind(agent.listen).await?);
        if !member {
            join(joining, &data_dir, &name, address).await?;
        }
        anyhow::Ok(agent)
    };
    let agent = ready.await.inspect_err(|_| fresh.undo())?;
    remember_agent(&data_dir, &agent)?;
    let (cert_pem, key_pem) = (read(&data_dir, CERT)?, read(&data_dir, KEY)?);
    let certificate = NodeCertificate::new(&cert_pem, &key_pem).context("the node's certificate")?;
    let tls = AgentTls { ca_pem: read(&data_dir, CA)?, certificate: certificate.clone() };
    let urls: Vec<String> = serde_json::from_slice(&read(&data_dir, MASTERS)?)
        .with_context(|| format!("{} is damaged", data_dir.join(MASTERS).display()))?;

    let shutdown = CancellationToken::new();
    terminate::on_signal(shutdown.clone())?;
    let identity = Identity { cert_pem, key_pem: key_pem.clone() };
    let (client, known) = masters::connect(MastersConfig::new(urls, tls.ca_pem.clone(), Some(identity)))?;
    let renewal = Renewal {
        data_dir: data_dir.clone(),
        name: agent.node_name.clone(),
        address: agent.node_ip,
        certificate,
        key_pem,
        client: client.clone(),
        masters: known.clone(),
    };
    let renewing = tokio::spawn(renewal.run(shutdown.clone()));
    let following = tokio::spawn({
        let (client, data_dir) = (client.clone(), data_dir.clone());
        async move {
            let persist = |urls: &[String]| {
                if let Err(error) = remember_masters(&data_dir, urls) {
                    tracing::warn!(%error, "cannot remember the masters");
                }
            };
            known.follow(client, persist).await;
        }
    });
    let result = trireme_nodeagent::run(agent, client, tls, shutdown).await.context("the node agent failed");
    following.abort();
    renewing.abort();
    result
}

/// Asks to be let in and writes what came back; the key last, since its presence means that the join is complete.
async fn join(
    joining: Option<(String, JoinToken)>,
    data_dir: &Path,
    name: &str,
    address: IpAddr,
) -> anyhow::Result<()> {
    let Some((url, token)) = joining else {
        bail!(
            "{} holds no node yet: join a cluster with --join https://ADDRESS:6443 and a token in TRIREME_TOKEN or \
             --token-file",
            data_dir.display()
        );
    };
    // A node that joins again keeps its key, by which the cluster knows that the name is its own.
    let key_pem = read(data_dir, KEY).ok().and_then(|pem| String::from_utf8(pem).ok());
    let request = NodeJoin { url: url.clone(), token, name: name.to_owned(), address, key_pem };
    let joined = joining::join_node(&request).await?;
    std::fs::create_dir_all(data_dir.join("pki"))?;
    remember_masters(data_dir, &joined.masters)?;
    write(data_dir, CA, joined.ca_pem.as_bytes())?;
    write(data_dir, CERT, joined.cert_pem.as_bytes())?;
    write(data_dir, KEY, joined.key_pem.as_bytes())?;
    tracing::info!(name, master = url, "joined the cluster");
    Ok(())
}

/// Since when the node's certificate is not valid any more.
fn expired(data_dir: &Path) -> anyhow::Result<Option<String>> {
    let pem = String::from_utf8(read(data_dir, CERT)?).context("the node's certificate")?;
    let info = CertificateInfo::of_pem("node", &pem)?;
    let now = jiff::Timestamp::now();
    let until = jiff::Timestamp::from_second(info.not_after)?;
    Ok((until <= now).then(|| until.to_string()))
}

/// What `trireme node reset` has to know, for when it is given nothing but the data directory.
#[derive(Serialize, Deserialize)]
pub struct Remembered {
    /// Name of the node.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Cgroup of its pods.
    pub cgroup_root: String,
}

const REMEMBERED: &str = "node.json";

impl Remembered {
    /// What the agent left in its data directory.
    pub fn load(data_dir: &Path) -> Option<Remembered> {
        serde_json::from_slice(&read(data_dir, REMEMBERED).ok()?).ok()
    }
}

fn remember_agent(data_dir: &Path, agent: &trireme_nodeagent::Config) -> anyhow::Result<()> {
    let (name, cgroup_root) = (agent.node_name.clone(), agent.cgroup_root.clone());
    let known = Remembered { name, address: agent.node_ip, cgroup_root };
    write(data_dir, REMEMBERED, &serde_json::to_vec_pretty(&known)?)
}

impl Args {
    /// Whether this is a node that masters know, and if not, how it becomes one.
    fn entry(&self) -> anyhow::Result<(bool, Option<(String, JoinToken)>)> {
        let member = self.data_dir.join(KEY).exists();
        let expired = if member { expired(&self.data_dir)? } else { None };
        let Some(since) = expired else {
            if member && self.join.join.is_some() {
                tracing::info!(dir = %self.data_dir.display(), "this node has joined already; --join is ignored");
            }
            return Ok((member, if member { None } else { self.join.read()? }));
        };
        let joining = self.join.read()?;
        if joining.is_none() {
            bail!(
                "the certificate of this node has expired ({since}), so no master believes it any more: join again with \
                 --join https://ADDRESS:6443 and a token in TRIREME_TOKEN or --token-file; pods and images stay"
            );
        }
        Ok((false, joining))
    }

    /// The agent's configuration, checked.
    ///
    /// # Errors
    /// With the first value that does not fit.
    pub fn config(&self, name: &str, address: IpAddr, data_dir: &Path) -> anyhow::Result<trireme_nodeagent::Config> {
        let mut agent = trireme_nodeagent::Config::new(name, address, data_dir);
        agent.listen = SocketAddr::from(([0, 0, 0, 0], self.port));
        agent.max_pods = self.max_pods;
        agent.labels = labels(&self.labels)?;
        agent.status_update_frequency = self.node_status_update_frequency;
        agent.status_report_frequency = self.node_status_report_frequency;
        agent.lease_duration_seconds = self.node_lease_duration_seconds;
        agent.image_gc.high_threshold_percent = self.image_gc_high_threshold;
        agent.image_gc.low_threshold_percent = self.image_gc_low_threshold;
        agent.image_gc.minimum_age = self.minimum_image_ttl_duration;
        if let Some(images) = &self.images {
            agent.images_dir = std::path::absolute(images)?;
        }
        if let Some(root) = &self.cgroup_root {
            agent.cgroup_root = root.clone();
        }
        agent.validate()?;
        Ok(agent)
    }

    fn name(&self) -> anyhow::Result<String> {
        match &self.name {
            Some(name) => Ok(name.clone()),
            None => crate::host_name(),
        }
    }

    /// The given address, or the one this machine uses on the way to a master.
    async fn address(&self, data_dir: &Path) -> anyhow::Result<IpAddr> {
        if let Some(address) = self.address {
            return Ok(address);
        }
        let url = match &self.join.join {
            Some(url) => url.clone(),
            None => {
                let known: Vec<String> = serde_json::from_slice(&read(data_dir, MASTERS)?)?;
                known.into_iter().next().context("no master is known; give --address")?
            }
        };
        let uri: http::Uri = url.parse().with_context(|| format!("--join {url:?} is not a URL"))?;
        let host = uri.host().with_context(|| format!("--join {url:?} names no host"))?;
        let target = tokio::net::lookup_host((host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(6443)))
            .await
            .with_context(|| format!("cannot resolve {host}"))?
            .next()
            .with_context(|| format!("{host} has no address"))?;
        // Connecting a datagram socket sends nothing; it makes the kernel choose the source address.
        let probe = tokio::net::UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
        probe.connect(target).await.with_context(|| format!("there is no route to {target}"))?;
        Ok(probe.local_addr()?.ip())
    }
}

fn labels(pairs: &[String]) -> anyhow::Result<std::collections::BTreeMap<String, String>> {
    pairs
        .iter()
        .map(|pair| {
            let (key, value) =
                pair.split_once('=').with_context(|| format!("--label {pair:?} is not of the form KEY=VALUE"))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

fn remember_masters(data_dir: &Path, urls: &[String]) -> anyhow::Result<()> {
    write(data_dir, MASTERS, &serde_json::to_vec_pretty(urls)?)
}

fn read(data_dir: &Path, file: &str) -> anyhow::Result<Vec<u8>> {
    let path = data_dir.join(file);
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Replaces a file whole, readable by root alone, on disk before it is visible.
fn write(data_dir: &Path, file: &str, content: &[u8]) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let path = data_dir.join(file);
    let folder = path.parent().unwrap_or(data_dir);
    let mut temporary =
        tempfile::NamedTempFile::new_in(folder).with_context(|| format!("cannot write into {}", folder.display()))?;
    temporary.as_file().set_permissions(std::fs::Permissions::from_mode(0o600))?;
    temporary.write_all(content)?;
    temporary.as_file().sync_all()?;
    temporary.persist(&path).with_context(|| format!("cannot write {}", path.display()))?;
    std::fs::File::open(folder)?.sync_all()?;
    Ok(())
}
