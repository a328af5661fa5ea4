//! The local terminal: raw mode and its size.

use std::io;
use std::os::fd::AsFd;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Raw mode of standard input, until dropped.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Keys go through unchanged from now on.
    pub fn enter() -> io::Result<Raw> {
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw)?;
        Ok(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &self.before);
    }
}

nix::ioctl_read_bad!(window_size, nix::libc::TIOCGWINSZ, nix::libc::winsize);

/// Sizes of the terminal: one at the start, one after each change; none where there is no terminal.
pub struct Resizes {
    changes: Option<Signal>,
    first: bool,
}

impl Resizes {
    /// Sizes of standard input's terminal if `on`.
    pub fn new(on: bool) -> io::Result<Resizes> {
        let changes = if on { Some(signal(SignalKind::window_change())?) } else { None };
        Ok(Resizes { changes, first: true })
    }

    /// The next size, columns and rows.
    pub async fn next(&mut self) -> (u16, u16) {
        loop {
            let Some(changes) = &mut self.changes else { return std::future::pending().await };
            if !std::mem::take(&mut self.first) {
                changes.recv().await;
            }
            if let Some(size) = size() {
                return size;
            }
        }
    }
}

fn size() -> Option<(u16, u16)> {
    use std::os::fd::AsRawFd;
    let mut size = nix::libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call only writes the struct that it is given.
    unsafe { window_size(io::stdin().as_raw_fd(), &mut size) }.ok()?;
    Some((size.ws_col, size.ws_row)).filter(|(width, height)| *width > 0 && *height > 0)
}
