//! kubectl-style verbs (`trictl`): flags, output and exit codes that kubectl's users know, over all masters.

mod api;
mod apply;
mod attach;
mod auth;
mod autoscale;
mod certificate;
mod change;
mod cluster;
mod config;
mod cp;
mod create;
mod debug;
mod delete;
mod describe;
mod diff;
mod discovery;
mod drain;
mod edit;
mod errors;
mod events;
mod exec;
mod explain;
mod fetch;
mod flags;
mod generate;
mod get;
mod image;
mod kustomize;
mod label;
mod logs;
mod manifest;
mod mutate;
mod nodes;
mod patch;
mod plugin;
mod pods;
mod port_forward;
mod print;
mod proxy;
mod rollout;
mod run;
mod scale;
mod session;
mod set;
mod targets;
pub mod time;
mod token;
mod top;
mod wait;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use self::errors::{CtlError, Result};
use self::label::Pairs;
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

/// In kubectl's order, which is that of its suggestions.
#[derive(Subcommand)]
enum Verb {
    /// Create objects from a file, from standard input, or from flags
    Create(Box<create::CreateArgs>),
    /// Make a service for the pods of a workload
    Expose(Box<run::ExposeArgs>),
    /// Run an image in a pod
    Run(Box<run::RunArgs>),
    /// Set specific features on objects
    Set {
        /// What to set
        #[command(subcommand)]
        verb: Box<set::Set>,
    },
    /// Get the documentation of a resource
    Explain(explain::ExplainArgs),
    /// Display one or many resources
    Get(Box<get::GetArgs>),
    /// Edit an object
    Edit(Box<edit::EditArgs>),
    /// Delete objects by file, name or selector
    Delete(Box<delete::DeleteArgs>),
    /// Manage the rollout of a deployment
    Rollout {
        /// What to do
        #[command(subcommand)]
        verb: Box<rollout::Rollout>,
    },
    /// Set a new size for a workload
    Scale(Box<scale::ScaleArgs>),
    /// Auto-scale a deployment, replica set, stateful set, or replication controller
    Autoscale(Box<autoscale::AutoscaleArgs>),
    /// Modify certificate resources
    Certificate {
        /// What to do
        #[command(subcommand)]
        verb: certificate::Certificate,
    },
    /// Print where the control plane is
    ClusterInfo(cluster::InfoArgs),
    /// Display resource (CPU/memory) usage
    Top {
        /// Of what
        #[command(subcommand)]
        verb: top::Top,
    },
    /// Mark nodes as unschedulable
    Cordon(nodes::CordonArgs),
    /// Mark nodes as schedulable
    Uncordon(nodes::CordonArgs),
    /// Drain nodes in preparation for maintenance
    Drain(Box<drain::DrainArgs>),
    /// Update the taints on nodes
    Taint(Box<nodes::TaintArgs>),
    /// Show details of one or many resources
    Describe(describe::DescribeArgs),
    /// Print the logs of containers
    #[command(visible_alias = "log")]
    Logs(logs::LogsArgs),
    /// Execute a command in a container
    Exec(exec::ExecArgs),
    /// Attach to a process that is already running inside an existing container
    Attach(attach::AttachArgs),
    /// Forward one or more local ports to a pod
    PortForward(port_forward::PortForwardArgs),
    /// Run a proxy to the Kubernetes API server
    Proxy(Box<proxy::ProxyArgs>),
    /// Copy files and directories to and from containers
    Cp(cp::CpArgs),
    /// Inspect authorization
    Auth {
        /// What to find out
        #[command(subcommand)]
        verb: auth::Auth,
    },
    /// Create debugging sessions for troubleshooting workloads and nodes
    Debug(Box<debug::DebugArgs>),
    /// List events
    Events(Box<events::EventsArgs>),
    /// Diff the live version against a would-be applied version
    Diff(Box<diff::DiffArgs>),
    /// Apply a configuration to objects by file or standard input
    Apply(Box<apply::ApplyArgs>),
    /// Change fields of objects with a patch
    Patch(Box<patch::PatchArgs>),
    /// Replace objects by file or standard input
    Replace(Box<create::ReplaceArgs>),
    /// Wait for a condition of objects
    Wait(Box<wait::WaitArgs>),
    /// Build a kustomization directory
    Kustomize(kustomize::KustomizeArgs),
    /// Update the labels of objects
    Label(Box<label::PairsArgs>),
    /// Update the annotations of objects
    Annotate(Box<label::PairsArgs>),
    /// Print a completion script for a shell
    Completion {
        /// bash, zsh, fish, elvish or powershell
        words: Vec<String>,
    },
    /// Print the resources that the server supports
    ApiResources(cluster::ResourcesArgs),
    /// Print the group versions that the server supports
    ApiVersions(cluster::NoWords),
    /// Modify kubeconfig files
    Config {
        /// What to do
        #[command(subcommand)]
        verb: Box<config::Config>,
    },
    /// Utilities for interacting with plugins
    Plugin {
        /// What to do
        #[command(subcommand)]
        verb: plugin::Plugin,
    },
    /// Print the versions of client and server
    Version(cluster::VersionArgs),
    /// Print the flags that every command takes
    Options,
}

