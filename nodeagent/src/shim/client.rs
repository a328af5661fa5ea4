//! The agent's end: starts shims, finds running ones again, and asks them.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::{OFlag, open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::stat::Mode;
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

use crate::shim::packet;
use crate::shim::protocol::{
    CONTAINER_FILE, CONTAINERS, ContainerSpec, ContainerStatus, EXIT_FILE, Exit, Op, PodShim, Reply, Request,
    SHIM_FILE, SOCKET, VERSION, write_whole,
};

/// A shim that is not ready after this long never will be.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// A running shim answers at once, also on a busy machine; one that is stopped never does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Shutting down kills everything and waits for it.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a shim did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// Nobody listens at its socket: it does not run.
    #[error("the pod's shim does not run")]
    Dead(#[source] io::Error),
    /// The connection failed or ended, which alone does not tell whether the shim still runs.
    #[error("the connection to the pod's shim failed: {0}")]
    Gone(#[source] io::Error),
    /// It refused or failed.
    #[error("{0}")]
    Refused(String),
    /// It answered something else than it was asked.
    #[error("the pod's shim gave an unexpected answer")]
    Unexpected,
    /// It could not be started.
    #[error("starting the pod's shim: {0}")]
    Start(String),
    /// It did not answer in time.
    #[error("the pod's shim did not answer in time")]
    Timeout,
}

/// A shim, found by its pod's directory. Cheap to clone; holds no connection.
#[derive(Clone, Debug)]
pub struct Shim {
    directory: PathBuf,
}

impl Shim {
    /// The shim of the pod in `directory`, whether it runs or not.
    pub fn at(directory: &Path) -> Shim {
        Shim { directory: directory.to_owned() }
    }

    /// Starts a shim for a pod and waits until it is ready.
    pub async fn start(program: &Path, directory: &Path, pod: &PodShim) -> Result<Shim, ShimError> {
        let failed = |error: io::Error| ShimError::Start(error.to_string());
        std::fs::create_dir_all(directory).map_err(failed)?;
        let text = serde_json::to_vec(pod).map_err(|error| ShimError::Start(error.to_string()))?;
        write_whole(&directory.join(SHIM_FILE), &text).map_err(failed)?;
        let log = std::fs::File::create(directory.join("shim.log")).map_err(failed)?;
        let mut child = Command::new(program)
            .arg0("trireme")
            .arg("shim")
            .arg(directory)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(crate::limits::first().map(|limit| (crate::limits::VARIABLE, limit.to_string())))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let mut stdout = child.stdout.take();
        // Reaps it if it ends while this agent lives.
        tokio::spawn(async move { child.wait().await });
        let mut said = String::new();
        if let Some(stdout) = &mut stdout {
            let mut stdout = stdout.take(4096);
            let read = tokio::time::timeout(START_TIMEOUT, stdout.read_to_string(&mut said)).await;
            read.map_err(|_| ShimError::Timeout)?.map_err(failed)?;
        }
        match said.trim() {
            "ready" => Ok(Shim::at(directory)),
            "" => Err(ShimError::Start("it died".to_owned())),
            error => Err(ShimError::Start(error.to_owned())),
        }
    }

    /// Follows what happens to the pod's containers.
    pub async fn watch(&self) -> Result<(Vec<ContainerStatus>, Watch), ShimError> {
        self.watch_within(ANSWER_TIMEOUT).await
    }

    async fn watch_within(&self, limit: Duration) -> Result<(Vec<ContainerStatus>, Watch), ShimError> {
        let all = async {
            let mut connection = self.ask(Op::Watch, &[]).await?;
            let mut found = Vec::new();
            loop {
                match connection.receive().await? {
                    (Reply::State { containers, shim_pid, more, .. }, _) => {
                        found.extend(containers);
                        if !more {
                            return Ok((found, Watch { connection, shim_pid }));
                        }
                    }
                    other => return Err(unexpected(other)),
                }
            }
        };
        tokio::time::timeout(limit, all).await.map_err(|_| ShimError::Timeout)?
    }

    /// Runs a container; returns its process and when it started.
    pub async fn start_container(&self, spec: ContainerSpec) -> Result<(i32, i64), ShimError> {
        let mut connection = self.ask(Op::Start { spec: Box::new(spec) }, &[]).await?;
        match connection.receive().await? {
            (Reply::Started { pid, started_ns }, _) => Ok((pid, started_ns)),
            other => Err(unexpected(other)),
        }
    }

    /// Runs a process in a container with the given stdin, stdout and stderr. It is killed when it is dropped here.
    pub async fn exec(&self, id: &str, args: Vec<String>, stdio: [OwnedFd; 3]) -> Result<Process, ShimError> {
        self.exec_with(id, args, stdio, false).await
    }

    /// As [`Shim::exec`], but the process lives on when it is dropped here.
    pub async fn exec_detached(&self, id: &str, args: Vec<String>, stdio: [OwnedFd; 3]) -> Result<Process, ShimError> {
        self.exec_with(id, args, stdio, true).await
    }

    async fn exec_with(
        &self,
        id: &str,
        args: Vec<String>,
        stdio: [OwnedFd; 3],
        detached: bool,
    ) -> Result<Process, ShimError> {
        let op = Op::Exec { id: id.to_owned(), args, terminal: false, columns: 0, rows: 0, detached };
        let mut connection = self.ask(op, &packet::raw(&stdio)).await?;
        // Ours must be closed before the process can see or give an end.
        drop(stdio);
        match connection.receive().await? {
            (Reply::Started { .. }, _) => Ok(Process { connection }),
            other => Err(unexpected(other)),
        }
    }

    /// Runs a process in a container on a terminal of its own; returns the terminal's master too. When the master is
    /// dropped the terminal hangs up, which ends most processes.
    pub async fn exec_terminal(
        &self,
        id: &str,
        args: Vec<String>,
        (columns, rows): (u16, u16),
    ) -> Result<(Process, OwnedFd), ShimError> {
        let op = Op::Exec { id: id.to_owned(), args, terminal: true, columns, rows, detached: true };
        let mut connection = self.ask(op, &[]).await?;
        match connection.receive().await? {
            (Reply::Started { .. }, mut fds) => match fds.pop() {
                Some(master) => Ok((Process { connection }, master)),
                None => Err(ShimError::Unexpected),
            },
            other => Err(unexpected(other)),
        }
    }

    /// Copies a container's output to two descriptors. Returns where its input goes and its terminal, as far as there are any.
    pub async fn attach(&self, id: &str, stdin: bool, out: [OwnedFd; 2]) -> Result<Vec<OwnedFd>, ShimError> {
        let mut connection = self.ask(Op::Attach { id: id.to_owned(), stdin }, &packet::raw(&out)).await?;
        match connection.receive().await? {
            (Reply::Done, fds) => Ok(fds),
            other => Err(unexpected(other)),
        }
    }

    /// Sends a signal to a container's init; one that has ended is no error.
    pub async fn signal(&self, id: &str, signal: i32) -> Result<(), ShimError> {
        let all = async {
            let mut connection = self.ask(Op::Signal { id: id.to_owned(), signal }, &[]).await?;
            match connection.receive().await? {
                (Reply::Done, _) => Ok(()),
                other => Err(unexpected(other)),
            }
        };
        tokio::time::timeout(ANSWER_TIMEOUT, all).await.map_err(|_| ShimError::Timeout)?
    }

    /// Ends the pod's containers and the shim, and waits until both are gone. No error if it was gone before.
    pub async fn shut_down(&self) -> Result<(), ShimError> {
        let mut connection = match self.ask(Op::Shutdown, &[]).await {
            Ok(connection) => connection,
            Err(ShimError::Dead(_)) => return Ok(()),
            // It ended between the connection and the request.
            Err(ShimError::Gone(error))
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let all = async {
            match connection.receive().await {
                Ok((Reply::Done, _)) | Err(ShimError::Gone(_)) => {}
                Ok(other) => return Err(unexpected(other)),
                Err(error) => return Err(error),
            }
            // The socket closes when the process is really gone.
            let _ = connection.receive().await;
            Ok(())
        };
        tokio::time::timeout(SHUTDOWN_TIMEOUT, all).await.map_err(|_| ShimError::Timeout)?
    }

    async fn ask(&self, op: Op, fds: &[RawFd]) -> Result<Connection, ShimError> {
        let connection = Connection::open(&self.directory).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ShimError::Dead(error),
            // No descriptors left, a full backlog and the like: that says nothing about the shim.
            _ => ShimError::Gone(error),
        })?;
        connection.send(&Request { version: VERSION, op }, fds).await.map_err(ShimError::Gone)?;
        Ok(connection)
    }
}

