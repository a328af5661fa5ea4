//! A cluster of this run, and the programs that talk to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::command::{Outcome, eventually, run, run_for};
use crate::kubectl::{self, Kubectl};
use crate::sweep;

/// What to boot.
#[derive(Clone, Debug)]
pub struct Options {
    /// One or two letters that the cluster's name begins with; the process id follows.
    pub prefix: &'static str,
    /// How many masters.
    pub masters: usize,
    /// How many nodes.
    pub nodes: usize,
    /// More arguments of `trireme up`.
    pub up: Vec<String>,
    /// More arguments of every `trireme master`.
    pub master_args: Vec<String>,
    /// More arguments of every `trireme node`.
    pub node_args: Vec<String>,
}

impl Default for Options {
    fn default() -> Options {
        Options { prefix: "t", masters: 3, nodes: 2, up: vec![], master_args: vec![], node_args: vec![] }
    }
}

impl Options {
    fn arguments(&self) -> Vec<String> {
        let mut all =
            vec!["--masters".to_owned(), self.masters.to_string(), "--nodes".to_owned(), self.nodes.to_string()];
        all.extend(self.master_args.iter().map(|argument| format!("--master-arg={argument}")));
        all.extend(self.node_args.iter().map(|argument| format!("--node-arg={argument}")));
        all.extend(self.up.iter().cloned());
        all
    }
}

/// The cluster. It is taken down when this is dropped, and when the program is interrupted.
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Folder of this run; `.trireme` is in it.
    pub dir: PathBuf,
    /// The program under test.
    pub bin: PathBuf,
    /// Every kubectl of this machine.
    pub kubectls: Vec<Kubectl>,
    /// How long `trireme up` took.
    pub booted: Duration,
    hosts: Vec<String>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.down() {
            eprintln!("taking the cluster down: {error:#}");
        }
    }
}

impl Cluster {
    /// Boots a cluster.
    ///
    /// # Errors
    /// When it does not become ready; it has been taken down then.
    pub fn boot(options: &Options) -> Result<Cluster> {
        ensure!(nix::unistd::geteuid().is_root(), "this makes network namespaces and cgroups: run it as root");
        let bin = binary()?;
        sweep::orphans(&bin);
        let name = format!("{}{}", options.prefix, std::process::id());
        let dir = std::env::temp_dir().join(format!("trireme-{name}"));
        fs::create_dir_all(&dir)?;
        let dir = dir.canonicalize()?;
        let masters = (1..=options.masters).map(|n| format!("master-{n}"));
        let hosts = masters.chain((1..=options.nodes).map(|n| format!("node-{n}"))).collect();
        let kubectls = kubectl::find_all()?;
        let mut cluster = Cluster { name, dir, bin, kubectls, booted: Duration::ZERO, hosts };
        sweep::remember(&cluster.bin, &cluster.name, &cluster.dir);
        let names: Vec<&str> = cluster.kubectls.iter().map(|k| k.version.as_str()).collect();
        println!("kubectl: {}", names.join(", "));
        let arguments = options.arguments();
        let begun = Instant::now();
        let said = cluster.up(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        cluster.booted = begun.elapsed();
        match said {
            Ok(said) => {
                println!("{}", said.lines().filter(|line| line.starts_with('[')).collect::<Vec<_>>().join("\n"));
                Ok(cluster)
            }
            Err(error) => {
                cluster.print_logs();
                Err(error)
            }
        }
    }

    /// Names of all hosts, masters first.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// How many masters there are.
    pub fn masters(&self) -> usize {
        self.hosts.iter().filter(|host| host.starts_with("master-")).count()
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.hosts.len() - self.masters()
    }

    /// Name of the master that leads.
    ///
    /// # Errors
    /// When none does for ten seconds.
    pub fn leader(&self) -> Result<String> {
        eventually(Duration::from_secs(10), || {
            let members = self.members()?;
            let leader = members.iter().find(|member| member["role"] == "leader");
            leader.and_then(|member| member["name"].as_str().map(str::to_owned)).ok_or_else(|| anyhow!("{members:?}"))
        })
    }

    /// `trireme up`.
    ///
    /// # Errors
    /// When it fails.
    pub fn up(&self, more: &[&str]) -> Result<String> {
        ensure!(!sweep::ending(), "interrupted");
        let mut command = self.trireme();
        command.args(["up", "--name", &self.name, "--dir"]).arg(self.dir.join(".trireme")).args(more);
        run_for(&mut command, Duration::from_secs(150))?.ok()
    }

    /// Brings back what an earlier scenario has killed.
    ///
    /// # Errors
    /// When it fails.
    pub fn mend(&self) -> Result<()> {
        self.up(&[]).map(drop).context("the cluster does not come back")
    }

    /// `trireme down`, and the folder of this run.
    ///
    /// # Errors
    /// When it fails.
    pub fn down(&self) -> Result<String> {
        if !self.dir.exists() {
            return Ok("nothing to do".to_owned());
        }
        let mut command = self.trireme();
        command.args(["down", "--name", &self.name, "--dir"]).arg(self.dir.join(".trireme"));
        let said = run_for(&mut command, Duration::from_secs(90))?.ok()?;
        let _ = fs::remove_dir_all(&self.dir);
        sweep::forget(&self.name);
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

    /// A program with a kubeconfig, the cluster's own unless another is given.
    pub fn command(&self, program: &Path, kubeconfig: Option<&Path>) -> Command {
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
    ///
    /// # Errors
    /// When it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<Outcome> {
        run(self.command(&self.newest().path, None).args(arguments))
    }

    /// Runs trictl.
    ///
    /// # Errors
    /// When it fails.
    pub fn trictl(&self, arguments: &[&str]) -> Result<Outcome> {
        run(self.command(&self.root().join("bin/trictl"), None).args(arguments))
    }

    /// Objects as JSON.
    ///
    /// # Errors
    /// When it fails.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let text = self.kubectl(&all)?.ok()?;
        serde_json::from_str(&text).with_context(|| format!("kubectl {}: {text}", all.join(" ")))
    }

    /// Applies a text.
    ///
    /// # Errors
    /// When it fails.
    pub fn apply(&self, manifest: &str) -> Result<Outcome> {
        self.apply_with(manifest, "--validate=true")
    }

    /// Applies a text that kubectl does not look into before.
    ///
    /// # Errors
    /// When it fails.
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
    ///
    /// # Errors
    /// When it fails.
    pub fn background(&self, arguments: &[&str]) -> Result<Child> {
        let mut command = self.command(&self.newest().path, None);
        Ok(command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)
    }

    /// Pid of a host's process.
    ///
    /// # Errors
    /// When it fails.
    pub fn pid(&self, host: &str) -> Result<i32> {
        let path = self.root().join(host).join("pid");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim().parse()?)
    }

