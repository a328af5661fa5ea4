//! A container as its shim holds it: process, log pipes or terminal, those who listen in, and its exit record.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::unistd::{pipe2, read, write};

use crate::shim::logs::{LogWriter, Stream, timestamp};
use crate::shim::protocol::{ContainerSpec, ContainerStatus, EXIT_FILE, Exit, write_durably};

/// At most so much is read from one stream before others get their turn.
const CHUNK: usize = 64 << 10;

/// A listener that takes nothing for so long while there is something for it is dropped.
const PATIENCE: Duration = Duration::from_secs(30);

/// Listeners of one container at one time.
const MAX_LISTENERS: usize = 100;

/// Of a container with `stdinOnce`, so much output is kept for the one whose session it is, until they have attached.
const EARLY: usize = 64 << 10;

/// Someone who gets a copy of the output: stdout and stderr.
struct Listener {
    outlets: [Outlet; 2],
}

/// Where a copy goes.
struct Outlet {
    fd: OwnedFd,
    /// What did not fit any more.
    backlog: Vec<u8>,
    /// Since when nothing fits.
    since: Instant,
}

impl Outlet {
    fn new(fd: OwnedFd) -> io::Result<Outlet> {
        set_nonblocking(&fd)?;
        Ok(Outlet { fd, backlog: Vec::new(), since: Instant::now() })
    }

    /// Takes over bytes; false if nobody reads them any more.
    fn put(&mut self, bytes: &[u8]) -> bool {
        if self.backlog.is_empty() {
            self.since = Instant::now();
        }
        self.backlog.extend_from_slice(bytes);
        self.flush()
    }

    /// Whether nobody will ever read it again; seen also while there is nothing to write.
    fn is_gone(&self) -> bool {
        // What ends is always reported, whatever else is asked for.
        let mut entry = libc::pollfd { fd: self.fd.as_raw_fd(), events: 0, revents: 0 };
        // SAFETY: one entry, which lives through the call; it does not block.
        let count = unsafe { libc::poll(&mut entry, 1, 0) };
        count > 0 && entry.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0
    }

    fn flush(&mut self) -> bool {
        while !self.backlog.is_empty() {
            match write(&self.fd, &self.backlog) {
                Ok(written) => {
                    self.backlog.drain(..written);
                    self.since = Instant::now();
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return self.since.elapsed() < PATIENCE,
                Err(_) => return false,
            }
        }
        true
    }
}

/// One container.
pub(crate) struct Running {
    pub(crate) spec: ContainerSpec,
    /// 0 until it has started.
    pub(crate) pid: i32,
    pub(crate) started_ns: i64,
    pub(crate) exit: Option<Exit>,
    log: LogWriter,
    /// Where output is read from: stdout and stderr, or the terminal and nothing.
    outputs: [Option<OwnedFd>; 2],
    /// Where input is written to, of a container that has `stdin` but no terminal.
    input: Option<OwnedFd>,
    listeners: Vec<Listener>,
    /// What stdout and stderr brought before the first attach. None when nobody is to get it (any more).
    early: Option<[Vec<u8>; 2]>,
}

impl Running {
    /// A container about to start, and the descriptors for its process (none if it gets a terminal).
    pub(crate) fn new(spec: ContainerSpec) -> io::Result<(Running, Option<[OwnedFd; 3]>)> {
        let log = LogWriter::open(&spec.log, spec.log_max_bytes, spec.log_max_files)?;
        let mut running = Running {
            log,
            pid: 0,
            started_ns: 0,
            exit: None,
            outputs: [None, None],
            input: None,
            listeners: Vec::new(),
            early: (spec.stdin && spec.stdin_once).then(Default::default),
            spec,
        };
        if running.spec.terminal {
            return Ok((running, None));
        }
        let stdin = if running.spec.stdin {
            let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC)?;
            running.input = Some(write_end);
            read_end
        } else {
            OwnedFd::from(File::open("/dev/null")?)
        };
        let (out_read, out_write) = pipe2(OFlag::O_CLOEXEC)?;
        let (err_read, err_write) = pipe2(OFlag::O_CLOEXEC)?;
        set_nonblocking(&out_read)?;
        set_nonblocking(&err_read)?;
        running.outputs = [Some(out_read), Some(err_read)];
        Ok((running, Some([stdin, out_write, err_write])))
    }

