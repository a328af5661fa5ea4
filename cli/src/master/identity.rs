//! How a master comes to be: founded, joined, or found again on disk.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use trireme_apiserver::ApiServer;
use trireme_apiserver::pki::{self, MasterIdentity, Pki};
use trireme_client::kubeconfig::Kubeconfig;
use trireme_client::tls::CaPin;
use trireme_raftstore::{Config, PeerTls, Store, StoreError};

use super::args::Args;
use crate::admin::token::{self, Role};
use crate::joining::{self, JoinToken, MasterJoin};

/// A master with its keys and its open store.
pub struct Opened {
    /// The replica.
    pub store: Store,
    /// The keys.
    pub pki: Pki,
    /// Whom the keys are for.
    pub identity: MasterIdentity,
    /// Whether this call founded the cluster.
    pub founded: bool,
}

/// Opens what the data directory holds, or founds or joins as the arguments say.
///
/// # Errors
/// When the directory is empty and neither was asked for, when the join is refused, or when the disk fails.
pub async fn open(args: &Args, advertise: SocketAddr, joining: Option<(String, JoinToken)>) -> anyhow::Result<Opened> {
    let store_dir = args.data_dir.join("store");
    let pki_dir = args.data_dir.join(pki::DIRECTORY);
    let identity = MasterIdentity {
        name: args.name()?,
        address: advertise.ip(),
        service_ip: args.first_service_ip()?,
        cluster_domain: args.cluster_domain.clone(),
    };
    if Store::has_data(&store_dir)? {
        if args.init || args.join.join.is_some() {
            tracing::info!(dir = %args.data_dir.display(), "this master is set up already; --init and --join are ignored");
        }
        let pki = signed(args, Pki::load(&pki_dir)?, &identity)?;
        let store = Store::open(config(args, advertise, &pki)?).await.map_err(|error| explain(args, error))?;
        return Ok(Opened { store, pki, identity, founded: false });
    }
    if args.init {
        // Keys of an attempt that ended before the store existed are used again.
        let pki = if Pki::exists(&pki_dir) { Pki::load(&pki_dir)? } else { Pki::create(&pki_dir, &identity)? };
        let pki = signed(args, pki, &identity)?;
        let store = Store::bootstrap(config(args, advertise, &pki)?).await.context("cannot found the store")?;
        return Ok(Opened { store, pki, identity, founded: true });
    }
    let Some((url, token)) = joining else {
        bail!(
            "{} holds no master yet: found a cluster with --init, or join one with --join https://ADDRESS:6443 and a token \
             in TRIREME_TOKEN or --token-file",
            args.data_dir.display()
        );
    };
    let joined = joining::join_master(&MasterJoin {
        url,
        token,
        name: args.name()?,
        address: advertise,
        peer_address: SocketAddr::new(advertise.ip(), args.peer_port),
        learner: args.learner,
        replace: args.replace,
    })
    .await?;
    let pki = signed(args, joined.install(&pki_dir)?, &identity)?;
    let store = Store::join(config(args, advertise, &pki)?, joined.response.grant.clone())
        .await
        .context("the cluster let this master in, but its store cannot be opened")?;
    Ok(Opened { store, pki, identity, founded: false })
}

/// Why the store cannot be opened, and what to type where there is something.
fn explain(args: &Args, error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Damaged { name, reason } => anyhow::anyhow!(
            "{name} cannot come back as the member it was, since it may have forgotten votes or acknowledged writes: {reason}\n{}",
            if Store::knows_others(&args.data_dir.join("store")) {
                format!("The cluster's state is safe on the other masters.\n{}", anew(&args.data_dir))
            } else {
                format!(
                    "It was the only master, so nothing else has the cluster's state: keep {} for now, and begin anew with a snapshot:\n  \
                     trireme snapshot restore FILE --dir DIR --name {name} --advertise ADDRESS\n\
                     See \"Restore\" in docs/operations.md",
                    args.data_dir.display()
                )
            }
        ),
        StoreError::Membership(reason) => {
            anyhow::anyhow!("cannot open the store: {reason}\n{}", anew(&args.data_dir))
        }
        other => anyhow::Error::new(other).context("cannot open the store"),
    }
}

