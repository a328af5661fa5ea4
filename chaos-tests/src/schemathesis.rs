//! Requests made out of our own OpenAPI document by schemathesis, from PyPI, against a cluster of their own: whatever comes in, the
//! server does not answer that it is at fault. The server's own count of its answers judges.
//!
//! `SECONDS` is how long it goes on, `SEED` makes the same requests again.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::{Cluster, Options};
use crate::{report, run_for};

const REQUIREMENT: &str = "schemathesis==4.32.5";
const INSTALL: Duration = Duration::from_secs(600);
/// How long it goes on unless told otherwise.
const SECONDS: u64 = 120;
/// Last lines of what it says that are shown.
const LINES: usize = 25;
/// Streams and what ends in other servers.
const EXCLUDED: &str = "/watch/|proxy|exec|attach|portforward|/log";

/// The whole program.
///
/// # Errors
/// When it cannot be installed, or the server said that it was at fault.
pub fn program() -> Result<()> {
    let (seconds, seed) = (report::setting("SECONDS", SECONDS)?, report::setting("SEED", 1)?);
    let tool = installed()?;
    let options = Options {
        prefix: "t",
        masters: 1,
        nodes: 1,
        master_args: vec!["--runtime-config=api/all=true".to_owned()],
        ..Options::default()
    };
    let cluster = Cluster::boot(&options)?;
    let document = cluster.root().join("openapi.json");
    std::fs::write(&document, cluster.kubectl(&["get", "--raw", "/openapi/v2"])?.ok()?)?;
    let before = answers(&cluster)?;
    let mut proxy = Proxy::start(&cluster)?;
    let url = proxy.url()?;
    let mut command = Command::new(&tool);
    command.arg("run").arg(&document).args(["--url", &url, "--checks", "not_a_server_error"]);
    command.args(["--phases", "coverage,fuzzing", "--request-timeout", "5", "--suppress-health-check", "all"]);
    command.args(["--exclude-path-regex", EXCLUDED, "--continue-on-failure", "--warnings", "off"]);
    command.args(["--max-time", &seconds.to_string(), "--seed", &seed.to_string()]);
    let outcome = run_for(command.current_dir(cluster.root()), Duration::from_secs(seconds * 2 + 120))?;
    drop(proxy);
    // Watches without events are told as timeouts: that it ended says nothing, what the server counted does.
    let lines: Vec<&str> = outcome.out.lines().collect();
    println!("{}", lines[lines.len().saturating_sub(LINES)..].join("\n"));
    let after = answers(&cluster)?;
    let made = |code: &u16| after.get(code).unwrap_or(&0) - before.get(code).unwrap_or(&0);
    let rows: Vec<Vec<String>> = after.keys().map(|code| vec![code.to_string(), made(code).to_string()]).collect();
    report::table(&["answer", "requests"], &rows);
    let all: u64 = after.keys().map(made).sum();
    // 504 is what a resourceVersion of the future gets.
    let wrong: u64 = after.keys().filter(|code| **code >= 500 && **code != 504).map(made).sum();
    ensure!(all > 100, "only {all} requests came through:\n{}{}", outcome.out, outcome.err);
    if wrong > 0 {
        cluster.print_logs();
        bail!("{wrong} of {all} requests got a server error; SEED={seed} makes them again:\n{}", outcome.out);
    }
    println!("{all} requests, no server error (SEED={seed})");
    Ok(())
}

/// How often the server has answered with each code.
fn answers(cluster: &Cluster) -> Result<BTreeMap<u16, u64>> {
    let metrics = cluster.kubectl(&["get", "--raw", "/metrics"])?.ok()?;
    let mut codes = BTreeMap::new();
    for line in metrics.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let code = line.split("code=\"").nth(1).and_then(|rest| rest.split('"').next());
        let count = line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
        if let (Some(code), Some(count)) = (code.and_then(|code| code.parse().ok()), count) {
            *codes.entry(code).or_default() += count;
        }
    }
    ensure!(!codes.is_empty(), "the server counts no requests");
    Ok(codes)
}

/// `kubectl proxy`, which has the certificates.
struct Proxy(Child);

impl Proxy {
    fn start(cluster: &Cluster) -> Result<Self> {
        let paths = ["proxy", "--port=0", "--accept-paths=.*", "--reject-paths=^$", "--reject-methods=^$"];
        Ok(Self(cluster.background(&paths)?))
    }

    /// Where it listens.
    fn url(&mut self) -> Result<String> {
        let out = self.0.stdout.take().context("kubectl proxy has no output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let address = line.trim().rsplit(' ').next().filter(|address| address.contains(':'));
        Ok(format!("http://{}", address.with_context(|| format!("kubectl proxy said {line:?}"))?))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program, in a virtual environment that is made on first use and kept in `~/.cache/trireme`.
fn installed() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = home.join(".cache/trireme").join(REQUIREMENT.replace("==", "-"));
    let tool = dir.join("bin/schemathesis");
    let works = |tool: &Path| {
        let outcome = run_for(Command::new(tool).arg("--version"), Duration::from_secs(60));
        outcome.is_ok_and(|outcome| outcome.code == Some(0))
    };
    if works(&tool) {
        return Ok(tool);
    }
    println!("installing {REQUIREMENT} into {}", dir.display());
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    run_for(Command::new("python3").args(["-m", "venv"]).arg(&dir), INSTALL)?
        .ok()
        .context("\"make deps\" installs python3-venv")?;
    let words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", REQUIREMENT];
    run_for(Command::new(dir.join("bin/python")).args(words), INSTALL)?
        .ok()
        .context("schemathesis cannot be installed")?;
    ensure!(works(&tool), "{REQUIREMENT} is installed in {} and does not run", dir.display());
    Ok(tool)
}
