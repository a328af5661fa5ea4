//! A small cluster beside the one that the scenarios share, for what would harm that one.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use trireme_chaos_tests::{Cluster, Outcome, eventually, run, run_for};

/// The cluster. It is taken down when this is dropped.
pub struct Beside<'a> {
    /// The one that the scenarios share.
    pub cluster: &'a Cluster,
    /// Its name.
    pub name: String,
    /// The folder that `.trireme` is elsewhere.
    pub dir: PathBuf,
}

impl<'a> Beside<'a> {
    /// Boots it; the letter is the end of its name.
    pub fn boot(cluster: &'a Cluster, letter: char, arguments: &[&str]) -> Result<Beside<'a>> {
        let name = format!("{}{letter}", cluster.name);
        let beside = Beside { cluster, dir: cluster.dir.join(format!("beside-{letter}")), name };
        beside.call("up", arguments)?.ok()?;
        Ok(beside)
    }

    /// `trireme up|down|status` of this cluster.
    pub fn call(&self, verb: &str, more: &[&str]) -> Result<Outcome> {
        let mut command = self.cluster.trireme();
        command.args([verb, "--name", &self.name, "--dir"]).arg(&self.dir).args(more);
        run_for(&mut command, Duration::from_secs(120))
    }

    /// The folder of its hosts.
    pub fn root(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// A host's data directory.
    pub fn data(&self, host: &str) -> PathBuf {
        self.root().join(host).join("data")
    }

    /// What a host has logged.
    pub fn log(&self, host: &str) -> Result<String> {
        let bytes = fs::read(self.root().join(host).join("log")).with_context(|| format!("the log of {host}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A program against one master's API.
    pub fn client(&self, program: &std::path::Path, master: usize) -> Command {
        self.cluster.command(program, Some(&self.root().join(format!("kubeconfig-master-{master}"))))
    }

    /// The program against one master's API.
    pub fn at(&self, master: usize, arguments: &[&str]) -> Result<Outcome> {
        run(self.client(&self.cluster.bin, master).args(arguments))
    }

    /// The program inside a host's network namespace.
    pub fn inside(&self, host: &str, arguments: &[&str]) -> Result<Outcome> {
        // Not "ip netns exec": that hides the cgroups.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/trireme-{}-{host}", self.name));
        run(command.arg(&self.cluster.bin).args(arguments))
    }

    /// Pid of a host's process.
    pub fn pid(&self, host: &str) -> Result<i32> {
        Ok(fs::read_to_string(self.root().join(host).join("pid"))?.trim().parse()?)
    }

    /// Sends a signal to a host's process and waits until it has ended.
    pub fn end(&self, host: &str, signal: Signal) -> Result<()> {
        let pid = self.pid(host)?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("{signal} to {host}"))?;
        self.ended(host)
    }

    /// Waits until a host's process has ended, which it may do by itself.
    pub fn ended(&self, host: &str) -> Result<()> {
        let pid = self.pid(host)?;
        eventually(Duration::from_secs(20), || {
            let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // The first thread may be dead while others still have files open, and locks on them.
            let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
            anyhow::ensure!(state.is_empty() || state.contains(") Z ") && threads <= 1, "{host} lives");
            Ok(())
        })
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        let _ = self.call("down", &[]);
    }
}
