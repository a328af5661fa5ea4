//! `trictl attach`: input and output of a container's own process.

use clap::Args;
use serde_json::Value;

use super::api::Call;
use super::errors::{CtlError, Result};
use super::exec::stream::{self, Local};
use super::exec::{finish, running_pod, terminal_to_use};
use super::pods;
use super::session::Session;
use super::targets::Target;

/// Attach to a process that is already running inside an existing container.
#[derive(Debug, Clone, Default, Args)]
pub struct AttachArgs {
    /// POD, TYPE/NAME or TYPE NAME
    pub words: Vec<String>,
    /// Container
    #[arg(short, long)]
    pub container: Option<String>,
    /// Pass standard input to the container
    #[arg(short = 'i', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub stdin: bool,
    /// Standard input is a terminal
    #[arg(short = 't', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub tty: bool,
    /// Only print output from the remote session
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub quiet: bool,
    /// How long to wait for a pod of TYPE/NAME
    #[arg(long, default_value = "1m0s", value_parser = super::flags::duration_text)]
    pub pod_running_timeout: String,
}

/// Runs the verb.
pub async fn run(session: &Session, args: &AttachArgs) -> Result<()> {
    match args.words.len() {
        0 => return Err(CtlError::plain("at least 1 argument is required for attach")),
        1 | 2 => {}
        count => {
            let words = args.words.join(" ");
            let text = format!("expected POD, TYPE/NAME, or TYPE NAME, (at most 2 arguments) saw {count}: [{words}]");
            return Err(CtlError::plain(text));
        }
    }
    let (pod, object) = running_pod(session, &args.words, &args.pod_running_timeout).await?;
    let phase = object["status"]["phase"].as_str().unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") {
        let text = format!("cannot attach a container in a completed pod; current phase is {phase}");
        return Err(CtlError::plain(text));
    }
    let container = pods::container(&object, args.container.as_deref(), args.quiet)
        .map_err(|error| CtlError::plain(format!("cannot attach to the container: {}", plain(&error))))?;
    let terminal = to(session, &pod, &object, &container, args).await?;
    if terminal && !args.quiet {
        let namespace = pod.namespace.as_deref().unwrap_or_default();
        println!(
            "Session ended, resume using 'trictl attach {} -c {container} -n {namespace} -i -t' command when the pod is \
             running",
            pod.name
        );
    }
    Ok(())
}

fn plain(error: &CtlError) -> String {
    error.text().trim().trim_start_matches("error: ").to_owned()
}

/// Attaches to a container until it ends or the input does; whether this process's terminal was handed over.
pub async fn to(session: &Session, pod: &Target, object: &Value, container: &str, args: &AttachArgs) -> Result<bool> {
    let has_terminal = has_terminal(object, container);
    if args.tty && !has_terminal && !args.quiet {
        eprintln!("error: Unable to use a TTY - container {container} did not allocate one");
    }
    let terminal = terminal_to_use(args.stdin, has_terminal, args.quiet);
    let mut call = Call::get(format!("{}/attach", pod.path())).query("container", container).query("stdout", "true");
    if args.stdin {
        call = call.query("stdin", "true");
    }
    call = if terminal { call.query("tty", "true") } else { call.query("stderr", "true") };
    if !args.quiet {
        eprintln!(
            "All commands and output from this session will be recorded in container logs, including credentials and \
             sensitive information passed through the command prompt."
        );
        eprintln!("If you don't see a command prompt, try pressing enter.");
    }
    let input = args.stdin.then(tokio::io::stdin);
    let local = Local { input, out: tokio::io::stdout(), err: tokio::io::stderr(), terminal };
    finish(stream::run(session, &call, local).await?, args.quiet)?;
    Ok(terminal)
}

fn has_terminal(pod: &Value, container: &str) -> bool {
    let lists = ["containers", "initContainers", "ephemeralContainers"].into_iter();
    let mut all = lists.flat_map(|list| pod["spec"][list].as_array().into_iter().flatten());
    all.any(|spec| spec["name"] == container && spec["tty"] == true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_decides_about_the_terminal() {
        let pod = json!({"spec": {"containers": [{"name": "a", "tty": true}, {"name": "b"}]}});
        assert!(has_terminal(&pod, "a") && !has_terminal(&pod, "b") && !has_terminal(&pod, "c"));
    }
}
