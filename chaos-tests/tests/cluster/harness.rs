//! A cluster of this run, and the programs that talk to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

/// Longest time that one command may take.
const COMMAND: Duration = Duration::from_secs(60);

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    pub command: String,
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Outcome {
    /// Standard output of a command that succeeded.
    pub fn ok(self) -> Result<String> {
        ensure!(self.code == Some(0), "{} failed ({:?}):\n{}{}", self.command, self.code, self.out, self.err);
        Ok(self.out)
    }

    /// All output of a command that failed as it should.
    pub fn refused(self) -> Result<String> {
        ensure!(self.code.is_some_and(|code| code != 0), "{} should fail, but: {}{}", self.command, self.out, self.err);
        Ok(format!("{}{}", self.out, self.err))
    }
}

/// Runs a command with a limit of time.
pub fn run(command: &mut Command) -> Result<Outcome> {
    run_for(command, COMMAND)
}

/// Runs a command, killing it after the limit; its output until then counts.
pub fn run_for(command: &mut Command, limit: Duration) -> Result<Outcome> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let shown = words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    let out = child.stdout.take().map(reader);
    let err = child.stderr.take().map(reader);
    let deadline = Instant::now() + limit;
    let code = loop {
        if let Some(status) = child.try_wait()? {
            break status.code();
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |handle: Option<std::thread::JoinHandle<String>>| handle.and_then(|h| h.join().ok()).unwrap_or_default();
    Ok(Outcome { command: shown, code, out: text(out), err: text(err) })
}

fn reader(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Tries again until it works or the time is over; the last failure counts.
pub fn eventually<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("still so after {} s", limit.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// A kubectl of this machine.
#[derive(Clone, Debug)]
pub struct Kubectl {
    pub path: PathBuf,
    pub version: String,
    pub minor: u32,
}

/// The cluster.
pub struct Cluster {
    pub name: String,
    /// Folder of this run; `.trireme` is in it.
    pub dir: PathBuf,
    pub bin: PathBuf,
    pub kubectls: Vec<Kubectl>,
}

impl Cluster {
    /// Boots a cluster of three masters and two nodes.
    pub fn boot() -> Result<Cluster> {
        ensure!(nix::unistd::geteuid().is_root(), "these tests make network namespaces and cgroups: run them as root");
        let bin = binary()?;
        let name = format!("t{}", std::process::id());
        let dir = std::env::temp_dir().join(format!("trireme-{name}"));
        fs::create_dir_all(&dir)?;
        let cluster = Cluster { name, dir: dir.canonicalize()?, bin, kubectls: find_kubectls()? };
        let names: Vec<&str> = cluster.kubectls.iter().map(|k| k.version.as_str()).collect();
        println!("kubectl: {}", names.join(", "));
        let said = cluster.up(&["--masters", "3", "--nodes", "2"]);
        match said {
            Ok(said) => {
                println!("{}", said.lines().filter(|line| line.starts_with('[')).collect::<Vec<_>>().join("\n"))
            }
            Err(error) => {
                cluster.print_logs();
                let _ = cluster.down();
                return Err(error);
            }
        }
        Ok(cluster)
    }

    /// `trireme up`.
    pub fn up(&self, more: &[&str]) -> Result<String> {
        let mut command = self.trireme();
        command.args(["up", "--name", &self.name, "--dir"]).arg(self.dir.join(".trireme")).args(more);
        run_for(&mut command, Duration::from_secs(150))?.ok()
    }

    /// Brings back what an earlier scenario has killed.
    pub fn mend(&self) -> Result<()> {
        self.up(&[]).map(drop).context("the cluster does not come back")
    }

    /// `trireme down`, and the folder of this run.
    pub fn down(&self) -> Result<String> {
        let mut command = self.trireme();
        command.args(["down", "--name", &self.name, "--dir"]).arg(self.dir.join(".trireme"));
        let said = run_for(&mut command, Duration::from_secs(90))?.ok()?;
        let _ = fs::remove_dir_all(&self.dir);
        Ok(said)
    }

    /// The program, with an administrator's kubeconfig.
    pub fn trireme(&self) -> Command {
        self.command(&self.bin, None)
    }

    /// `.trireme/<name>`.
    pub fn root(&self) -> PathBuf {
        self.dir.join(".trireme").join(&self.name)
    }

    fn command(&self, program: &Path, kubeconfig: Option<&Path>) -> Command {
        let mut command = Command::new(program);
        let config = kubeconfig.map_or_else(|| self.root().join("kubeconfig"), Path::to_path_buf);
        // A home of its own: kubectl keeps discovery there, and the user's settings must not matter.
        command.env("KUBECONFIG", config).env("HOME", &self.dir).current_dir(&self.dir);
        command
    }

    /// A kubectl against one master.
    pub fn kubectl_at(&self, kubectl: &Kubectl, master: usize) -> Command {
        self.command(&kubectl.path, Some(&self.root().join(format!("kubeconfig-master-{master}"))))
    }

    /// The newest kubectl against the user's kubeconfig.
    pub fn newest(&self) -> &Kubectl {
        // A dispatcher asks the server for its version and starts another one; the real ones come first.
        let rank = |k: &&Kubectl| (!k.version.contains("dispatcher"), k.minor);
        self.kubectls.iter().max_by_key(rank).unwrap_or(&self.kubectls[0])
    }

    /// Runs the newest kubectl.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Outcome> {
        run(self.command(&self.newest().path, None).args(arguments))
    }

    /// Runs trictl.
    pub fn trictl(&self, arguments: &[&str]) -> Result<Outcome> {
        run(self.command(&self.root().join("bin/trictl"), None).args(arguments))
    }

    /// Objects as JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let text = self.kubectl(&all)?.ok()?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {}: {text}", all.join(" ")))
    }

    /// Applies a text.
    pub fn apply(&self, manifest: &str) -> Result<Outcome> {
        self.apply_with(manifest, "--validate=true")
    }

    /// Applies a text that kubectl does not look into before.
    pub fn apply_unchecked(&self, manifest: &str) -> Result<Outcome> {
        self.apply_with(manifest, "--validate=false")
    }

    fn apply_with(&self, manifest: &str, validate: &str) -> Result<Outcome> {
        let file = self.dir.join(format!("manifest-{:x}.yaml", rand::random::<u64>()));
        fs::write(&file, manifest)?;
        let outcome = self.kubectl(&["apply", validate, "-f", &file.display().to_string()]);
        let _ = fs::remove_file(&file);
        outcome
    }

    /// A process of the newest kubectl that goes on in the background.
    pub fn background(&self, arguments: &[&str]) -> Result<Child> {
        let mut command = self.command(&self.newest().path, None);
        Ok(command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)
    }

    /// Pid of a host's process.
    pub fn pid(&self, host: &str) -> Result<i32> {
        let path = self.root().join(host).join("pid");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim().parse()?)
    }

    /// `kill -9` of a host's process.
    pub fn kill(&self, host: &str) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(self.pid(host)?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).with_context(|| format!("kill -9 {host}"))
    }

    /// Subnet of the cluster.
    pub fn subnet(&self) -> Result<u64> {
        let cluster: Value = serde_json::from_slice(&fs::read(self.root().join("cluster.json"))?)?;
        cluster["subnet"].as_u64().ok_or_else(|| anyhow!("no subnet in {cluster}"))
    }

    /// `trireme member list -o json`.
    pub fn members(&self) -> Result<Vec<Value>> {
        let text = run(self.trireme().args(["member", "list", "-o", "json"]))?.ok()?;
        let list: Value = serde_json::from_str(&text)?;
        Ok(list.as_array().cloned().unwrap_or_default())
    }

    /// Waits until a selector's pods are running and ready, exactly so many; their names, nodes and addresses.
    pub fn pods(&self, selector: &str, count: usize) -> Result<Vec<Pod>> {
        eventually(Duration::from_secs(60), || {
            let list = self.json(&["get", "pods", "-l", selector])?;
            let pods: Vec<Pod> = list["items"].as_array().into_iter().flatten().map(Pod::read).collect();
            ensure!(pods.len() == count && pods.iter().all(|pod| pod.ready), "pods of {selector}: {pods:?}");
            Ok(pods)
        })
    }

    /// The end of every host's log.
    pub fn print_logs(&self) {
        for host in ["master-1", "master-2", "master-3", "node-1", "node-2"] {
            let text = fs::read(self.root().join(host).join("log")).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            println!("---- {host}, the end of its log");
            lines[lines.len().saturating_sub(25)..].iter().for_each(|line| println!("{line}"));
        }
    }
}

