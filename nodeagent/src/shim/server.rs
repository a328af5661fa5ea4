//! The shim's loop: one `poll` over the socket, connections, output and signals.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, setsockopt, socket, sockopt,
};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

use crate::runtime::cgroups::Cgroups;
use crate::runtime::launch;
use crate::runtime::terminal::Size;
use crate::shim::containers::Running;
use crate::shim::helper::{self, ExecJob, Outcome};
use crate::shim::packet;
use crate::shim::protocol::{
    CONTAINER_FILE, CONTAINERS, ContainerSpec, EXIT_FILE, Exit, Op, PodShim, Reply, Request, SOCKET, STATE, now_ns,
    state_replies, write_whole,
};
use crate::shim::sandbox;

/// Connections at one time; further ones wait in the socket's backlog.
const MAX_CONNECTIONS: usize = 256;

/// How often stuck listeners are looked for, if any is behind, and whether connections can be accepted again.
const CHECK_MS: libc::c_int = 1000;

/// What a poll entry stands for.
#[derive(Clone, Debug)]
enum Source {
    Listener,
    Signals,
    Connection(u64),
    Helper(u64),
    Output(String, usize),
    /// Someone who listens to a container.
    Listening(String),
}

struct Connection {
    socket: OwnedFd,
    watching: bool,
    /// Process started with this connection's request.
    exec: Option<i32>,
    /// Whether that process lives on when the connection ends.
    detached: bool,
}

/// What a helper works at.
enum Job {
    Start { id: String, connection: u64 },
    Exec { connection: u64 },
    Delete { id: String },
}

/// The shim's whole state.
pub(crate) struct Server {
    directory: PathBuf,
    pod: PodShim,
    cgroups: Cgroups,
    listener: OwnedFd,
    signals: SignalFd,
    connections: BTreeMap<u64, Connection>,
    helpers: BTreeMap<u64, (OwnedFd, Job)>,
    containers: BTreeMap<String, Running>,
    /// Processes that ended before the helper said which they were.
    early: BTreeMap<i32, i32>,
    next: u64,
    pause: Option<Pid>,
    /// Set once everything is to end; the connection that asked for it, if one did.
    closing: Option<Option<u64>>,
    /// When the last connection could not be accepted, for want of descriptors perhaps.
    refused: Option<Instant>,
}

