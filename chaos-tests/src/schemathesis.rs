//! Requests made out of our own OpenAPI document by schemathesis, from PyPI, against a cluster of their own: whatever comes in, the
//! server neither answers that it is at fault, nor hangs, nor panics. Its own count of its answers and its log judge.
//!
//! Two rounds of half the time each: objects that fit their schemas, under few names, so that they get as far as defaults,
//! validation, patches and the store; then whatever the document lets through, and what it does not. Operations come in an order of
//! their own for each seed, so that other seeds reach others.
//!
//! `SECONDS` is how long it goes on, `SEED` makes the same requests again.

mod document;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cluster::{Cluster, Options};
use crate::{Outcome, report, run_for};

const REQUIREMENT: &str = "schemathesis==4.32.5";
const INSTALL: Duration = Duration::from_secs(600);
/// How long it goes on unless told otherwise.
const SECONDS: u64 = 240;
/// Last lines of what it says that are shown.
const LINES: usize = 25;
/// Streams and what ends in other servers.
const EXCLUDED: &str = "/watch/|proxy|exec|attach|portforward|/log";
/// No answer may take longer, those included that wait for a resourceVersion of the future.
const SLOW: u64 = 10;

/// The whole program.
///
/// # Errors
/// When it cannot be installed, or the server said that it was at fault, hung or panicked.
pub fn program() -> Result<()> {
    let (seconds, seed) = (report::setting("SECONDS", SECONDS)?, report::setting("SEED", 1)?);
    ensure!(seconds >= 10, "SECONDS={seconds} is too short for two rounds");
    let tool = installed()?;
    let options = Options {
        prefix: "t",
        masters: 1,
        nodes: 1,
        master_args: vec!["--runtime-config=api/all=true".to_owned()],
        ..Options::default()
    };
    let cluster = Cluster::boot(&options)?;
    let target = Target::of(&cluster)?;
    let served: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", "/openapi/v2"])?.ok()?)?;
    let served = document::shuffled(&served, seed);
    let before = answers(&cluster)?;
    let fitting = document::narrowed(&served);
    let mut said = String::new();
    for (round, document, words) in [
        // Its random objects take it seconds each, schemas as deep as these given: its chosen ones get further.
        ("objects that fit", &fitting, ["--phases", "coverage"]),
        ("whatever", &served, ["--phases", "coverage,fuzzing"]),
    ] {
        let outcome = target.round(&tool, document, &words, seconds / 2, seed)?;
        let lines: Vec<&str> = outcome.out.lines().collect();
        println!("\n{round}:\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"));
        said.push_str(&outcome.out);
        said.push_str(&outcome.err);
    }
    let after = answers(&cluster)?;
    let made = |code: &u16| after.get(code).unwrap_or(&0) - before.get(code).unwrap_or(&0);
    let rows: Vec<Vec<String>> = after.keys().map(|code| vec![code.to_string(), made(code).to_string()]).collect();
    report::table(&["answer", "requests"], &rows);
    let all: u64 = after.keys().map(made).sum();
    // 504 is what a resourceVersion of the future gets.
    let wrong: u64 = after.keys().filter(|code| **code >= 500 && **code != 504).map(made).sum();
    ensure!(all > 100, "only {all} requests came through:\n{said}");
    let mut faults = panics(&cluster)?;
    if wrong > 0 {
        faults.push(format!("{wrong} of {all} requests got a server error"));
    }
    if said.contains("Network Error") || said.contains("timed out") {
        faults.push(format!("a request had no answer, or not within {SLOW} seconds"));
    }
    faults.extend(still_well(&cluster).err().map(|error| format!("afterwards it is not well: {error:#}")));
    if !faults.is_empty() {
        cluster.print_logs();
        bail!("SEED={seed} SECONDS={seconds} makes the same requests again:\n{said}\n{}", faults.join("\n"));
    }
    println!("{all} requests, no server error, none that hung (SEED={seed})");
    Ok(())
}

/// Where the requests go, and as whom.
struct Target {
    folder: PathBuf,
    url: String,
}

impl Target {
    fn of(cluster: &Cluster) -> Result<Self> {
        let config = cluster.kubectl(&["config", "view", "--raw", "-o", "json"])?.ok()?;
        let config: Value = serde_json::from_str(&config)?;
        let (at, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let folder = cluster.root();
        for (name, data) in [
            ("ca.pem", &at["certificate-authority-data"]),
            ("client.pem", &user["client-certificate-data"]),
            ("client.key", &user["client-key-data"]),
        ] {
            use base64::Engine as _;
            let data = data.as_str().with_context(|| format!("the kubeconfig has nothing for {name}"))?;
            std::fs::write(folder.join(name), base64::engine::general_purpose::STANDARD.decode(data)?)?;
        }
        let url = at["server"].as_str().context("the kubeconfig names no server")?.to_owned();
        Ok(Self { folder, url })
    }

    /// Lets schemathesis make requests for some time. That it ends says nothing of the server.
    fn round(&self, tool: &Path, document: &Value, words: &[&str], seconds: u64, seed: u64) -> Result<Outcome> {
        let file = self.folder.join("openapi.json");
        std::fs::write(&file, document.to_string())?;
        let mut command = Command::new(tool);
        command.arg("run").arg(&file).args(["--url", &self.url, "--tls-verify", "ca.pem"]);
        command.args(["--request-cert", "client.pem", "--request-cert-key", "client.key", "--no-color"]);
        command.args(["--checks", "not_a_server_error", "--suppress-health-check", "all", "--warnings", "off"]);
        command.args(["--request-timeout", &SLOW.to_string(), "--workers", "2", "--generation-database", "none"]);
        command.args(["--exclude-path-regex", EXCLUDED, "--continue-on-failure"]).args(words);
        command.args(["--max-time", &seconds.to_string(), "--seed", &seed.to_string()]);
        run_for(command.current_dir(&self.folder), Duration::from_secs(seconds * 2 + 120))
    }
}

/// What the hosts' logs have of panics.
fn panics(cluster: &Cluster) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for host in cluster.hosts() {
        let log = std::fs::read(cluster.root().join(host).join("log"))?;
        let log = String::from_utf8_lossy(&log).into_owned();
        found.extend(log.lines().filter(|line| line.contains("panicked at")).map(|line| format!("{host}: {line}")));
    }
    Ok(found)
}

/// That objects can be written and read as ever.
fn still_well(cluster: &Cluster) -> Result<()> {
    let start = Instant::now();
    cluster.kubectl(&["create", "namespace", "afterwards"])?.ok()?;
    cluster.kubectl(&["create", "configmap", "well", "--from-literal=a=b", "-n", "afterwards"])?.ok()?;
    cluster.kubectl(&["get", "configmaps", "-n", "afterwards", "-o", "yaml"])?.ok()?;
    cluster.kubectl(&["get", "--raw", "/readyz"])?.ok()?;
    ensure!(start.elapsed() < Duration::from_secs(30), "four requests took {:?}", start.elapsed());
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
