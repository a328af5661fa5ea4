//! Members as processes: started, killed, stopped, replaced, each in a namespace of its own.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use trireme_raftstore::port::{Client, tls_files};
use trireme_raftstore::{PeerTls, Role, Status};

use super::net::Net;
use crate::command::run;

/// What a group is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many members.
    pub members: u32,
    /// Deliberate faults, of one member or of all.
    pub faults: Vec<(Option<u32>, String)>,
    /// Numbers that every member is started with.
    pub sets: Vec<(&'static str, u64)>,
}

impl Default for Settings {
    fn default() -> Settings {
        let sets = vec![
            ("heartbeat-ms", 50),
            ("election-min-ms", 300),
            ("election-max-ms", 600),
            ("write-timeout-ms", 3000),
            ("read-timeout-ms", 2000),
            // So that logs are shortened, snapshots sent and watches replayed within seconds.
            ("snapshot-entries", 400),
            ("keep-log-entries", 100),
            ("watch-events", 300),
            ("keep-history-s", 100_000),
            ("min-free-mib", 16),
            ("reserve-mib", 1),
        ];
        Settings { members: 3, faults: vec![], sets }
    }
}

impl Settings {
    /// The same with a deliberate fault on all members.
    pub fn with(mut self, fault: &str) -> Settings {
        self.faults.push((None, fault.to_owned()));
        self
    }

    /// The same with a deliberate fault on one member.
    pub fn with_on(mut self, member: u32, fault: &str) -> Settings {
        self.faults.push((Some(member), fault.to_owned()));
        self
    }

    /// The same with another number.
    pub fn set(mut self, name: &'static str, number: u64) -> Settings {
        self.sets.retain(|(other, _)| *other != name);
        self.sets.push((name, number));
        self
    }
}

/// What is known of one member.
#[derive(Debug)]
struct Process {
    child: Option<Child>,
    stopped: bool,
    /// Replacements so far: each has a folder of its own.
    generation: u32,
    /// Words of the command line for this life alone.
    extra: Vec<String>,
}

/// The group. When this is dropped nothing of it is left but its logs.
pub struct Group {
    /// Its network.
    pub net: Net,
    settings: Settings,
    server: PathBuf,
    dir: PathBuf,
    tls: PeerTls,
    processes: Mutex<Vec<Process>>,
    lives: Arc<Vec<AtomicU32>>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Group({})", self.dir.display())
    }
}

/// The store's test-only server, beside the folder of this program.
fn server() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("STORE_SERVER") {
        return Ok(path.into());
    }
    let exe = std::env::current_exe()?;
    let folder = exe.parent().context("no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().context("no folder")? } else { folder };
    let path = folder.join("examples/store-server");
    let build = "cargo build -p trireme-raftstore --example store-server";
    ensure!(path.exists(), "{} is missing: {build}", path.display());
    Ok(path)
}

