//! What the agent and a shim say to each other, and the files both of them know.
//!
//! A shim outlives the agent that started it, so an older shim talks with a newer agent and the other way round:
//! the first message names the version, unknown fields are ignored and unknown requests get an [`Reply::Error`].
//! One connection carries one request; a message is one JSON document in one packet of a `SOCK_SEQPACKET` socket.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Version of this protocol. Raised only if an older peer could misunderstand, not for additions.
pub const VERSION: u32 = 1;
/// Longest message.
pub const MAX_MESSAGE: usize = 128 << 10;
/// Containers in one [`Reply::State`]; more of them take several.
const STATE_CHUNK: usize = 16;
/// Longest message of an exit in a [`Reply::State`].
const STATE_TEXT: usize = 1 << 10;
/// The shim's socket, in the pod's directory.
pub const SOCKET: &str = "shim.sock";
/// What the shim was told at its start.
pub const SHIM_FILE: &str = "shim.json";
/// A container's record, in the container's directory.
pub const CONTAINER_FILE: &str = "container.json";
/// A container's exit record, in the container's directory.
pub const EXIT_FILE: &str = "exit.json";
/// Directory of the containers in the pod's directory.
pub const CONTAINERS: &str = "c";
/// Directory of `libcontainer`'s state in the pod's directory.
pub const STATE: &str = "r";

/// Everything a shim must know about its pod, in [`SHIM_FILE`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PodShim {
    pub version: u32,
    pub uid: String,
    pub namespace: String,
    pub name: String,
    /// Host name inside the UTS namespace.
    pub hostname: String,
    /// Cgroup of the shim itself.
    pub shim_cgroup: String,
    /// Cgroup of the pod's containers.
    pub pod_cgroup: String,
    #[serde(default)]
    pub host_network: bool,
    #[serde(default)]
    pub host_ipc: bool,
    /// All containers see each other's processes, below a pause process.
    #[serde(default)]
    pub share_pid: bool,
    /// Memory file systems that the shim mounts before anything runs.
    #[serde(default)]
    pub tmpfs: Vec<Tmpfs>,
}

/// A memory file system.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tmpfs {
    pub target: PathBuf,
    pub options: String,
}

/// A container to be run; also its record on disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub id: String,
    pub name: String,
    /// How many times the container was started before.
    pub attempt: u32,
    pub image: String,
    pub image_id: String,
    /// Only the shim's business: the statuses it reports leave them out.
    #[serde(default)]
    pub layers: Vec<PathBuf>,
    /// User as the image or the pod gives it.
    pub user: String,
    #[serde(default)]
    pub extra_groups: Vec<u32>,
    #[serde(default)]
    pub run_as_non_root: bool,
    #[serde(default)]
    pub terminal: bool,
    #[serde(default)]
    pub stdin: bool,
    #[serde(default)]
    pub stdin_once: bool,
    /// Signal that asks it to stop.
    pub stop_signal: i32,
    pub cgroup: String,
    pub log: PathBuf,
    pub log_max_bytes: u64,
    pub log_max_files: u32,
}

/// How a container ended, in [`EXIT_FILE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0..=255; 128 + signal if a signal ended it.
    pub code: i32,
    #[serde(default)]
    pub signal: i32,
    #[serde(default)]
    pub oom_killed: bool,
    /// Unix time in nanoseconds; 0 if it never started.
    pub started_ns: i64,
    pub finished_ns: i64,
    /// Set if it could not be started, or if its end was not seen.
    #[serde(default)]
    pub message: Option<String>,
    /// It never ran.
    #[serde(default)]
    pub start_failed: bool,
}

/// A container as the shim sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerStatus {
    pub spec: ContainerSpec,
    pub pid: i32,
    pub started_ns: i64,
    pub exit: Option<Exit>,
}

/// The first and only request on a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    pub version: u32,
    pub op: Op,
}

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// State now, then each exit as it happens.
    Watch,
    /// Run a container whose `config.json` is in place.
    Start { spec: Box<ContainerSpec> },
    /// Run a process in a container. Carries stdin, stdout and stderr unless `terminal`. The process is killed when the
    /// connection ends, unless it is `detached`.
    Exec {
        id: String,
        args: Vec<String>,
        terminal: bool,
        columns: u16,
        rows: u16,
        #[serde(default)]
        detached: bool,
    },
    /// Copy a container's output to the two descriptors carried.
    Attach { id: String, stdin: bool },
    /// Send a signal to a container's init.
    Signal { id: String, signal: i32 },
    /// End everything and exit.
    Shutdown,
    /// A request of a newer agent.
    #[serde(other)]
    Unknown,
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Answer to [`Op::Watch`]; with `more`, the next message is another one with further containers.
    State {
        version: u32,
        shim_pid: i32,
        containers: Vec<ContainerStatus>,
        #[serde(default)]
        more: bool,
    },
    /// A container ended.
    Exited { id: String, exit: Exit },
    /// A container or a process runs. For a terminal it carries the master.
    Started { pid: i32, started_ns: i64 },
    /// A process started with [`Op::Exec`] ended.
    ExecExited { code: i32 },
    /// Done. For [`Op::Attach`] it may carry the descriptor to write input to.
    Done,
    /// Not done.
    Error { message: String },
    /// A message of a newer shim.
    #[serde(other)]
    Unknown,
}

