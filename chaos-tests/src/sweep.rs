//! No cluster outlives its run: not one that was interrupted, nor, until the next run, one that was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use crate::command::run_for;

/// What has to be taken down: program, name, folder of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Live {
    bin: PathBuf,
    name: String,
    dir: PathBuf,
}

static LIVE: Mutex<Vec<Live>> = Mutex::new(Vec::new());
static SIGNALS: Once = Once::new();
/// Set when the run was interrupted: from then on no cluster is booted or mended.
static ENDING: AtomicBool = AtomicBool::new(false);

fn live() -> std::sync::MutexGuard<'static, Vec<Live>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on an interrupted run takes this cluster down.
pub fn remember(bin: &Path, name: &str, dir: &Path) {
    SIGNALS.call_once(|| {
        std::thread::spawn(interrupted);
    });
    live().push(Live { bin: bin.to_path_buf(), name: name.to_owned(), dir: dir.to_path_buf() });
}

/// Whether the run is being ended by a signal.
pub fn ending() -> bool {
    ENDING.load(Ordering::SeqCst)
}

/// The cluster has been taken down.
pub fn forget(name: &str) {
    live().retain(|live| live.name != name);
}

/// Waits for a signal, takes down what there is, and ends the program.
fn interrupted() {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let signal = runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt()).ok()?;
        let mut terminate = signal(SignalKind::terminate()).ok()?;
        let mut hangup = signal(SignalKind::hangup()).ok()?;
        tokio::select! {
            _ = interrupt.recv() => Some(2),
            _ = terminate.recv() => Some(15),
            _ = hangup.recv() => Some(1),
        }
    });
    let Some(signal) = signal else { return };
    eprintln!("interrupted; taking the cluster down");
    ENDING.store(true, Ordering::SeqCst);
    let all: Vec<Live> = live().clone();
    // The second time finds what a "trireme up" that was under way has made after the first.
    for one in all.iter().chain(&all) {
        take_down(one);
    }
    std::process::exit(128 + signal);
}

fn take_down(live: &Live) {
    let mut command = Command::new(&live.bin);
    command.args(["down", "--name", &live.name, "--dir"]).arg(live.dir.join(".trireme")).stdin(Stdio::null());
    match run_for(&mut command, std::time::Duration::from_secs(90)).and_then(crate::Outcome::ok) {
        Ok(_) => drop(fs::remove_dir_all(&live.dir)),
        Err(error) => eprintln!("{error:#}"),
    }
}

/// Takes down the clusters of runs that ended without doing so.
pub fn orphans(bin: &Path) {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some((name, pid)) = run_of(&name)
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            println!("taking down {name:?}, which an earlier run left");
            take_down(&Live { bin: bin.to_path_buf(), name: name.to_owned(), dir: entry.path() });
        }
    }
}

/// Name of the cluster and process id of the run that a folder of the temporary directory belongs to.
fn run_of(folder: &str) -> Option<(&str, u32)> {
    let name = folder.strip_prefix("trireme-")?;
    let digits = name.trim_start_matches(|c: char| c.is_ascii_lowercase());
    let letters = name.len() - digits.len();
    (1..=2).contains(&letters).then(|| digits.parse().ok().map(|pid| (name, pid))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_runs_are_told_from_others() {
        assert_eq!(run_of("trireme-t4711"), Some(("t4711", 4711)));
        for other in ["trireme-agent4711", "trireme-t", "trireme-4711", "t4711", "trireme-t47-second"] {
            assert_eq!(run_of(other), None, "{other}");
        }
    }
}
