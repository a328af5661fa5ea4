//! kubectl-style verbs (`trictl`): flags, output and exit codes that kubectl's users know, over all masters.

mod api;
mod apply;
mod attach;
mod change;
mod cluster;
mod config;
mod cp;
mod create;
mod delete;
mod describe;
mod discovery;
mod edit;
mod errors;
mod exec;
mod explain;
mod generate;
mod get;
mod logs;
mod manifest;
mod mutate;
mod pods;
mod port_forward;
mod print;
mod rollout;
mod run;
mod session;
mod targets;
pub mod time;
mod wait;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::change::Pairs;
use self::errors::Result;
use self::session::{Global, Session};

/// trictl controls a Trireme cluster, or any other Kubernetes.
#[derive(Parser)]
#[command(name = "trictl", disable_version_flag = true, disable_help_subcommand = false, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Display one or many resources
    Get(Box<get::GetArgs>),
    /// Show details of one or many resources
    Describe(describe::DescribeArgs),
    /// Create objects from a file, from standard input, or from flags
    Create(Box<create::CreateArgs>),
    /// Apply a configuration to objects by file or standard input
    Apply(apply::ApplyArgs),
    /// Replace objects by file or standard input
    Replace(create::ReplaceArgs),
    /// Delete objects by file, name or selector
    Delete(delete::DeleteArgs),
    /// Edit an object
    Edit(edit::EditArgs),
    /// Change fields of objects with a patch
    Patch(change::PatchArgs),
    /// Update the labels of objects
    Label(change::PairsArgs),
    /// Update the annotations of objects
    Annotate(change::PairsArgs),
    /// Set a new size for a workload
    Scale(change::ScaleArgs),
    /// Mark nodes as unschedulable
    Cordon(change::CordonArgs),
    /// Mark nodes as schedulable
    Uncordon(change::CordonArgs),
    /// Manage the rollout of a deployment
    Rollout {
        /// What to do
        #[command(subcommand)]
        verb: rollout::Rollout,
    },
    /// Print the logs of containers
    #[command(visible_alias = "log")]
    Logs(logs::LogsArgs),
    /// Execute a command in a container
    Exec(exec::ExecArgs),
    /// Attach to a process that is already running inside an existing container
    Attach(attach::AttachArgs),
    /// Copy files and directories to and from containers
    Cp(cp::CpArgs),
    /// Forward one or more local ports to a pod
    PortForward(port_forward::PortForwardArgs),
    /// Run an image in a pod
    Run(run::RunArgs),
    /// Make a service for the pods of a workload
    Expose(run::ExposeArgs),
    /// Wait for a condition of objects
    Wait(wait::WaitArgs),
    /// Get the documentation of a resource
    Explain(explain::ExplainArgs),
    /// Print the resources that the server supports
    ApiResources(cluster::ResourcesArgs),
    /// Print the group versions that the server supports
    ApiVersions,
    /// Print where the control plane is
    ClusterInfo,
    /// Print the versions of client and server
    Version(cluster::VersionArgs),
    /// Modify kubeconfig files
    Config {
        /// What to do
        #[command(subcommand)]
        verb: config::Config,
    },
    /// Print a completion script for a shell
    Completion {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// Runs `trictl` with the arguments after the program's name, on a runtime of its own.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let words = std::iter::once(OsString::from("trictl")).chain(args);
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // Help is no mistake.
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    if cli.global.verbosity >= 6 {
        let _ = tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_env_filter("trireme_client=debug,trireme=debug")
            .try_init();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(dispatch(&cli));
    // A read of standard input may still be blocked: it is not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = std::io::stderr().write_all(error.text().as_bytes());
            ExitCode::from(error.exit_code())
        }
    }
}

