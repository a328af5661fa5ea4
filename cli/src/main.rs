//! The `trireme` binary: composition root, admin commands and the kubectl-style verbs.
//!
//! Dispatch order matters: a pod's shim is this binary re-executed, and must start before any thread or runtime exists.

mod admin;
mod ctl;
mod joining;
mod master;
mod node;
mod reset;
mod status;
mod terminal;
mod terminate;
mod up;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A highly available Kubernetes in one binary: the control plane keeps its state in its own Raft log.
#[derive(Parser)]
#[command(name = "trireme", version, arg_required_else_help = true)]
struct Cli {
    /// What to log: error, warn, info, debug, trace, or a filter such as `info,trireme_raftstore=debug`.
    #[arg(long, global = true, env = "TRIREME_LOG", default_value = "info,openraft=error", value_name = "FILTER")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a master: a replica of the state, the API, and the controllers while it leads.
    Master(Box<master::Args>),
    /// Run a node agent: the pods bound to this machine.
    Node(Box<node::Args>),
    /// Create, list and delete the tokens that machines join with.
    Token(admin::token::Args),
    /// List, add, promote, replace and remove masters.
    Member(admin::member::Args),
    /// Save, verify and restore backups of the store.
    Snapshot(admin::snapshot::Args),
    /// Look at the store of every master.
    Store(admin::store::Args),
    /// Make another kubeconfig, on a master from the keys that it holds.
    Kubeconfig(admin::kubeconfig::Args),
    /// Boot a local cluster: every host is a network namespace on this machine.
    Up(up::UpArgs),
    /// Stop a local cluster and remove everything it left.
    Down(up::DownArgs),
    /// Tell whether a cluster is well, and what to do if it is not.
    Status(status::Args),
    /// kubectl-style verbs; also available under the name `trictl`.
    #[command(disable_help_flag = true)]
    Ctl {
        /// Arguments of `trictl`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if trireme_nodeagent::shim::is_shim(&args) {
        trireme_nodeagent::shim::main(&args);
    }
    // The error is "already installed", which cannot happen this early.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if args.first().map(Path::new).and_then(Path::file_name).is_some_and(|name| name == "trictl") {
        return ctl::main(args.into_iter().skip(1).collect());
    }
    if args.get(1).is_some_and(|a| a == "ctl") {
        return ctl::main(args.into_iter().skip(2).collect());
    }
    let cli = Cli::parse();
    init_logging(&cli.log);
    // Its exit codes tell a cluster that is ill from one that cannot be asked.
    let failure = match cli.command {
        Command::Status(_) | Command::Store(_) => ExitCode::from(status::UNUSABLE),
        _ => ExitCode::FAILURE,
    };
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", sentence(&error));
            failure
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let done = match command {
            Command::Master(args) => master::run(*args).await,
            Command::Node(args) => node::run(*args).await,
            Command::Token(args) => admin::token::run(args).await,
            Command::Member(args) => admin::member::run(args).await,
            Command::Snapshot(args) => admin::snapshot::run(args).await,
            Command::Kubeconfig(args) => admin::kubeconfig::run(args),
            Command::Up(args) => up::up(args).await,
            Command::Down(args) => up::down(args).await,
            Command::Store(args) => return admin::store::run(args).await,
            Command::Status(args) => return status::run(args).await,
            Command::Ctl { .. } => unreachable!("dispatched before clap"),
        };
        done.map(|()| ExitCode::SUCCESS)
    });
    // A blocked reader of standard input or a stuck file system must not keep the process alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    outcome
}

/// An error with its causes, each said once: some say their cause themselves.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// The machine's name as objects may be called.
fn host_name() -> anyhow::Result<String> {
    use anyhow::Context;
    let path = "/proc/sys/kernel/hostname";
    let name = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}; give --name"))?;
    Ok(name.trim().to_lowercase())
}

fn init_logging(filter: &str) {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_else(|error| {
        eprintln!("warning: --log {filter:?} is not a filter ({error}); using info");
        tracing_subscriber::EnvFilter::new("info,openraft=error")
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn arguments_fit_together() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn a_cause_is_said_once() {
        let cause = std::io::Error::from_raw_os_error(2);
        let telling = anyhow::anyhow!("/a: {cause}");
        let error = anyhow::Error::new(std::io::Error::other(telling)).context("cannot read");
        assert_eq!(super::sentence(&error), "cannot read: /a: No such file or directory (os error 2)");
        assert_eq!(super::sentence(&anyhow::anyhow!("a").context("b").context("c")), "c: b: a");
    }
}