impl Server {
    /// Sets everything up; afterwards agents can connect.
    pub(crate) fn start(directory: PathBuf, pod: PodShim) -> io::Result<Server> {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGINT);
        mask.add(Signal::SIGHUP);
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let cgroups = Cgroups::detect()?;
        cgroups.create(&pod.pod_cgroup)?;
        sandbox::enter(&pod, &cgroups)?;
        let pause = if pod.share_pid { Some(sandbox::start_pause()?) } else { None };
        sandbox::fresh_directory(&directory.join(STATE))?;
        fs::create_dir_all(directory.join(CONTAINERS))?;
        let _ = fs::remove_file(SOCKET);
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        // The working directory is the pod's: a relative address is never too long.
        bind(listener.as_raw_fd(), &UnixAddr::new(SOCKET)?)?;
        listen(&listener, Backlog::new(64)?)?;
        Ok(Server {
            directory,
            pod,
            cgroups,
            listener,
            signals,
            connections: BTreeMap::new(),
            helpers: BTreeMap::new(),
            containers: BTreeMap::new(),
            early: BTreeMap::new(),
            next: 0,
            pause,
            closing: None,
            refused: None,
        })
    }

    /// Serves until told to end; returns the exit status.
    pub(crate) fn serve(mut self) -> i32 {
        loop {
            if let Some(connection) = self.closing
                && self.helpers.is_empty()
                && self.containers.values().all(|c| c.exit.is_some())
            {
                self.cgroups.kill(&self.pod.pod_cgroup);
                let _ = self.cgroups.remove(&self.pod.pod_cgroup);
                let _ = fs::remove_file(self.directory.join(SOCKET));
                if let Some(connection) = connection {
                    self.reply(connection, &Reply::Done, &[]);
                }
                return 0;
            }
            if let Err(error) = self.turn() {
                eprintln!("shim: {error}");
                return 1;
            }
        }
    }

    /// What is waited for, and the most milliseconds for it; -1 is for ever.
    fn sources(&mut self) -> (Vec<(Source, libc::pollfd)>, libc::c_int) {
        let mut timeout = -1;
        let entry = |fd, events| libc::pollfd { fd, events, revents: 0 };
        let input = |fd: &OwnedFd| entry(fd.as_raw_fd(), libc::POLLIN);
        let mut sources = vec![(Source::Signals, entry(self.signals.as_raw_fd(), libc::POLLIN))];
        if self.refused.is_some_and(|at| at.elapsed().as_millis() < CHECK_MS as u128) {
            // It would be ready at once again.
            timeout = CHECK_MS;
        } else if self.connections.len() < MAX_CONNECTIONS {
            self.refused = None;
            sources.push((Source::Listener, input(&self.listener)));
        }
        sources.extend(self.connections.iter().map(|(id, c)| (Source::Connection(*id), input(&c.socket))));
        sources.extend(self.helpers.iter().map(|(id, (socket, _))| (Source::Helper(*id), input(socket))));
        for (id, container) in &self.containers {
            let outputs = container.readable();
            sources.extend(outputs.map(|(index, fd)| (Source::Output(id.clone(), index), entry(fd, libc::POLLIN))));
        }
        for (id, container) in &self.containers {
            for (fd, behind) in container.outlets() {
                // A listener that is stuck has to be noticed.
                timeout = if behind { CHECK_MS } else { timeout };
                let events = if behind { libc::POLLOUT } else { 0 };
                sources.push((Source::Listening(id.clone()), entry(fd, events)));
            }
        }
        (sources, timeout)
    }

    fn turn(&mut self) -> io::Result<()> {
        let (sources, timeout) = self.sources();
        let (sources, mut polled): (Vec<Source>, Vec<libc::pollfd>) = sources.into_iter().unzip();
        // SAFETY: the array lives through the call and its length is right.
        let count = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        if count == 0 {
            self.containers.values_mut().for_each(Running::flush);
        }
        for (source, entry) in sources.into_iter().zip(&polled) {
            if entry.revents == 0 {
                continue;
            }
            match source {
                Source::Signals => self.on_signals(),
                Source::Listener => self.accept(),
                Source::Connection(id) => self.on_message(id),
                Source::Helper(id) => self.on_helper(id),
                Source::Output(id, index) => {
                    if let Some(container) = self.containers.get_mut(&id) {
                        container.pump(index);
                    }
                }
                Source::Listening(id) => {
                    if let Some(container) = self.containers.get_mut(&id) {
                        container.flush();
                    }
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = match accept4(self.listener.as_raw_fd(), flags) {
            Ok(fd) => fd,
            // Whoever wanted to come is gone again.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => return,
            Err(error) => {
                eprintln!("accepting a connection: {error}");
                self.refused = Some(Instant::now());
                return;
            }
        };
        // SAFETY: the kernel has just made it for us.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let _ = setsockopt(&socket, sockopt::SndBuf, &(1 << 20));
        self.next += 1;
        self.connections.insert(self.next, Connection { socket, watching: false, exec: None, detached: false });
    }

    /// Sends an answer; a peer that does not take it is gone for us.
    fn reply(&mut self, connection: u64, reply: &Reply, fds: &[RawFd]) {
        let Some(peer) = self.connections.get(&connection) else { return };
        if packet::send(peer.socket.as_raw_fd(), reply, fds).is_err() {
            self.close(connection);
        }
    }

    fn error(&mut self, connection: u64, message: impl Into<String>) {
        self.reply(connection, &Reply::Error { message: message.into() }, &[]);
    }

    fn close(&mut self, connection: u64) {
        if let Some(Connection { exec: Some(pid), detached: false, .. }) = self.connections.remove(&connection) {
            // Nobody would ever take this process's output or status again.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    fn on_message(&mut self, connection: u64) {
        let Some(peer) = self.connections.get(&connection) else { return };
        match packet::receive::<Request>(peer.socket.as_raw_fd()) {
            Ok(Some((request, fds))) => {
                if self.closing.is_some() {
                    return self.error(connection, "the pod is being torn down");
                }
                self.on_request(connection, request.op, fds);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => self.error(connection, error.to_string()),
            Ok(None) | Err(_) => self.close(connection),
        }
    }

    fn on_request(&mut self, connection: u64, op: Op, fds: Vec<OwnedFd>) {
        match op {
            Op::Watch => {
                if let Some(peer) = self.connections.get_mut(&connection) {
                    peer.watching = true;
                }
                let containers = self.containers.values().map(Running::status).collect();
                for state in state_replies(getpid().as_raw(), containers) {
                    self.reply(connection, &state, &[]);
                }
            }
            Op::Start { spec } => {
                let id = spec.id.clone();
                if let Err(error) = self.start_container(connection, *spec) {
                    self.containers.remove(&id);
                    self.error(connection, error.to_string());
                }
            }
            Op::Exec { id, args, terminal, columns, rows, detached } => {
                let size = Size { columns, rows };
                if let Some(peer) = self.connections.get_mut(&connection) {
                    peer.detached = detached;
                }
                if let Err(message) = self.exec(connection, id, args, terminal, size, fds) {
                    self.error(connection, message);
                }
            }
            Op::Attach { id, stdin } => self.attach(connection, &id, stdin, fds),
            Op::Signal { id, signal } => {
                match self.signal(&id, signal) {
                    Ok(()) => self.reply(connection, &Reply::Done, &[]),
                    Err(message) => self.error(connection, message),
                };
            }
            Op::Shutdown => self.shut_down(Some(connection)),
            Op::Unknown => self.error(connection, "this shim does not know that request"),
        }
    }

    fn start_container(&mut self, connection: u64, spec: ContainerSpec) -> io::Result<()> {
        if self.containers.get(&spec.id).is_some_and(|known| known.exit.is_none()) {
            return Err(io::Error::other(format!("container {} exists", spec.id)));
        }
        let (id, directory) = (spec.id.clone(), self.container_directory(&spec.id));
        write_whole(&directory.join(CONTAINER_FILE), &serde_json::to_vec(&spec)?)?;
        let _ = fs::remove_file(directory.join(EXIT_FILE));
        let (running, files) = Running::new(spec.clone())?;
        self.containers.insert(id.clone(), running);
        let state = self.directory.join(STATE);
        let namespace = self.pause.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/pid")));
        let (_, socket) = helper::spawn(move || helper::start(&spec, &directory, &state, namespace, files))?;
        self.add_helper(socket, Job::Start { id, connection });
        Ok(())
    }

    fn exec(
        &mut self,
        connection: u64,
        id: String,
        args: Vec<String>,
        terminal: bool,
        size: Size,
        fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        if self.containers.get(&id).is_none_or(|c| c.pid <= 0) {
            return Err(format!("container {id} is not running"));
        }
        let files = match (terminal, <[OwnedFd; 3]>::try_from(fds)) {
            (true, _) => None,
            (false, Ok(files)) => Some(files),
            (false, Err(_)) => return Err("exec needs stdin, stdout and stderr".to_owned()),
        };
        self.next += 1;
        let directory = self.container_directory(&id);
        let state = self.directory.join(STATE);
        let job = ExecJob { id, directory, state, args, tag: self.next.to_string(), files, size };
        let (_, socket) = helper::spawn(move || helper::exec(job)).map_err(|error| error.to_string())?;
        self.add_helper(socket, Job::Exec { connection });
        Ok(())
    }

    fn attach(&mut self, connection: u64, id: &str, stdin: bool, fds: Vec<OwnedFd>) {
        let result = match (self.containers.get_mut(id).filter(|c| c.pid > 0), <[OwnedFd; 2]>::try_from(fds)) {
            (Some(container), Ok([stdout, stderr])) => container
                .attach(stdout, stderr, stdin)
                .and_then(|input| Ok((input, container.terminal().map(|fd| fd.try_clone()).transpose()?)))
                .map_err(|error| error.to_string()),
            (None, _) => Err(format!("container {id} is not running")),
            (_, Err(_)) => Err("attach needs stdout and stderr".to_owned()),
        };
        match result {
            Ok((input, terminal)) => {
                let fds: Vec<RawFd> = input.iter().chain(&terminal).map(AsRawFd::as_raw_fd).collect();
                self.reply(connection, &Reply::Done, &fds);
            }
            Err(message) => self.error(connection, message),
        }
    }

    fn signal(&mut self, id: &str, signal: i32) -> Result<(), String> {
        let container = self.containers.get(id).ok_or_else(|| format!("no container {id}"))?;
        if container.pid <= 0 {
            return Ok(());
        }
        let signal = Signal::try_from(signal).map_err(|_| format!("no signal {signal}"))?;
        // The process is our child and not reaped yet, so its id cannot mean another one.
        kill(Pid::from_raw(container.pid), signal).map_err(|errno| errno.to_string())
    }

    fn shut_down(&mut self, connection: Option<u64>) {
        self.closing = Some(connection);
        for container in self.containers.values().filter(|c| c.pid > 0) {
            let _ = kill(Pid::from_raw(container.pid), Signal::SIGKILL);
        }
        if let Some(pause) = self.pause {
            let _ = kill(pause, Signal::SIGKILL);
        }
    }

    fn container_directory(&self, id: &str) -> PathBuf {
        self.directory.join(CONTAINERS).join(id)
    }

    fn add_helper(&mut self, socket: OwnedFd, job: Job) {
        self.next += 1;
        self.helpers.insert(self.next, (socket, job));
    }

    fn on_helper(&mut self, id: u64) {
        let Some((socket, job)) = self.helpers.remove(&id) else { return };
        let (outcome, mut fds) = match packet::receive::<Outcome>(socket.as_raw_fd()) {
            Ok(Some(found)) => found,
            Ok(None) => (Outcome { pid: 0, error: Some("the runtime died".to_owned()) }, Vec::new()),
            Err(error) => (Outcome { pid: 0, error: Some(error.to_string()) }, Vec::new()),
        };
        match job {
            Job::Start { id, connection } => self.container_started(&id, connection, outcome, fds.pop()),
            Job::Exec { connection } => self.exec_started(connection, outcome, fds),
            Job::Delete { id } => {
                if let Some(error) = outcome.error {
                    eprintln!("deleting {id}: {error}");
                }
            }
        }
        if self.helpers.is_empty() {
            self.early.clear();
        }
    }

    fn container_started(&mut self, id: &str, connection: u64, outcome: Outcome, terminal: Option<OwnedFd>) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let now = now_ns();
        if let Some(message) = outcome.error {
            let (code, message) = (128, Some(message));
            let exit = Exit {
                code,
                signal: 0,
                oom_killed: false,
                started_ns: 0,
                finished_ns: now,
                message: message.clone(),
                start_failed: true,
            };
            self.end_container(id, exit);
            return self.error(connection, message.unwrap_or_default());
        }
        container.started(outcome.pid, now, terminal);
        self.reply(connection, &Reply::Started { pid: outcome.pid, started_ns: now }, &[]);
        if let Some(status) = self.early.remove(&outcome.pid) {
            self.on_exit(outcome.pid, status);
        } else if self.closing.is_some() {
            let _ = kill(Pid::from_raw(outcome.pid), Signal::SIGKILL);
        }
    }

    fn exec_started(&mut self, connection: u64, outcome: Outcome, fds: Vec<OwnedFd>) {
        if let Some(message) = outcome.error {
            return self.error(connection, message);
        }
        match self.connections.get_mut(&connection) {
            Some(peer) => peer.exec = Some(outcome.pid),
            None => {
                let _ = kill(Pid::from_raw(outcome.pid), Signal::SIGKILL);
            }
        }
        self.reply(connection, &Reply::Started { pid: outcome.pid, started_ns: now_ns() }, &packet::raw(&fds));
        if let Some(status) = self.early.remove(&outcome.pid) {
            self.on_exit(outcome.pid, status);
        }
    }

    fn on_signals(&mut self) {
        let mut child = false;
        while let Ok(Some(info)) = self.signals.read_signal() {
            match i32::try_from(info.ssi_signo) {
                Ok(libc::SIGCHLD) => child = true,
                Ok(libc::SIGTERM) if self.closing.is_none() => self.shut_down(None),
                _ => {}
            }
        }
        while child {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Exited(pid, code)) => self.on_exit(pid.as_raw(), code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => self.on_exit(pid.as_raw(), 128 + signal as i32),
                Err(Errno::EINTR) => {}
                Ok(WaitStatus::StillAlive) | Err(_) => child = false,
                Ok(_) => {}
            }
        }
    }

    /// A child ended with a status of 0..=255 or 128 + signal.
    fn on_exit(&mut self, pid: i32, status: i32) {
        let container = self.containers.iter().find(|(_, c)| c.pid == pid).map(|(id, _)| id.clone());
        if let Some(id) = container {
            return self.container_exited(&id, status);
        }
        let exec = self.connections.iter().find(|(_, c)| c.exec == Some(pid)).map(|(id, _)| *id);
        if let Some(connection) = exec {
            if let Some(peer) = self.connections.get_mut(&connection) {
                peer.exec = None;
            }
            return self.reply(connection, &Reply::ExecExited { code: status }, &[]);
        }
        if !self.helpers.is_empty() {
            self.early.insert(pid, status);
        }
    }

    fn container_exited(&mut self, id: &str, status: i32) {
        let Some(container) = self.containers.get(id) else { return };
        let cgroup = container.spec.cgroup.clone();
        // Without a PID namespace of its own, what the container started is still there.
        if self.pod.share_pid || !self.cgroups.processes(&cgroup).is_empty() {
            self.cgroups.kill(&cgroup);
        }
        let oom_killed = status != 0 && self.cgroups.oom_kills(&cgroup) > 0;
        let exit = Exit {
            code: status,
            signal: if status > 128 { status - 128 } else { 0 },
            oom_killed,
            started_ns: container.started_ns,
            finished_ns: now_ns(),
            message: None,
            start_failed: false,
        };
        self.end_container(id, exit);
    }

    /// Records the end, tells the watchers, and removes what is left of the container.
    fn end_container(&mut self, id: &str, exit: Exit) {
        let directory = self.container_directory(id);
        let Some(container) = self.containers.get_mut(id) else { return };
        container.finish(&directory, exit.clone());
        let watchers: Vec<u64> = self.connections.iter().filter(|(_, c)| c.watching).map(|(id, _)| *id).collect();
        let news = Reply::Exited { id: id.to_owned(), exit };
        for watcher in watchers {
            self.reply(watcher, &news, &[]);
        }
        let (id, state) = (id.to_owned(), self.directory.join(STATE));
        let name = id.clone();
        match helper::spawn(move || launch::delete(&name, &state, &directory).map(|()| (0, None))) {
            Ok((_, socket)) => self.add_helper(socket, Job::Delete { id }),
            Err(error) => eprintln!("deleting {id}: {error}"),
        }
        self.forget_old();
    }

    /// The records of long gone containers are on disk; in memory only the last few of each name stay.
    fn forget_old(&mut self) {
        let mut newest: BTreeMap<String, u32> = BTreeMap::new();
        for container in self.containers.values() {
            let attempt = newest.entry(container.spec.name.clone()).or_default();
            *attempt = container.spec.attempt.max(*attempt);
        }
        self.containers.retain(|_, c| {
            c.exit.is_none() || c.spec.attempt + 1 >= newest.get(&c.spec.name).copied().unwrap_or_default()
        });
    }
}
