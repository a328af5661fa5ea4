//! Cgroups v1 (also hybrid) and v2 behind one abstraction.
//!
//! `libcontainer` makes and limits the leaf of each container. Everything above the leaf (the node's root, the QoS
//! classes, the pods) and everything that is read (processes, usage, OOM kills) is done here. A path is always
//! absolute within the hierarchy and means the same directory in every controller.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What a cgroup may use. `None` leaves the controller's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Relative weight, in v1's terms (1024 is one CPU).
    pub(crate) cpu_shares: Option<u64>,
    /// CPU time in microseconds per [`CPU_PERIOD_US`].
    pub(crate) cpu_quota_us: Option<i64>,
    /// Memory in bytes.
    pub(crate) memory_bytes: Option<i64>,
    /// Number of processes.
    pub(crate) pids: Option<i64>,
}

/// What a cgroup uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// CPU time since the cgroup was made, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// Memory charged to it, in bytes.
    pub(crate) memory_bytes: u64,
    /// Memory without inactive file pages, in bytes.
    pub(crate) working_set_bytes: u64,
    /// Number of processes.
    pub(crate) pids: u64,
}

/// The period that CPU quotas refer to.
pub(crate) const CPU_PERIOD_US: u64 = 100_000;

/// v1 controllers in which the parents of containers are made.
const PARENT_CONTROLLERS: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "freezer"];
const V2_CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "cpuset"];

/// The machine's cgroup hierarchies.
#[derive(Clone, Debug)]
pub(crate) enum Cgroups {
    /// Controllers on hierarchies of their own; `libcontainer` treats hybrid like this too.
    V1 {
        /// Every v1 hierarchy: its controllers and where it is mounted.
        hierarchies: Vec<(Vec<String>, PathBuf)>,
    },
    /// One unified hierarchy.
    V2 {
        /// Where it is mounted.
        root: PathBuf,
    },
}

impl Cgroups {
    /// Finds out what this machine has.
    pub(crate) fn detect() -> io::Result<Cgroups> {
        Self::from_mounts(&fs::read_to_string("/proc/self/mounts")?)
    }

    fn from_mounts(mounts: &str) -> io::Result<Cgroups> {
        let mut hierarchies = Vec::new();
        let mut unified = None;
        for line in mounts.lines() {
            let mut fields = line.split(' ');
            let (Some(_), Some(at), Some(kind), Some(options)) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            match kind {
                "cgroup" => {
                    let skip = ["rw", "ro", "nosuid", "nodev", "noexec", "relatime", "xattr"];
                    let controllers = options.split(',').filter(|o| !skip.contains(o) && !o.contains('='));
                    let controllers: Vec<String> = controllers.map(str::to_owned).collect();
                    if !controllers.is_empty() {
                        hierarchies.push((controllers, PathBuf::from(at)));
                    }
                }
                "cgroup2" => unified = Some(PathBuf::from(at)),
                _ => {}
            }
        }
        if !hierarchies.is_empty() {
            return Ok(Cgroups::V1 { hierarchies });
        }
        let root = unified.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy is mounted"))?;
        Ok(Cgroups::V2 { root })
    }

    /// True for the unified hierarchy.
    pub(crate) fn is_v2(&self) -> bool {
        matches!(self, Cgroups::V2 { .. })
    }

    fn directory(&self, controller: &str, path: &str) -> Option<PathBuf> {
        let relative = path.trim_start_matches('/');
        match self {
            Cgroups::V1 { hierarchies } => hierarchies
                .iter()
                .find(|(controllers, _)| controllers.iter().any(|c| c == controller))
                .map(|(_, root)| root.join(relative)),
            Cgroups::V2 { root } => Some(root.join(relative)),
        }
    }

    fn directories(&self, path: &str) -> Vec<PathBuf> {
        let relative = path.trim_start_matches('/');
        match self {
            Cgroups::V1 { hierarchies } => hierarchies.iter().map(|(_, root)| root.join(relative)).collect(),
            Cgroups::V2 { root } => vec![root.join(relative)],
        }
    }