    /// It runs.
    pub(crate) fn started(&mut self, pid: i32, now_ns: i64, terminal: Option<OwnedFd>) {
        self.pid = pid;
        self.started_ns = now_ns;
        if let Some(master) = terminal {
            // Without this a read could block the whole shim.
            if set_nonblocking(&master).is_ok() {
                self.outputs[0] = Some(master);
            }
        }
    }

    /// What the agent is told about it.
    pub(crate) fn status(&self) -> ContainerStatus {
        ContainerStatus { spec: self.spec.clone(), pid: self.pid, started_ns: self.started_ns, exit: self.exit.clone() }
    }

    /// Descriptors to be watched for output, with their stream's number. None while a listener is behind: then the
    /// container waits, as upstream's runtimes have it.
    pub(crate) fn readable(&self) -> impl Iterator<Item = (usize, RawFd)> {
        let behind = self.outlets().any(|(_, behind)| behind);
        let outputs = self.outputs.iter().enumerate().filter(move |_| !behind);
        outputs.filter_map(|(index, fd)| Some((index, fd.as_ref()?.as_raw_fd())))
    }

    /// Descriptors of listeners, and whether each is behind. The others are watched for their end: listeners of a container
    /// that is silent would pile up.
    pub(crate) fn outlets(&self) -> impl Iterator<Item = (RawFd, bool)> {
        let outlets = self.listeners.iter().flat_map(|listener| &listener.outlets);
        outlets.map(|outlet| (outlet.fd.as_raw_fd(), !outlet.backlog.is_empty()))
    }

    /// Gives listeners that are behind what they take now. Those that are gone, or stuck, are dropped.
    pub(crate) fn flush(&mut self) {
        self.listeners.retain_mut(|listener| listener.outlets.iter_mut().all(|o| !o.is_gone() && o.flush()));
        if self.exit.is_some() {
            self.keep_behind();
        }
    }

    fn keep_behind(&mut self) {
        self.listeners.retain(|listener| listener.outlets.iter().any(|outlet| !outlet.backlog.is_empty()));
    }

    /// Reads what is there. False when the stream has ended or has nothing more for now.
    pub(crate) fn pump(&mut self, index: usize) -> bool {
        let Some(fd) = &self.outputs[index] else { return false };
        let mut buffer = [0_u8; CHUNK];
        match read(fd, &mut buffer) {
            Ok(length) if length > 0 => {
                let stream = if index == 0 { Stream::Stdout } else { Stream::Stderr };
                // A full disk costs log lines, never the container.
                let _ = self.log.write(stream, &buffer[..length], &timestamp());
                self.copy(stream, &buffer[..length]);
                true
            }
            Err(Errno::EINTR) => true,
            Err(Errno::EAGAIN) => false,
            // The end of a pipe; EIO is how a terminal ends.
            Ok(_) | Err(_) => {
                self.outputs[index] = None;
                false
            }
        }
    }

    fn copy(&mut self, stream: Stream, bytes: &[u8]) {
        let index = if stream == Stream::Stdout { 0 } else { 1 };
        if let Some(early) = &mut self.early {
            early[index].extend_from_slice(bytes);
            if early[0].len() + early[1].len() > EARLY {
                self.early = None;
            }
        }
        self.listeners.retain_mut(|listener| listener.outlets[index].put(bytes));
    }

