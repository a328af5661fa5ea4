//! Drives a real shim and real containers, as root, with a busybox as the image. No API server is involved.
//!
//! The test program is the shim's program as well, so it has no harness: `main` looks at its arguments first.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use trireme_nodeagent::shim::client::{Shim, Watch, read_records};
use trireme_nodeagent::shim::protocol::{CONTAINERS, ContainerSpec, Exit, PodShim, Tmpfs, VERSION};
use trireme_nodeagent::{Config, destroy, shim};

/// Everything of one test; leaves nothing behind, also when the test fails.
struct Pod {
    config: Config,
    directory: PathBuf,
    layer: PathBuf,
    _files: tempfile::TempDir,
}

impl Pod {
    fn new(name: &str) -> Pod {
        let files = tempfile::tempdir().unwrap();
        // Longer than a socket's address may be.
        let directory = files.path().join("a-long-name-".repeat(8)).join("pod");
        fs::create_dir_all(&directory).unwrap();
        let layer = files.path().join("layer");
        fs::create_dir_all(layer.join("bin")).unwrap();
        fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
        for tool in
            ["sh", "sleep", "cat", "echo", "true", "id", "stty", "hostname", "ls", "mount", "ip", "head", "tail"]
        {
            std::os::unix::fs::symlink("busybox", layer.join("bin").join(tool)).unwrap();
        }
        fs::create_dir_all(layer.join("etc")).unwrap();
        fs::write(layer.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n").unwrap();
        let node = format!("t{}-{name}", std::process::id());
        let mut config = Config::new(&node, IpAddr::from([127, 0, 0, 1]), files.path());
        config.cgroup_root = format!("/trireme-test/{node}");
        Pod { config, directory, layer, _files: files }
    }

    fn root(&self) -> &str {
        &self.config.cgroup_root
    }

    async fn start(&self) -> (Shim, Watch) {
        self.start_with(false).await
    }

    async fn start_with(&self, share_pid: bool) -> (Shim, Watch) {
        let pod = PodShim {
            version: VERSION,
            uid: "uid".into(),
            namespace: "default".into(),
            name: "test".into(),
            hostname: "the-pod".into(),
            shim_cgroup: format!("{}/shims/uid", self.root()),
            pod_cgroup: format!("{}/pods/uid", self.root()),
            host_network: false,
            host_ipc: false,
            share_pid,
            tmpfs: vec![Tmpfs { target: self.directory.join("shm"), options: "mode=1777,size=1m".into() }],
        };
        let shim = Shim::start(&self.config.shim_program, &self.directory, &pod).await.unwrap();
        let (_, watch) = shim.watch().await.unwrap();
        (shim, watch)
    }

    fn spec(&self, id: &str, args: &[&str], change: impl FnOnce(&mut serde_json::Value)) -> ContainerSpec {
        let directory = self.directory.join(CONTAINERS).join(id);
        fs::create_dir_all(&directory).unwrap();
        let cgroup = format!("{}/pods/uid/{id}", self.root());
        let mut config = json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {"args": args, "cwd": "/srv/dir", "env": ["PATH=/bin", "A=b"], "user": {"uid": 0, "gid": 0},
                "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
                    "inheritable": [], "ambient": []}},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
                {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
            ],
            "linux": {"cgroupsPath": cgroup, "namespaces": [{"type": "mount"}, {"type": "pid"}], "resources": {}},
        });
        change(&mut config);
        fs::write(directory.join("config.json"), config.to_string()).unwrap();
        ContainerSpec {
            id: id.into(),
            name: id.into(),
            layers: vec![self.layer.clone()],
            stop_signal: 15,
            cgroup,
            log: self.log_path(id),
            log_max_bytes: 1 << 20,
            log_max_files: 3,
            ..ContainerSpec::default()
        }
    }

    fn log_path(&self, id: &str) -> PathBuf {
        self.directory.join("logs").join(id).join("0.log")
    }

    /// What a container wrote, without times.
    fn log(&self, id: &str) -> String {
        let text = fs::read_to_string(self.log_path(id)).unwrap();
        text.lines().map(|line| format!("{}\n", line.split_once(' ').unwrap().1)).collect()
    }

    fn leftovers(&self) -> Vec<String> {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let base = self._files.path().display().to_string();
        let mut all: Vec<String> = mounts.lines().filter(|l| l.contains(&base)).map(str::to_owned).collect();
        for controller in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let path = controller.path().join(format!("{}/pods/uid", self.root().trim_start_matches('/')));
            if path.exists() {
                all.push(path.display().to_string());
            }
        }
        all
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = destroy(&self.config);
        let mut parent = self.config.clone();
        parent.cgroup_root = "/trireme-test".into();
        // Other runs may still be in it.
        for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = fs::remove_dir(controller.path().join("trireme-test"));
        }
    }
}

