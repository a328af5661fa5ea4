//! What runs for one member.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use parking_lot::Mutex;
use tokio::runtime::{Handle as RuntimeHandle, Runtime};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::election::Heard;
use super::propose::Forward;
use super::reads::ReadWaiter;
use super::timeline::Timeline;
use crate::config::Config;
use crate::consensus::confirmed::Confirmed;
use crate::consensus::machine::Machine;
use crate::consensus::{Raft, convert};
use crate::metrics::Metrics;
use crate::network::incoming::Incoming;
use crate::network::peers::{Peers, Target};
use crate::network::tls::OwnCertificate;
use crate::network::wire::Report;
use crate::simulation::blocking;
use crate::storage::files::Identity;
use crate::storage::log_writer::LogWriter;
use crate::storage::records::VoteRecord;
use crate::storage::room::Space;
use crate::types::{Alarm, Leadership, Member, MemberId, StoreError};

/// How long a member whose state is damaged may take to note that.
const NOTED: Duration = Duration::from_secs(10);

/// Everything that requests and background work need.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) identity: Identity,
    /// The store has threads of its own, so that heartbeats do not wait behind the work of the layers above.
    pub(crate) runtime: RuntimeHandle,
    pub(crate) raft: Raft,
    pub(crate) machine: Arc<Machine>,
    pub(crate) writer: Arc<LogWriter>,
    pub(crate) metrics: Metrics,
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) leadership: watch::Sender<Leadership>,
    /// When a leader was last heard of.
    pub(crate) heard: Heard,
    /// Leaders whose stream of heartbeats has ended.
    pub(crate) lost: mpsc::Sender<VoteRecord>,
    /// Counts changes of membership.
    pub(crate) members_changed: watch::Sender<u64>,
    /// One permit for each write that may be pending.
    pub(crate) pending: Semaphore,
    /// One permit for each byte of them.
    pub(crate) pending_bytes: Semaphore,
    /// One permit for each heartbeat that the engine may hold because the disk is behind.
    pub(crate) heartbeats: Arc<Semaphore>,
    pub(crate) reads: mpsc::Sender<ReadWaiter>,
    pub(crate) forwards: mpsc::Sender<Forward>,
    pub(crate) peers: Peers,
    /// What this member shows to its peers; nothing in a simulation.
    pub(crate) certificate: Option<Arc<OwnCertificate>>,
    /// Changes of membership are made one at a time.
    pub(crate) membership: tokio::sync::Mutex<()>,
    /// What the leader last told of the members.
    pub(crate) seen_members: Mutex<Option<(Instant, Vec<Member>)>>,
    /// When this member was started.
    pub(crate) started: Instant,
    /// Set once this member does not belong to the group any more; `left` says why.
    pub(crate) removed: CancellationToken,
    pub(crate) left: Mutex<Option<String>>,
    /// One permit for each backup that may be read.
    pub(crate) backups: Arc<Semaphore>,
    /// The snapshot that is being received.
    pub(crate) incoming: tokio::sync::Mutex<Incoming>,
    /// Ends its transfer.
    pub(crate) transfer: Mutex<CancellationToken>,
    pub(crate) stop: CancellationToken,
    /// Ends with `stop`, and before it when the state of this member must not be used any more.
    pub(crate) serving: CancellationToken,
    /// Why the state must not be used any more; set once everything is in order for the end.
    pub(crate) taken_out: watch::Sender<Option<String>>,
    /// Asks for the state to be read from disk.
    pub(crate) suspect: Arc<Notify>,
    /// Who confirmed which heartbeat of this member as leader.
    pub(crate) confirmed: Arc<Confirmed>,
    pub(crate) alarms: Mutex<Vec<Alarm>>,
    /// Room on the disk.
    pub(crate) space: Arc<Space>,
    /// What the other members reported, and when.
    pub(crate) reports: Mutex<HashMap<MemberId, (Instant, Report)>>,
    pub(crate) tasks: TaskTracker,
}

impl Node {
    pub(crate) fn check_running(&self) -> Result<(), StoreError> {
        if self.stop.is_cancelled() {
            return Err(StoreError::ShuttingDown);
        }
        if let Some(reason) = self.has_left() {
            return Err(StoreError::Unavailable { reason, maybe_applied: false });
        }
        if self.serving.is_cancelled() {
            return Err(StoreError::StateDamaged(self.machine.damage().borrow().clone().unwrap_or_default()));
        }
        Ok(())
    }

    /// Whether this member's Raft core leads. What a leader may act on is `leadership`.
    pub(crate) fn leads(&self) -> bool {
        self.raft.server_metrics().borrow_watched().state == ServerState::Leader
    }

    /// Notes that a leader has spoken, unless it was replaced.
    pub(crate) fn heard_from(&self, leader: &VoteRecord) {
        let known = convert::vote_record(&self.raft.server_metrics().borrow_watched().vote);
        if (leader.term, leader.node) >= (known.term, known.node) {
            self.heard.now();
        }
    }

