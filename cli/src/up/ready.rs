//! Waiting until hosts are ready, by asking them; a process that ends meanwhile ends the wait.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http::Request;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use trireme_apiserver::pki::Pki;
use trireme_client::masters::{self, MastersConfig};
use trireme_client::tls::{CaPin, Identity};

use super::layout::{Host, Kind};
use super::process::log_tail;
use super::progress::Progress;
use crate::admin::member;

const PAUSE: Duration = Duration::from_millis(40);
/// A line tells what is still missing this often.
const REMINDER: Duration = Duration::from_secs(5);

/// An administrator's access, straight from a master's key folder.
pub struct Access {
    /// Certificate of the cluster's authority.
    pub ca_pem: String,
    /// Administrator's certificate.
    pub cert_pem: String,
    /// Administrator's key.
    pub key_pem: String,
}

impl Access {
    /// From the key folder of a master.
    pub fn of_master(host: &Host) -> anyhow::Result<Access> {
        let pki = Pki::load(&host.data().join(trireme_apiserver::pki::DIRECTORY))?;
        let admin = pki.admin().clone();
        Ok(Access { ca_pem: pki.ca_pem().to_owned(), cert_pem: admin.cert_pem, key_pem: admin.key_pem })
    }

    /// A client of these masters.
    pub fn client(&self, urls: Vec<String>) -> anyhow::Result<kube::Client> {
        let identity =
            Identity { cert_pem: self.cert_pem.clone().into_bytes(), key_pem: self.key_pem.clone().into_bytes() };
        let mut config = MastersConfig::new(urls, self.ca_pem.clone().into_bytes(), Some(identity));
        // The caller asks again by itself, and wants to say meanwhile what it waits for.
        config.timing.dial = Duration::from_secs(1);
        config.timing.patience = Duration::from_millis(200);
        Ok(masters::connect(config)?.0)
    }

    /// Hash of the authority.
    pub fn pin(&self) -> anyhow::Result<CaPin> {
        Ok(CaPin::of_pem(self.ca_pem.as_bytes())?)
    }
}

/// Processes that this run started; watched while waiting.
#[derive(Default)]
pub struct Started {
    children: Vec<(Host, Child)>,
}

impl Started {
    /// Watches one more.
    pub fn push(&mut self, host: &Host, child: Child) {
        self.children.push((host.clone(), child));
    }

    /// Whether this run started the host's process.
    pub fn contains(&self, host: &Host) -> bool {
        self.children.iter().any(|(other, _)| other.name == host.name)
    }

    /// Fails when one has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        for (host, child) in &mut self.children {
            if let Some(status) = child.try_wait()? {
                bail!(
                    "{} ended ({status}); the end of its log {}:\n{}run \"trireme up\" again once that is mended",
                    host.name,
                    host.log().display(),
                    log_tail(host, 15)
                );
            }
        }
        Ok(())
    }
}

