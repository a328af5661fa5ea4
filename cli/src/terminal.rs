//! The size of the terminal.

use std::os::fd::{AsFd, AsRawFd};

nix::ioctl_read_bad!(window_size, nix::libc::TIOCGWINSZ, nix::libc::winsize);

/// Columns and rows; `None` where it is not a terminal.
pub fn size(of: impl AsFd) -> Option<(u16, u16)> {
    let mut size = nix::libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call only writes the struct that it is given.
    unsafe { window_size(of.as_fd().as_raw_fd(), &mut size) }.ok()?;
    Some((size.ws_col, size.ws_row)).filter(|(columns, rows)| *columns > 0 && *rows > 0)
}