/// A pod as the scenarios need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub node: String,
    pub ip: String,
    pub ready: bool,
    pub restarts: u64,
}

impl Pod {
    fn read(value: &Value) -> Pod {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let conditions = value["status"]["conditions"].as_array().into_iter().flatten();
        let mut ready = conditions.filter(|c| c["type"] == "Ready");
        Pod {
            name: text(&value["metadata"]["name"]),
            node: text(&value["spec"]["nodeName"]),
            ip: text(&value["status"]["podIP"]),
            ready: value["metadata"]["deletionTimestamp"].is_null() && ready.any(|c| c["status"] == "True"),
            restarts: value["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default(),
        }
    }
}

/// The program under test.
fn binary() -> Result<PathBuf> {
    let given = std::env::var_os("TRIREME_BIN").map(PathBuf::from);
    let beside = std::env::current_exe()?.parent().and_then(Path::parent).map(|dir| dir.join("trireme"));
    match given.or(beside).filter(|path| path.is_file()) {
        Some(path) => Ok(path.canonicalize()?),
        None => bail!("the program is not built; run \"make build\" first, or set TRIREME_BIN"),
    }
}

/// Every kubectl: in `$PATH`, beside what links there point to, and Debian's.
fn find_kubectls() -> Result<Vec<Kubectl>> {
    let mut folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let mut links = Vec::new();
    for folder in &folders {
        if let Ok(target) = folder.join("kubectl").canonicalize() {
            links.extend(target.parent().map(Path::to_path_buf));
        }
    }
    folders.extend(links);
    if let Some(home) = std::env::var_os("HOME") {
        folders.push(PathBuf::from(home).join(".cache/trireme/kubectl-debian/usr/bin"));
    }
    let mut paths: Vec<PathBuf> = Vec::new();
    for folder in folders {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter(|entry| is_kubectl(&entry.file_name().to_string_lossy()));
        paths.extend(names.filter_map(|entry| entry.path().canonicalize().ok()));
    }
    paths.sort();
    paths.dedup();
    let found: Vec<Kubectl> = paths.into_iter().filter_map(|path| kubectl_of(path).ok()).collect();
    ensure!(!found.is_empty(), "no kubectl on this machine; \"make deps\" installs one");
    Ok(found)
}

/// `kubectl`, or one with a version behind it.
fn is_kubectl(name: &str) -> bool {
    name.strip_prefix("kubectl").is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix(['.', '-']).is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
    })
}

fn kubectl_of(path: PathBuf) -> Result<Kubectl> {
    let text = run(Command::new(&path).args(["version", "--client", "-o", "json"]))?.ok()?;
    let value: Value = serde_json::from_str(&text)?;
    let version = value["clientVersion"]["gitVersion"].as_str().context("no version")?.to_owned();
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse().ok()).context("no minor version")?;
    Ok(Kubectl { path, version, minor })
}