/// Runs `trictl` with the arguments after the program's name, on a runtime of its own.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let words: Vec<OsString> = std::iter::once(OsString::from("trictl")).chain(args).collect();
    let command = flags::prepare(Cli::command());
    if let Err(error) = plugin::take_over(&command, &words[1..]) {
        let _ = std::io::stderr().write_all(error.text().as_bytes());
        return ExitCode::FAILURE;
    }
    let parsed = command.clone().try_get_matches_from(&words).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error, command, &words),
    };
    flags::remember(&command, &words);
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
        Ok(()) if cli.global.warnings_as_errors && api::warnings() > 0 => {
            let count = api::warnings();
            eprintln!("error: {count} warning{} received", if count > 1 { "s" } else { "" });
            ExitCode::FAILURE
        }
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = std::io::stderr().write_all(error.text().as_bytes());
            ExitCode::from(error.exit_code())
        }
    }
}

/// Help is no mistake; everything else is complained about in kubectl's words.
fn not_understood(error: &clap::Error, mut command: clap::Command, words: &[OsString]) -> ExitCode {
    use clap::error::ErrorKind;
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        // A verb that has subcommands and got none shows its help.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            if words.len() < 2 {
                let _ = write!(std::io::stdout(), "{}", error.render());
                return ExitCode::SUCCESS;
            }
            let _ = write!(std::io::stderr(), "{}", error.render());
            ExitCode::FAILURE
        }
        _ => {
            command.build();
            let _ = std::io::stderr().write_all(flags::complaint(error, &command, words).as_bytes());
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(cli: &Cli) -> Result<()> {
    let global = &cli.global;
    match &cli.verb {
        Verb::Version(args) => return cluster::version(global, args).await,
        Verb::Config { verb } => return config::run(global, verb),
        Verb::Completion { words } => return completion(words),
        Verb::Plugin { verb } => return plugin::run(&Cli::command(), verb),
        Verb::Kustomize(args) => return kustomize::run(args),
        Verb::Options => {
            let text = Cli::command().render_help().to_string();
            let flags = text.split_once("Global options:\n").map_or("", |(_, rest)| rest);
            return print::emit(&format!("The following options can be passed to any command:\n\n{flags}"));
        }
        _ => {}
    }
    let session = match names_users(&cli.verb) {
        true => Session::open(&Global { user: None, ..global.clone() })?,
        false => Session::open(global)?,
    };
    match &cli.verb {
        Verb::Get(args) => get::run(&session, args).await,
        Verb::Describe(args) => describe::run(&session, args).await,
        Verb::Create(args) => create::run(&session, args).await,
        Verb::Apply(args) => apply::run(&session, args).await,
        Verb::Diff(args) => diff::run(&session, args).await,
        Verb::Replace(args) => create::replace(&session, args).await,
        Verb::Delete(args) => delete::run(&session, args).await,
        Verb::Edit(args) => edit::run(&session, args).await,
        Verb::Patch(args) => patch::patch(&session, args).await,
        Verb::Label(args) => label::pairs(&session, args, Pairs::Labels).await,
        Verb::Annotate(args) => label::pairs(&session, args, Pairs::Annotations).await,
        Verb::Scale(args) => scale::scale(&session, args).await,
        Verb::Autoscale(args) => autoscale::run(&session, args).await,
        Verb::Certificate { verb } => certificate::run(&session, verb).await,
        Verb::Top { verb } => top::run(&session, verb).await,
        Verb::Drain(args) => drain::run(&session, args).await,
        Verb::Proxy(args) => proxy::run(&session, args).await,
        Verb::Auth { verb } => auth::run(&session, verb).await,
        Verb::Debug(args) => debug::run(&session, args).await,
        Verb::Cordon(args) => nodes::cordon(&session, args, true).await,
        Verb::Uncordon(args) => nodes::cordon(&session, args, false).await,
        Verb::Taint(args) => nodes::taint(&session, args).await,
        Verb::Set { verb } => set::run(&session, verb).await,
        Verb::Rollout { verb } => rollout::run(&session, verb).await,
        Verb::Logs(args) => logs::run(&session, args).await,
        Verb::Exec(args) => exec::run(&session, args).await,
        Verb::Attach(args) => attach::run(&session, args).await,
        Verb::Cp(args) => cp::run(&session, args).await,
        Verb::PortForward(args) => port_forward::run(&session, args).await,
        Verb::Run(args) => run::run(&session, args).await,
        Verb::Expose(args) => run::expose(&session, args).await,
        Verb::Wait(args) => wait::run(&session, args).await,
        Verb::Events(args) => events::run(&session, args).await,
        Verb::Explain(args) => explain::run(&session, args).await,
        Verb::ApiResources(args) => cluster::resources(&session, args).await,
        Verb::ApiVersions(args) => cluster::versions(&session, args).await,
        Verb::ClusterInfo(args) => match &args.verb {
            Some(cluster::InfoVerb::Dump(args)) => cluster::dump(&session, args).await,
            None => cluster::info(&session).await,
        },
        // Handled above: they work without a cluster.
        Verb::Version(_)
        | Verb::Config { .. }
        | Verb::Completion { .. }
        | Verb::Kustomize(_)
        | Verb::Plugin { .. }
        | Verb::Options => Ok(()),
    }
}

/// Whether `--user` means whom a role is bound to, instead of a user of the kubeconfig.
fn names_users(verb: &Verb) -> bool {
    use generate::Generator::{ClusterRoleBinding, RoleBinding};
    match verb {
        Verb::Create(args) => matches!(args.kind, Some(RoleBinding(_) | ClusterRoleBinding(_))),
        Verb::Set { verb } => matches!(**verb, set::Set::Subject(_)),
        _ => false,
    }
}

/// Prints a shell's completion script.
fn completion(words: &[String]) -> Result<()> {
    let shell = match words {
        [] => return Err(CtlError::usage("Shell not specified.")),
        [shell] => shell,
        _ => return Err(CtlError::usage("Too many arguments. Expected only the shell type.")),
    };
    let known = <clap_complete::Shell as clap::ValueEnum>::from_str(shell, false);
    let known = known.map_err(|_| CtlError::usage(format!("Unsupported shell type {shell:?}.")))?;
    // Not written at once: a pipe may be closed before its end.
    let mut script = Vec::new();
    clap_complete::generate(known, &mut flags::prepare(Cli::command()), "trictl", &mut script);
    print::emit(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parses(line: &str) -> bool {
        flags::prepare(Cli::command()).try_get_matches_from(std::iter::once("trictl").chain(line.split(' '))).is_ok()
    }

    #[test]
    fn the_definition_is_sound() {
        flags::prepare(Cli::command()).debug_assert();
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
            "drain n1 --ignore-daemonsets --delete-emptydir-data --force --timeout=30s",
            "auth can-i list deploy/x --subresource=scale -A",
            "auth can-i --list",
            "auth whoami -o json",
            "auth reconcile -f x.yaml --remove-extra-permissions",
            "autoscale deploy/x --min=1 --max=3 --cpu-percent=80",
            "certificate approve a b",
            "proxy -p 0 -w . -P /s/ --api-prefix=/x/ -u /tmp/s",
            "debug -it x --image=busybox --profile=general -- sh",
            "top node --sort-by=cpu",
            "top po -A --containers --sum",
            "plugin list --name-only",
            "create rolebinding x --role=r --user=a --user=b",
            "set subject rolebinding/x --user=a",
            "create role r --verb=get,list --resource=pods",
            "create cj c --image=busybox --schedule=@daily -- date",
            "run x --image=busybox --restart=Never -- sleep 1",
        ] {
            assert!(parses(line), "{line}");
        }
        for line in ["", "frobnicate", "get --nope", "get --watch=x"] {
            assert!(!parses(line), "{line}");
        }
    }
}
