//! Which cluster is meant, and how it is reached.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use trireme_apiserver::pki::CertificateInfo;
use trireme_client::kubeconfig::{Kubeconfig, Overrides};
use trireme_client::masters::MastersConfig;

use super::Args;
use crate::up::status::Local;

/// A cluster to be asked.
pub struct Target {
    /// Its name.
    pub name: String,
    /// Its masters as far as they are known, and how to prove who asks.
    pub access: MastersConfig,
    /// Its processes, if it lives on this machine.
    pub local: Option<Local>,
    /// The certificate that is shown.
    pub credential: Option<CertificateInfo>,
}

impl Target {
    /// From what was typed: a local cluster by its name, else a kubeconfig, else the local cluster `default`.
    ///
    /// # Errors
    /// When there is nothing to ask.
    pub fn choose(args: &Args) -> anyhow::Result<Target> {
        let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(".trireme"));
        if args.kubeconfig.is_none() && (args.name.is_some() || args.dir.is_some()) {
            let name = args.name.as_deref().unwrap_or("default");
            let Some(local) = Local::load(&dir, name)? else {
                bail!(
                    "there is no cluster {name:?} in {}; boot one with \"trireme up\", or ask another one with --kubeconfig",
                    std::path::absolute(&dir).unwrap_or(dir).display()
                );
            };
            return Target::local(local);
        }
        let files = Kubeconfig::paths(args.kubeconfig.as_deref());
        let given = args.kubeconfig.is_some() || std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
        if !given && let Some(local) = Local::load(&dir, "default")? {
            return Target::local(local);
        }
        Target::remote(args.kubeconfig.as_deref(), files.first())
    }

    fn local(local: Local) -> anyhow::Result<Target> {
        let access = local.access()?;
        let credential = credential(&access);
        Ok(Target { name: local.name().to_owned(), access, local: Some(local), credential })
    }

    fn remote(explicit: Option<&Path>, first: Option<&PathBuf>) -> anyhow::Result<Target> {
        let config = Kubeconfig::load(explicit)?;
        let resolved = config.resolve(&Overrides::default()).context(
            "no cluster to ask; give the name of a local one with --name, or an administrator's kubeconfig with \
             --kubeconfig or $KUBECONFIG",
        )?;
        let local = first.and_then(|path| Local::around(path));
        let credential = credential(&resolved.masters);
        let mut access = resolved.masters;
        // The folder tells of masters that the kubeconfig does not name.
        for host in local.iter().flat_map(Local::hosts).filter(|host| host.master) {
            if !access.urls.contains(&host.url) {
                access.urls.push(host.url);
            }
        }
        let name = resolved.cluster.unwrap_or_else(|| "the cluster".to_owned());
        Ok(Target { name, access, local, credential })
    }
}

fn credential(access: &MastersConfig) -> Option<CertificateInfo> {
    let pem = std::str::from_utf8(&access.identity.as_ref()?.cert_pem).ok()?;
    CertificateInfo::of_pem("client", pem).ok()
}
