//! `trireme snapshot`: backups of the store.

mod restore;
mod save;
mod show;

use std::path::PathBuf;

use super::Connection;
use super::member::Output;

/// `trireme snapshot`
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Write everything that the cluster's store holds into a file, as it is at one revision. The file holds all Secrets.
    Save(SaveArgs),
    /// Verify a snapshot and tell what it holds.
    Status {
        /// The snapshot.
        file: PathBuf,
        /// Output format.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// List the snapshots that a master on this machine has taken by its schedule, and verify them.
    #[command(alias = "ls")]
    List {
        /// Where the master puts them.
        #[arg(long, value_name = "DIR", default_value = "/var/lib/trireme/master/snapshots")]
        dir: PathBuf,
        /// Output format.
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Make a master's data directory from a snapshot: the first master of a new lineage, which others join anew.
    Restore(restore::RestoreArgs),
}

#[derive(clap::Args, Debug)]
struct SaveArgs {
    #[command(flatten)]
    connection: Connection,
    /// File to write.
    file: PathBuf,
    /// Take what the master that answers has, possibly old: also without a quorum.
    #[arg(long)]
    local: bool,
}

/// Runs the command.
///
/// # Errors
/// When the cluster does not answer, a file cannot be read or written, or a snapshot is damaged.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Save(args) => save::run(&args.connection, &args.file, args.local).await,
        Command::Status { file, output } => show::one(&file, output),
        Command::List { dir, output } => show::all(&dir, output),
        Command::Restore(args) => restore::run(args).await,
    }
}

/// Bytes as etcdctl words them: `2.1 MB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 9.95 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// A time, in UTC.
pub(crate) fn time(ms: u64) -> String {
    let at = i64::try_from(ms / 1000).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    at.map_or_else(|| "unknown".to_owned(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        assert_eq!(
            [0, 999, 1000, 9_949, 20_480, 999_499, 999_500, 2_130_000_000].map(size),
            ["0 B", "999 B", "1.0 kB", "9.9 kB", "20 kB", "999 kB", "1.0 MB", "2.1 GB"]
        );
    }
}