impl Group {
    /// Founds a group in a folder; every member votes when this returns.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn found(dir: &Path, settings: Settings) -> Result<Group> {
        let server = server()?;
        let net = Net::new(settings.members)?;
        let names: Vec<String> = (1..=settings.members).map(|m| format!("m{m}")).collect();
        run(Command::new(&server).arg("certs").arg(dir.join("tls")).args(&names).arg("client"))?.ok()?;
        let fresh = || Process { child: None, stopped: false, generation: 1, extra: vec![] };
        let group = Group {
            net,
            server,
            dir: dir.to_path_buf(),
            tls: tls_files(&dir.join("tls"), "client")?,
            processes: Mutex::new((0..settings.members).map(|_| fresh()).collect()),
            lives: Arc::new((0..settings.members).map(|_| AtomicU32::new(0)).collect()),
            settings,
        };
        group.start(1, "bootstrap")?;
        group.wait(1, Duration::from_secs(20), |status| status.leader.is_some()).await?;
        for member in 2..=group.members() {
            group.join(member, 1).await?;
        }
        Ok(group)
    }

    /// How many members.
    pub fn members(&self) -> u32 {
        self.settings.members
    }

    fn processes(&self) -> std::sync::MutexGuard<'_, Vec<Process>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a member's clients connect.
    pub fn client_address(&self, member: u32) -> String {
        format!("{}:2379", self.net.address(member))
    }

    /// Which life of its process a member is in.
    pub fn life(&self, member: u32) -> u32 {
        self.lives[member as usize - 1].load(Ordering::SeqCst)
    }

    /// A connection to a member.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn connect(&self, member: u32) -> Result<Client> {
        let address = self.client_address(member);
        let connecting = Client::connect(&address, &self.tls);
        Ok(tokio::time::timeout(Duration::from_secs(1), connecting).await.context("no connection in time")??)
    }

    fn start(&self, member: u32, how: &str) -> Result<()> {
        let mut processes = self.processes();
        let process = &mut processes[member as usize - 1];
        ensure!(process.child.is_none(), "member {member} runs already");
        let address = self.net.address(member);
        let log = OpenOptions::new().create(true).append(true).open(self.log(member))?;
        // The kernel ends it with this program, whatever ends that.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "ip", "netns", "exec", &self.net.space(member)]);
        command.arg(&self.server).arg(how).arg("--data");
        command.arg(self.dir.join(format!("m{member}-{}", process.generation)));
        command.args(["--name", &format!("m{member}"), "--peer", &format!("{address}:2380")]);
        command.args(["--client", &format!("{address}:2379")]).arg("--tls").arg(self.dir.join("tls"));
        for (name, number) in &self.settings.sets {
            command.arg("--set").arg(format!("{name}={number}"));
        }
        let own = self.settings.faults.iter().filter(|(whose, _)| whose.is_none_or(|whose| whose == member));
        for (_, fault) in own {
            command.arg("--fault").arg(fault);
        }
        command.args(&process.extra);
        if how == "join" {
            let others = (1..=self.members()).filter(|other| *other != member);
            command.arg("--via").arg(others.map(|other| self.client_address(other)).collect::<Vec<_>>().join(","));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        process.child = Some(command.spawn().context("cannot run setpriv")?);
        process.stopped = false;
        self.lives[member as usize - 1].fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn log(&self, member: u32) -> PathBuf {
        self.dir.join(format!("m{member}.log"))
    }

    /// Ends a member at once.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&self, member: u32) -> Result<()> {
        if let Some(mut child) = self.processes()[member as usize - 1].child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Ends a member in the friendly way.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn terminate(&self, member: u32) -> Result<()> {
        let Some(mut child) = self.processes()[member as usize - 1].child.take() else { return Ok(()) };
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("member {member} did not end within 20 s of SIGTERM");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Starts a member again on its data; does nothing if it runs. The words are for this life alone.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn open(&self, member: u32, words: &[&str]) -> Result<()> {
        {
            let mut processes = self.processes();
            let process = &mut processes[member as usize - 1];
            if process.child.is_some() {
                return Ok(());
            }
            process.extra = words.iter().map(|word| (*word).to_owned()).collect();
        }
        self.start(member, "open")
    }

    /// Stops a member in its tracks, or lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, member: u32, stopped: bool) -> Result<()> {
        let mut processes = self.processes();
        let process = &mut processes[member as usize - 1];
        let child = process.child.as_ref().with_context(|| format!("member {member} does not run"))?;
        kill(Pid::from_raw(child.id() as i32), if stopped { Signal::SIGSTOP } else { Signal::SIGCONT })?;
        process.stopped = stopped;
        Ok(())
    }

    /// Members that ended though nobody had ended them.
    pub fn ended(&self) -> Vec<u32> {
        let mut processes = self.processes();
        let each = processes.iter_mut().enumerate();
        let ended = each.filter_map(|(i, process)| {
            let child = process.child.as_mut()?;
            matches!(child.try_wait(), Ok(Some(_))).then_some(i as u32 + 1)
        });
        ended.collect()
    }

    /// The folder of a member's data.
    pub fn data(&self, member: u32) -> PathBuf {
        let generation = self.processes()[member as usize - 1].generation;
        self.dir.join(format!("m{member}-{generation}"))
    }

    /// Starts a new member that asks to join, and waits until it votes.
    async fn join(&self, member: u32, via: u32) -> Result<()> {
        self.start(member, "join")?;
        let name = format!("m{member}");
        let votes = |status: &Status| status.members.iter().any(|m| m.name == name && m.role != Role::Learner);
        self.wait(via, Duration::from_secs(30), votes).await.with_context(|| format!("{name} does not become a voter"))
    }

    /// Removes a member from the group and has a new one join in its place, under another id, with an empty disk.
    ///
    /// # Errors
    /// When the group does not take it.
    pub async fn replace(&self, member: u32) -> Result<()> {
        let via = member % self.members() + 1;
        let client = self.connect(via).await?;
        let name = format!("m{member}");
        let known = client.members().await?;
        let id = known.iter().find(|m| m.name == name).map(|m| m.id).with_context(|| format!("no member {name}"))?;
        client.remove_member(id).await?;
        self.kill(member)?;
        {
            let mut processes = self.processes();
            let process = &mut processes[member as usize - 1];
            (process.generation, process.extra) = (process.generation + 1, vec![]);
        }
        self.join(member, via).await
    }

    /// What a member says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self, member: u32) -> Result<Status> {
        let client = self.connect(member).await?;
        Ok(tokio::time::timeout(Duration::from_secs(1), client.status()).await.context("no answer in time")??)
    }

    /// Waits until a member says something of itself.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn wait(&self, member: u32, limit: Duration, wanted: impl Fn(&Status) -> bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.status(member).await;
            if status.as_ref().is_ok_and(&wanted) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("member {member} after {} s: {status:?}\n{}", limit.as_secs(), self.tail(member));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The end of a member's log.
    pub fn tail(&self, member: u32) -> String {
        let log = std::fs::read_to_string(self.log(member)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// The number of the member that leads, as most say.
    pub async fn leader(&self) -> Option<u32> {
        for member in 1..=self.members() {
            if let Ok(status) = self.status(member).await
                && let Some(leader) = status.leader.filter(|leader| *leader == status.id)
                && let Some(found) = status.members.iter().find(|m| m.id == leader)
            {
                return found.name.strip_prefix('m')?.parse().ok();
            }
        }
        None
    }

    /// Ends everything that runs.
    pub fn end(&self) {
        for member in 1..=self.members() {
            let _ = self.kill(member);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

/// Copies the logs of all members somewhere.
///
/// # Errors
/// When they cannot be copied.
pub fn keep_logs(from: &Path, to: &Path, members: u32) -> Result<()> {
    for member in 1..=members {
        let name = format!("m{member}.log");
        if from.join(&name).exists() {
            std::io::copy(&mut File::open(from.join(&name))?, &mut File::create(to.join(&name))?)?;
        }
    }
    Ok(())
}
