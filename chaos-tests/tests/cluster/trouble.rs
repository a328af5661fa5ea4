//! What befalls the store of a master: a full disk, damage, a death that lasts. On the cluster of `operations`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use trireme_chaos_tests::{eventually, run};

use crate::operations::{Masters, name};

/// Disks in memory under the stores of some masters, small enough to be filled. Unmounted when this is dropped.
pub struct Disks(Vec<PathBuf>);

impl Disks {
    /// Mounts them on stores that are empty.
    pub fn mount(masters: &Masters<'_>, of: &[usize]) -> Result<Disks> {
        let mut disks = Disks(vec![]);
        for master in of {
            let place = masters.store(*master);
            mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=160m"))
                .with_context(|| format!("mounting {}", place.display()))?;
            disks.0.push(place);
        }
        Ok(disks)
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for place in &self.0 {
            let _ = umount2(place, MntFlags::MNT_DETACH);
        }
    }
}

/// Leaves eight megabytes of a disk, less than half of what counts as enough.
fn fill(store: &Path) -> Result<()> {
    let stat = nix::sys::statvfs::statvfs(store)?;
    let free = stat.blocks_available() as u64 * stat.fragment_size() as u64;
    let ballast = free.checked_sub(8 << 20).context("it is full already")?;
    Ok(fallocate(File::create(store.join("ballast"))?, FallocateFlags::empty(), 0, i64::try_from(ballast)?)?)
}

/// One full disk stops nothing; two of three stop writes that need room, with an answer that says why, and nothing else.
/// With room again everything goes on, without a restart.
pub fn full(masters: &Masters<'_>) -> Result<()> {
    let pids = |masters: &Masters<'_>| (1..=3).map(|master| masters.pid(&name(master))).collect::<Result<Vec<_>>>();
    let before = pids(masters)?;
    let create =
        |master: usize, map: &str| masters.at(master, &["ctl", "create", "configmap", map, "--from-literal=a=b"]);
    fill(&masters.store(2))?;
    eventually(Duration::from_secs(20), || {
        let said = masters.at(1, &["store", "status"])?.refused()?;
        ensure!(said.contains("MiB are free"), "{said}");
        Ok(())
    })?;
    for (master, map) in [(1, "one-1"), (2, "one-2"), (3, "one-3")] {
        eventually(Duration::from_secs(20), || create(master, map)?.ok())?;
    }
    fill(&masters.store(3))?;
    let mut count = 0;
    eventually(Duration::from_secs(20), || {
        count += 1;
        let said = create(1, &format!("two-{count}"))?.refused()?;
        ensure!(said.contains("database space exceeded: the disks of too many members"), "{said}");
        ensure!(said.contains("master-2") && said.contains("master-3"), "{said}");
        Ok(())
    })?;
    // As kubectl sees it: the code, and the words.
    let kubectl = masters.cluster.newest().path.clone();
    let mut command = masters.client(&kubectl, 2);
    let said = run(command.args(["create", "configmap", "by-kubectl", "--from-literal=a=b", "-v=6"]))?.refused()?;
    ensure!(said.contains("507") && said.contains("database space exceeded"), "{said}");
    for master in 1..=3 {
        ensure!(masters.configmaps(master)?.contains("one-2"), "reads go on");
    }
    masters.at(3, &["ctl", "delete", "configmap", "one-2"])?.ok()?;
    for master in [2, 3] {
        fs::remove_file(masters.store(master).join("ballast"))?;
    }
    eventually(Duration::from_secs(20), || {
        count += 1;
        create(2, &format!("again-{count}"))?.ok()
    })?;
    ensure!(pids(masters)? == before, "a master was restarted");
    Ok(())
}