/// Waits until one of the masters serves; its URL.
pub async fn any_master(
    access: impl Fn() -> Option<Access>,
    hosts: &[Host],
    started: &mut Started,
    deadline: Instant,
) -> anyhow::Result<(Access, String)> {
    let mut clients: Option<Vec<(String, kube::Client)>> = None;
    loop {
        started.check()?;
        if clients.is_none()
            && let Some(access) = access()
        {
            let each = hosts.iter().map(|host| Ok((host.url(), access.client(vec![host.url()])?)));
            clients = Some(each.collect::<anyhow::Result<_>>()?);
        }
        for (url, client) in clients.iter().flatten() {
            if serving(client).await.is_ok() {
                let access = access().context("the administrator's key has disappeared")?;
                return Ok((access, url.clone()));
            }
        }
        if Instant::now() > deadline {
            let logs: Vec<String> = hosts.iter().map(|host| host.log().display().to_string()).collect();
            bail!(
                "no master became ready in time; a majority of the masters has to run. The logs: {}",
                logs.join(", ")
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether a master answers and has a quorum.
pub async fn serving(client: &kube::Client) -> anyhow::Result<()> {
    let request = client.request_text(Request::get("/readyz").body(Vec::new())?);
    let text = tokio::time::timeout(Duration::from_secs(2), request).await.context("no answer within 2 s")??;
    anyhow::ensure!(text.trim() == "ok", "readyz says: {}", text.trim());
    Ok(())
}

/// A client of each master, to be asked again and again.
pub struct Probe<'a> {
    hosts: &'a [Host],
    masters: Vec<(&'a Host, kube::Client)>,
}

impl<'a> Probe<'a> {
    /// Nothing is asked yet.
    pub fn new(access: &Access, hosts: &'a [Host]) -> anyhow::Result<Probe<'a>> {
        let masters = hosts.iter().filter(|host| host.kind == Kind::Master);
        let masters = masters.map(|host| Ok((host, access.client(vec![host.url()])?)));
        Ok(Probe { hosts, masters: masters.collect::<anyhow::Result<_>>()? })
    }

    /// What is not ready yet, one line each; empty when all is well.
    pub async fn missing(&self) -> anyhow::Result<Vec<String>> {
        let mut missing = Vec::new();
        let mut up = None;
        for (host, client) in &self.masters {
            match serving(client).await {
                Ok(()) => up = up.or(Some(client)),
                Err(error) => missing.push(format!("{} ({})", host.name, short(&error))),
            }
        }
        let Some(client) = up else {
            let nodes = self.hosts.iter().filter(|host| host.kind == Kind::Node);
            missing.extend(nodes.map(|host| format!("{} (no master)", host.name)));
            return Ok(missing);
        };
        missing.extend(missing_members(client, &self.masters).await);
        missing.extend(missing_nodes(client, self.hosts).await?);
        Ok(missing)
    }
}

async fn missing_members(client: &kube::Client, masters: &[(&Host, kube::Client)]) -> Vec<String> {
    let mut missing = Vec::new();
    match member::list(client).await {
        Ok(members) => {
            for (host, _) in masters {
                match members.iter().find(|member| member.name == host.name) {
                    None => missing.push(format!("{} (not a member yet)", host.name)),
                    Some(member) if member.role == "learner" => {
                        missing.push(format!("{} (catching up)", host.name));
                    }
                    Some(_) => {}
                }
            }
        }
        Err(error) => missing.push(format!("members ({})", short(&error))),
    }
    missing
}

async fn missing_nodes(client: &kube::Client, hosts: &[Host]) -> anyhow::Result<Vec<String>> {
    let mut missing = Vec::new();
    let nodes: Api<Node> = Api::all(client.clone());
    let list = match nodes.list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(error) => return Ok(vec![format!("nodes ({})", short(&error.into()))]),
    };
    for host in hosts.iter().filter(|host| host.kind == Kind::Node) {
        let node = list.iter().find(|node| node.metadata.name.as_deref() == Some(&host.name));
        let conditions = node.and_then(|n| n.status.as_ref()).and_then(|s| s.conditions.as_ref());
        let condition = conditions.into_iter().flatten().find(|c| c.type_ == "Ready");
        match (node, condition) {
            (None, _) => missing.push(format!("{} (not registered yet)", host.name)),
            (_, Some(c)) if c.status == "True" => {
                // The condition outlives an agent that has died for a while; the agent's own port does not.
                if !listening(host.ip, 10250).await {
                    missing.push(format!("{} (its agent does not listen)", host.name));
                }
            }
            (_, Some(c)) => {
                let why = c.message.as_deref().or(c.reason.as_deref()).unwrap_or("not ready");
                missing.push(format!("{} ({why})", host.name));
            }
            (_, None) => missing.push(format!("{} (no status yet)", host.name)),
        }
    }
    Ok(missing)
}

async fn listening(ip: Ipv4Addr, port: u16) -> bool {
    let dial = tokio::net::TcpStream::connect(SocketAddr::from((ip, port)));
    tokio::time::timeout(Duration::from_secs(1), dial).await.is_ok_and(|result| result.is_ok())
}

/// Waits until everything is ready, telling now and then what is not.
pub async fn all(
    access: &Access,
    hosts: &[Host],
    started: &mut Started,
    deadline: Instant,
    progress: Progress,
) -> anyhow::Result<()> {
    let mut said = Instant::now();
    let mut settled: Vec<String> = Vec::new();
    let probe = Probe::new(access, hosts)?;
    loop {
        started.check()?;
        let missing = probe.missing().await?;
        for host in hosts {
            let open = missing.iter().any(|line| line.split(' ').next() == Some(&host.name));
            if !open && !settled.contains(&host.name) && started.contains(host) {
                progress.say(format_args!("{} is ready", host.name));
                settled.push(host.name.clone());
                said = Instant::now();
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "not ready in time: {}; what runs is left running. See the logs in {}, or remove everything with \
                 \"trireme down\"",
                missing.join(", "),
                hosts.first().and_then(|h| h.dir.parent()).unwrap_or(std::path::Path::new(".")).display()
            );
        }
        if said.elapsed() > REMINDER {
            progress.say(format_args!("waiting for {}", missing.join(", ")));
            said = Instant::now();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The first line of an error and its cause.
fn short(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(160).collect()
}
