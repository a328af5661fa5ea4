//! What a member needs to know before it starts, and the limits it enforces.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::faults::Faults;
use crate::simulation::Environment;
use crate::storage::disk::memory::MemoryDisk;
use crate::storage::disk::{Disk, Home};
use crate::storage::files::Identity;
use crate::types::{MemberId, StoreError};

/// Everything a member is configured with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory that holds this member's data, and nothing else.
    pub data_dir: PathBuf,
    /// Name of the member, unique in the group.
    pub name: String,
    /// Address the peer server listens on.
    pub listen: SocketAddr,
    /// `host:port` under which the other members reach the peer server.
    pub advertise: String,
    /// What the layer above wants every member to know of this one, for example the URL of its API; opaque here.
    pub client_address: String,
    /// Key, certificate and CA for the traffic between members.
    pub tls: PeerTls,
    /// Heartbeats, elections and time-outs.
    pub timing: Timing,
    /// Bounds on what the store takes.
    pub limits: Limits,
    /// What goes wrong on purpose: nothing, but in tests.
    #[doc(hidden)]
    pub faults: Faults,
    /// A disk in memory that the directory is on, for simulations.
    #[doc(hidden)]
    pub memory: Option<MemoryDisk>,
    /// The newest feature level that this member says it knows; tests let a member pretend to be older or newer.
    #[doc(hidden)]
    pub feature_level: u32,
    /// What is around the member: the machine, but in simulations.
    #[doc(hidden)]
    pub environment: Environment,
}

/// TLS material for the traffic between members. The CA must sign members only: whoever holds a certificate of it is
/// taken for a peer.
#[derive(Clone)]
pub struct PeerTls {
    /// Certificates of the peers' CA.
    pub ca_pem: Vec<u8>,
    /// This member's certificate chain.
    pub cert_pem: Vec<u8>,
    /// This member's private key.
    pub key_pem: Vec<u8>,
}

impl std::fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerTls(..)")
    }
}

/// Heartbeats, elections and time-outs.
#[derive(Clone, Debug)]
pub struct Timing {
    /// How often the leader tells the others that it lives.
    pub heartbeat: Duration,
    /// Shortest silence after which a member stands for election; also the leader's lease: how long the others elect
    /// nobody else after they heard of it, and how long it may act without having heard of a quorum. The lease ends
    /// early for a leader whose process is known to be dead.
    pub election_min: Duration,
    /// Longest such silence.
    pub election_max: Duration,
    /// How long a write may take before it is answered with `Unavailable { maybe_applied: true }`.
    pub write_timeout: Duration,
    /// How long a linearizable read may wait for a quorum.
    pub read_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(900),
            write_timeout: Duration::from_secs(7),
            read_timeout: Duration::from_secs(5),
        }
    }
}

/// Bounds on what the store takes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest key, in bytes.
    pub max_key_bytes: usize,
    /// Longest value, in bytes.
    pub max_value_bytes: usize,
    /// Most operations and compares in one transaction.
    pub max_txn_ops: usize,
    /// Most bytes of keys and values in one transaction.
    pub max_txn_bytes: usize,
    /// Writes that may wait for their commit on one member; further ones are refused.
    pub max_pending_writes: usize,
    /// Bytes of them.
    pub max_pending_bytes: usize,
    /// Watches open at one time on one member.
    pub max_watches: usize,
    /// Newest events that are kept in memory for all watchers together; a watcher that falls further behind is fed
    /// from history.
    pub watch_events: usize,
    /// Bytes of them.
    pub watch_bytes: usize,
    /// Revisions that a watcher may lag behind before it is closed with `SlowWatcher`.
    pub watch_max_lag: u64,
    /// Entries applied between two flushes of the state, after which the log is shortened.
    pub snapshot_entries: u64,
    /// Entries kept in the log behind the last flush, so that a member that was away briefly needs no snapshot.
    pub keep_log_entries: u64,
    /// Bytes after which the log goes on in another file; it is shortened by whole files.
    pub log_segment_bytes: u64,
    /// For how long former states can be read and watches can resume: the leader compacts what is older.
    pub keep_history: Duration,
    /// How often the leader compares the hashes of all members' states.
    pub compare_states: Duration,
    /// How often a member reads its whole state from disk and compares it with the hash that apply noted.
    pub verify_state: Duration,
    /// With less than this free on the disk, or an eighth of a small one, what needs more room is refused.
    pub min_free_bytes: u64,
    /// Kept on top of that, at most a sixteenth of the disk, for what makes room.
    pub reserve_bytes: u64,
    /// A disk that takes longer for one write of the log is stalled: a leader then hands over.
    pub disk_stall: Duration,
    /// For how long all members have to know a feature level before it is used; until then an upgrade can be taken back.
    pub raise_after: Duration,
    /// Bytes of a snapshot that are sent to another member in a second: what is left is for everybody else.
    pub snapshot_bytes_per_second: u64,
    /// Bytes of former states that are kept at most, however young they are.
    pub max_history_bytes: u64,
    /// After how long without a sign of life the leader removes a member for good, if a quorum is left; `None`: never.
    pub remove_dead_after: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_key_bytes: 4 << 10,
            max_value_bytes: 3 << 19,
            max_txn_ops: 512,
            max_txn_bytes: 8 << 20,
            max_pending_writes: 4096,
            max_pending_bytes: 64 << 20,
            max_watches: 20_000,
            watch_events: 20_000,
            watch_bytes: 16 << 20,
            watch_max_lag: 1_000_000,
            snapshot_entries: 20_000,
            keep_log_entries: 10_000,
            log_segment_bytes: 16 << 20,
            keep_history: Duration::from_secs(300),
            compare_states: Duration::from_secs(10),
            verify_state: Duration::from_secs(3600),
            min_free_bytes: 256 << 20,
            reserve_bytes: 64 << 20,
            disk_stall: Duration::from_secs(1),
            raise_after: Duration::from_secs(3600),
            snapshot_bytes_per_second: 48 << 20,
            max_history_bytes: 1 << 30,
            remove_dead_after: None,
        }
    }
}