/// A state that is damaged is replaced by that of another master, and the master stays who it was.
pub fn damaged_state(masters: &Masters<'_>) -> Result<()> {
    let before = masters.member(1, 2)?["id"].clone();
    masters.kill(2)?;
    let store = masters.store(2);
    let pointer = fs::read_to_string(store.join("state"))?;
    let state = store.join(pointer.split_whitespace().next().context("an empty pointer file")?);
    fs::remove_file(state.join("CURRENT"))?;
    masters.call("up", &[])?.ok()?;
    let member = masters.wait_for(1, 2, true)?;
    ensure!(member["id"] == before, "{member:#}, not {before}");
    let log = masters.log("master-2")?;
    for words in ["is damaged; log and vote are not: it is built anew", "the state was built anew"] {
        ensure!(log.contains(words), "{words:?} is missing from\n{log}");
    }
    let metrics = masters.at(2, &["ctl", "get", "--raw", "/metrics"])?.ok()?;
    let rebuilt = metrics.lines().any(|line| line == "trireme_store_state_rebuilds_total 1");
    ensure!(rebuilt && masters.configmaps(2)?.contains("one-1"), "{metrics}");
    Ok(())
}

fn largest(dir: &Path) -> Result<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        files.push((entry.metadata()?.len(), entry.path()));
    }
    files.sort();
    files.pop().map(|(_, path)| path).with_context(|| format!("nothing in {}", dir.display()))
}

/// A log that is damaged is no member's any more: the master says so, and what to type; that works.
pub fn damaged_log(masters: &Masters<'_>) -> Result<()> {
    let before = masters.member(1, 3)?["id"].clone();
    masters.kill(3)?;
    let log = largest(&masters.store(3).join("log"))?;
    let mut bytes = fs::read(&log)?;
    let used = bytes.iter().rposition(|byte| *byte != 0).context("an empty log")?;
    bytes[used / 2] ^= 0x10;
    fs::write(&log, bytes)?;
    let said = masters.master(3, &[])?.refused()?;
    for words in ["cannot come back as the member it was", "trireme master reset", "join as a new member"] {
        ensure!(said.contains(words), "{words:?} is missing from\n{said}");
    }
    masters.wait_for(1, 3, false)?;
    let report = masters.call("status", &[])?;
    ensure!(report.code == Some(1) && report.out.contains("master-3"), "{report:?}");
    masters.at(1, &["member", "replace", "master-3"])?.ok()?;
    masters.forget(3)?;
    masters.call("up", &[])?.ok()?;
    let member = masters.wait_for(1, 3, true)?;
    ensure!(member["id"] != before, "an id is used again: {member:#}");
    Ok(())
}

/// `--remove-dead-masters-after`: one that is silent for so long is removed; it says so when it comes back, and joins anew.
pub fn dead_for_long(masters: &Masters<'_>) -> Result<()> {
    for master in 1..=3 {
        masters.kill(master)?;
    }
    masters.call("up", &["--master-arg=--remove-dead-masters-after=10s"])?.ok()?;
    let before = masters.wait_for(1, 2, true)?["id"].clone();
    masters.kill(2)?;
    eventually(Duration::from_secs(60), || {
        let members = masters.members(1)?;
        ensure!(members.len() == 2 && masters.member(1, 2).is_err(), "{members:#?}");
        Ok(())
    })?;
    let said = masters.master(2, &[])?.refused()?;
    ensure!(said.contains("removed"), "{said}");
    let old = masters.dir.join("old").display().to_string();
    run(Command::new("cp").args(["-a"]).arg(masters.data(&name(2))).arg(&old))?.ok()?;
    masters.forget(2)?;
    masters.call("up", &[])?.ok()?;
    let member = masters.wait_for(1, 2, true)?;
    ensure!(member["id"] != before && masters.configmaps(2)?.contains("one-1"), "{member:#}");
    // The successor has its name and its address, and is not what the old data is of.
    let said = masters.inside("master-2", &["master", "reset", "--force", "--data-dir", &old])?.ok()?;
    ensure!(said.contains("no more") && said.contains(&format!("id {before}")), "{said}");
    ensure!(masters.member(1, 2)?["id"] == member["id"] && !Path::new(&old).exists(), "{said}");
    Ok(())
}