async fn exit_of(watch: &mut Watch, id: &str) -> Exit {
    let wait = async {
        loop {
            let (ended, exit) = watch.next().await.unwrap();
            if ended == id {
                return exit;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("an exit within 20 s")
}

/// Waits for something that another process does.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} did not happen within 20 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn pipe() -> (File, OwnedFd) {
    let (read_end, write_end) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    (File::from(read_end), write_end)
}

fn null() -> OwnedFd {
    fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap().into()
}

async fn exec(shim: &Shim, id: &str, args: &[&str]) -> (i32, String) {
    let (mut out, write_end) = pipe();
    let errors = write_end.try_clone().unwrap();
    let args = args.iter().map(|s| (*s).to_owned()).collect();
    let mut process = shim.exec(id, args, [null(), write_end, errors]).await.unwrap();
    let code = process.wait().await.unwrap();
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    (code, text)
}

async fn a_container_runs_to_its_end() {
    let pod = Pod::new("end");
    let (shim, mut watch) = pod.start().await;
    let script = "echo out; echo err >&2; hostname; pwd; id -u; echo $A; printf rest; exit 3";
    shim.start_container(pod.spec("one", &["sh", "-c", script], |_| {})).await.unwrap();
    let exit = exit_of(&mut watch, "one").await;
    assert_eq!((exit.code, exit.oom_killed, exit.start_failed), (3, false, false));
    assert!(exit.started_ns > 0 && exit.finished_ns >= exit.started_ns);
    let log = pod.log("one");
    for line in ["stdout F out\n", "stderr F err\n", "F the-pod\n", "F /srv/dir\n", "F 0\n", "F b\n", "F rest\n"] {
        assert!(log.contains(line), "{line:?} in {log:?}");
    }
    assert_eq!(read_records(&pod.directory)[0].exit, Some(exit));
    let mut named = pod.spec("two", &["sh", "-c", "id -u; id -g; echo x > /dev/stdout"], |_| {});
    named.user = "web".into();
    shim.start_container(named).await.unwrap();
    assert_eq!(exit_of(&mut watch, "two").await.code, 0);
    assert_eq!(pod.log("two"), "stdout F 33\nstdout F 34\nstdout F x\n");
    shim.shut_down().await.unwrap();
    assert_eq!(pod.leftovers(), Vec::<String>::new());
}

async fn what_cannot_start_says_why() {
    let pod = Pod::new("why");
    let (shim, _watch) = pod.start().await;
    let error = shim.start_container(pod.spec("none", &["/no/such/program"], |_| {})).await.unwrap_err();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    let exit = read_records(&pod.directory)[0].exit.clone().unwrap();
    assert_eq!((exit.code, exit.start_failed), (128, true));
    let mut unknown = pod.spec("user", &["true"], |_| {});
    unknown.user = "nobody-there".into();
    let error = shim.start_container(unknown).await.unwrap_err();
    assert!(error.to_string().contains("unable to find user nobody-there"), "{error}");
    shim.start_container(pod.spec("fine", &["sleep", "100"], |_| {})).await.unwrap();
    let error = shim.exec("fine", vec!["nope".into()], [null(), null(), null()]).await.err().unwrap();
    assert!(error.to_string().contains("nope"), "{error}");
    shim.shut_down().await.unwrap();
    assert_eq!(pod.leftovers(), Vec::<String>::new());
}

async fn commands_run_in_a_container() {
    let pod = Pod::new("exec");
    let (shim, _watch) = pod.start().await;
    shim.start_container(pod.spec("main", &["sleep", "100"], |_| {})).await.unwrap();
    let (code, text) = exec(&shim, "main", &["sh", "-c", "echo $A; pwd; cat; exit 7"]).await;
    assert_eq!((code, text.as_str()), (7, "b\n/srv/dir\n"));
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(exec(&shim, "main", &["true"]).await.0, 0);
    }
    println!("    exec: {:?} each", begun.elapsed() / 20);
    let args = ["sh", "-c", "stty size; exit 5"].map(str::to_owned).to_vec();
    let (mut process, master) = shim.exec_terminal("main", args, (100, 40)).await.unwrap();
    assert_eq!(process.wait().await.unwrap(), 5);
    let mut text = Vec::new();
    let mut buffer = [0; 256];
    let mut master = File::from(master);
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        text.extend_from_slice(&buffer[..length]);
    }
    assert_eq!(String::from_utf8_lossy(&text), "40 100\r\n");
    // A client that goes away takes its process with it.
    let (mut out, write_end) = pipe();
    let args = ["sleep", "1000"].map(str::to_owned).to_vec();
    let process = shim.exec("main", args, [null(), write_end, null()]).await.unwrap();
    drop(process);
    tokio::task::spawn_blocking(move || out.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
    shim.shut_down().await.unwrap();
}

async fn many_short_containers() {
    let pod = Pod::new("many");
    let begun = Instant::now();
    let (shim, mut watch) = pod.start().await;
    println!("    shim ready: {:?}", begun.elapsed());
    let mut times = Vec::new();
    for n in 0..20 {
        let spec = pod.spec(&format!("c{n}"), &["true"], |_| {});
        let begun = Instant::now();
        shim.start_container(spec).await.unwrap();
        times.push(begun.elapsed());
        assert_eq!(exit_of(&mut watch, &format!("c{n}")).await.code, 0);
    }
    times.sort();
    println!("    start: median {:?}, worst {:?}", times[10], times[19]);
    let memory = fs::read_to_string(format!("/proc/{}/smaps_rollup", watch.shim_pid)).unwrap();
    let pss: String = memory.lines().filter(|l| l.starts_with("Rss") || l.starts_with("Pss:")).collect();
    println!("    shim memory: {pss}");
    shim.shut_down().await.unwrap();
    assert_eq!(pod.leftovers(), Vec::<String>::new());
}

async fn stopping_is_asked_for_first() {
    let pod = Pod::new("stop");
    let (shim, mut watch) = pod.start().await;
    let script = "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    shim.start_container(pod.spec("kind", &["sh", "-c", script], |_| {})).await.unwrap();
    until("the trap is set", || fs::read_to_string(pod.log_path("kind")).unwrap_or_default().contains("ready")).await;
    shim.signal("kind", 15).await.unwrap();
    assert_eq!(exit_of(&mut watch, "kind").await.code, 9);
    assert!(pod.log("kind").ends_with("stdout F bye\n"));
    shim.start_container(pod.spec("deaf", &["sleep", "1000"], |_| {})).await.unwrap();
    shim.signal("deaf", 9).await.unwrap();
    let exit = exit_of(&mut watch, "deaf").await;
    assert_eq!((exit.code, exit.signal), (137, 9));
    shim.signal("deaf", 9).await.unwrap();
    shim.shut_down().await.unwrap();
}

async fn containers_may_share_their_processes() {
    let pod = Pod::new("share");
    let (shim, mut watch) = pod.start_with(true).await;
    shim.start_container(pod.spec("one", &["sh", "-c", "sleep 1111 & sleep 2222"], |_| {})).await.unwrap();
    shim.start_container(pod.spec("two", &["sleep", "3333"], |_| {})).await.unwrap();
    let list = ["sh", "-c", "cat /proc/[0-9]*/cmdline | busybox tr '\\0' ' '"];
    until_exec(&shim, "two", &list, "sleep 1111").await;
    let (_, text) = exec(&shim, "two", &list).await;
    assert!(text.contains("sleep 2222") && text.contains("sleep 3333"), "{text}");
    // What a container has started goes with it, although its init was not the namespace's.
    shim.signal("one", 9).await.unwrap();
    assert_eq!(exit_of(&mut watch, "one").await.code, 137);
    let (_, text) = exec(&shim, "two", &list).await;
    assert!(!text.contains("sleep 1111") && text.contains("sleep 3333"), "{text}");
    shim.shut_down().await.unwrap();
    assert_eq!(pod.leftovers(), Vec::<String>::new());
}

async fn until_exec(shim: &Shim, id: &str, args: &[&str], expected: &str) {
    let begun = Instant::now();
    while !exec(shim, id, args).await.1.contains(expected) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{expected} not seen within 20 s");
    }
}