    /// `kill -9` of a host's process.
    ///
    /// # Errors
    /// When it fails.
    pub fn kill(&self, host: &str) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(self.pid(host)?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).with_context(|| format!("kill -9 {host}"))
    }

    /// Subnet of the cluster.
    ///
    /// # Errors
    /// When it fails.
    pub fn subnet(&self) -> Result<u64> {
        let cluster: Value = serde_json::from_slice(&fs::read(self.root().join("cluster.json"))?)?;
        cluster["subnet"].as_u64().ok_or_else(|| anyhow!("no subnet in {cluster}"))
    }

    /// `trireme member list -o json`.
    ///
    /// # Errors
    /// When it fails.
    pub fn members(&self) -> Result<Vec<Value>> {
        let text = run(self.trireme().args(["member", "list", "-o", "json"]))?.ok()?;
        let list: Value = serde_json::from_str(&text)?;
        Ok(list.as_array().cloned().unwrap_or_default())
    }

    /// Waits until a selector's pods are running and ready, exactly so many; their names, nodes and addresses.
    ///
    /// # Errors
    /// When it fails.
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
        for host in &self.hosts {
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
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Its address.
    pub ip: String,
    /// Whether it is ready and not on its way out.
    pub ready: bool,
    /// How often its first container was restarted.
    pub restarts: u64,
}

impl Pod {
    /// Out of what the API answers.
    pub fn read(value: &Value) -> Pod {
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

/// The program under test: `$TRIREME_BIN`, or the one built beside this program.
///
/// # Errors
/// When it is not built.
pub fn binary() -> Result<PathBuf> {
    let given = std::env::var_os("TRIREME_BIN").map(PathBuf::from);
    let exe = std::env::current_exe()?;
    let beside = exe.ancestors().skip(1).take(2).map(|dir| dir.join("trireme"));
    match given.into_iter().chain(beside.filter(|path| path.is_file())).next().filter(|path| path.is_file()) {
        Some(path) => Ok(path.canonicalize()?),
        None => bail!("the program is not built; run \"make build\" first, or set TRIREME_BIN"),
    }
}
