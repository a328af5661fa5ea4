//! One-shot children of the shim, in which `libcontainer` is called.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, socket, socketpair,
};
use nix::unistd::{ForkResult, Pid, fork};
use serde::{Deserialize, Serialize};

use crate::runtime::launch::{self, Stdio};
use crate::runtime::terminal::Size;
use crate::shim::packet;
use crate::shim::protocol::{ContainerSpec, MAX_MESSAGE};

/// What a helper found out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The process that was started, or 0.
    pub(crate) pid: i32,
    pub(crate) error: Option<String>,
}

/// Runs `work` in a child. Its outcome, maybe with a descriptor, arrives on the socket.
pub(crate) fn spawn(work: impl FnOnce() -> Result<(i32, Option<OwnedFd>), String>) -> io::Result<(Pid, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: the shim has a single thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok((child, ours)),
        ForkResult::Child => {
            drop(ours);
            // What the container inherits: no blocked signals, SIGPIPE as everyone expects it, and the usual limit.
            let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
            // SAFETY: restores a default; no handler is installed.
            let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
            if let Err(error) = crate::limits::restore() {
                eprintln!("limit of open files: {error}");
            }
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
                .unwrap_or_else(|_| Err("the runtime panicked".to_owned()));
            let (outcome, fd) = match result {
                Ok((pid, fd)) => (Outcome { pid, error: None }, fd),
                Err(mut error) => {
                    if let Some((at, _)) = error.char_indices().nth(MAX_MESSAGE / 16) {
                        error.truncate(at);
                    }
                    (Outcome { pid: 0, error: Some(error) }, None)
                }
            };
            let fds: Vec<_> = fd.iter().map(AsRawFd::as_raw_fd).collect();
            let sent = packet::send(theirs.as_raw_fd(), &outcome, &fds);
            // SAFETY: ends this process without running what the parent registered to run at its own exit.
            unsafe { libc::_exit(if sent.is_ok() { 0 } else { 1 }) }
        }
    }
}

/// Creates and starts a container; returns the terminal's master if it has one.
pub(crate) fn start(
    spec: &ContainerSpec,
    directory: &Path,
    state: &Path,
    pid_namespace: Option<PathBuf>,
    files: Option<[OwnedFd; 3]>,
) -> Result<(i32, Option<OwnedFd>), String> {
    with_console(directory, "console", files, |stdio| {
        launch::create(launch::Create {
            id: &spec.id,
            directory,
            state_root: state,
            layers: &spec.layers,
            user: &spec.user,
            extra_groups: &spec.extra_groups,
            run_as_non_root: spec.run_as_non_root,
            pid_namespace,
            stdio,
        })
    })
}

/// A process for [`exec`].
pub(crate) struct ExecJob {
    pub(crate) id: String,
    pub(crate) directory: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) tag: String,
    pub(crate) files: Option<[OwnedFd; 3]>,
    pub(crate) size: Size,
}

/// Runs a process in a container; returns the terminal's master if it has one.
pub(crate) fn exec(job: ExecJob) -> Result<(i32, Option<OwnedFd>), String> {
    let ExecJob { id, directory, state, args, tag, files, size } = job;
    with_console(&directory, &format!("console-{tag}"), files, |stdio| {
        launch::exec(launch::Exec {
            id: &id,
            directory: &directory,
            state_root: &state,
            args: &args,
            tag: &tag,
            stdio,
            size,
        })
    })
}

/// Calls `run` with the given files, or with a console socket from which the terminal's master is then taken.
fn with_console(
    directory: &Path,
    name: &str,
    files: Option<[OwnedFd; 3]>,
    run: impl FnOnce(Stdio) -> Result<i32, String>,
) -> Result<(i32, Option<OwnedFd>), String> {
    if let Some([stdin, stdout, stderr]) = files {
        return Ok((run(Stdio::Files { stdin, stdout, stderr })?, None));
    }
    let console_socket = directory.join(name);
    let listener = listen_in(directory, name).map_err(|error| format!("console socket: {error}"))?;
    let result = run(Stdio::Terminal { console_socket: console_socket.clone() });
    let _ = std::fs::remove_file(&console_socket);
    let pid = result?;
    let master = receive_master(&listener).map_err(|error| format!("terminal: {error}"))?;
    Ok((pid, Some(master)))
}

/// Binds by a relative name, since the whole path may be too long for a socket address.
fn listen_in(directory: &Path, name: &str) -> io::Result<OwnedFd> {
    std::env::set_current_dir(directory)?;
    let _ = std::fs::remove_file(name);
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(name)?)?;
    listen(&fd, Backlog::new(1)?)?;
    Ok(fd)
}

fn receive_master(listener: &OwnedFd) -> io::Result<OwnedFd> {
    use std::io::IoSliceMut;
    use std::os::fd::FromRawFd;

    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

    let accepted = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: the kernel has just made it for us.
    let connection = unsafe { OwnedFd::from_raw_fd(accepted) };
    let mut buffer = [0_u8; 4096];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let message = recvmsg::<()>(connection.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs().map_err(io::Error::from)? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel has just made it for us.
            return Ok(unsafe { OwnedFd::from_raw_fd(*fd) });
        }
    }
    Err(io::Error::other("the container sent no terminal"))
}
