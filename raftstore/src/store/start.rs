//! Starting a member: founding a group, coming back, or joining.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::election::Heard;
use super::node::{Handle, Node};
use super::timeline::Timeline;
use super::{background, backup, election, integrity, leadership, propose, reads, rebuild, space, succession};
use crate::config::{Config, JoinGrant, Limits};
use crate::consensus::confirmed::Confirmed;
use crate::consensus::log_store::LogStore;
use crate::consensus::machine::Machine;
use crate::consensus::state_machine::StateMachine;
use crate::consensus::transport::Transport;
use crate::consensus::{Raft, raft_config};
use crate::metrics::Metrics;
use crate::network::incoming::Incoming;
use crate::network::peers::{Peers, Road};
use crate::network::pulse::HEARTBEATS;
use crate::network::server::{self, Door};
use crate::network::tls::PeerTlsConfig;
use crate::storage::StorageError;
use crate::storage::disk::{Disk, Home};
use crate::storage::files::{Identity, Origin};
use crate::storage::lineage::{self, STARTED};
use crate::storage::log::Log;
use crate::storage::log_record::LogState;
use crate::storage::log_writer::LogWriter;
use crate::storage::records::MemberInfo;
use crate::storage::room::Space;
use crate::storage::snapshot;
use crate::types::{Leadership, StoreError};
use crate::watch::Hub;

/// How long a start may take to reach what it promises.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a start looks whether there is room by now.
const ROOM_PAUSE: Duration = Duration::from_millis(500);
/// Threads of a member: each more means more wake-ups for an idle member.
const THREADS: usize = 2;

/// Founds a group.
pub(crate) async fn bootstrap(config: Config) -> Result<Arc<Handle>, StoreError> {
    config.validate()?;
    let Home { disk, dir } = config.home();
    prepare_empty(&disk, &dir)?;
    let fresh = config.environment.uuid();
    Identity::new(1, &config.name, &fresh, Origin::Bootstrap).write(&disk, &dir)?;
    open(config).await
}

/// Starts as a member that was admitted.
pub(crate) async fn join(config: Config, grant: JoinGrant) -> Result<Arc<Handle>, StoreError> {
    config.validate()?;
    let Home { disk, dir } = config.home();
    prepare_empty(&disk, &dir)?;
    let own = grant.members.iter().find(|m| m.id == grant.id);
    let Some(own) = own.filter(|m| m.name == config.name && m.peer_address == config.advertise) else {
        let (name, address) = (&config.name, &config.advertise);
        return Err(StoreError::Membership(format!("the grant is not for {name} at {address}")));
    };
    if grant.feature_level > config.feature_level {
        let (uses, knows) = (grant.feature_level, config.feature_level);
        let why = format!("this build is too old: the group uses feature level {uses}, this build knows {knows}");
        return Err(StoreError::Version(why));
    }
    let identity = Identity::new(grant.id, &own.name, &grant.lineage, Origin::Join);
    identity.write(&disk, &dir)?;
    open(config).await
}

pub(super) fn prepare_empty(disk: &Disk, dir: &Path) -> Result<(), StoreError> {
    if Identity::exists(disk, dir)? {
        return Err(StoreError::Invalid(format!("{} already holds a member", dir.display())));
    }
    disk.create_dir(dir)?;
    // Without an identity these are left from a start that did not come far.
    for leftover in ["log", "state-1", "snapshots", "recovering"] {
        disk.remove_dir(&dir.join(leftover))?;
    }
    for leftover in ["state", "rebuild", "peers", STARTED] {
        disk.remove_file(&dir.join(leftover))?;
    }
    Ok(())
}

