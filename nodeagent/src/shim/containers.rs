//! A container as its shim holds it: process, log pipes or terminal, those who listen in, and its exit record.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, read, write};

use crate::shim::logs::{LogWriter, Stream, timestamp};
use crate::shim::protocol::{ContainerSpec, ContainerStatus, EXIT_FILE, Exit, write_durably};

/// At most so much is read from one stream before others get their turn.
const CHUNK: usize = 64 << 10;

/// Someone who gets a copy of the output.
struct Listener {
    stdout: OwnedFd,
    stderr: OwnedFd,
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

    /// Descriptors to be watched for output, with their stream's number.
    pub(crate) fn readable(&self) -> impl Iterator<Item = (usize, RawFd)> {
        self.outputs.iter().enumerate().filter_map(|(index, fd)| Some((index, fd.as_ref()?.as_raw_fd())))
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

    /// Whoever does not keep up is dropped: the container must not wait for a listener.
    fn copy(&mut self, stream: Stream, bytes: &[u8]) {
        self.listeners.retain(|listener| {
            let fd = if stream == Stream::Stdout { &listener.stdout } else { &listener.stderr };
            matches!(write(fd, bytes), Ok(written) if written == bytes.len())
        });
    }

    /// Copies the output to two descriptors from now on. Returns where input goes, if it is wanted and there is any.
    pub(crate) fn attach(&mut self, stdout: OwnedFd, stderr: OwnedFd, stdin: bool) -> io::Result<Option<OwnedFd>> {
        set_nonblocking(&stdout)?;
        set_nonblocking(&stderr)?;
        self.listeners.push(Listener { stdout, stderr });
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
        self.listeners.clear();
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
}
