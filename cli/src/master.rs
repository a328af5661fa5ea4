//! `trireme master`: one replica of the control plane, and the control loops while it leads.

mod args;
mod backups;
mod cron;
mod identity;
mod recovery;
mod reign;
mod renewal;

use args::Command;
pub use args::{API_PORT, Args, master_name};
pub use backups::EXTENSION as SNAPSHOT_EXTENSION;
use identity::Opened;
use renewal::Renewal;

use anyhow::{Context, bail};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use trireme_apiserver::{ApiServer, UserInfo};
use trireme_client::informer::Informers;
use trireme_raftstore::Store;

use crate::joining::Fresh;
use crate::terminate;

/// Runs a master until it is told to stop.
///
/// # Errors
/// When the arguments do not fit, a port is taken, the join is refused, or the store cannot be opened or fails.
pub async fn run(args: Args) -> anyhow::Result<()> {
    if let Some(Command::Reset(reset)) = args.command {
        return crate::reset::master(reset).await;
    }
    args.validate()?;
    let advertise = args.advertise()?;
    if args.recover {
        return recovery::run(&args, advertise).await;
    }
    let member = Store::has_data(&args.data_dir.join("store"))?;
    let joining = if member { None } else { args.join.read()? };
    let fresh = Fresh::make(&args.data_dir)?;
    let _lock = lock(&args.data_dir)?;
    let shutdown = CancellationToken::new();
    terminate::on_signal(shutdown.clone())?;
    let opening = async {
        // Both ports are tried before anything is created or joined, so that a taken one leaves nothing half-done.
        let api = bind(args.listen_api(advertise)).await?;
        drop(bind(args.listen_peer()).await?);
        anyhow::Ok((identity::open(&args, advertise, joining).await?, api))
    };
    let opened = tokio::select! {
        opened = opening => opened,
        () = shutdown.cancelled() => {
            // A store that builds its state anew may wait for the other masters for long.
            tracing::info!("told to stop before the store was open");
            std::process::exit(0);
        }
    };
    let (opened, api) = opened.inspect_err(|_| fresh.undo())?;
    let store = opened.store.clone();
    let result = serve(&args, opened, api, shutdown).await;
    tracing::info!("closing the store");
    if let Err(error) = store.shutdown().await {
        tracing::warn!(%error, "the store did not close cleanly");
    }
    match (&result, store.state_damage()) {
        (Err(error), Some(_)) => Err(again(error)),
        _ => result,
    }
}

/// Runs this program anew in the same process: a store whose state is damaged builds it anew when it is opened, and
/// everything that was made of the damaged state goes with the process's memory.
fn again(cause: &anyhow::Error) -> anyhow::Error {
    tracing::error!("{cause:#}; starting anew");
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "trireme".into());
    // The file may have been replaced meanwhile; this name is the program that runs.
    let error = std::process::Command::new("/proc/self/exe").arg0(name).args(arguments).exec();
    anyhow::anyhow!("{cause:#}; starting anew failed: {error}")
}