    /// Copies the output to two descriptors from now on. Returns where input goes, if it is wanted and there is any.
    pub(crate) fn attach(&mut self, stdout: OwnedFd, stderr: OwnedFd, stdin: bool) -> io::Result<Option<OwnedFd>> {
        if self.listeners.len() >= MAX_LISTENERS {
            return Err(io::Error::other(format!("container {} has too many listeners", self.spec.id)));
        }
        let mut outlets = [Outlet::new(stdout)?, Outlet::new(stderr)?];
        let early = self.early.take().unwrap_or_default();
        if outlets.iter_mut().zip(&early).all(|(outlet, bytes)| outlet.put(bytes)) {
            self.listeners.push(Listener { outlets });
        }
        if !stdin || !self.spec.stdin {
            return Ok(None);
        }
        if self.spec.terminal {
            return self.outputs[0].as_ref().map(|fd| fd.try_clone()).transpose();
        }
        match self.spec.stdin_once {
            true => Ok(self.input.take()),
            false => self.input.as_ref().map(|fd| fd.try_clone()).transpose(),
        }
    }

    /// The container's terminal.
    pub(crate) fn terminal(&self) -> Option<&OwnedFd> {
        if self.spec.terminal { self.outputs[0].as_ref() } else { None }
    }

    /// It has ended: reads the rest of its output and writes the exit record.
    pub(crate) fn finish(&mut self, directory: &Path, exit: Exit) {
        for index in 0..2 {
            while self.pump(index) {}
            self.outputs[index] = None;
        }
        let _ = self.log.finish(&timestamp());
        // Whoever has everything sees the end at once, others once they have read the rest.
        self.keep_behind();
        self.input = None;
        self.pid = 0;
        match serde_json::to_vec(&exit).map_err(io::Error::from) {
            Ok(bytes) => {
                if let Err(error) = write_durably(&directory.join(EXIT_FILE), &bytes) {
                    eprintln!("exit record of {}: {error}", self.spec.id);
                }
            }
            Err(error) => eprintln!("exit record of {}: {error}", self.spec.id),
        }
        self.exit = Some(exit);
    }
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn spec(dir: &Path) -> ContainerSpec {
        ContainerSpec {
            id: "x".into(),
            log: dir.join("0.log"),
            log_max_bytes: 1 << 20,
            log_max_files: 2,
            ..ContainerSpec::default()
        }
    }