async fn too_much_memory_is_told() {
    let pod = Pod::new("oom");
    let (shim, mut watch) = pod.start().await;
    let spec = pod.spec("hog", &["sh", "-c", "x=aaaaaaaa; while :; do x=$x$x; done"], |config| {
        config["linux"]["resources"] = json!({"memory": {"limit": 16 << 20}});
    });
    shim.start_container(spec).await.unwrap();
    let exit = exit_of(&mut watch, "hog").await;
    assert!(exit.oom_killed && exit.code == 137, "{exit:?}");
    shim.shut_down().await.unwrap();
}

/// `main` in the role of an agent that starts a container and then is killed.
async fn agent_role(directory: &Path) {
    let program = PathBuf::from("/proc/self/exe");
    let pod: PodShim = serde_json::from_slice(&fs::read(directory.join("role.json")).unwrap()).unwrap();
    let spec: ContainerSpec = serde_json::from_slice(&fs::read(directory.join("spec.json")).unwrap()).unwrap();
    let shim = Shim::start(&program, directory, &pod).await.unwrap();
    let (pid, _) = shim.start_container(spec).await.unwrap();
    fs::write(directory.join("pid.tmp"), pid.to_string()).unwrap();
    fs::rename(directory.join("pid.tmp"), directory.join("pid")).unwrap();
    std::future::pending::<()>().await;
}

