//! A process of another language that runs cases one after the other: it is told their names, and tells what came of them.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

/// The process has a limit for each case of its own; this is for when it hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// The process that runs cases, and what it says.
pub struct Runner {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    complaints: File,
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Runner {
    /// Starts the process; it has to have exactly these cases.
    fn start(mut command: Command, cases: &[&str]) -> Result<Runner> {
        // What libraries complain of is shown only when a case fails.
        let complaints = tempfile::tempfile()?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(complaints.try_clone()?).spawn()?;
        let (stdin, stdout) = (child.stdin.take().context("no stdin")?, child.stdout.take().context("no stdout")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let runner = Runner { child, stdin, lines, complaints };
        let mut names = cases.to_vec();
        names.sort_unstable();
        let found = runner.line().with_context(|| runner.complained())?;
        ensure!(found == serde_json::json!(names), "cases in the files: {found}, listed here: {names:?}");
        Ok(runner)
    }

    fn line(&self) -> Result<Value> {
        let line = self.lines.recv_timeout(LIMIT).map_err(|_| anyhow!("the process says nothing any more"))?;
        serde_json::from_str(&line).with_context(|| line)
    }

    fn run(&mut self, name: &str) -> Result<()> {
        self.one(name).with_context(|| self.complained())
    }

    fn one(&mut self, name: &str) -> Result<()> {
        writeln!(self.stdin, "{name}")?;
        let told = self.line()?;
        match told["why"].as_str() {
            None => Ok(()),
            Some(why) => bail!("{why}"),
        }
    }

    /// The end of what the process wrote to its standard error.
    fn complained(&self) -> String {
        let mut end = vec![0; 4000];
        let length = self.complaints.metadata().map_or(0, |data| data.len());
        let from = length.saturating_sub(end.len() as u64);
        let read = self.complaints.read_at(&mut end, from).unwrap_or_default();
        format!("its standard error ends with: {}", String::from_utf8_lossy(&end[..read]).trim_end())
    }
}

/// Runs one case in the process that all share; one that failed to answer is replaced, and the last one ends it.
pub fn run(
    shared: &Mutex<Option<Runner>>,
    cases: &[&str],
    name: &str,
    command: impl FnOnce() -> Result<Command>,
) -> Result<()> {
    let mut held = shared.lock().map_err(|_| anyhow!("a case panicked"))?;
    let mut runner = match held.take() {
        Some(runner) => runner,
        None => Runner::start(command()?, cases)?,
    };
    let outcome = runner.run(name);
    if cases.last() != Some(&name) && runner.child.try_wait()?.is_none() {
        *held = Some(runner);
    }
    outcome
}
