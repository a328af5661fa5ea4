//! A session's other end: a new process in a container, or the container's own process.

use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use super::{Attached, Job};
use crate::server::streams::Stream;
use crate::shim::client::{Process, ShimError};

/// Room for output that a client has not taken yet, before the container has to wait.
const PIPE: i32 = 1 << 20;

/// Columns and rows.
pub(super) type Size = (u16, u16);

/// Where input goes, where output comes from, and who it is. Dropping it leaves the process alone: it finds its input
/// at the end and its output closed, or its terminal hung up.
#[derive(Default)]
pub(super) struct Ends {
    pub(super) stdin: Option<Stream>,
    pub(super) stdout: Option<Stream>,
    pub(super) stderr: Option<Stream>,
    /// Gets the window's size.
    pub(super) terminal: Option<OwnedFd>,
    /// None for the container's own process, whose exit status is not this session's.
    pub(super) process: Option<Process>,
}

fn io(error: impl Into<std::io::Error>) -> ShimError {
    ShimError::Gone(error.into())
}

fn pipe() -> Result<(OwnedFd, OwnedFd), ShimError> {
    pipe2(OFlag::O_CLOEXEC).map_err(io)
}

fn null() -> Result<OwnedFd, ShimError> {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map(OwnedFd::from).map_err(io)
}

/// Runs the command, on a terminal of the given size if it wants one.
pub(super) async fn exec(job: &Job, size: Size) -> Result<Ends, ShimError> {
    let (shim, options) = (job.view.shim(), &job.options);
    if options.tty {
        let (process, master) = shim.exec_terminal(&job.id, options.command.clone(), size).await?;
        let terminal = master.try_clone().map_err(io)?;
        let stdin = match options.stdin {
            true => Some(Stream::new(master.try_clone().map_err(io)?).map_err(io)?),
            false => None,
        };
        let stdout = Some(Stream::new(master).map_err(io)?);
        return Ok(Ends { stdin, stdout, stderr: None, terminal: Some(terminal), process: Some(process) });
    }
    let mut ends = Ends::default();
    let stdin = if options.stdin {
        let (theirs, ours) = pipe()?;
        ends.stdin = Some(Stream::new(ours).map_err(io)?);
        theirs
    } else {
        null()?
    };
    let output = |wanted: bool, end: &mut Option<Stream>| -> Result<OwnedFd, ShimError> {
        if !wanted {
            return null();
        }
        let (ours, theirs) = pipe()?;
        *end = Some(Stream::new(ours).map_err(io)?);
        Ok(theirs)
    };
    let stdout = output(options.stdout, &mut ends.stdout)?;
    let stderr = output(options.stderr, &mut ends.stderr)?;
    ends.process = Some(shim.exec_detached(&job.id, options.command.clone(), [stdin, stdout, stderr]).await?);
    Ok(ends)
}

/// Listens in on the container's own process.
pub(super) async fn attach(job: &Job, attached: Attached) -> Result<Ends, ShimError> {
    let options = &job.options;
    let ((out_read, out_write), (err_read, err_write)) = (pipe()?, pipe()?);
    for end in [&out_write, &err_write] {
        // Less room is no harm: the container then waits earlier.
        let _ = fcntl(end, FcntlArg::F_SETPIPE_SZ(PIPE));
    }
    let mut fds = job.view.shim().attach(&job.id, options.stdin && attached.stdin, [out_write, err_write]).await?;
    let terminal = if attached.terminal { fds.pop() } else { None };
    let stdin = fds.pop().map(Stream::new).transpose().map_err(io)?;
    // Both are read even if the client wants one: the container would wait for the other.
    let stdout = Some(Stream::new(out_read).map_err(io)?);
    let stderr = Some(Stream::new(err_read).map_err(io)?);
    Ok(Ends { stdin, stdout, stderr, terminal, process: None })
}