fn unexpected((reply, _): (Reply, Vec<OwnedFd>)) -> ShimError {
    match reply {
        Reply::Error { message } => ShimError::Refused(message),
        _ => ShimError::Unexpected,
    }
}

/// News of a pod's containers.
pub struct Watch {
    connection: Connection,
    /// The shim's process, whose namespaces are the pod's.
    pub shim_pid: i32,
}

impl Watch {
    /// The next exit. An error ends the watch; whether the shim lives, a new one tells.
    pub async fn next(&mut self) -> Result<(String, Exit), ShimError> {
        loop {
            if let (Reply::Exited { id, exit }, _) = self.connection.receive().await? {
                return Ok((id, exit));
            }
        }
    }
}

/// A process in a container. Dropping it kills the process, unless it is detached.
pub struct Process {
    connection: Connection,
}

impl Process {
    /// Waits for its exit status.
    pub async fn wait(&mut self) -> Result<i32, ShimError> {
        loop {
            if let (Reply::ExecExited { code }, _) = self.connection.receive().await? {
                return Ok(code);
            }
        }
    }
}

struct Connection {
    socket: AsyncFd<OwnedFd>,
}

impl Connection {
    /// Goes through a descriptor of the directory, since the whole path may be too long for a socket address.
    fn open(directory: &Path) -> io::Result<Connection> {
        let at = open(directory, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        let _ = setsockopt(&fd, sockopt::SndBuf, &(1 << 20));
        let path = format!("/proc/self/fd/{}/{SOCKET}", at.as_raw_fd());
        connect(fd.as_raw_fd(), &UnixAddr::new(path.as_str())?)?;
        // SAFETY: it owns the descriptor and nothing replaces or closes it before it is dropped.
        Ok(Connection { socket: unsafe { AsyncFd::register(fd)? } })
    }

    async fn send(&self, request: &Request, fds: &[RawFd]) -> io::Result<()> {
        loop {
            let mut ready = self.socket.writable().await?;
            if let Ok(result) = ready.try_io(|fd| packet::send(fd.as_raw_fd(), request, fds)) {
                return result;
            }
        }
    }

    async fn receive(&mut self) -> Result<(Reply, Vec<OwnedFd>), ShimError> {
        loop {
            let mut ready = self.socket.readable().await.map_err(ShimError::Gone)?;
            match ready.try_io(|fd| packet::receive::<Reply>(fd.as_raw_fd())) {
                Ok(Ok(Some(found))) => return Ok(found),
                Ok(Ok(None)) => return Err(ShimError::Gone(io::ErrorKind::UnexpectedEof.into())),
                Ok(Err(error)) => return Err(ShimError::Gone(error)),
                Err(_) => {}
            }
        }
    }
}

/// What the disk says about a pod's containers, for when no shim can be asked. Whoever has no exit record was
/// running when the shim died: its end was not seen.
pub fn read_records(directory: &Path) -> Vec<ContainerStatus> {
    let entries = std::fs::read_dir(directory.join(CONTAINERS)).into_iter().flatten().flatten();
    let mut found: Vec<ContainerStatus> = entries
        .filter_map(|entry| {
            let path = entry.path();
            let spec: ContainerSpec = serde_json::from_slice(&std::fs::read(path.join(CONTAINER_FILE)).ok()?).ok()?;
            let exit: Option<Exit> =
                std::fs::read(path.join(EXIT_FILE)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let started_ns = exit.as_ref().map_or(0, |exit| exit.started_ns);
            Some(ContainerStatus { spec, pid: 0, started_ns, exit })
        })
        .collect();
    found.sort_by(|a, b| (&a.spec.name, a.spec.attempt).cmp(&(&b.spec.name, b.spec.attempt)));
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nix::sys::socket::{Backlog, bind, listen};

    fn listener(directory: &Path) -> OwnedFd {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(fd.as_raw_fd(), &UnixAddr::new(&directory.join(SOCKET)).unwrap()).unwrap();
        listen(&fd, Backlog::new(8).unwrap()).unwrap();
        fd
    }

    #[tokio::test]
    async fn only_a_shim_that_nobody_can_reach_is_dead() {
        let directory = tempfile::tempdir().unwrap();
        let shim = Shim::at(directory.path());
        let watch = || shim.watch_within(Duration::from_millis(10));
        assert!(matches!(watch().await, Err(ShimError::Dead(_))), "it was never started");
        let socket = listener(directory.path());
        assert!(matches!(watch().await, Err(ShimError::Timeout)), "it is stopped");
        drop(socket);
        assert!(matches!(watch().await, Err(ShimError::Dead(_))), "it was killed");
        shim.shut_down().await.unwrap();
        let nowhere = Shim::at(&directory.path().join("none"));
        assert!(matches!(nowhere.watch().await, Err(ShimError::Dead(_))));
    }
}