/// Starts a member that has an identity.
pub(crate) async fn open(config: Config) -> Result<Arc<Handle>, StoreError> {
    config.validate()?;
    // A recovery that a crash ended half-way through.
    let Home { disk, dir } = config.home();
    lineage::take_over(&disk, &dir)?;
    let identity = Identity::read(&disk, &dir).map_err(|error| match error.is_damage() {
        true => StoreError::Damaged { name: config.name.clone(), reason: format!("its identity is damaged: {error}") },
        false => error.into(),
    })?;
    if identity.name != config.name {
        let (is, wanted) = (&identity.name, &config.name);
        return Err(StoreError::Invalid(format!("the data belongs to member {is:?}, not to {wanted:?}")));
    }
    let runtime = if config.environment.is_simulated() { None } else { Some(runtime(&identity)?) };
    let started = match &runtime {
        Some(runtime) => {
            let started = runtime.spawn(start(config, identity)).await;
            started.map_err(|e| StoreError::Storage(Box::new(e))).and_then(|r| r)
        }
        None => start(config, identity).await,
    };
    match started {
        Ok(node) => {
            let handle = Handle::new(node, runtime);
            settle(&handle.node).await?;
            Ok(handle)
        }
        Err(error) => {
            if let Some(runtime) = runtime {
                runtime.shutdown_background();
            }
            Err(error)
        }
    }
}

fn runtime(identity: &Identity) -> Result<Runtime, StoreError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(THREADS).thread_name(format!("store-{}", identity.id)).enable_all();
    builder.build().map_err(|e| StoreError::Storage(Box::new(e)))
}

/// Opens the log and checks that it is whole and belongs to the member.
pub(super) fn open_log(config: &Config, identity: &Identity, has_run: bool) -> Result<Arc<Log>, StorageError> {
    let (must_exist, segment) = (has_run && !config.faults.accept_lost_log, config.limits.log_segment_bytes);
    let log = Log::open(&config.disk(), &config.data_dir.join("log"), segment, must_exist)?;
    match log.lineage() {
        None => log.begin(&identity.lineage, LogState::default())?,
        Some(found) if found == identity.lineage => {}
        Some(found) => {
            let wanted = &identity.lineage;
            return Err(StorageError::Damaged(format!("the log is of lineage {found}, the member of {wanted}")));
        }
    }
    Ok(log)
}

/// Waits until there is room for what a start writes: to start, fail and start again would help nobody.
async fn wait_for_room(Home { disk, dir }: &Home, limits: &Limits) -> Result<Space, StorageError> {
    let mut turns = 0;
    loop {
        let space = Space::open(disk, dir, limits)?;
        if !space.exhausted() {
            return Ok(space);
        }
        if turns % 20 == 0 {
            tracing::error!(what = space.describe(), "the disk is full; the start waits for room");
        }
        turns += 1;
        tokio::time::sleep(ROOM_PAUSE).await;
    }
}

/// What damage to log, vote or identity means: only as a new member can it come back.
fn cannot_return(name: &str, error: StorageError) -> StoreError {
    if !error.is_damage() {
        return error.into();
    }
    StoreError::Damaged { name: name.to_owned(), reason: format!("its log cannot be trusted: {error}") }
}

/// What of a member is on disk, opened.
struct Opened {
    space: Arc<Space>,
    machine: Arc<Machine>,
    writer: Arc<LogWriter>,
}

/// Opens log and state; a state that is damaged is built anew.
async fn open_disk(
    config: &Config,
    identity: &Identity,
    metrics: &Metrics,
    peers: &Peers,
    has_run: bool,
) -> Result<Opened, StoreError> {
    let (home, limits, faults) = (config.home(), &config.limits, &config.faults);
    let space = Arc::new(wait_for_room(&home, limits).await?);
    let log = open_log(config, identity, has_run).map_err(|error| cannot_return(&identity.name, error))?;
    let (state, rebuilt) = rebuild::open_state(&home, identity.id, has_run, &log, peers).await?;
    metrics.rebuilt.inc_by(rebuilt.iter().len() as u64);
    let hub = Hub::new(limits.watch_events, limits.watch_bytes, faults.clone());
    let (lineage, known) = (&identity.lineage, config.feature_level);
    let machine = Machine::open(home, state, lineage, known, hub, metrics.clone(), faults.clone())?;
    let (counted, durable) = (metrics.clone(), machine.clone());
    let observe = Box::new(move |seconds| counted.synced(seconds));
    let durable = Box::new(move |index| durable.ensure_durable(index));
    let writer = LogWriter::start(log, observe, space.clone(), durable, faults.clone());
    let writer = Arc::new(writer?);
    Ok(Opened { space, machine, writer })
}

