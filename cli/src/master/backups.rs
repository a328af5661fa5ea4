//! Snapshots by schedule, on every master for itself.

use std::path::{Path, PathBuf};

use jiff::Zoned;
use tokio_util::sync::CancellationToken;
use trireme_raftstore::{Consistency, Store};

use super::cron::Schedule;

/// What the names of snapshots end in.
pub const EXTENSION: &str = "snapshot";

/// When, where and how many. k3s's names do as well.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Snapshots by schedule")]
pub struct BackupArgs {
    /// When this master takes a snapshot of its store, as cron writes it, or @daily, or @every 6h; "" for never.
    #[arg(long, alias = "etcd-snapshot-schedule-cron", value_name = "CRON", default_value = "0 */12 * * *")]
    pub snapshot_schedule_cron: String,
    /// How many of its snapshots this master keeps; 0 keeps all.
    #[arg(long, alias = "etcd-snapshot-retention", value_name = "N", default_value_t = 5)]
    pub snapshot_retention: usize,
    /// Where it puts them [default: snapshots in the data directory].
    #[arg(long, alias = "etcd-snapshot-dir", value_name = "DIR")]
    pub snapshot_dir: Option<PathBuf>,
}

impl BackupArgs {
    /// The schedule, if there is to be one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn schedule(&self) -> anyhow::Result<Option<Schedule>> {
        match self.snapshot_schedule_cron.trim() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|why| anyhow::anyhow!("--snapshot-schedule-cron: {why}")),
        }
    }
}

/// What takes the snapshots.
pub struct Backups {
    /// When.
    pub schedule: Schedule,
    /// How many are kept.
    pub retention: usize,
    /// Where.
    pub dir: PathBuf,
    /// Name of this master.
    pub name: String,
    /// Of what.
    pub store: Store,
}

impl Backups {
    /// Takes snapshots until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut last = Zoned::now();
        while let Some(due) = self.schedule.next(&last) {
            // The clock may be set meanwhile, so it is looked at now and then.
            loop {
                let left = due.timestamp().as_millisecond() - Zoned::now().timestamp().as_millisecond();
                if left <= 0 {
                    break;
                }
                let nap = std::time::Duration::from_millis(left.clamp(1, 30_000) as u64);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(nap) => {}
                }
            }
            self.take().await;
            last = Zoned::now().max(due);
        }
    }

    async fn take(&self) {
        let path = self.dir.join(file_name(&self.name, &Zoned::now()));
        let made = tokio::fs::create_dir_all(&self.dir).await;
        if let Err(error) = made {
            tracing::error!(dir = %self.dir.display(), %error, "the folder of the snapshots cannot be made");
            return;
        }
        // What this master has is what it would be restored with; it does not take a quorum to keep that.
        match self.store.backup_to(&path, Consistency::Local).await {
            Ok(info) => {
                let (keys, revision) = (info.summary.keys, info.header.revision);
                tracing::info!(file = %path.display(), keys, revision, bytes = info.file_bytes, "snapshot taken");
            }
            Err(error) => {
                let error = anyhow::Error::new(error);
                tracing::error!(file = %path.display(), error = format!("{error:#}"), "no snapshot could be taken");
                return;
            }
        }
        if let Err(error) = retain(&self.dir, &self.name, self.retention) {
            tracing::warn!(%error, "removing old snapshots");
        }
    }
}

fn prefix(name: &str) -> String {
    format!("trireme-{name}-")
}

fn file_name(name: &str, now: &Zoned) -> String {
    let at = now.timestamp().strftime("%Y%m%dT%H%M%SZ");
    format!("{}{at}.{EXTENSION}", prefix(name))
}

/// Removes all but the newest snapshots of this master. Only names that [`file_name`] makes are looked at.
fn retain(dir: &Path, name: &str, keep: usize) -> std::io::Result<()> {
    if keep == 0 {
        return Ok(());
    }
    let ours = |file: &str| {
        let at = file.strip_prefix(&prefix(name)).and_then(|f| f.strip_suffix(&format!(".{EXTENSION}")));
        at.is_some_and(|at| at.len() == 16 && at.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'T' | b'Z')))
    };
    let mut found: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        found.extend(entry?.file_name().into_string().ok().filter(|file| ours(file)));
    }
    // The names are in the order of time.
    found.sort();
    let surplus = found.len().saturating_sub(keep);
    for file in &found[..surplus] {
        std::fs::remove_file(dir.join(file))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_newest_of_ones_own_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let at = |text: &str| format!("{text}[UTC]").parse::<Zoned>().unwrap();
        let times = ["2026-11-20T00:00:00", "2026-11-21T00:00:00", "2026-11-21T12:00:00", "2027-01-01T00:00:00"];
        for time in times {
            std::fs::write(dir.path().join(file_name("m", &at(time))), "").unwrap();
        }
        let others = ["trireme-m-by-hand.snapshot", "trireme-m-2-20200101T000000Z.snapshot", "before-upgrade.snapshot"];
        for other in others {
            std::fs::write(dir.path().join(other), "").unwrap();
        }
        retain(dir.path(), "m", 0).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 7);
        retain(dir.path(), "m", 2).unwrap();
        let mut left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "before-upgrade.snapshot",
                "trireme-m-2-20200101T000000Z.snapshot",
                "trireme-m-20261121T120000Z.snapshot",
                "trireme-m-20270101T000000Z.snapshot",
                "trireme-m-by-hand.snapshot"
            ]
        );
    }
}
