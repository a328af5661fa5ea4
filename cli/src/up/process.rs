//! Processes of hosts: started inside the host's namespace and detached, found again by pid and start time.
//!
//! A pid alone says nothing once its process has ended: the number is given to others. So beside `pid` lies
//! `pid.started` with the time at which the kernel started that process, and only a match of both is ours.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};

use super::layout::{Host, Kind, Layout};
use super::network::netns_file;

/// A process that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// When the kernel started it, in ticks since boot.
    started: u64,
}

impl Process {
    /// The running process with this pid; `None` for zombies too.
    pub fn of(pid: i32) -> Option<Process> {
        let (state, started) = stat(pid)?;
        (state != 'Z' && state != 'X').then_some(Process { pid, started })
    }

    /// Whether it still runs.
    pub fn alive(self) -> bool {
        Process::of(self.pid) == Some(self)
    }

    /// Sends a signal, unless the process has ended.
    pub fn signal(self, signal: Signal) {
        if self.alive() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

/// State and start time out of `/proc/<pid>/stat`, whose second field may hold blanks and parentheses.
fn stat(pid: i32) -> Option<(char, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<(char, u64)> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// The process of a host, if it runs: by its pid file, or, where that is lost, by its command line.
pub fn find(layout: &Layout, host: &Host) -> Option<Process> {
    recorded(host).or_else(|| adopt(layout, host))
}

/// The process in the pid file.
pub fn recorded(host: &Host) -> Option<Process> {
    let read = |name: &str| fs::read_to_string(host.dir.join(name)).ok();
    let pid: i32 = read("pid")?.trim().parse().ok()?;
    let started: u64 = read("pid.started")?.trim().parse().ok()?;
    Process::of(pid).filter(|process| process.started == started)
}

/// A process of this host that no pid file tells of: it runs the cluster's program with this host's data directory.
fn adopt(layout: &Layout, host: &Host) -> Option<Process> {
    let data = host.data();
    let found = running(layout).into_iter().find(|process| {
        let args = arguments(process.pid);
        args.get(1).is_some_and(|verb| verb == "master" || verb == "node")
            && args.windows(2).any(|pair| pair[0] == "--data-dir" && Path::new(&pair[1]) == data)
    })?;
    let _ = record(host, found);
    Some(found)
}

fn record(host: &Host, process: Process) -> anyhow::Result<()> {
    let write = |name: &str, number: String| {
        let path = host.dir.join(name);
        fs::write(&path, number + "\n").with_context(|| format!("cannot write {}", path.display()))
    };
    write("pid.started", process.started.to_string())?;
    write("pid", process.pid.to_string())
}

/// Command line of a process.
fn arguments(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|b| *b == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
}

/// All processes on the machine.
fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a command line is that of a master, an agent or a shim of the cluster. What else its program does, somebody
/// has typed, and that may go on: `trictl get pods -w`.
fn is_host(layout: &Layout, args: &[String]) -> bool {
    let below = |arg: &String| {
        let path = Path::new(arg);
        path.starts_with(&layout.root) || path.canonicalize().is_ok_and(|path| path.starts_with(&layout.root))
    };
    match args.get(1).map(String::as_str) {
        Some("shim") => true,
        Some("master" | "node") => args.windows(2).any(|pair| pair[0] == "--data-dir" && below(&pair[1])),
        _ => false,
    }
}

/// Every process that runs the cluster's program for it: masters, agents, shims.
pub fn running(layout: &Layout) -> Vec<Process> {
    let binary = layout.binary();
    let ours = |pid: i32| {
        let Ok(exe) = fs::read_link(format!("/proc/{pid}/exe")) else { return false };
        // The program may have been replaced or removed since.
        let text = exe.to_string_lossy();
        Path::new(text.strip_suffix(" (deleted)").unwrap_or(&text)) == binary && is_host(layout, &arguments(pid))
    };
    let own = std::process::id() as i32;
    pids().into_iter().filter(|pid| *pid != own && ours(*pid)).filter_map(Process::of).collect()
}

/// Every process inside one of the namespaces.
pub fn inside(namespaces: &[String]) -> Vec<Process> {
    use std::os::unix::fs::MetadataExt;
    let inode = |path: &Path| fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let own = inode(Path::new("/proc/self/ns/net"));
    let wanted: Vec<_> = namespaces.iter().filter_map(|n| inode(&netns_file(n))).filter(|i| Some(*i) != own).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let member = |pid: i32| inode(Path::new(&format!("/proc/{pid}/ns/net"))).is_some_and(|i| wanted.contains(&i));
    pids().into_iter().filter(|pid| member(*pid)).filter_map(Process::of).collect()
}

/// Whether a process lives in the namespace that the host has now.
pub fn in_namespace(process: Process, host: &Host) -> bool {
    inside(std::slice::from_ref(&host.netns)).contains(&process)
}

/// Starts a host's process in its namespace. It outlives this program; its output goes to the host's log.
pub fn start(layout: &Layout, host: &Host, entry: &Entry, more: &[String]) -> anyhow::Result<(Process, Child)> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&host.dir)
        .with_context(|| format!("cannot create {}", host.dir.display()))?;
    let log = host.log();
    // A founding master prints its join tokens.
    let open = || File::options().create(true).append(true).mode(0o600).open(&log);
    let output = open().with_context(|| format!("cannot write {}", log.display()))?;
    let file = netns_file(&host.netns);
    let netns = File::open(&file).with_context(|| format!("cannot open {}", file.display()))?;
    let mut command = Command::new(layout.binary());
    command
        .args(arguments_for(layout, host, entry))
        .args(more)
        .current_dir(&host.dir)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .env_remove("KUBECONFIG")
        .env_remove("TRIREME_TOKEN");
    // Arguments can be read by everyone on the machine, an environment by its owner alone.
    if let Entry::Join { token, .. } = entry {
        command.env("TRIREME_TOKEN", token);
    }
    // SAFETY: only system calls between fork and exec; nothing allocates or locks.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            setns(&netns, CloneFlags::CLONE_NEWNET)?;
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
            Ok(())
        });
    }
    let child = command.spawn().with_context(|| format!("cannot start {}", layout.binary().display()))?;
    let process = Process::of(child.id() as i32)
        .with_context(|| format!("{} ended at once; see {}", host.name, log.display()))?;
    record(host, process)?;
    Ok((process, child))
}