/// Serves the API and runs the control loops until shutdown or until one of them ends by itself.
async fn serve(args: &Args, opened: Opened, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
    let Opened { store, pki, identity, founded } = opened;
    let server =
        ApiServer::new(args.apiserver_config()?, store.clone(), pki.clone()).context("cannot start the API server")?;
    // The control loops end before the API server they talk to, and that before the store.
    let loops_stop = CancellationToken::new();
    let api_stop = CancellationToken::new();

    let reader =
        kube::Client::new(server.in_process(UserInfo::component("system:kube-controller-manager"), None), "default");
    let informers = Informers::start(reader, loops_stop.clone());
    let (heralds, receivers) = reign::channel();
    let config = args.controllers_config(pki.ca_pem())?;
    server.add_metrics(|registry| config.metrics.register(registry));
    let controllers = trireme_controllers::run(informers.clone(), receivers.controllers, config, loops_stop.clone());
    let scheduler = trireme_scheduler::run(
        informers,
        receivers.scheduler,
        trireme_scheduler::Config::default(),
        loops_stop.clone(),
    );
    let mut loops = tokio::spawn(async move { tokio::join!(controllers, scheduler) });
    let mut reigning = tokio::spawn(reign::run(server.clone(), store.clone(), heralds, loops_stop.clone()));
    let mut api = tokio::spawn({
        let (server, stop) = (server.clone(), api_stop.clone());
        async move { server.serve(listener, stop).await }
    });
    let renewal = Renewal {
        pki: pki.clone(),
        identity,
        server: server.clone(),
        store: store.clone(),
        url: format!("https://{}", args.advertise()?),
        kubeconfig: args.kubeconfig(),
    };
    let renewing = tokio::spawn(renewal.run(loops_stop.clone()));
    take_snapshots(args, &store, &loops_stop)?;
    identity::announce(args, &server, &pki, founded).await?;
    tracing::info!(name = %args.name()?, "master is up");

    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        ended = &mut api => flatten("the API server", ended),
        ended = &mut reigning => flatten("the leadership loop", ended.map(Ok::<(), anyhow::Error>)),
        ended = &mut loops => flatten("the control loops", ended.map(|_| Ok::<(), anyhow::Error>(()))),
        cause = store.failed() => Err(stopped(args, &store, &cause)),
    };
    loops_stop.cancel();
    // Hand leadership over first: whoever asks the others from now on meets a leader at once.
    if let Err(error) = store.transfer_leadership().await {
        tracing::debug!(%error, "leadership was not handed over");
    }
    api_stop.cancel();
    let grace = std::time::Duration::from_secs(5);
    if !api.is_finished() && tokio::time::timeout(grace, &mut api).await.is_err() {
        tracing::warn!("requests were still running after {} s; closing them", grace.as_secs());
        api.abort();
    }
    reigning.abort();
    renewing.abort();
    loops.abort();
    outcome
}

/// Why the store stopped, and what to type where nothing else helps.
fn stopped(args: &Args, store: &Store, cause: &str) -> anyhow::Error {
    match store.is_removed() {
        true => anyhow::anyhow!("the store stopped: {cause}\n{}", identity::anew(&args.data_dir)),
        false => anyhow::anyhow!("the store stopped: {cause}"),
    }
}

/// Begins to take snapshots by the schedule, if there is one.
fn take_snapshots(args: &Args, store: &Store, stop: &CancellationToken) -> anyhow::Result<()> {
    if let Some(schedule) = args.backups.schedule()? {
        let backups = backups::Backups {
            schedule,
            retention: args.backups.snapshot_retention,
            dir: args.backups.snapshot_dir.clone().unwrap_or_else(|| args.data_dir.join("snapshots")),
            name: args.name()?,
            store: store.clone(),
        };
        tokio::spawn(backups.run(stop.clone()));
    }
    Ok(())
}

fn flatten<E: Into<anyhow::Error>>(
    what: &str,
    ended: Result<Result<(), E>, tokio::task::JoinError>,
) -> anyhow::Result<()> {
    match ended {
        Ok(Ok(())) => bail!("{what} ended unexpectedly"),
        Ok(Err(error)) => Err(error.into().context(format!("{what} failed"))),
        Err(error) => Err(anyhow::Error::new(error).context(format!("{what} crashed"))),
    }
}

/// Takes the data directory for this process alone; the lock goes with the returned file.
///
/// # Errors
/// When another process has it.
pub fn lock(dir: &Path) -> anyhow::Result<nix::fcntl::Flock<std::fs::File>> {
    let path = dir.join("lock");
    let file = std::fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => {
            anyhow::anyhow!("{} is in use by another trireme process; stop that one first", dir.display())
        }
        other => anyhow::Error::new(other).context(format!("cannot lock {}", path.display())),
    })
}

/// Listens, or says which port is taken.
///
/// # Errors
/// When the address is taken or not of this machine.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; is another process using this port?"))
}