async fn bind(config: &Config, tls: Option<&PeerTlsConfig>) -> Result<Door, StorageError> {
    let door = Door::open(config.listen, tls.map(|tls| tls.server.clone()), &config.environment).await;
    door.map_err(|e| StorageError::io(format!("listening on {}", config.listen), e))
}

/// The way to other members.
fn road(config: &Config, tls: Option<&PeerTlsConfig>) -> Result<Road, StoreError> {
    match (config.environment.network(), tls) {
        (Some(network), _) => Ok(Road::Simulated(network.clone())),
        (None, Some(tls)) => Ok(Road::Tls(tls.client.clone())),
        (None, None) => Err(StoreError::Invalid("no certificate".into())),
    }
}

fn note_started(Home { disk, dir }: &Home) -> Result<(), StorageError> {
    match disk.exists(&dir.join(STARTED))? {
        true => Ok(()),
        false => disk.write_whole(dir, STARTED, b""),
    }
}

/// The engine's way to the other members.
fn transport(
    config: &Config,
    peers: &Peers,
    metrics: &Metrics,
    confirmed: &Arc<Confirmed>,
    suspect: &Arc<Notify>,
) -> Transport {
    Transport {
        peers: peers.clone(),
        metrics: metrics.clone(),
        vote_timeout: config.timing.election_max,
        confirmed: confirmed.clone(),
        suspect: suspect.clone(),
        snapshot_rate: config.limits.snapshot_bytes_per_second,
    }
}

/// The engine. Building it applies again what is known to be committed.
async fn engine(
    config: &Config,
    identity: &Identity,
    transport: Transport,
    timeline: &Arc<Timeline>,
    machine: &Arc<Machine>,
    writer: &Arc<LogWriter>,
    metrics: &Metrics,
) -> Result<Raft, StoreError> {
    let raft = Raft::build(
        identity.id,
        raft_config(config, &identity.lineage)?,
        transport,
        LogStore::new(writer.clone(), timeline.clone()),
        StateMachine::new(machine.clone(), timeline.clone(), metrics.clone()),
    );
    raft.await.map_err(|e| StoreError::Storage(Box::new(e)))
}

async fn start(config: Config, identity: Identity) -> Result<Arc<Node>, StoreError> {
    let metrics = Metrics::default();
    let tls = if config.environment.is_simulated() { None } else { Some(PeerTlsConfig::new(&config.tls)?) };
    let door = bind(&config, tls.as_ref()).await?;
    let home = config.home();
    // The state is made after the log, so where there is one there has to be the other.
    let has_run = home.disk.exists(&home.dir.join(STARTED))? || snapshot::has_state(&home.disk, &home.dir)?;
    let runtime = tokio::runtime::Handle::current();
    let (patience, road) = (config.timing.election_max * 3, road(&config, tls.as_ref())?);
    let peers = Peers::new(identity.id, &identity.lineage, road, patience, runtime.clone());
    let Opened { space, machine, writer } = open_disk(&config, &identity, &metrics, &peers, has_run).await?;
    let (suspect, confirmed) = (Arc::new(Notify::new()), Arc::new(Confirmed::new()));
    let transport = transport(&config, &peers, &metrics, &confirmed, &suspect);
    let timeline = Arc::new(Timeline::default());
    // Building applies again what is known to be committed: nothing is served before that.
    let raft = engine(&config, &identity, transport, &timeline, &machine, &writer, &metrics).await?;
    let (reads, waiting) = mpsc::channel(reads::QUEUE);
    let (forwards, forwarding) = mpsc::channel(config.limits.max_pending_writes);
    let (lost, losses) = mpsc::channel(4);
    let stop = CancellationToken::new();
    let node = Arc::new(Node {
        runtime,
        raft,
        machine,
        writer,
        metrics,
        timeline,
        leadership: watch::Sender::new(Leadership::NotLeader { leader: None }),
        heard: Heard::new(),
        lost,
        members_changed: watch::Sender::new(0),
        pending: Semaphore::new(config.limits.max_pending_writes),
        pending_bytes: Semaphore::new(config.limits.max_pending_bytes),
        heartbeats: Arc::new(Semaphore::new(HEARTBEATS)),
        reads,
        forwards,
        peers,
        certificate: tls.map(|tls| tls.own),
        membership: tokio::sync::Mutex::new(()),
        seen_members: parking_lot::Mutex::new(None),
        started: tokio::time::Instant::now(),
        removed: CancellationToken::new(),
        left: parking_lot::Mutex::new(None),
        backups: Arc::new(Semaphore::new(backup::CONCURRENT)),
        incoming: tokio::sync::Mutex::new(Incoming::new(&home.disk, &home.dir)),
        transfer: Default::default(),
        serving: stop.child_token(),
        stop,
        taken_out: watch::Sender::new(None),
        confirmed,
        suspect,
        alarms: Default::default(),
        space,
        reports: Default::default(),
        tasks: TaskTracker::new(),
        config,
        identity,
    });
    node.raft.run();
    node.spawn(server::serve(node.clone(), door));
    found(&node).await?;
    note_started(&home)?;
    stand_alone(&node).await?;
    run_chores(&node);
    node.spawn(election::run(node.clone(), losses));
    node.spawn(leadership::run(node.clone()));
    node.spawn(reads::run(node.clone(), waiting));
    node.spawn(propose::run_forwards(node.clone(), forwarding));
    Ok(node)
}