    #[test]
    fn output_is_logged_and_copied_and_the_end_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let (mut running, files) = Running::new(spec(dir.path())).unwrap();
        let [_stdin, stdout, stderr] = files.unwrap();
        let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let other = write_end.try_clone().unwrap();
        running.attach(write_end, other, false).unwrap();
        write(&stdout, b"hello\n").unwrap();
        assert!(running.pump(0));
        assert!(!running.pump(0));
        let mut buffer = [0; 16];
        assert_eq!(read(&read_end, &mut buffer).unwrap(), 6);
        write(&stderr, b"last words").unwrap();
        drop((stdout, stderr));
        let exit = Exit {
            code: 3,
            signal: 0,
            oom_killed: false,
            started_ns: 1,
            finished_ns: 2,
            message: None,
            start_failed: false,
        };
        running.finish(dir.path(), exit.clone());
        let log = std::fs::read_to_string(dir.path().join("0.log")).unwrap();
        assert!(log.contains(" stdout F hello\n") && log.ends_with(" stderr F last words\n"), "{log}");
        let record: Exit = serde_json::from_slice(&std::fs::read(dir.path().join(EXIT_FILE)).unwrap()).unwrap();
        assert_eq!(record, exit);
    }

    #[test]
    fn who_attaches_first_to_a_session_misses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let listen = |running: &mut Running| {
            let (ours, theirs) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
            let other = theirs.try_clone().unwrap();
            running.attach(theirs, other, false).unwrap();
            ours
        };
        let got = |fd: &OwnedFd| {
            let mut buffer = [0; 64];
            read(fd, &mut buffer).map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        let (mut running, files) =
            Running::new(ContainerSpec { stdin: true, stdin_once: true, ..spec(dir.path()) }).unwrap();
        let [_stdin, stdout, _stderr] = files.unwrap();
        write(&stdout, b"hi\n").unwrap();
        assert!(running.pump(0));
        let (first, second) = (listen(&mut running), listen(&mut running));
        assert_eq!(got(&first), Ok("hi\n".to_owned()));
        assert_eq!(got(&second), Err(Errno::EAGAIN), "only the first");
        write(&stdout, b"more\n").unwrap();
        assert!(running.pump(0));
        assert_eq!((got(&first), got(&second)), (Ok("more\n".to_owned()), Ok("more\n".to_owned())));

        // Neither a service's output nor too much of it comes again.
        let (mut running, files) = Running::new(ContainerSpec { stdin: true, ..spec(dir.path()) }).unwrap();
        let [_stdin, stdout, _stderr] = files.unwrap();
        write(&stdout, b"hi\n").unwrap();
        assert!(running.pump(0));
        assert_eq!(got(&listen(&mut running)), Err(Errno::EAGAIN));
        let (mut running, _files) =
            Running::new(ContainerSpec { stdin: true, stdin_once: true, ..spec(dir.path()) }).unwrap();
        running.copy(Stream::Stderr, &[b'x'; EARLY + 1]);
        assert_eq!(got(&listen(&mut running)), Err(Errno::EAGAIN));
    }

    #[test]
    fn a_listener_that_is_behind_loses_nothing_and_one_that_is_gone_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let (mut running, files) = Running::new(spec(dir.path())).unwrap();
        let [_stdin, stdout, stderr] = files.unwrap();
        let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC).unwrap();
        fcntl(&write_end, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        let other = write_end.try_clone().unwrap();
        running.attach(write_end, other, false).unwrap();
        write(&stdout, &[b'x'; 10_000]).unwrap();
        while running.readable().next().is_some() && running.pump(0) {}
        assert_eq!(running.outlets().filter(|(_, behind)| *behind).count(), 1);
        assert_eq!(running.readable().count(), 0, "the container has to wait");
        // The container ends while its listener is behind.
        write(&stdout, b"last words").unwrap();
        drop((stdout, stderr));
        let exit = Exit {
            code: 0,
            signal: 0,
            oom_killed: false,
            started_ns: 1,
            finished_ns: 2,
            message: None,
            start_failed: false,
        };
        running.finish(dir.path(), exit);
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match read(&read_end, &mut buffer).unwrap() {
                0 => break,
                length => got.extend_from_slice(&buffer[..length]),
            }
            running.flush();
        }
        assert_eq!(got.len(), 10_010);
        assert!(got.ends_with(b"xlast words") && running.listeners.is_empty());

        let (mut running, files) = Running::new(spec(dir.path())).unwrap();
        let [_stdin, stdout, _stderr] = files.unwrap();
        let (read_end, write_end) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let other = write_end.try_clone().unwrap();
        running.attach(write_end, other, false).unwrap();
        drop(read_end);
        write(&stdout, b"x").unwrap();
        assert!(running.pump(0) && running.listeners.is_empty());
    }
    #[test]
    fn listeners_of_a_silent_container_are_dropped_when_they_go_and_limited_before() {
        let dir = tempfile::tempdir().unwrap();
        let (mut running, _files) = Running::new(spec(dir.path())).unwrap();
        let listen = |running: &mut Running| {
            let (out_read, out_write) = pipe2(OFlag::O_CLOEXEC).unwrap();
            let (err_read, err_write) = pipe2(OFlag::O_CLOEXEC).unwrap();
            running.attach(out_write, err_write, false).map(|_| (out_read, err_read))
        };
        let stays = listen(&mut running).unwrap();
        let goes = listen(&mut running).unwrap();
        assert_eq!(running.outlets().count(), 4);
        running.flush();
        assert_eq!(running.listeners.len(), 2);
        drop(goes);
        running.flush();
        assert_eq!(running.listeners.len(), 1);
        let mut others = Vec::new();
        while let Ok(other) = listen(&mut running) {
            others.push(other);
        }
        assert_eq!(others.len(), MAX_LISTENERS - 1);
        drop(others);
        running.flush();
        assert_eq!(running.listeners.len(), 1);
        drop(stays);
    }
}
