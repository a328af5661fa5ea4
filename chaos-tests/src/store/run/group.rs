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
use trireme_raftstore::{FEATURE_LEVEL, PeerTls, Role, Status};

use super::disks::Disks;
use super::image::{Choice, Image, Lost};
use super::net::Net;
use crate::command::run;

/// How long a member may take to come up, to join or to leave: a machine may be busy with other things.
const COMES_UP: Duration = Duration::from_secs(60);

/// What a group is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many members.
    pub members: u32,
    /// Deliberate faults, of one member or of all.
    pub faults: Vec<(Option<u32>, String)>,
    /// Numbers that every member is started with.
    pub sets: Vec<(&'static str, u64)>,
    /// Whether the power may fail: what each member has fsynced is kept track of.
    pub power: bool,
    /// Whether each member has a small disk of its own, which can be filled.
    pub small_disks: bool,
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
        Settings { members: 3, faults: vec![], sets, power: false, small_disks: false }
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
    /// The newest feature level that members know.
    level: AtomicU32,
    disks: Option<Disks>,
    power: Option<PathBuf>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Group({})", self.dir.display())
    }
}

/// An example that was built beside the folder of this program.
fn example(name: &str, package: &str) -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let folder = exe.parent().context("no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().context("no folder")? } else { folder };
    let path = folder.join("examples").join(name);
    let short = name.trim_start_matches("lib").trim_end_matches(".so");
    let build = format!("cargo build -p trireme -p {package} --example {short}");
    ensure!(path.exists(), "{} is missing: {build}", path.display());
    Ok(path)
}

/// The store's test-only server.
fn server() -> Result<PathBuf> {
    match std::env::var_os("STORE_SERVER") {
        Some(path) => Ok(path.into()),
        None => example("store-server", "trireme-raftstore"),
    }
}