/// What runs beside the requests.
fn run_chores(node: &Arc<Node>) {
    node.spawn(background::lead(node.clone()));
    node.spawn(background::tend(node.clone()));
    node.spawn(succession::watch_over(node.clone()));
    node.spawn(space::run(node.clone()));
    node.spawn(integrity::run(node.clone()));
    node.spawn(integrity::scrub(node.clone()));
}

/// Where nobody else could be elected there is nothing to wait for.
async fn stand_alone(node: &Node) -> Result<(), StoreError> {
    let voters = node.machine.members().voters;
    if voters.len() == 1 && voters[0].len() == 1 && voters[0].contains(&node.identity.id) {
        node.raft.trigger().elect(false).await.map_err(|e| node.fatal(e, false))?;
    }
    Ok(())
}

/// Makes the founding member the only voter. Done again if the first start did not come this far.
async fn found(node: &Node) -> Result<(), StoreError> {
    let initialized = node.raft.is_initialized().await.map_err(|e| node.fatal(e, false))?;
    if node.identity.origin != Origin::Bootstrap || initialized {
        return Ok(());
    }
    let info = MemberInfo {
        name: node.config.name.clone(),
        peer_address: node.config.advertise.clone(),
        client_address: node.config.client_address.clone(),
        held: false,
    };
    let members = BTreeMap::from([(node.identity.id, info)]);
    node.raft.initialize(members).await.map_err(|e| StoreError::Membership(e.to_string()))
}

/// Waits for what a start promises.
async fn settle(node: &Node) -> Result<(), StoreError> {
    let id = node.identity.id;
    let unavailable = |reason: &str| StoreError::Unavailable { reason: reason.into(), maybe_applied: false };
    let admitted = async {
        let mut progress = node.machine.watch_progress();
        progress.wait_for(|_| node.machine.members().nodes.contains_key(&id)).await.is_ok()
    };
    if tokio::time::timeout(START_TIMEOUT, admitted).await != Ok(true) {
        let (address, waited) = (&node.config.advertise, START_TIMEOUT.as_secs());
        return Err(unavailable(&format!(
            "no leader reached this new member at {address} for {waited} s; is that where the other members find it, and is the port open?"
        )));
    }
    if node.machine.members().nodes.len() > 1 {
        return Ok(());
    }
    // The only member leads as soon as its election is through; callers can then write at once.
    let mut leads = node.leadership.subscribe();
    let led = leads.wait_for(|l| matches!(l, Leadership::Leader { .. }));
    match tokio::time::timeout(START_TIMEOUT, led).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(unavailable("no leader after the start")),
    }
}
