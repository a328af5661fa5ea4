//! Terminals' sizes.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::default::DefaultExecutor;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::libc;

/// A terminal's size in characters; 0 means unknown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Size {
    pub(crate) columns: u16,
    pub(crate) rows: u16,
}

/// Sets a terminal's size, through either of its ends.
pub(crate) fn resize(terminal: impl AsFd, size: Size) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open and the structure lives through the call.
    match unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs a program on a terminal that has its size before the program's first instruction: whoever holds the other end
/// could only come later.
#[derive(Clone)]
pub(crate) struct Sized(pub(crate) Size);

impl Executor for Sized {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        if self.0.columns > 0 && self.0.rows > 0 {
            // A terminal of the wrong size is better than none.
            let _ = resize(io::stdin(), self.0);
        }
        DefaultExecutor {}.exec(spec)
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        DefaultExecutor {}.validate(spec)
    }
}
