//! The agent's composition root: starts its parts and waits for the end.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trireme_client::events::EventRecorder;

use crate::config::{AgentTls, Config, ConfigError};
use crate::images::{ImageError, Store, StoreConfig};
use crate::network::{Network, NetworkConfig, NetworkError, services::ServiceProxy};
use crate::pods::{Context, MachineFacts, Register, manager, oci};
use crate::runtime::cgroups::Cgroups;
use crate::server::tls::TlsError;
use crate::{node, server};

/// Pods wait at most this long for the first list of services.
const SERVICES_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an agent stopped.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file, socket or process operation failed.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The image store cannot be opened.
    #[error("image store")]
    Images(#[from] ImageError),
    /// The pod network's records cannot be opened.
    #[error("pod network")]
    Network(#[from] NetworkError),
    /// A part of the agent panicked.
    #[error("a part of the agent broke")]
    Broken(#[source] tokio::task::JoinError),
    /// The pod network is IPv4 so far.
    #[error("node address {0} is not an IPv4 address")]
    Address(IpAddr),
}

pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> AgentError {
    let what = what.into();
    move |source| AgentError::Io { what, source }
}

/// Runs the agent until `shutdown` is cancelled. Containers go on running after it returns.
pub async fn run(
    config: Config,
    client: kube::Client,
    tls: AgentTls,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    config.validate()?;
    let IpAddr::V4(node_ip) = config.node_ip else { return Err(AgentError::Address(config.node_ip)) };
    if let Err(error) = crate::limits::raise() {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    let acceptor = server::tls::acceptor(&tls)?;
    prepare_directory(&config)?;
    let cgroups = Cgroups::detect().map_err(io("cgroups"))?;
    prepare_cgroups(&config, &cgroups)?;
    let listener = TcpListener::bind(config.listen).await.map_err(io(format!("listening on {}", config.listen)))?;
    let images = Store::open(StoreConfig::new(config.data_dir.join("images"))).await?;
    let network_config = NetworkConfig::new(config.data_dir.join("network"), &config.node_name, node_ip);
    let network = Network::open(network_config).await?;
    let facts = node::collect(&config);
    let (network_ready, network_rx) = watch::channel(false);
    let (seen, seen_rx) = watch::channel(node::Seen::default());
    let (uid, uid_rx) = watch::channel(None);
    let proxy_rx = network_rx.clone();
    let (services, services_writer) = reflector::store::<Service>();
    let (slices, slices_writer) = reflector::store::<EndpointSlice>();
    let (changes, changes_rx) = watch::channel(0);
    let (events, event_writer) = EventRecorder::new(client.clone(), "kubelet", Some(&config.node_name));
    let images_dir = config.images_dir.clone();
    let context = Arc::new(Context {
        grantable: oci::capabilities_of(facts.capabilities),
        machine: MachineFacts { cpus: facts.cpus, memory_bytes: facts.memory_bytes },
        register: Register::default(),
        network_ready: network_rx.clone(),
        services: services.clone(),
        cgroups,
        images: images.clone(),
        network: network.clone(),
        events,
        client: client.clone(),
        config,
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(event_writer.run());
    tasks.spawn(server::run(context.clone(), tls.certificate, listener, acceptor, shutdown.clone()));
    let (name, lease_seconds) = (context.config.node_name.clone(), context.config.lease_duration_seconds);
    tasks.spawn(node::run_status(context.clone(), facts, (network_rx, seen_rx), uid, shutdown.clone()));
    tasks.spawn(node::run_lease(client.clone(), name.clone(), lease_seconds, uid_rx, shutdown.clone()));
    tasks.spawn(node::run_network(client.clone(), name, network.clone(), (network_ready, seen), shutdown.clone()));
    tasks.spawn(node::follow(client.clone(), services_writer, changes.clone()));
    tasks.spawn(node::follow(client, slices_writer, changes));
    let stores = (services.clone(), slices);
    tasks.spawn(node::run_proxy(ServiceProxy::new(&network), stores, changes_rx, proxy_rx, shutdown.clone()));
    tasks.spawn(crate::image_gc::run(context.clone(), shutdown.clone()));
    let _ =
        tokio::join!(import(&images, &images_dir), tokio::time::timeout(SERVICES_TIMEOUT, services.wait_until_ready()));
    let stop = shutdown.clone();
    tasks.spawn(async move { images.watch_folder(images_dir, stop).await });
    tasks.spawn(manager::run(context, shutdown.clone()));
    let result = supervise(&mut tasks, &shutdown).await;
    // The workers hold on to this token: without it they would go on after a failure.
    shutdown.cancel();
    tasks.shutdown().await;
    result
}

/// What archives bring is there before the first pod wants it.
async fn import(images: &Store, folder: &Path) {
    if folder.exists() {
        match images.import_folder(folder).await {
            Ok(report) => tracing::info!(?report, "images imported"),
            Err(error) => tracing::warn!(%error, "images not imported"),
        }
    }
}

/// Waits for the end, or for a part that broke: an agent without one of its parts would only look alive.
async fn supervise(tasks: &mut JoinSet<()>, shutdown: &CancellationToken) -> Result<(), AgentError> {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            ended = tasks.join_next() => match ended {
                Some(Err(error)) if error.is_panic() => return Err(AgentError::Broken(error)),
                Some(_) => {}
                None => shutdown.cancelled().await,
            },
        }
    }
}

/// Ends every pod of a node whose agent does not run, and removes its cgroups: for taking a node down for good.
/// Blocking. What is on the disk stays, and so do network links.
pub fn destroy(config: &Config) -> Result<(), AgentError> {
    let cgroups = Cgroups::detect().map_err(io("cgroups"))?;
    let root = &config.cgroup_root;
    // Pods first: a shim that outlives its containers still writes their exit records.
    for part in ["pods", "shims"] {
        cgroups.kill(&format!("{root}/{part}"));
    }
    cgroups.kill(root);
    cgroups.remove(root).map_err(io(format!("cgroup {root}")))
}

/// Only root may look into pods' directories: they hold secrets.
fn prepare_directory(config: &Config) -> Result<(), AgentError> {
    use std::os::unix::fs::PermissionsExt;

    for name in ["pods", "logs"] {
        let directory = config.data_dir.join(name);
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::create_dir_all(&directory)
            .and_then(|()| std::fs::set_permissions(&directory, mode))
            .map_err(io(directory.display().to_string()))?;
    }
    Ok(())
}

fn prepare_cgroups(config: &Config, cgroups: &Cgroups) -> Result<(), AgentError> {
    let root = &config.cgroup_root;
    for class in ["shims", "pods/burstable", "pods/besteffort"] {
        let path = format!("{root}/{class}");
        cgroups.create(&path).map_err(io(format!("cgroup {path}")))?;
    }
    let least = crate::runtime::cgroups::Limits { cpu_shares: Some(2), ..Default::default() };
    cgroups.limit(&format!("{root}/pods/besteffort"), &least).map_err(io("cgroup of best-effort pods"))
}