async fn containers_outlive_their_agent() {
    let pod = Pod::new("agent");
    let script = "n=0; while :; do echo $n; n=$((n+1)); sleep 0.02; done";
    let spec = pod.spec("main", &["sh", "-c", script], |_| {});
    let role = PodShim {
        version: VERSION,
        uid: "uid".into(),
        namespace: "default".into(),
        name: "test".into(),
        hostname: "h".into(),
        shim_cgroup: format!("{}/shims/uid", pod.root()),
        pod_cgroup: format!("{}/pods/uid", pod.root()),
        host_network: false,
        host_ipc: false,
        share_pid: false,
        tmpfs: Vec::new(),
    };
    fs::write(pod.directory.join("role.json"), serde_json::to_vec(&role).unwrap()).unwrap();
    fs::write(pod.directory.join("spec.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    let mut agent = std::process::Command::new("/proc/self/exe").arg("agent-role").arg(&pod.directory).spawn().unwrap();
    until("the agent started a container", || pod.directory.join("pid").exists()).await;
    let pid: i32 = fs::read_to_string(pod.directory.join("pid")).unwrap().parse().unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    let before = pod.log("main").lines().count();
    until("the log grows", || pod.log("main").lines().count() > before + 3).await;
    let shim = Shim::at(&pod.directory);
    let (found, mut watch) = shim.watch().await.unwrap();
    assert_eq!((found.len(), found[0].pid, found[0].exit.as_ref()), (1, pid, None));
    assert_eq!(exec(&shim, "main", &["echo", "hi"]).await, (0, "hi\n".to_owned()));
    shim.signal("main", 9).await.unwrap();
    assert_eq!(exit_of(&mut watch, "main").await.code, 137);
    let log = pod.log("main");
    let numbers: Vec<usize> = log.lines().map(|l| l.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>(), "no line is missing");
    shim.shut_down().await.unwrap();
    assert_eq!(pod.leftovers(), Vec::<String>::new());
}

async fn a_dead_shim_is_noticed_and_leaves_records() {
    let pod = Pod::new("dead");
    let (shim, mut watch) = pod.start().await;
    let (pid, _) = shim.start_container(pod.spec("main", &["sleep", "1000"], |_| {})).await.unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(watch.shim_pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert!(watch.next().await.is_err());
    assert!(shim.watch().await.is_err());
    let records = read_records(&pod.directory);
    assert_eq!((records.len(), records[0].exit.as_ref()), (1, None));
    destroy(&pod.config).unwrap();
    until("the container is gone", || !Path::new(&format!("/proc/{pid}/ns")).exists() || zombie(pid)).await;
    assert_eq!(pod.leftovers(), Vec::<String>::new());
    // A new shim takes over the directory.
    let (shim, mut watch) = pod.start().await;
    shim.start_container(pod.spec("next", &["true"], |_| {})).await.unwrap();
    assert_eq!(exit_of(&mut watch, "next").await.code, 0);
    shim.shut_down().await.unwrap();
}

fn zombie(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

fn main() {
    let args: Vec<OsString> = std::env::args_os().collect();
    if shim::is_shim(&args) {
        shim::main(&args);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if args.get(1).is_some_and(|arg| arg == "agent-role") {
        return runtime.block_on(agent_role(Path::new(&args[2])));
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("these tests need root");
        std::process::exit(1);
    }
    let filter = args.get(1).and_then(|arg| arg.to_str()).filter(|arg| !arg.starts_with('-')).unwrap_or_default();
    macro_rules! run {
        ($($test:ident),* $(,)?) => {$(
            if stringify!($test).contains(filter) {
                println!("test {} ...", stringify!($test));
                let begun = Instant::now();
                runtime.block_on($test());
                println!("test {} ... ok ({:?})", stringify!($test), begun.elapsed());
            }
        )*};
    }
    run!(
        a_container_runs_to_its_end,
        what_cannot_start_says_why,
        commands_run_in_a_container,
        many_short_containers,
        stopping_is_asked_for_first,
        containers_may_share_their_processes,
        too_much_memory_is_told,
        containers_outlive_their_agent,
        a_dead_shim_is_noticed_and_leaves_records,
    );
}