    /// Whoever is followed here begins to send a snapshot: what is being received ends, by whomever it was sent. Its sender may be
    /// gone without a word, and the connection would tell of that only much later.
    pub(crate) fn begin_transfer(&self, from: MemberId) {
        let followed = convert::vote_record(&self.raft.server_metrics().borrow_watched().vote).node;
        if followed == from {
            std::mem::take(&mut *self.transfer.lock()).cancel();
        }
    }

    /// The leader, if one is known.
    pub(crate) fn leader(&self) -> Option<MemberId> {
        self.raft.server_metrics().borrow_watched().current_leader
    }

    /// Whether this member leads with a quorum behind it, or has heard of a leader recently.
    pub(crate) fn in_contact(&self) -> bool {
        match *self.leadership.borrow() {
            Leadership::Leader { .. } => true,
            Leadership::NotLeader { .. } => {
                let recent = self.config.timing.election_max * 2;
                !self.leads() && self.leader().is_some() && self.heard.at().elapsed() < recent
            }
        }
    }

    /// How to talk to another member.
    pub(crate) fn target(&self, id: MemberId) -> Option<Target> {
        let metrics = self.raft.server_metrics();
        let m = metrics.borrow_watched();
        m.membership_config.get_node(&id).map(|info| Target { id, address: info.peer_address.clone() })
    }

    /// Runs a task until it ends or the member stops.
    pub(crate) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn_on(
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = task => {}
                }
            },
            &self.runtime,
        );
    }

    /// Why this member's engine stopped; waits as long as it runs, and for good after an orderly end.
    pub(crate) async fn failed(&self) -> String {
        // Seldom changes, and ends with the engine; all metrics change with each heartbeat.
        let mut metrics = self.raft.server_metrics();
        let ended = async { while metrics.changed().await.is_ok() {} };
        let (damage, mut taken_out) = (self.machine.damage(), self.taken_out.subscribe());
        let mut out = self.taken_out.subscribe();
        let told = async move { out.wait_for(Option::is_some).await.ok().and_then(|why| why.clone()) };
        tokio::select! {
            biased;
            // Whoever leaves ends its engine.
            () = self.removed.cancelled() => return self.has_left().unwrap_or_default(),
            () = ended => {}
            why = told => return format!("the state of this member is damaged: {}", why.unwrap_or_default()),
        };
        if self.stop.is_cancelled() {
            return std::future::pending().await;
        }
        if damage.borrow().is_some() && self.machine.members().nodes.len() > 1 {
            // That is why it ended: it is to be noted before the process is.
            let noted = tokio::time::timeout(NOTED, taken_out.wait_for(Option::is_some)).await;
            let why = noted.ok().and_then(|why| why.ok()?.clone());
            return format!("the state of this member is damaged: {}", why.unwrap_or_default());
        }
        match &self.raft.metrics().borrow_watched().running_state {
            Err(error) => error.to_string(),
            Ok(()) => "the Raft core has ended".to_owned(),
        }
    }

    /// What an error of the Raft core means for a caller.
    pub(crate) fn fatal(&self, error: impl std::fmt::Display, maybe_applied: bool) -> StoreError {
        if self.stop.is_cancelled() {
            return StoreError::ShuttingDown;
        }
        StoreError::Unavailable { reason: format!("this member has stopped: {error}"), maybe_applied }
    }
}

/// Owns what runs for a member; dropping it stops the member.
pub(crate) struct Handle {
    pub(crate) node: Arc<Node>,
    /// None in a simulation, which has one of its own.
    runtime: Mutex<Option<Runtime>>,
}

impl Handle {
    pub(crate) fn new(node: Arc<Node>, runtime: Option<Runtime>) -> Arc<Self> {
        Arc::new(Self { node, runtime: Mutex::new(runtime) })
    }

    /// The friendly way to stop.
    pub(crate) async fn shutdown(&self) -> Result<(), StoreError> {
        let node = &self.node;
        if node.stop.is_cancelled() {
            return Ok(());
        }
        // Another member should lead before this one is gone, but it is no reason not to stop.
        if let Err(error) = node.transfer_leadership().await {
            tracing::info!(%error, "leadership is not handed over");
        }
        node.leadership.send_replace(Leadership::NotLeader { leader: None });
        node.stop.cancel();
        node.tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(2), node.tasks.wait()).await;
        let _ = node.raft.shutdown().await;
        node.writer.stop().await;
        let machine = node.machine.clone();
        let flushed = blocking(move || machine.flush()).await;
        let runtime = self.runtime.lock().take();
        if let Some(runtime) = runtime {
            let ended = move || runtime.shutdown_timeout(Duration::from_secs(5));
            let _ = tokio::task::spawn_blocking(ended).await;
        }
        flushed.map_err(|_| StoreError::ShuttingDown)??;
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.node.stop.cancel();
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}