/// The last lines of a host's log, without the stack of earlier runs.
pub fn log_tail(host: &Host, lines: usize) -> String {
    let text = fs::read(host.log()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(16 * 1024)..]);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    {line}\n")).collect()
}

/// Asks processes to end, masters and agents alike, and kills those that do not within the grace time.
pub async fn stop(processes: &[Process], grace: Duration) {
    for process in processes {
        process.signal(Signal::SIGTERM);
    }
    wait_gone(processes, grace).await;
    kill_all(processes).await;
}

/// Kills processes and waits until they are gone.
pub async fn kill_all(processes: &[Process]) {
    for process in processes {
        process.signal(Signal::SIGKILL);
    }
    wait_gone(processes, Duration::from_secs(5)).await;
}

async fn wait_gone(processes: &[Process], limit: Duration) {
    let deadline = Instant::now() + limit;
    while processes.iter().any(|process| process.alive()) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The command line of a host's process.
fn arguments_for(layout: &Layout, host: &Host, entry: &Entry) -> Vec<String> {
    let mut args: Vec<String> = Vec::new();
    let mut push = |parts: &[&str]| args.extend(parts.iter().map(ToString::to_string));
    let (data, ip) = (host.data().display().to_string(), host.ip.to_string());
    match host.kind {
        Kind::Master => push(&["master", "--data-dir", &data, "--advertise", &ip, "--name", &host.name]),
        Kind::Node => {
            let images = layout.images().display().to_string();
            let cgroup = format!("{}/{}", layout.cgroup(), host.name);
            push(&["node", "--data-dir", &data, "--address", &ip, "--name", &host.name]);
            push(&["--images", &images, "--cgroup-root", &cgroup]);
        }
    }
    match entry {
        Entry::Again => {}
        Entry::Found => push(&["--init"]),
        Entry::Join { url, .. } => push(&["--join", url]),
    }
    args
}

/// How a process comes into the cluster.
#[derive(Clone, Debug)]
pub enum Entry {
    /// It has been a member before.
    Again,
    /// It founds the cluster.
    Found,
    /// It joins.
    Join {
        /// URL of a master.
        url: String,
        /// Token for its kind.
        token: String,
    },
}

/// Path of a host's pid file, for what is printed.
pub fn pid_file(host: &Host) -> PathBuf {
    host.dir.join("pid")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn stat_lines_with_odd_names_are_read() {
        let line = "42 (a b) c) S 1 42 42 0 -1 4194560 1 0 0 0 2 1 0 0 20 0 9 0 987654 1000 5 1";
        assert_eq!(parse_stat(line), Some(('S', 987_654)));
        assert_eq!(parse_stat("rubbish"), None);
    }

    #[test]
    fn a_reused_pid_is_not_ours() {
        let own = Process::of(std::process::id() as i32).unwrap();
        assert!(own.alive());
        assert!(!Process { started: own.started + 1, ..own }.alive());
    }

    #[test]
    fn what_somebody_typed_is_no_host() {
        let layout = Layout::new(Path::new("/c"), "x").unwrap();
        let host = |line: &str| is_host(&layout, &line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(host("/c/x/bin/trireme master --data-dir /c/x/master-1/data --name master-1"));
        assert!(host("/c/x/bin/trireme node --data-dir /c/x/node-1/data --address 10.0.0.1"));
        assert!(host("trireme shim /c/x/node-1/data/pods/1"));
        for other in [
            "trictl get pods -w --kubeconfig /c/x/kubeconfig",
            "/c/x/bin/trireme ctl logs -f node",
            "/c/x/bin/trireme status --watch",
            "/c/x/bin/trireme node reset --data-dir /elsewhere/node",
            "/c/x/bin/trireme master --data-dir /elsewhere/master",
        ] {
            assert!(!host(other), "{other}");
        }
    }

    #[test]
    fn only_hosts_are_found_among_what_runs_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path(), "x").unwrap();
        fs::create_dir_all(layout.root.join("bin")).unwrap();
        // A program that waits whatever its arguments are.
        let shell = fs::canonicalize("/bin/sh").unwrap();
        // By a process of its own: a file that this one has open for writing may not be run by others.
        assert!(Command::new("cp").arg(shell).arg(layout.binary()).status().unwrap().success());
        let script = dir.path().join("wait");
        fs::write(&script, "echo started; read line").unwrap();
        let start = |verb: &str| {
            use std::io::Read;
            let data = layout.root.join("master-1/data");
            let mut command = Command::new(layout.binary());
            // The shell takes the verb for its script.
            command.current_dir(dir.path()).arg(verb).arg("--data-dir").arg(data);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut said = [0; 7];
            child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
            child
        };
        for verb in ["master", "get"] {
            fs::copy(&script, dir.path().join(verb)).unwrap();
        }
        let mut children = [start("master"), start("get")];
        let found: Vec<i32> = running(&layout).into_iter().map(|process| process.pid).collect();
        let host = children[0].id() as i32;
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(found, [host]);
    }

    #[tokio::test]
    async fn a_zombie_counts_as_gone() {
        let mut child = Command::new("/bin/true").spawn().unwrap();
        let pid = child.id() as i32;
        let process = Process::of(pid).unwrap_or(Process { pid, started: 0 });
        wait_gone(&[process], Duration::from_secs(5)).await;
        assert!(!process.alive());
        child.wait().unwrap();
    }
}
