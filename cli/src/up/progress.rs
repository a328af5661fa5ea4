//! What `trireme up` and `down` say while they work.

use std::time::Instant;

/// Prints a line. Whether somebody still reads (a pipe into `head`) must not decide about the work.
pub fn line(text: impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints lines with the time since the start.
#[derive(Clone, Copy)]
pub struct Progress {
    start: Instant,
}

impl Progress {
    /// Starts the clock.
    pub fn new() -> Progress {
        Progress { start: Instant::now() }
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// One line.
    pub fn say(&self, text: impl std::fmt::Display) {
        line(format_args!("[{:6.1} s] {text}", self.seconds()));
    }
}
