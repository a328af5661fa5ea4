//! What `trireme status` has to know of a local cluster: its hosts, their processes, an administrator's access.

use std::path::Path;

use anyhow::{Context, bail};
use trireme_client::masters::MastersConfig;
use trireme_client::tls::Identity;

use super::layout::{Host, Kind, Layout};
use super::process;
use super::ready::Access;

/// A cluster of this machine.
pub struct Local {
    layout: Layout,
    hosts: Vec<Host>,
}

/// One of its hosts.
pub struct LocalHost {
    /// `master-1`, `node-2`.
    pub name: String,
    /// Whether it runs a master.
    pub master: bool,
    /// Its address.
    pub address: String,
    /// URL of its API, if it is a master.
    pub url: String,
    /// Its process, if it runs.
    pub pid: Option<i32>,
}

impl Local {
    /// The cluster of a name; `None` if there is none.
    pub fn load(dir: &Path, name: &str) -> anyhow::Result<Option<Local>> {
        let layout = Layout::new(dir, name)?;
        let Some(cluster) = layout.load()? else { return Ok(None) };
        let hosts = layout.hosts(&cluster);
        Ok(Some(Local { layout, hosts }))
    }

    /// The cluster in whose folder a kubeconfig lies.
    pub fn around(kubeconfig: &Path) -> Option<Local> {
        let root = kubeconfig.canonicalize().ok()?.parent()?.to_path_buf();
        let name = root.file_name()?.to_str()?;
        Self::load(root.parent()?, name).ok().flatten()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.layout.name
    }

    /// What to type to bring back what has died.
    pub fn up(&self) -> String {
        self.layout.typed("up")
    }

    /// All hosts, with their processes as they are now.
    pub fn hosts(&self) -> Vec<LocalHost> {
        let host = |host: &Host| LocalHost {
            name: host.name.clone(),
            master: host.kind == Kind::Master,
            address: host.ip.to_string(),
            url: host.url(),
            pid: process::recorded(host).map(|process| process.pid),
        };
        self.hosts.iter().map(host).collect()
    }

    /// An administrator's access to all masters.
    ///
    /// # Errors
    /// When no master has keys, or they cannot be read.
    pub fn access(&self) -> anyhow::Result<MastersConfig> {
        let masters: Vec<&Host> = self.hosts.iter().filter(|host| host.kind == Kind::Master).collect();
        let mut failure = None;
        for host in &masters {
            match Access::of_master(host) {
                Ok(access) => {
                    let identity =
                        Identity { cert_pem: access.cert_pem.into_bytes(), key_pem: access.key_pem.into_bytes() };
                    let urls = masters.iter().map(|host| host.url()).collect();
                    return Ok(MastersConfig::new(urls, access.ca_pem.into_bytes(), Some(identity)));
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) => Err(error).context("no master's keys can be read"),
            None => bail!("the cluster {:?} has no master", self.layout.name),
        }
    }
}
