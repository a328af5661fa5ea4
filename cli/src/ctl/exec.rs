//! `trictl exec`: a command in a container, over a WebSocket.

pub mod protocol;
pub mod socket;
pub mod stream;
pub mod terminal;

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use self::protocol::Outcome;
use self::stream::Local;
use super::api::Call;
use super::errors::{CtlError, Result};
use super::session::Session;
use super::targets::Target;
use super::{pods, time};

/// Execute a command in a container.
#[derive(Debug, Clone, Default, Args)]
pub struct ExecArgs {
    /// POD or TYPE/NAME
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
    /// Only print the command's output
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub quiet: bool,
    /// How long to wait for a pod of TYPE/NAME
    #[arg(long, default_value = "1m0s", value_parser = super::flags::duration_text)]
    pub pod_running_timeout: String,
    /// The command and its arguments
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// Runs the verb; a command's exit code becomes ours.
pub async fn run(session: &Session, args: &ExecArgs) -> Result<()> {
    let words = match args.words.as_slice() {
        [] => return Err(CtlError::plain("pod, type/name or --filename must be specified")),
        [_, _, ..] if args.command.is_empty() => {
            let text = "exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead";
            return Err(CtlError::Usage(text.to_owned()));
        }
        [word] => std::slice::from_ref(word),
        _ => {
            let text = "expected 'exec (POD | TYPE/NAME) [-c CONTAINER] [flags] -- COMMAND [args...]'.";
            return Err(CtlError::Usage(text.to_owned()));
        }
    };
    if args.command.is_empty() {
        return Err(CtlError::plain("you must specify at least one command for the container"));
    }
    let (pod, object) = running_pod(session, words, &args.pod_running_timeout).await?;
    let phase = object["status"]["phase"].as_str().unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") {
        let text = format!("cannot exec into a container in a completed pod; current phase is {phase}");
        return Err(CtlError::plain(text));
    }
    let container = pods::container(&object, args.container.as_deref(), args.quiet)?;
    let terminal = terminal_to_use(args.stdin, args.tty, args.quiet);
    let call = call(&pod, &container, &args.command, args.stdin, terminal);
    let input = args.stdin.then(tokio::io::stdin);
    let local = Local { input, out: tokio::io::stdout(), err: tokio::io::stderr(), terminal };
    finish(stream::run(session, &call, local).await?, args.quiet)
}

/// The request for running a command.
pub fn call(pod: &Target, container: &str, command: &[String], stdin: bool, terminal: bool) -> Call {
    let call = Call::get(format!("{}/exec", pod.path())).query("container", container).query("stdout", "true");
    let call = command.iter().fold(call, |call, word| call.query("command", word));
    let call = if stdin { call.query("stdin", "true") } else { call };
    // With a terminal, standard error comes out of it too.
    if terminal { call.query("tty", "true") } else { call.query("stderr", "true") }
}

/// Whether the session gets this process's terminal; says so if one is wanted and there is none.
pub fn terminal_to_use(stdin: bool, tty: bool, quiet: bool) -> bool {
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
    if stdin && tty && !terminal && !quiet {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    stdin && tty && terminal
}

/// The pod behind `POD`, `TYPE/NAME` or `TYPE NAME` and its newest state. A workload's pod is waited for.
pub async fn running_pod(session: &Session, words: &[String], timeout: &str) -> Result<(Target, Value)> {
    let timeout = time::duration(timeout).map_err(CtlError::Usage)?;
    if timeout.is_zero() {
        return Err(CtlError::plain("--pod-running-timeout must be higher than zero"));
    }
    let begun = std::time::Instant::now();
    let pod = loop {
        match pods::find(session, words).await {
            Ok(found) => match found.into_iter().next() {
                Some(pod) => break pod,
                None => return Err(CtlError::plain("no pod found")),
            },
            Err(CtlError::Plain(text)) if text.starts_with("no pods found for") && begun.elapsed() < timeout => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(CtlError::Plain(text)) if text.starts_with("no pods found for") => {
                return Err(CtlError::plain("timed out waiting for the condition"));
            }
            Err(error) => return Err(error),
        }
    };
    let object = pods::reload(session, &pod).await?;
    Ok((pod, object))
}

/// What a session's end means for this process.
pub fn finish(outcome: Outcome, quiet: bool) -> Result<()> {
    match outcome {
        Outcome::Success => Ok(()),
        Outcome::Exit(code) => {
            if !quiet {
                eprintln!("command terminated with exit code {code}");
            }
            Err(CtlError::Exit(u8::try_from(code).ok().filter(|code| *code != 0).unwrap_or(1)))
        }
        Outcome::Failure(status) => Err(match status["message"].as_str() {
            Some(message) => CtlError::plain(message),
            None => CtlError::plain("the command failed and the server does not say why"),
        }),
        Outcome::Lost => Err(CtlError::plain(
            "the connection to the container was lost before the session ended; the exit code is not known",
        )),
    }
}