/// What to type on a master that can only come back as a new member.
pub fn anew(data_dir: &Path) -> String {
    let default = Path::new(super::args::DATA_DIR);
    let dir = if data_dir == default { String::new() } else { format!(" --data-dir {}", data_dir.display()) };
    format!(
        "This takes the master out of the cluster, if it is in it, and removes what it has here:\n  \
         trireme master reset{dir}\n\
         Then let it join as a new member, with a token from another master: trireme token create --role master"
    )
}

/// The keys, with certificates that are valid for as long as is asked for.
fn signed(args: &Args, pki: Pki, identity: &MasterIdentity) -> anyhow::Result<Pki> {
    pki.set_leaf_life(args.cluster_signing_duration)?;
    pki.refresh(identity)?;
    Ok(pki)
}

/// How the store is opened.
///
/// # Errors
/// When a value does not fit.
pub fn config(args: &Args, advertise: SocketAddr, pki: &Pki) -> anyhow::Result<Config> {
    let tls = PeerTls {
        ca_pem: pki.peer_ca_pem().into(),
        cert_pem: pki.peer().cert_pem.clone().into(),
        key_pem: pki.peer().key_pem.clone().into(),
    };
    let mut config = Config::new(
        args.data_dir.join("store"),
        args.name()?,
        args.listen_peer(),
        SocketAddr::new(advertise.ip(), args.peer_port).to_string(),
        format!("https://{advertise}"),
        tls,
    );
    config.limits.keep_history = args.auto_compaction_retention;
    config.limits.max_history_bytes = args.auto_compaction_max_size << 20;
    config.limits.remove_dead_after = Some(args.remove_dead_masters_after).filter(|after| !after.is_zero());
    config.validate()?;
    Ok(config)
}

/// On a new cluster prints how to go on.
///
/// # Errors
/// When the file cannot be written or no token can be made.
pub async fn announce(args: &Args, server: &ApiServer, pki: &Pki, founded: bool) -> anyhow::Result<()> {
    let advertise = args.advertise()?;
    let url = format!("https://{advertise}");
    let path = args.kubeconfig();
    if !founded {
        return Ok(());
    }
    // Tokens live in kube-system, which the leadership loop may not have come to yet.
    server.bootstrap(None).await.context("cannot put the cluster's own objects in place")?;
    let client = kube::Client::new(
        server.in_process(trireme_apiserver::UserInfo::component("system:apiserver"), None),
        "kube-system",
    );
    let ttl = std::time::Duration::from_secs(3600);
    let pin = CaPin::of_pem(pki.ca_pem().as_bytes())?;
    let master = token::create(&client, pin, Role::Master, ttl, "printed by trireme master --init").await?;
    let node = token::create(&client, pin, Role::Node, ttl, "printed by trireme master --init").await?;
    println!(
        "The cluster is founded. Within the next hour, add machines to it with:\n\n  \
         TRIREME_TOKEN={master} \\\n    trireme master --join {url} --advertise IP\n  \
         TRIREME_TOKEN={node} \\\n    trireme node --join {url}\n\n\
         More tokens: trireme token create --role master|node\n\
         Look around: export KUBECONFIG={path}; kubectl get nodes\n",
        path = path.display()
    );
    Ok(())
}

/// The administrator's way in: through this master first, then through the others.
///
/// # Errors
/// When the file cannot be written.
pub fn write_kubeconfig(path: &Path, urls: &[String], pki: &Pki) -> anyhow::Result<()> {
    let admin = pki.admin();
    let config = Kubeconfig::for_cluster(
        "trireme",
        pki::ADMIN_USER,
        urls,
        pki.ca_pem().as_bytes(),
        admin.cert_pem.as_bytes(),
        admin.key_pem.as_bytes(),
    );
    config.write(path).with_context(|| format!("cannot write {}", path.display()))
}

impl Args {
    /// Where the administrator's kubeconfig is.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig-admin")
    }

    fn first_service_ip(&self) -> anyhow::Result<IpAddr> {
        let cidr: trireme_apiserver::Cidr = self.service_cidr.parse()?;
        Ok(IpAddr::V4(cidr.nth(1).context("--service-cidr is too small")?))
    }
}
