//! What an operator does with the store: snapshots, restores, the loss of a majority, replacements, and what comes of damage,
//! full disks and deaths that last (`trouble`). On a cluster of its own,
//! since each of these begins a new lineage or changes who belongs to the group.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::beside::Beside;
use crate::trouble::{self, Disks};
use trireme_chaos_tests::{Cluster, Outcome, eventually, run};

/// Three masters without nodes.
pub struct Masters<'a>(Beside<'a>);

impl<'a> std::ops::Deref for Masters<'a> {
    type Target = Beside<'a>;

    fn deref(&self) -> &Beside<'a> {
        &self.0
    }
}

pub fn name(master: usize) -> String {
    format!("master-{master}")
}

impl<'a> Masters<'a> {
    fn boot(cluster: &'a Cluster) -> Result<Masters<'a>> {
        let every = "--master-arg=--snapshot-schedule-cron=@every 2s";
        let arguments = ["--masters", "3", "--nodes", "0", every, "--master-arg=--snapshot-retention=2"];
        Beside::boot(cluster, 'o', &arguments).map(Masters)
    }

    pub fn kill(&self, master: usize) -> Result<()> {
        self.end(&name(master), Signal::SIGKILL)
    }

    pub fn store(&self, master: usize) -> PathBuf {
        self.data(&name(master)).join("store")
    }

    /// Empties a master's store, which may be a disk of its own.
    pub fn forget(&self, master: usize) -> Result<()> {
        for entry in fs::read_dir(self.store(master))? {
            let path = entry?.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        Ok(())
    }

    pub fn configmaps(&self, master: usize) -> Result<String> {
        self.at(master, &["ctl", "get", "configmaps", "-o", "name"])?.ok()
    }

    fn revision(&self) -> Result<u64> {
        let list = self.at(1, &["ctl", "get", "--raw", "/api/v1/namespaces/default/configmaps"])?.ok()?;
        let list: Value = serde_json::from_str(&list)?;
        list["metadata"]["resourceVersion"].as_str().and_then(|rv| rv.parse().ok()).context("no resourceVersion")
    }

    fn address(&self, master: usize) -> Result<String> {
        let cluster: Value = serde_json::from_str(&fs::read_to_string(self.root().join("cluster.json"))?)?;
        Ok(format!("10.90.{}.1{master}", cluster["subnet"]))
    }

    /// `trireme master` as it is started for one of them.
    pub fn master(&self, master: usize, more: &[&str]) -> Result<Outcome> {
        let (data, name, address) =
            (self.data(&name(master)).display().to_string(), name(master), self.address(master)?);
        let mut arguments = vec!["master", "--data-dir", &data, "--name", &name, "--advertise", &address];
        arguments.extend(more);
        self.inside(&name, &arguments)
    }

    pub fn members(&self, via: usize) -> Result<Vec<Value>> {
        let list: Value = serde_json::from_str(&self.at(via, &["member", "list", "-o", "json"])?.ok()?)?;
        Ok(list.as_array().cloned().unwrap_or_default())
    }

    pub fn member(&self, via: usize, master: usize) -> Result<Value> {
        let found = self.members(via)?.into_iter().find(|m| m["name"] == name(master).as_str());
        found.with_context(|| format!("{} is no member", name(master)))
    }

    /// Waits until a member is healthy, or is not.
    pub fn wait_for(&self, via: usize, master: usize, healthy: bool) -> Result<Value> {
        eventually(Duration::from_secs(30), || {
            let member = self.member(via, master)?;
            ensure!(member["healthy"] == healthy, "{member:#}");
            Ok(member)
        })
    }
}

/// Save, verify, lose, restore; then lose a majority and recover; then replace a dead master.
pub fn the_store(cluster: &Cluster) -> Result<()> {
    let masters = Masters::boot(cluster)?;
    let file = masters.dir.join("saved").display().to_string();
    masters.at(1, &["ctl", "create", "configmap", "kept", "--from-literal=a=b"])?.ok()?;
    saved(&masters, &file)?;
    scheduled(&masters)?;
    restored(&masters, &file)?;
    let _disks = recovered(&masters)?;
    replaced(&masters)?;
    trouble::full(&masters)?;
    trouble::damaged_state(&masters)?;
    trouble::damaged_log(&masters)?;
    trouble::dead_for_long(&masters)
}

fn saved(masters: &Masters<'_>, file: &str) -> Result<()> {
    masters.at(2, &["snapshot", "save", file])?.ok()?;
    let status: Value = serde_json::from_str(&masters.at(1, &["snapshot", "status", file, "-o", "json"])?.ok()?)?;
    ensure!(
        status["totalKey"].as_u64() > Some(10) && status["members"].as_array().map(Vec::len) == Some(3),
        "{status:#}"
    );
    let mut bytes = fs::read(file)?;
    ensure!(status["totalSize"].as_u64() == Some(bytes.len() as u64), "{status:#}");
    let damaged = masters.dir.join("damaged").display().to_string();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, bytes)?;
    let said = masters.at(1, &["snapshot", "status", &damaged])?.refused()?;
    ensure!(said.contains("damaged"), "{said}");
    // Nobody but an administrator gets the state.
    let config = masters.root().join("kubeconfig-nobody");
    let data = masters.data("master-1").display().to_string();
    let made =
        ["kubeconfig", "--data-dir", &data, "--user", "jane", "--group", "people", "-o", &config.display().to_string()];
    masters.inside("master-1", &made)?.ok()?;
    let asked = run(masters.cluster.command(&masters.cluster.bin, Some(&config)).args(["snapshot", "save", "stolen"]))?;
    let said = asked.refused()?;
    ensure!(said.contains("cannot get path") && !masters.cluster.dir.join("stolen").exists(), "{said}");
    Ok(())
}

/// Every master takes its own and keeps as many as it is told.
fn scheduled(masters: &Masters<'_>) -> Result<()> {
    for master in 1..=3 {
        let dir = masters.data(&name(master)).join("snapshots").display().to_string();
        eventually(Duration::from_secs(20), || {
            let list: Value =
                serde_json::from_str(&masters.at(1, &["snapshot", "list", "--dir", &dir, "-o", "json"])?.ok()?)?;
            let list = list.as_array().context("no list")?;
            ensure!(list.len() == 2 && list.iter().all(|entry| entry["sound"] == true), "{list:#?}");
            Ok(())
        })?;
    }
    Ok(())
}

fn restored(masters: &Masters<'_>, file: &str) -> Result<()> {
    masters.at(3, &["ctl", "create", "configmap", "lost", "--from-literal=a=b"])?.ok()?;
    let (seen, address, data) =
        (masters.revision()?, masters.address(1)?, masters.data("master-1").display().to_string());
    masters.call("down", &["--keep-data"])?.ok()?;
    let restore = ["snapshot", "restore", file, "--dir", &data, "--name", "master-1", "--advertise", &address];
    let said = masters.at(1, &restore)?.refused()?;
    ensure!(said.contains("holds a master's store already"), "{said}");
    (1..=3).try_for_each(|master| masters.forget(master))?;
    let elsewhere = masters.dir.join("elsewhere").display().to_string();
    let keyless = ["snapshot", "restore", file, "--dir", &elsewhere, "--name", "m", "--advertise", &address];
    let said = masters.at(1, &keyless)?.refused()?;
    ensure!(said.contains("pki") && said.contains("--new-keys"), "{said}");
    masters.at(1, &restore)?.ok()?;
    masters.call("up", &[])?.ok()?;
    for master in 1..=3 {
        let found = masters.configmaps(master)?;
        ensure!(found.contains("kept") && !found.contains("lost"), "{found}");
    }
    ensure!(masters.revision()? > seen + 1_000_000_000, "time ran backwards");
    // What clients remember of the former lineage is gone, and they are told.
    let path = format!("/api/v1/namespaces/default/configmaps?watch=1&resourceVersion={seen}");
    let watch = masters.at(2, &["ctl", "get", "--raw", &path])?;
    ensure!(format!("{}{}", watch.out, watch.err).contains("too old resource version"), "{watch:?}");
    Ok(())
}

fn recovered(masters: &Masters<'_>) -> Result<Disks> {
    masters.at(2, &["ctl", "create", "configmap", "newest", "--from-literal=a=b"])?.ok()?;
    masters.kill(1)?;
    let said = masters.master(1, &["--recover"])?.refused()?;
    ensure!(said.contains("which is a quorum with this member"), "{said}");
    masters.call("up", &[])?.ok()?;
    let seen = masters.revision()?;
    masters.kill(2)?;
    masters.kill(3)?;
    let said = masters.at(1, &["ctl", "get", "configmaps"])?.refused()?;
    ensure!(said.contains("no quorum") && said.contains("resourceVersion=0"), "{said}");
    let path = "/api/v1/namespaces/default/configmaps?resourceVersion=0";
    let stale = masters.at(1, &["ctl", "get", "--raw", path])?;
    ensure!(stale.err.contains("Warning: this master has no quorum") && stale.out.contains("newest"), "{stale:?}");
    let said = masters.at(1, &["store", "status"])?.refused()?;
    ensure!(said.contains("no quorum: 0 of 3 voters"), "{said}");
    let local = masters.dir.join("local").display().to_string();
    ensure!(masters.at(1, &["snapshot", "save", &local])?.refused()?.contains("--local"), "refused with a hint");
    masters.at(1, &["snapshot", "save", "--local", &local])?.ok()?;
    let said = masters.master(1, &["--recover"])?.refused()?;
    ensure!(said.contains("stop that one first"), "{said}");
    masters.kill(1)?;
    let said = masters.master(1, &["--recover"])?.ok()?;
    ensure!(said.contains("start this master again, without --recover"), "{said}");
    ensure!(masters.master(1, &["--recover"])?.refused()?.contains("start it as usual"), "once is enough");
    // With their data the others are refused; without it they join anew.
    let refused = masters.call("up", &["--timeout", "8"])?.refused()?;
    for master in [2, 3] {
        masters.ended(&name(master)).with_context(|| refused.clone())?;
        let log = masters.log(&name(master))?;
        ensure!(log.contains("recovered after the loss of its majority"), "{refused}\n{log}");
        masters.forget(master)?;
    }
    let disks = Disks::mount(masters, &[2, 3])?;
    masters.call("up", &[])?.ok()?;
    ensure!(
        masters.configmaps(3)?.contains("newest") && masters.revision()? > seen + 1_000_000_000,
        "what was acknowledged"
    );
    Ok(disks)
}

fn replaced(masters: &Masters<'_>) -> Result<()> {
    let said = masters.at(1, &["member", "replace", "master-2"])?.refused()?;
    ensure!(said.contains("master-2 answers; only a dead one is replaced"), "{said}");
    masters.kill(2)?;
    let said = masters.at(1, &["member", "remove", "master-3"])?.refused()?;
    ensure!(said.contains("not enough healthy members"), "{said}");
    // Until its silence is noticed it counts as healthy.
    masters.wait_for(1, 2, false)?;
    let said = masters.at(1, &["member", "replace", "master-2"])?.ok()?;
    ensure!(said.contains("TRIREME_TOKEN=") && said.contains("--name master-2"), "{said}");
    masters.forget(2)?;
    masters.call("up", &[])?.ok()?;
    let status: Value = serde_json::from_str(&masters.at(2, &["store", "status", "-o", "json"])?.out)?;
    let healthy = status["members"].as_array().into_iter().flatten().filter(|m| m["healthy"] == true).count();
    ensure!(healthy == 3 && status["leader"].is_string(), "{status:#}");
    Ok(())
}