impl Config {
    /// A configuration with default timing and limits.
    pub fn new(
        data_dir: impl Into<PathBuf>,
        name: impl Into<String>,
        listen: SocketAddr,
        advertise: impl Into<String>,
        client_address: impl Into<String>,
        tls: PeerTls,
    ) -> Self {
        Self {
            data_dir: data_dir.into(),
            name: name.into(),
            listen,
            advertise: advertise.into(),
            client_address: client_address.into(),
            tls,
            timing: Timing::default(),
            limits: Limits::default(),
            faults: Faults::default(),
            memory: None,
            feature_level: crate::machine::FEATURE_LEVEL,
            environment: Environment::default(),
        }
    }

    /// The disk that the data directory is on.
    pub(crate) fn disk(&self) -> Disk {
        self.memory.as_ref().map_or(Disk::Real, |memory| Disk::Memory(memory.mount()))
    }

    /// Whether the directory holds a member.
    #[doc(hidden)]
    pub fn has_data(&self) -> Result<bool, StoreError> {
        Ok(Identity::exists(&self.disk(), &self.data_dir)?)
    }

    /// The directory of the member, on its disk.
    pub(crate) fn home(&self) -> Home {
        Home { disk: self.disk(), dir: self.data_dir.clone() }
    }

    /// Checks everything that can be checked without touching disk or network.
    pub fn validate(&self) -> Result<(), StoreError> {
        let refuse = |why: String| Err(StoreError::Invalid(why));
        check_name(&self.name)?;
        check_address("advertise", &self.advertise)?;
        let t = &self.timing;
        if t.heartbeat.as_millis() < 5 || t.election_min < 2 * t.heartbeat || t.election_max <= t.election_min {
            return refuse(
                "timing: need heartbeat >= 5 ms, election_min >= 2 heartbeats, election_max > election_min".into(),
            );
        }
        if t.write_timeout < t.election_max || t.read_timeout < t.election_max {
            return refuse("timing: write and read time-outs must not be shorter than election_max".into());
        }
        let l = &self.limits;
        let smallest = [
            l.max_key_bytes,
            l.max_value_bytes,
            l.max_txn_ops,
            l.max_pending_writes,
            l.max_watches,
            l.watch_events,
            l.watch_bytes,
            l.snapshot_bytes_per_second as usize,
        ];
        let waits = l.compare_states.is_zero();
        if smallest.contains(&0) || l.watch_max_lag == 0 || l.snapshot_entries == 0 || waits {
            return refuse("limits must not be 0".into());
        }
        if !(1..=1 << 30).contains(&l.log_segment_bytes) {
            return refuse("limits: log_segment_bytes must be between 1 and 1 GiB".into());
        }
        if l.max_txn_bytes < l.max_value_bytes + l.max_key_bytes {
            return refuse("limits: max_txn_bytes must hold at least one key and value".into());
        }
        if l.max_pending_bytes < l.max_txn_bytes || l.max_pending_bytes > u32::MAX as usize {
            return refuse("limits: max_pending_bytes must hold at least one transaction, and be below 4 GiB".into());
        }
        Ok(())
    }
}

/// A member name: what fits in a DNS label, since it ends up in certificates and host names.
pub(crate) fn check_name(name: &str) -> Result<(), StoreError> {
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        && !name.starts_with(['-', '.'])
        && !name.ends_with(['-', '.']);
    if fits { Ok(()) } else { Err(StoreError::Invalid(format!("{name:?} is not usable as a member name"))) }
}

/// A `host:port`.
pub(crate) fn check_address(what: &str, address: &str) -> Result<(), StoreError> {
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p != 0) => Ok(()),
        _ => Err(StoreError::Invalid(format!("{what}: {address:?} is not host:port"))),
    }
}

/// A member that is to be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMember {
    /// Name, unique in the group.
    pub name: String,
    /// `host:port` of its peer server.
    pub peer_address: String,
    /// Opaque address for clients.
    pub client_address: String,
    /// The newest feature level that its build knows.
    #[serde(default)]
    pub feature_level: u32,
}

/// How a member is to be added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddOptions {
    /// It stays without a vote until it is promoted by hand; otherwise it gets one as soon as it has caught up.
    pub held: bool,
    /// A dead member of its name makes room for it.
    pub replace: bool,
}

/// The right to join as a certain member, made by `Store::add_member`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinGrant {
    /// Identity of the new member.
    pub id: MemberId,
    /// Lineage that it joins.
    pub lineage: String,
    /// What the group uses: builds that do not know this feature level cannot join.
    #[serde(default)]
    pub feature_level: u32,
    /// The members at the time of the grant, the new one included.
    pub members: Vec<GrantMember>,
}

/// One member inside a [`JoinGrant`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantMember {
    /// Identity.
    pub id: MemberId,
    /// Name.
    pub name: String,
    /// `host:port` of its peer server.
    pub peer_address: String,
    /// Opaque address for clients.
    pub client_address: String,
}
