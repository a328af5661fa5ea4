//! The official Python client: its virtual environment, and the process that runs the cases in `*.py`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use trireme_chaos_tests::suite::Scenario;
use trireme_chaos_tests::{Cluster, run_for};

use crate::runner::{self, Runner};

/// Longest time that the library may take to be imported.
const LIMIT: Duration = Duration::from_secs(60);
/// Longest time for downloads.
const INSTALL: Duration = Duration::from_secs(300);

macro_rules! cases {
    ($($name:ident)*) => {
        $(fn $name(cluster: &Cluster) -> Result<()> { run(cluster, stringify!($name)) })*
        /// Every function that is marked with `@case` in the Python files.
        pub const CASES: &[Scenario] = &[$((stringify!($name), $name)),*];
    };
}

cases! {
    python_creates_from_yaml
    python_life_of_an_object
    python_generates_names
    python_patches
    python_lists_by_selector_and_page
    python_deletes_with_propagation
    python_deletes_collections
    python_sees_errors_as_they_are
    python_holds_by_finalizers
    python_watches_and_resumes
    python_watch_ends_when_its_time_is_over
    python_watch_of_an_old_version_is_expired
    python_streams_initial_events
    python_informer
    python_elects_a_leader
    python_exec
    python_exec_interactively
    python_exec_refused
    python_attach
    python_logs
    python_port_forward
    python_evicts
    python_reads_version_and_groups
    python_finds_contexts_in_the_kubeconfig
    python_reads_openapi
    python_custom_objects_that_are_not_there
    python_dynamic_client
}

/// Folder of the Python files.
fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// A script of this folder, to be run with the client's virtual environment.
pub fn script(name: &str) -> Result<Command> {
    let mut command = Command::new(interpreter()?);
    command.arg(scripts().join(name)).env_remove("PYTHONPATH");
    // Not beside the scripts; and of the library only what is used is compiled, instead of all of it by pip.
    command.env("PYTHONPYCACHEPREFIX", interpreter()?.with_file_name("pycache"));
    Ok(command)
}

/// The requirement: the pinned one, or the version in `$TRIREME_PYTHON_CLIENT`.
fn requirement() -> Result<String> {
    if let Ok(version) = std::env::var("TRIREME_PYTHON_CLIENT") {
        return Ok(format!("kubernetes=={version}"));
    }
    let text = std::fs::read_to_string(scripts().join("requirements.txt"))?;
    let line = text.lines().find(|line| line.starts_with("kubernetes=="));
    line.map(str::to_owned).context("requirements.txt pins no kubernetes")
}

/// The interpreter of the virtual environment, which is made on first use and kept in `~/.cache/trireme`.
fn interpreter() -> Result<&'static Path> {
    static PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let path = PATH.get_or_init(|| prepare().map_err(|error| format!("{error:#}")));
    path.as_deref().map_err(|error| anyhow!("{error}"))
}

fn prepare() -> Result<PathBuf> {
    let requirement = requirement()?;
    let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
    let cache = home.join(".cache/trireme");
    std::fs::create_dir_all(&cache)?;
    // Two runs at the same time: one of them installs.
    let lock = std::fs::File::create(cache.join("python.lock"))?;
    lock.lock()?;
    let dir = cache.join(format!("python-{}", requirement.replace("==", "-")));
    let python = dir.join("bin/python");
    let works = |python: &Path| {
        let outcome = run_for(Command::new(python).args(["-c", "import kubernetes.client"]), LIMIT);
        outcome.is_ok_and(|outcome| outcome.code == Some(0))
    };
    if !works(&python) {
        println!("installing {requirement} into {}", dir.display());
        let _ = std::fs::remove_dir_all(&dir);
        let venv = run_for(Command::new("python3").args(["-m", "venv"]).arg(&dir), INSTALL)?;
        if venv.code == Some(0) {
            install(Command::new(&python).args(["-m", "pip"]), &requirement)?;
        } else {
            // A Debian without python3-venv: any other pip can fill an environment that has none of its own.
            let _ = std::fs::remove_dir_all(&dir);
            let bare = Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&dir).output()?;
            ensure!(bare.status.success(), "{}{}\n\"make deps\" installs python3-venv", venv.out, venv.err);
            install(Command::new("python3").args(["-m", "pip", "--python"]).arg(&python), &requirement)?;
        }
        ensure!(works(&python), "{requirement} is installed in {} and cannot be imported", dir.display());
    }
    println!("python client: {requirement}");
    Ok(python)
}

fn install(pip: &mut Command, requirement: &str) -> Result<()> {
    let words = ["install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-compile", requirement];
    run_for(pip.args(words), INSTALL)?.ok().map(drop).context("the official Python client cannot be installed")
}

/// Runs one case in the process that all share.
fn run(cluster: &Cluster, name: &str) -> Result<()> {
    static RUNNER: Mutex<Option<Runner>> = Mutex::new(None);
    let names: Vec<&str> = CASES.iter().map(|(name, _)| *name).collect();
    runner::run(&RUNNER, &names, name, || {
        let mut command = script("suite.py")?;
        command.arg(cluster.root().join("kubeconfig")).env("KUBECONFIG", cluster.root().join("kubeconfig"));
        Ok(command)
    })
}
