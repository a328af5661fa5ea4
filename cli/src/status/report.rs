//! What `trireme status` has found out, as programs read it. Keys are stable: new ones may come, none goes or changes.

use serde::Serialize;
use trireme_apiserver::join::wire::DiskInfo;

/// How the cluster is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing is wrong with masters, nodes, certificates and disks.
    #[default]
    Healthy,
    /// Something is.
    Degraded,
    /// No master answers.
    Unreachable,
}

impl Verdict {
    /// The program's exit code.
    pub fn code(self) -> u8 {
        match self {
            Verdict::Healthy => 0,
            Verdict::Degraded => 1,
            Verdict::Unreachable => 2,
        }
    }
}

/// Something to look at, and what to type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about: a host, `quorum`, a pod …
    pub about: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// How the cluster is.
    pub verdict: Verdict,
    /// What makes it degraded.
    pub problems: Vec<Finding>,
    /// What does not, and is worth a look.
    pub warnings: Vec<Finding>,
    /// Name of the cluster.
    pub cluster: String,
    /// When this was found out, RFC 3339.
    pub time: String,
    /// Whether nodes, pods and deployments are shown as they were before the quorum was lost.
    pub stale: bool,
    /// Who is needed.
    pub quorum: Quorum,
    /// The masters, by name.
    pub masters: Vec<Master>,
    /// The nodes, by name; `null` where nobody could be asked.
    pub nodes: Option<Vec<Node>>,
    /// The pods, counted.
    pub pods: Option<Pods>,
    /// The deployments, counted.
    pub deployments: Option<Deployments>,
    /// All certificates, those that run out first at the front.
    pub certificates: Vec<Certificate>,
    /// Warnings of the last fifteen minutes, newest first, at most five.
    pub events: Vec<Event>,
}

/// Votes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Quorum {
    /// Whether there is one.
    pub present: bool,
    /// Members with a vote.
    pub voters: usize,
    /// Voters that answer and are in contact with the leader.
    pub reachable: usize,
    /// How many are needed.
    pub needed: usize,
    /// How many more may be lost.
    pub tolerates: usize,
    /// Name of the leader.
    pub leader: Option<String>,
}

/// A process of a local cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// Its id, if it runs.
    pub pid: Option<i32>,
}

/// A master.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Master {
    /// Name.
    pub name: String,
    /// URL of its API.
    pub address: String,
    /// `leader`, `follower`, `learner`, or `unknown`.
    pub role: String,
    /// Whether it answers and says that it is ready.
    pub healthy: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Raft term.
    pub term: Option<u64>,
    /// Newest applied revision.
    pub revision: Option<u64>,
    /// Index of the newest applied entry.
    pub applied_index: Option<u64>,
    /// Index of the newest entry in its log.
    pub last_log_index: Option<u64>,
    /// Entries behind the leader.
    pub lag: Option<u64>,
    /// Bytes on disk of state and log.
    pub db_size_bytes: Option<u64>,
    /// File system of its data directory.
    pub disk: Option<DiskInfo>,
    /// What is wrong with its store, in words.
    pub alarms: Vec<String>,
    /// Resident memory of its process.
    pub resident_bytes: Option<u64>,
    /// Seconds until the first of its own certificates runs out.
    pub certificate_seconds: Option<i64>,
    /// Version of the program.
    pub version: Option<String>,
    /// Seconds since it began to serve.
    pub uptime_seconds: Option<i64>,
    /// Its process, in a local cluster.
    pub process: Option<Process>,
}

/// Memory of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Size.
    pub total_bytes: u64,
    /// What programs may still get.
    pub available_bytes: u64,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Whether its Ready condition is true and its agent answers.
    pub ready: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Whether new pods may come.
    pub schedulable: bool,
    /// Pods that run there.
    pub pods_running: usize,
    /// Pods that it can hold.
    pub pods_capacity: u64,
    /// File system of its data directory.
    pub disk: Option<DiskInfo>,
    /// Its memory.
    pub memory: Option<Memory>,
    /// Seconds until its certificate runs out.
    pub certificate_seconds: Option<i64>,
    /// Version of its agent.
    pub version: String,
    /// Seconds since it renewed its lease.
    pub heartbeat_seconds: Option<i64>,
    /// Its agent's process, in a local cluster.
    pub process: Option<Process>,
}

/// Pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pods {
    /// All.
    pub total: usize,
    /// In phase Running.
    pub running: usize,
    /// In phase Pending.
    pub pending: usize,
    /// In phase Succeeded.
    pub succeeded: usize,
    /// In phase Failed.
    pub failed: usize,
    /// With a container that is restarted again and again.
    pub crash_looping: usize,
    /// Those in trouble, the worst first, at most five.
    pub worst: Vec<PodTrouble>,
    /// How many are in trouble.
    pub troubled: usize,
}

/// A pod in trouble.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodTrouble {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `CrashLoopBackOff`, `ErrImagePull`, `Unschedulable` …
    pub reason: String,
    /// Restarts of its containers.
    pub restarts: i32,
    /// Its node.
    pub node: String,
}

/// Deployments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Deployments {
    /// All.
    pub total: usize,
    /// Those that are not what their specification says.
    pub incomplete: Vec<Deployment>,
}

/// A deployment that is not complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deployment {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Replicas that are asked for.
    pub desired: i32,
    /// Of the newest version.
    pub updated: i32,
    /// Available ones.
    pub available: i32,
    /// What its Progressing condition says, if it does not progress.
    pub reason: Option<String>,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// Host that shows it, `cluster` or `kubeconfig`.
    pub owner: String,
    /// `ca`, `server`, `peer`, `node` …
    pub name: String,
    /// RFC 3339.
    pub not_after: String,
    /// Until then.
    pub seconds_left: i64,
    /// How long it is valid in all.
    pub lifetime_seconds: i64,
}

/// A warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Seconds ago.
    pub age_seconds: i64,
    /// `Pod default/web-1`
    pub about: String,
    /// Reason.
    pub reason: String,
    /// Message.
    pub message: String,
    /// How often.
    pub count: i32,
}

impl Report {
    /// The report without what always changes: equal ones need not be printed again.
    pub fn settled(&self) -> Report {
        let mut report = self.clone();
        report.time.clear();
        for master in &mut report.masters {
            (master.revision, master.applied_index, master.last_log_index) = (None, None, None);
            (master.db_size_bytes, master.disk, master.resident_bytes) = (None, None, None);
            (master.certificate_seconds, master.uptime_seconds) = (None, None);
            master.lag = master.lag.map(|lag| u64::from(lag > super::judge::LAG));
        }
        for node in report.nodes.iter_mut().flatten() {
            (node.disk, node.memory, node.certificate_seconds, node.heartbeat_seconds) = (None, None, None, None);
        }
        report.certificates.clear();
        report.events.iter_mut().for_each(|event| (event.age_seconds, event.count) = (0, 0));
        report
    }
}