impl Group {
    /// Founds a group in a folder; every member votes when this returns.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn found(dir: &Path, settings: Settings) -> Result<Group> {
        let server = server()?;
        let power = settings.power.then(|| example("libpower.so", "trireme-chaos-tests")).transpose()?;
        let dir = &dir.canonicalize()?;
        let disks = settings.small_disks.then(|| Disks::make(dir, settings.members)).transpose()?;
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
            level: FEATURE_LEVEL.into(),
            disks,
            power,
            settings,
        };
        group.start(1, "bootstrap")?;
        group.wait(1, COMES_UP, |status| status.leader.is_some()).await?;
        for member in 2..=group.members() {
            group.join(member, 1).await?;
        }
        Ok(group)
    }

    /// The newest feature level that members know.
    pub fn level(&self) -> u32 {
        self.level.load(Ordering::SeqCst)
    }

    /// Members that start from here on know another feature level.
    pub fn set_level(&self, level: u32) {
        self.level.store(level, Ordering::SeqCst);
    }

    /// The disks, if each member has one of its own.
    pub fn disks(&self) -> Option<&Disks> {
        self.disks.as_ref()
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

    /// A connection to a member that may be busy, or about to start.
    ///
    /// # Errors
    /// When it does not answer for a long time.
    pub async fn reach(&self, member: u32) -> Result<Client> {
        let deadline = Instant::now() + COMES_UP;
        loop {
            match self.connect(member).await {
                Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(50)).await,
                reached => return reached.with_context(|| format!("member {member} cannot be reached")),
            }
        }
    }

    /// Not on the member's own disk, which may be full.
    fn image_folder(&self, member: u32) -> PathBuf {
        let generation = self.processes()[member as usize - 1].generation;
        self.dir.join(format!("m{member}-{generation}.image"))
    }

    fn image(&self, member: u32) -> Image {
        Image::new(&self.image_folder(member))
    }

    /// Takes from a member that is dead what it had not fsynced, all of it or some.
    ///
    /// # Errors
    /// When what it had fsynced is not known.
    pub fn lose(&self, member: u32, choice: &mut Choice) -> Result<Lost> {
        ensure!(self.processes()[member as usize - 1].child.is_none(), "member {member} runs");
        let (image, data) = (self.image(member), self.data(member));
        ensure!(image.exists(), "nobody knows what member {member} has fsynced");
        image.put_back(&data, choice).with_context(|| format!("power failure of member {member}"))
    }

    fn start(&self, member: u32, how: &str) -> Result<()> {
        let data = self.data(member);
        let mut preload = Vec::new();
        if let Some(library) = &self.power {
            let image = self.image(member);
            if !image.exists() {
                image.begin(&data)?;
            }
            let set = |name: &str, value: &Path| format!("{name}={}", value.display());
            preload = vec![set("LD_PRELOAD", library), set("POWER_DATA", &data)];
            preload.push(set("POWER_IMAGE", &self.image_folder(member)));
        }
        let mut processes = self.processes();
        let process = &mut processes[member as usize - 1];
        ensure!(process.child.is_none(), "member {member} runs already");
        let log = OpenOptions::new().create(true).append(true).open(self.log(member))?;
        // The kernel ends it with this program, whatever ends that.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "ip", "netns", "exec", &self.net.space(member), "env"]).args(preload);
        command.arg(&self.server).arg(how).arg("--data").arg(data).args(self.words(member)).args(&process.extra);
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

    /// What a member is told on each start.
    fn words(&self, member: u32) -> Vec<String> {
        let address = self.net.address(member);
        let tls = self.dir.join("tls").display().to_string();
        let pairs = [
            ("--name", format!("m{member}")),
            ("--peer", format!("{address}:2380")),
            ("--client", format!("{address}:2379")),
            ("--tls", tls),
            ("--set", format!("feature-level={}", self.level())),
        ];
        let sets = self.settings.sets.iter().map(|(name, number)| ("--set", format!("{name}={number}")));
        let own = self.settings.faults.iter().filter(|(whose, _)| whose.is_none_or(|whose| whose == member));
        let faults = own.map(|(_, fault)| ("--fault", fault.clone()));
        pairs.into_iter().chain(sets).chain(faults).flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    fn log(&self, member: u32) -> PathBuf {
        self.dir.join(format!("m{member}.log"))
    }

    /// Ends a member at once.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&self, member: u32) -> Result<()> {
        self.kill_all(&[member])
    }

    /// Ends members at the same moment: none goes on while it is waited for that another one has ended.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub fn kill_all(&self, members: &[u32]) -> Result<()> {
        let mut children: Vec<Child> = {
            let mut processes = self.processes();
            members.iter().filter_map(|member| processes[*member as usize - 1].child.take()).collect()
        };
        let killed: Vec<_> = children.iter_mut().map(Child::kill).collect();
        let ended: Vec<_> = children.iter_mut().map(Child::wait).collect();
        killed.into_iter().collect::<std::io::Result<()>>()?;
        ended.into_iter().try_for_each(|ended| ended.map(drop))?;
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
        let folder = self.disks.as_ref().map_or_else(|| self.dir.clone(), |disks| disks.folder(member));
        folder.join(format!("m{member}-{generation}"))
    }

    /// Starts a new member that asks to join, again if it is turned away, and waits until it votes.
    async fn join(&self, member: u32, via: u32) -> Result<()> {
        self.start(member, "join")?;
        let name = format!("m{member}");
        let votes = |status: &Status| status.members.iter().any(|m| m.name == name && m.role != Role::Learner);
        let deadline = Instant::now() + COMES_UP;
        while !self.status(via).await.as_ref().is_ok_and(votes) {
            let tail = || format!("{name} does not become a voter:\n{}", self.tail(member));
            ensure!(Instant::now() < deadline, tail());
            if self.ended().contains(&member) {
                // Whoever it asked was busy, or led no more; or it came as far as being somebody.
                self.kill(member)?;
                let known = self.data(member).join("member").exists();
                self.start(member, if known { "open" } else { "join" })?;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Gives a member an empty disk.
    fn renew(&self, member: u32) {
        let mut processes = self.processes();
        let process = &mut processes[member as usize - 1];
        (process.generation, process.extra) = (process.generation + 1, vec![]);
    }

    /// Begins the group anew with a backup, restored by the first member; the others join it.
    ///
    /// # Errors
    /// When they do not.
    pub async fn restore(&self, backup: &Path) -> Result<()> {
        self.kill_all(&(1..=self.members()).collect::<Vec<_>>())?;
        (1..=self.members()).for_each(|member| self.renew(member));
        let mut command = Command::new(&self.server);
        command.arg("restore").arg("--from").arg(backup).arg("--data").arg(self.data(1)).args(self.words(1));
        run(&mut command)?.ok()?;
        self.start(1, "open")?;
        self.wait(1, COMES_UP, |status| status.leader.is_some()).await?;
        for member in 2..=self.members() {
            self.join(member, 1).await?;
        }
        Ok(())
    }

    /// Removes a member from the group and has a new one join in its place, under another id, with an empty disk.
    ///
    /// # Errors
    /// When the group does not take it.
    pub async fn replace(&self, member: u32) -> Result<()> {
        let via = member % self.members() + 1;
        let deadline = Instant::now() + COMES_UP;
        // A group that was hurt just now, or a machine that is busy, may not take it at once.
        while let Err(error) = self.remove(member, via).await {
            ensure!(Instant::now() < deadline, "m{member} cannot be removed: {error:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.kill(member)?;
        self.renew(member);
        self.join(member, via).await
    }

    /// Removes a member from the group, unless it is out already.
    async fn remove(&self, member: u32, via: u32) -> Result<()> {
        let (client, name) = (self.connect(via).await?, format!("m{member}"));
        match client.members().await?.iter().find(|m| m.name == name) {
            Some(known) => Ok(client.remove_member(known.id).await?),
            None => Ok(()),
        }
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

    /// Whether a member's log has some words.
    pub fn said(&self, member: u32, words: &str) -> bool {
        std::fs::read_to_string(self.log(member)).is_ok_and(|log| log.contains(words))
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
        let _ = self.kill_all(&(1..=self.members()).collect::<Vec<_>>());
        if let Some(disks) = &self.disks {
            disks.unmount();
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The library that is loaded into members, loaded into a shell and what it starts.
    #[test]
    fn a_power_failure_leaves_what_was_fsynced() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let (data, image) = (folder.join("data"), Image::new(&folder.join("image")));
        image.begin(&data).unwrap();
        let script =
            "printf synced >a; sync a; printf lost >>a; printf lost >b; mkdir d; printf kept >d/f; printf lost >d/g
            printf 12345678 >c; sync c; printf xx | dd of=c conv=notrunc,fsync; printf yy | dd of=c conv=notrunc
            printf 'long content' >e; sync e; printf short | dd of=e conv=fsync; sync d/f d .; mv a moved; mkdir lost";
        let mut shell = Command::new("sh");
        shell
            .args(["-ec", script])
            .current_dir(&data)
            .env("POWER_DATA", &data)
            .env("POWER_IMAGE", folder.join("image"));
        let library = example("libpower.so", "trireme-chaos-tests").unwrap();
        run(shell.env("LD_PRELOAD", library)).unwrap().ok().unwrap();
        let lost = image.put_back(&data, &mut Choice::Nothing).unwrap();
        let read = |name: &str| std::fs::read_to_string(data.join(name)).unwrap();
        assert_eq!([read("a"), read("c"), read("e")], ["synced", "xx345678", "short"].map(str::to_owned));
        assert_eq!([read("d/f"), read("d/g"), read("b")], ["kept", "", ""].map(str::to_owned), "{lost:?}");
        assert!(!data.join("moved").exists() && !data.join("lost").exists());
    }
}