/// The answers to [`Op::Watch`], each of which fits into a message however many containers there are and whatever
/// their images are made of.
pub(crate) fn state_replies(shim_pid: i32, mut all: Vec<ContainerStatus>) -> Vec<Reply> {
    for status in &mut all {
        status.spec.layers.clear();
        status.spec.extra_groups.clear();
        if let Some(message) = status.exit.as_mut().and_then(|exit| exit.message.as_mut()) {
            message.truncate(message.floor_char_boundary(STATE_TEXT));
        }
    }
    let mut replies = Vec::new();
    loop {
        let rest = all.split_off(all.len().min(STATE_CHUNK));
        let more = !rest.is_empty();
        replies.push(Reply::State { version: VERSION, shim_pid, containers: std::mem::replace(&mut all, rest), more });
        if !more {
            return replies;
        }
    }
}

/// Unix time in nanoseconds.
pub fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Writes a file so that it is there whole or not at all, also after a crash of the machine.
pub fn write_durably(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    replace(path, bytes, true)
}

/// Writes a file so that whoever reads it finds it whole. For what only matters while the pod's processes live: it is not
/// on disk yet when this returns, and a crash of the machine, which ends them too, can leave nothing or an empty file.
pub fn write_whole(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    replace(path, bytes, false)
}

fn replace(path: &std::path::Path, bytes: &[u8], durable: bool) -> std::io::Result<()> {
    use std::io::Write as _;
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    if durable {
        file.sync_all()?;
    }
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(parent) if durable => std::fs::File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_newer_peer_says_is_understood_as_unknown() {
        let request: Request =
            serde_json::from_str(r#"{"version":9,"new":1,"op":{"op":"dance","how":"well"}}"#).unwrap();
        assert!(matches!(request.op, Op::Unknown));
        let reply: Reply = serde_json::from_str(r#"{"reply":"danced","steps":3}"#).unwrap();
        assert!(matches!(reply, Reply::Unknown));
    }

    #[test]
    fn the_state_of_many_containers_fits_into_messages() {
        let layer = |n: usize| PathBuf::from(format!("/var/lib/trireme/images/layers/sha256/{n:064}"));
        let status = |n: u32| ContainerStatus {
            spec: ContainerSpec {
                id: format!("{n:064}"),
                name: format!("container-{}", n / 2),
                attempt: n % 2,
                image: format!("registry.example/{}:v1", "team/".repeat(40)),
                layers: (0..40).map(layer).collect(),
                extra_groups: vec![4_000_000_000; 1000],
                ..ContainerSpec::default()
            },
            pid: 7,
            started_ns: 1,
            exit: Some(Exit {
                code: 128,
                signal: 0,
                oom_killed: false,
                started_ns: 0,
                finished_ns: 2,
                message: Some("\u{1}ä".repeat(4000)),
                start_failed: true,
            }),
        };
        let replies = state_replies(5, (0..24).map(status).collect());
        let mut ids = Vec::new();
        for (index, reply) in replies.iter().enumerate() {
            let text = serde_json::to_vec(reply).unwrap();
            assert!(text.len() <= MAX_MESSAGE, "{} bytes", text.len());
            let Reply::State { containers, more, shim_pid: 5, .. } = serde_json::from_slice(&text).unwrap() else {
                panic!("not a state")
            };
            assert_eq!(more, index + 1 < replies.len());
            ids.extend(containers.into_iter().map(|container| container.spec.id));
        }
        assert_eq!(ids, (0..24).map(|n| format!("{n:064}")).collect::<Vec<_>>());
        assert_eq!(state_replies(5, Vec::new()).len(), 1);
    }

    #[test]
    fn records_lack_what_older_shims_did_not_write() {
        let exit: Exit = serde_json::from_str(r#"{"code":1,"started_ns":1,"finished_ns":2,"later":true}"#).unwrap();
        assert_eq!(exit.message, None);
    }
}