async fn dispatch(cli: &Cli) -> Result<()> {
    let global = &cli.global;
    match &cli.verb {
        Verb::Version(args) => return cluster::version(global, args).await,
        Verb::Config { verb } => return config::run(global, verb),
        Verb::Completion { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "trictl", &mut std::io::stdout());
            return Ok(());
        }
        _ => {}
    }
    let session = Session::open(global)?;
    match &cli.verb {
        Verb::Get(args) => get::run(&session, args).await,
        Verb::Describe(args) => describe::run(&session, args).await,
        Verb::Create(args) => create::run(&session, args).await,
        Verb::Apply(args) => apply::run(&session, args).await,
        Verb::Replace(args) => create::replace(&session, args).await,
        Verb::Delete(args) => delete::run(&session, args).await,
        Verb::Edit(args) => edit::run(&session, args).await,
        Verb::Patch(args) => change::patch(&session, args).await,
        Verb::Label(args) => change::pairs(&session, args, Pairs::Labels).await,
        Verb::Annotate(args) => change::pairs(&session, args, Pairs::Annotations).await,
        Verb::Scale(args) => change::scale(&session, args).await,
        Verb::Cordon(args) => change::cordon(&session, args, true).await,
        Verb::Uncordon(args) => change::cordon(&session, args, false).await,
        Verb::Rollout { verb } => rollout::run(&session, verb).await,
        Verb::Logs(args) => logs::run(&session, args).await,
        Verb::Exec(args) => exec::run(&session, args).await,
        Verb::Attach(args) => attach::run(&session, args).await,
        Verb::Cp(args) => cp::run(&session, args).await,
        Verb::PortForward(args) => port_forward::run(&session, args).await,
        Verb::Run(args) => run::run(&session, args).await,
        Verb::Expose(args) => run::expose(&session, args).await,
        Verb::Wait(args) => wait::run(&session, args).await,
        Verb::Explain(args) => explain::run(&session, args).await,
        Verb::ApiResources(args) => cluster::resources(&session, args).await,
        Verb::ApiVersions => cluster::versions(&session).await,
        Verb::ClusterInfo => cluster::info(&session).await,
        // Handled above: they work without a cluster.
        Verb::Version(_) | Verb::Config { .. } | Verb::Completion { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parses(line: &str) -> bool {
        Cli::try_parse_from(std::iter::once("trictl").chain(line.split(' '))).is_ok()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lines_that_kubectls_users_type() {
        for line in [
            "get pods -o wide -n kube-system",
            "-n x get deploy,rs,po,ep -owide",
            "get pod/x -o jsonpath={.a} --watch",
            "get pods -A -l app=web --sort-by=.metadata.name --no-headers",
            "get --raw /readyz",
            "apply -f examples/web.yaml --dry-run=server",
            "create -f -",
            "create ns x",
            "create deployment web --image=busybox --dry-run=client -o yaml -- httpd -f",
            "create secret generic s --from-literal=a=b",
            "create service clusterip s --tcp=80:80",
            "delete pod a b --grace-period=0 --force --wait=false",
            "delete -f x.yaml --ignore-not-found",
            "delete pods --all",
            "scale deploy/web --replicas=5",
            "label node n1 a=b c- --overwrite",
            "exec -it x -c y -- sh -c ls",
            "exec x -- ls -l",
            "attach -it x -c y",
            "cp /tmp/x ns/p:/tmp/y -c c --no-preserve --retries=-1",
            "port-forward svc/web 8080:http :443 --address=localhost,10.0.0.1",
            "run -it --rm x --image=busybox --restart=Never -- sh",
            "run x --image=busybox -i --attach=false --leave-stdin-open --quiet --privileged",
            "logs -f deploy/web --tail=10 --timestamps --all-containers",
            "logs -p x -c y --since=1h",
            "rollout status deploy/web --timeout=60s",
            "rollout undo deploy/web --to-revision=2",
            "wait --for=condition=Ready pod/x --timeout=60s",
            "wait --for=delete pod/x --timeout=-1s",
            "patch pod x -p {} --type=merge",
            "config use-context x",
            "config set-context --current --namespace=x",
            "version --client -o json",
            "explain pod.spec --recursive",
            "api-resources --namespaced=false -o name",
            "completion bash",
            "run x --image=busybox --restart=Never -- sleep 1",
        ] {
            assert!(parses(line), "{line}");
        }
        for line in ["", "frobnicate", "get --nope", "scale deploy/web"] {
            assert!(!parses(line), "{line}");
        }
    }
}
