//! Other programs, with a limit of time, and attempts that are repeated.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Longest time that one command may take.
const COMMAND: Duration = Duration::from_secs(60);

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// Its words.
    pub command: String,
    /// Its exit code; `None` if a signal or the limit ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Outcome {
    /// Standard output of a command that succeeded.
    ///
    /// # Errors
    /// When it did not.
    pub fn ok(self) -> Result<String> {
        ensure!(self.code == Some(0), "{} failed ({:?}):\n{}{}", self.command, self.code, self.out, self.err);
        Ok(self.out)
    }

    /// All output of a command that failed as it should.
    ///
    /// # Errors
    /// When it succeeded.
    pub fn refused(self) -> Result<String> {
        ensure!(self.code.is_some_and(|code| code != 0), "{} should fail, but: {}{}", self.command, self.out, self.err);
        Ok(format!("{}{}", self.out, self.err))
    }
}

/// Runs a command with a limit of time.
///
/// # Errors
/// When it cannot be started.
pub fn run(command: &mut Command) -> Result<Outcome> {
    run_for(command, COMMAND)
}

/// Runs a command, killing it after the limit; its output until then counts.
///
/// # Errors
/// When it cannot be started.
pub fn run_for(command: &mut Command, limit: Duration) -> Result<Outcome> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let shown = words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {shown}"))?;
    let out = child.stdout.take().map(reader);
    let err = child.stderr.take().map(reader);
    let deadline = Instant::now() + limit;
    let code = loop {
        if let Some(status) = child.try_wait()? {
            break status.code();
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |handle: Option<std::thread::JoinHandle<String>>| handle.and_then(|h| h.join().ok()).unwrap_or_default();
    Ok(Outcome { command: shown, code, out: text(out), err: text(err) })
}

fn reader(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Tries again until it works or the time is over; the last failure counts.
///
/// # Errors
/// The last one.
pub fn eventually<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("still so after {} s", limit.as_secs())));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
