//! `trireme kubeconfig`: another kubeconfig, made on a master from the keys that it holds.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use trireme_apiserver::pki::{self, CertificateInfo, Pki};
use trireme_client::kubeconfig::Kubeconfig;

use crate::ctl::time::duration;

/// `trireme kubeconfig`
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Data directory of the master on this machine; it need not run.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/trireme/master")]
    data_dir: PathBuf,
    /// Whom it is for: the common name of the certificate.
    #[arg(long, default_value = pki::ADMIN_USER)]
    user: String,
    /// Groups of the user; those in system:masters may do everything.
    #[arg(long = "group", value_name = "GROUP", default_value = pki::MASTERS_GROUP)]
    groups: Vec<String>,
    /// How long it is valid.
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = duration)]
    duration: Duration,
    /// Masters that it leads to [default: all that this master knows].
    #[arg(long = "server", value_name = "URL")]
    servers: Vec<String>,
    /// File to write, readable by its owner alone [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Makes the kubeconfig.
///
/// # Errors
/// When there is no master here, its keys cannot be read, or the file cannot be written.
pub fn run(args: Args) -> anyhow::Result<()> {
    let dir = args.data_dir.join(pki::DIRECTORY);
    if !Pki::exists(&dir) {
        bail!(
            "{} holds no master's keys; run this on a master, or give its data directory with --data-dir",
            args.data_dir.display()
        );
    }
    if args.duration.is_zero() || args.user.is_empty() {
        bail!("--duration and --user must not be empty");
    }
    let keys = Pki::load(&dir)?;
    let urls = if args.servers.is_empty() {
        let known = Kubeconfig::read(&args.data_dir.join("kubeconfig-admin"))
            .context("the masters are not known; give them with --server")?;
        known.clusters.first().map(|entry| entry.cluster.masters()).unwrap_or_default()
    } else {
        args.servers.clone()
    };
    keys.set_leaf_life(args.duration)?;
    let groups: Vec<&str> = args.groups.iter().map(String::as_str).collect();
    let pair = keys.client(&args.user, &groups)?;
    let (ca, cert, key) = (keys.ca_pem().as_bytes(), pair.cert_pem.as_bytes(), pair.key_pem.as_bytes());
    let config = Kubeconfig::for_cluster("trireme", &args.user, &urls, ca, cert, key);
    match &args.output {
        None => print!("{}", config.to_yaml()),
        Some(path) => {
            config.write(path)?;
            let until = jiff::Timestamp::from_second(CertificateInfo::of_pem("", &pair.cert_pem)?.not_after)?;
            println!("{} written; it is valid until {until}", path.display());
        }
    }
    Ok(())
}
