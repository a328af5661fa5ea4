//! `trictl exec`: a command in a container, over a WebSocket.

mod protocol;
mod terminal;

use clap::Args;
use futures::{SinkExt, StreamExt};
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use self::protocol::{Frame, Outcome};
use self::terminal::Raw;
use super::api::Call;
use super::errors::{CtlError, Result};
use super::pods;
use super::session::Session;

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
    #[arg(short, long)]
    pub quiet: bool,
    /// The command and its arguments
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// Runs the verb; a command's exit code becomes ours.
pub async fn run(session: &Session, args: &ExecArgs) -> Result<()> {
    if args.command.is_empty() {
        return Err(CtlError::Usage("you must specify at least one command for the container".to_owned()));
    }
    if args.words.len() != 1 {
        return Err(CtlError::Usage("expected exec (POD | TYPE/NAME) [-c CONTAINER] -- COMMAND [args...]".to_owned()));
    }
    let found = pods::find(session, &args.words).await?;
    let Some(pod) = found.into_iter().next() else {
        return Err(CtlError::plain("no pod found"));
    };
    let object = pods::reload(session, &pod).await?;
    if matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return Err(CtlError::plain(format!(
            "cannot exec into a container in a completed pod; current phase is {}",
            object["status"]["phase"].as_str().unwrap_or_default()
        )));
    }
    let container = pods::container(&object, args.container.as_deref(), args.quiet)?;
    let terminal = args.tty && args.stdin && std::io::IsTerminal::is_terminal(&std::io::stdin());
    if args.tty && !terminal && !args.quiet {
        eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    let mut call = Call::get(format!("{}/exec", pod.path())).query("container", &container).query("stdout", "true");
    for word in &args.command {
        call = call.query("command", word);
    }
    if args.stdin {
        call = call.query("stdin", "true");
    }
    // With a terminal, standard error comes out of it too.
    call = if terminal { call.query("tty", "true") } else { call.query("stderr", "true") };
    let outcome = attach(session, &call, args.stdin, terminal).await?;
    finish(outcome, args.quiet)
}

fn finish(outcome: Outcome, quiet: bool) -> Result<()> {
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
        Outcome::Lost => Err(CtlError::plain("the connection ended before the command's exit code came")),
    }
}

async fn attach(session: &Session, call: &Call, stdin: bool, terminal: bool) -> Result<Outcome> {
    let request =
        Request::builder().uri(call.target()).body(Vec::new()).map_err(|error| CtlError::plain(error.to_string()))?;
    let connection = session.api.client().connect(request).await?;
    let closes_streams = connection.supports_stream_close();
    let (mut sink, mut stream) = connection.into_stream().split();
    let raw = if terminal { Some(Raw::enter()?) } else { None };
    let mut resizes = terminal::Resizes::new(terminal)?;
    let mut input = tokio::io::stdin();
    let mut reading = stdin;
    let mut buffer = vec![0u8; 16 * 1024];
    let (mut out, mut err) = (tokio::io::stdout(), tokio::io::stderr());
    let outcome = loop {
        tokio::select! {
            message = stream.next() => match message {
                Some(Ok(Message::Binary(bytes))) => match protocol::read(&bytes) {
                    Frame::Out(data) => {
                        out.write_all(data).await?;
                        out.flush().await?;
                    }
                    Frame::Err(data) => {
                        err.write_all(data).await?;
                        err.flush().await?;
                    }
                    Frame::Done(outcome) => break outcome,
                    Frame::Other => {}
                },
                Some(Ok(Message::Close(_))) | None => break Outcome::Lost,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::debug!(%error, "exec");
                    break Outcome::Lost;
                }
            },
            read = input.read(&mut buffer), if reading => {
                let count = read?;
                if count == 0 {
                    reading = false;
                    if closes_streams {
                        let _ = sink.send(Message::Binary(protocol::close_stdin().into())).await;
                    }
                } else if sink.send(Message::Binary(protocol::stdin(&buffer[..count]).into())).await.is_err() {
                    reading = false;
                }
            },
            size = resizes.next() => {
                let _ = sink.send(Message::Binary(protocol::resize(size).into())).await;
            }
        }
    };
    drop(raw);
    let _ = sink.close().await;
    Ok(outcome)
}