    /// Makes a cgroup and its parents; an existing one is left as it is.
    pub(crate) fn create(&self, path: &str) -> io::Result<()> {
        match self {
            Cgroups::V1 { .. } => {
                for controller in PARENT_CONTROLLERS {
                    if let Some(directory) = self.directory(controller, path) {
                        fs::create_dir_all(directory)?;
                    }
                }
            }
            Cgroups::V2 { root } => {
                let mut at = root.clone();
                for part in path.split('/').filter(|part| !part.is_empty()) {
                    for controller in V2_CONTROLLERS {
                        // A controller that is missing or in use elsewhere leaves that limit unenforced, no more.
                        let _ = fs::write(at.join("cgroup.subtree_control"), format!("+{controller}"));
                    }
                    at.push(part);
                    match fs::create_dir(&at) {
                        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes limits to an existing cgroup.
    pub(crate) fn limit(&self, path: &str, limits: &Limits) -> io::Result<()> {
        let v2 = self.is_v2();
        let write = |controller: &str, file: &str, value: String| match self.directory(controller, path) {
            Some(directory) => fs::write(directory.join(file), value),
            None => Ok(()),
        };
        if let Some(shares) = limits.cpu_shares {
            match v2 {
                true => write("cpu", "cpu.weight", shares_to_weight(shares).to_string())?,
                false => write("cpu", "cpu.shares", shares.max(2).to_string())?,
            }
        }
        if let Some(quota) = limits.cpu_quota_us {
            match v2 {
                true => write("cpu", "cpu.max", format!("{quota} {CPU_PERIOD_US}"))?,
                false => {
                    write("cpu", "cpu.cfs_period_us", CPU_PERIOD_US.to_string())?;
                    write("cpu", "cpu.cfs_quota_us", quota.to_string())?;
                }
            }
        }
        if let Some(bytes) = limits.memory_bytes {
            write("memory", if v2 { "memory.max" } else { "memory.limit_in_bytes" }, bytes.to_string())?;
        }
        if let Some(pids) = limits.pids {
            write("pids", "pids.max", pids.to_string())?;
        }
        Ok(())
    }

    /// Moves a process into a cgroup.
    pub(crate) fn join(&self, path: &str, pid: i32) -> io::Result<()> {
        let controllers: &[&str] = if self.is_v2() { &["cpu"] } else { &PARENT_CONTROLLERS };
        for controller in controllers {
            if let Some(directory) = self.directory(controller, path) {
                fs::write(directory.join("cgroup.procs"), pid.to_string())?;
            }
        }
        Ok(())
    }

    /// Every process in a cgroup and below it.
    pub(crate) fn processes(&self, path: &str) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        for directory in self.directories(path) {
            collect_processes(&directory, &mut found);
        }
        found
    }

    /// Kills everything in a cgroup and below it. True if nothing was left within about two seconds.
    pub(crate) fn kill(&self, path: &str) -> bool {
        for _ in 0..400 {
            let processes = self.processes(path);
            if processes.is_empty() {
                return true;
            }
            for pid in processes {
                // It may have died meanwhile.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Removes a cgroup and all below it in every hierarchy. Those that still hold processes stay.
    pub(crate) fn remove(&self, path: &str) -> io::Result<()> {
        let mut result = Ok(());
        for directory in self.directories(path) {
            if let Err(error) = remove_tree(&directory) {
                result = Err(error);
            }
        }
        result
    }

    /// How often the kernel's OOM killer struck inside a cgroup.
    pub(crate) fn oom_kills(&self, path: &str) -> u64 {
        let file = if self.is_v2() { "memory.events" } else { "memory.oom_control" };
        let Some(directory) = self.directory("memory", path) else { return 0 };
        keyed(&directory.join(file), "oom_kill").unwrap_or(0)
    }

    /// What a cgroup uses now.
    pub(crate) fn usage(&self, path: &str) -> Usage {
        let file = |controller: &str, name: &str| Some(self.directory(controller, path)?.join(name));
        let number = |controller: &str, name: &str| file(controller, name).and_then(|f| read_number(&f)).unwrap_or(0);
        let key =
            |controller: &str, name: &str, key: &str| file(controller, name).and_then(|f| keyed(&f, key)).unwrap_or(0);
        let (cpu_ns, memory_bytes, inactive) = if self.is_v2() {
            let memory = number("memory", "memory.current");
            (key("cpu", "cpu.stat", "usage_usec") * 1000, memory, key("memory", "memory.stat", "inactive_file"))
        } else {
            let memory = number("memory", "memory.usage_in_bytes");
            (number("cpuacct", "cpuacct.usage"), memory, key("memory", "memory.stat", "total_inactive_file"))
        };
        let pids = number("pids", "pids.current");
        Usage { cpu_ns, memory_bytes, working_set_bytes: memory_bytes.saturating_sub(inactive), pids }
    }
}

/// v2's weight for v1's shares, as runc and the kubelet convert it.
pub(crate) fn shares_to_weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn subdirectories(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| entry.path())
}

fn collect_processes(directory: &Path, into: &mut BTreeSet<i32>) {
    if let Ok(text) = fs::read_to_string(directory.join("cgroup.procs")) {
        // A process outside our PID namespace reads as 0; killing 0 would be killing ourselves.
        into.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 1));
    }
    for child in subdirectories(directory) {
        collect_processes(&child, into);
    }
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    for child in subdirectories(directory) {
        remove_tree(&child)?;
    }
    let mut attempts = 0;
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // The kernel lets go of a just emptied cgroup a little later.
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) && attempts < 20 => {
                attempts += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    }
}

fn read_number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn keyed(file: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hybrid_counts_as_v1() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,relatime,cpu,cpuacct 0 0\n\
                      cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let found = Cgroups::from_mounts(mounts).unwrap();
        assert!(!found.is_v2());
        assert_eq!(found.directory("cpuacct", "/a/b"), Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/a/b")));
        assert_eq!(found.directory("memory", "/a"), None);
    }

    #[test]
    fn unified_counts_as_v2() {
        let found = Cgroups::from_mounts("cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n").unwrap();
        assert!(found.is_v2());
        assert_eq!(found.directory("memory", "/a"), Some(PathBuf::from("/sys/fs/cgroup/a")));
        assert!(Cgroups::from_mounts("proc /proc proc rw 0 0\n").is_err());
    }

    #[test]
    fn weights_follow_the_kubelet() {
        assert_eq!([shares_to_weight(2), shares_to_weight(1024), shares_to_weight(262_144)], [1, 39, 10_000]);
        assert_eq!(shares_to_weight(0), 1);
    }

    #[test]
    fn v2_files_are_read_and_written() {
        let root = tempfile::tempdir().unwrap();
        let cgroups = Cgroups::V2 { root: root.path().to_owned() };
        cgroups.create("/x/pod").unwrap();
        let limits = Limits { cpu_shares: Some(1024), cpu_quota_us: Some(50_000), ..Limits::default() };
        cgroups.limit("/x/pod", &limits).unwrap();
        let pod = root.path().join("x/pod");
        assert_eq!(fs::read_to_string(pod.join("cpu.max")).unwrap(), "50000 100000");
        assert_eq!(fs::read_to_string(pod.join("cpu.weight")).unwrap(), "39");
        fs::write(pod.join("memory.events"), "oom 3\noom_kill 2\noom_group_kill 0\n").unwrap();
        assert_eq!(cgroups.oom_kills("/x/pod"), 2);
        fs::write(pod.join("memory.current"), "4096\n").unwrap();
        fs::write(pod.join("memory.stat"), "anon 1\ninactive_file 1000\n").unwrap();
        assert_eq!(cgroups.usage("/x/pod").working_set_bytes, 3096);
    }
}
