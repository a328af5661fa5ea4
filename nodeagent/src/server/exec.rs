//! Exec and attach over WebSocket: `v5.channel.k8s.io` and `v4.channel.k8s.io`.
//!
//! Each message begins with a channel: 0 stdin, 1 stdout, 2 stderr, 3 the final status, 4 the terminal's size, and in
//! v5 255 closes the channel that follows.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use serde_json::{Value, json};

use crate::pods::{Context, PodView};
use crate::server::fail;
use crate::server::streams::Stream;
use crate::shim::client::{Process, ShimError};
use crate::shim::helper_size;

const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// After a process has ended, output that its children still hold open is waited for no longer than this.
const DRAIN: Duration = Duration::from_millis(500);
const CHUNK: usize = 32 << 10;

/// What is asked for.
#[derive(Clone, Debug, Default)]
struct Options {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Options {
    fn parse(query: Vec<(String, String)>) -> Options {
        let mut options = Options::default();
        for (key, value) in query {
            let on = matches!(value.as_str(), "1" | "true");
            match key.as_str() {
                "command" => options.command.push(value),
                "input" | "stdin" => options.stdin = on,
                "output" | "stdout" => options.stdout = on,
                "error" | "stderr" => options.stderr = on,
                "tty" => options.tty = on,
                _ => {}
            }
        }
        options
    }
}

type Target = Path<(String, String, String)>;

fn running(
    context: &Context,
    (namespace, pod, container): &(String, String, String),
) -> Result<(Arc<PodView>, String), Box<Response>> {
    let Some(view) = context.register.get(namespace, pod) else {
        return Err(Box::new(fail(StatusCode::NOT_FOUND, format!("pod \"{pod}\" not found"))));
    };
    let Some(found) = view.containers.get(container) else {
        return Err(Box::new(fail(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")"))));
    };
    match &found.running {
        Some(id) => Ok((view.clone(), id.clone())),
        None => {
            let message = format!("container \"{container}\" in pod \"{pod}\" is not running");
            Err(Box::new(fail(StatusCode::INTERNAL_SERVER_ERROR, message)))
        }
    }
}

/// `GET /exec/…`
pub(super) async fn exec(
    State(context): State<Arc<Context>>,
    Path(target): Target,
    Query(query): Query<Vec<(String, String)>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let options = Options::parse(query);
    if options.command.is_empty() {
        return fail(StatusCode::BAD_REQUEST, "you must specify at least 1 command for the container");
    }
    match running(&context, &target) {
        Ok((view, id)) => upgrade.protocols(PROTOCOLS).on_upgrade(move |socket| run_exec(socket, view, id, options)),
        Err(response) => *response,
    }
}

/// `GET /attach/…`
pub(super) async fn attach(
    State(context): State<Arc<Context>>,
    Path(target): Target,
    Query(query): Query<Vec<(String, String)>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let mut options = Options::parse(query);
    match running(&context, &target) {
        Ok((view, id)) => {
            let container = view.containers.get(&target.2);
            options.tty = container.is_some_and(|c| c.terminal);
            options.stdin = options.stdin && container.is_some_and(|c| c.stdin);
            upgrade.protocols(PROTOCOLS).on_upgrade(move |socket| run_attach(socket, view, id, options))
        }
        Err(response) => *response,
    }
}

/// The two ends of a session besides the socket.
#[derive(Default)]
struct Ends {
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    /// Gets the window's size.
    terminal: Option<OwnedFd>,
    process: Option<Process>,
}

async fn run_exec(mut socket: WebSocket, view: Arc<PodView>, id: String, options: Options) {
    match start_exec(&view, &id, &options).await {
        Ok(ends) => serve(socket, ends).await,
        Err(error) => {
            let message = format!("error executing command in container: failed to exec in container: {error}");
            let status = json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": format!("Internal error occurred: {message}"),
                "details": {"causes": [{"message": message}]},
            });
            finish(&mut socket, &status).await;
        }
    }
}

async fn start_exec(view: &PodView, id: &str, options: &Options) -> Result<Ends, ShimError> {
    let shim = view.shim();
    let io = ShimError::Gone;
    if options.tty {
        let (process, master) = shim.exec_terminal(id, options.command.clone(), (0, 0)).await?;
        let terminal = master.try_clone().map_err(io)?;
        let stdin = if options.stdin { Some(Stream::new(master.try_clone().map_err(io)?).map_err(io)?) } else { None };
        let stdout = Some(Stream::new(master).map_err(io)?);
        return Ok(Ends { stdin, stdout, stderr: None, terminal: Some(terminal), process: Some(process) });
    }
    let null = || std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map(OwnedFd::from).map_err(io);
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|errno| io(errno.into()));
    let mut ends = Ends::default();
    let stdin = if options.stdin {
        let (theirs, ours) = pipe()?;
        ends.stdin = Some(Stream::new(ours).map_err(io)?);
        theirs
    } else {
        null()?
    };
    let output = |wanted: bool, end: &mut Option<Stream>| -> Result<OwnedFd, ShimError> {
        if !wanted {
            return null();
        }
        let (ours, theirs) = pipe()?;
        *end = Some(Stream::new(ours).map_err(io)?);
        Ok(theirs)
    };
    let stdout = output(options.stdout, &mut ends.stdout)?;
    let stderr = output(options.stderr, &mut ends.stderr)?;
    ends.process = Some(shim.exec(id, options.command.clone(), [stdin, stdout, stderr]).await?);
    Ok(ends)
}

async fn run_attach(mut socket: WebSocket, view: Arc<PodView>, id: String, options: Options) {
    match start_attach(&view, &id, &options).await {
        Ok(ends) => serve(socket, ends).await,
        Err(error) => {
            let message = format!("Internal error occurred: {error}");
            let status = json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500, "message": message});
            finish(&mut socket, &status).await;
        }
    }
}

async fn start_attach(view: &PodView, id: &str, options: &Options) -> Result<Ends, ShimError> {
    let io = ShimError::Gone;
    let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|errno| io(errno.into()));
    let ((out_read, out_write), (err_read, err_write)) = (pipe()?, pipe()?);
    // The shim drops a listener that does not keep up; room makes that unlikely.
    for end in [&out_write, &err_write] {
        let _ = nix::fcntl::fcntl(end, nix::fcntl::FcntlArg::F_SETPIPE_SZ(1 << 20));
    }
    let mut fds = view.shim().attach(id, options.stdin, [out_write, err_write]).await?;
    let terminal = if options.tty { fds.pop() } else { None };
    let stdin = if options.stdin { fds.pop().map(Stream::new).transpose().map_err(io)? } else { None };
    Ok(Ends {
        stdin,
        stdout: Some(Stream::new(out_read).map_err(io)?),
        stderr: Some(Stream::new(err_read).map_err(io)?),
        terminal,
        process: None,
    })
}

/// Moves bytes both ways until the process has ended or the client is gone.
async fn serve(socket: WebSocket, ends: Ends) {
    let Ends { stdin, stdout, stderr, terminal, mut process } = ends;
    let (mut sink, stream) = socket.split();
    let input = input(stream, stdin, terminal);
    let code = {
        let output = output(&mut sink, stdout.as_ref(), stderr.as_ref(), process.as_mut());
        tokio::select! {
            code = output => code,
            // The client has gone; dropping the process kills it.
            () = input => return,
        }
    };
    let Some(code) = code else { return };
    let status = match code {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit code {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": format!("Internal error occurred: {error}"),
        }),
    };
    let _ = sink.send(channel(3, status.to_string().as_bytes())).await;
    let _ = sink.send(normal_end()).await;
    let _ = sink.close().await;
}

fn channel(number: u8, bytes: &[u8]) -> Message {
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(number);
    message.extend_from_slice(bytes);
    Message::Binary(message.into())
}

/// kubectl takes an end without this code for an error.
fn normal_end() -> Message {
    Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: "".into() }))
}

async fn finish(socket: &mut WebSocket, status: &Value) {
    let _ = socket.send(channel(3, status.to_string().as_bytes())).await;
    let _ = socket.send(normal_end()).await;
}

/// Sends output until all of it is sent; returns the exit status. `None` if the client is gone.
async fn output(
    sink: &mut SplitSink<WebSocket, Message>,
    stdout: Option<&Stream>,
    stderr: Option<&Stream>,
    mut process: Option<&mut Process>,
) -> Option<Result<i32, ShimError>> {
    let mut open = [stdout.is_some(), stderr.is_some()];
    let mut code = if process.is_none() { Some(Ok(0)) } else { None };
    let attached = process.is_none();
    let (mut out, mut err) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        if code.is_some() && open == [false, false] {
            return code;
        }
        let message = tokio::select! {
            biased;
            length = read(stdout, &mut out), if open[0] => match length {
                0 => { open[0] = false; continue }
                length => channel(1, &out[..length]),
            },
            length = read(stderr, &mut err), if open[1] => match length {
                0 => { open[1] = false; continue }
                length => channel(2, &err[..length]),
            },
            ended = wait(&mut process), if code.is_none() => { code = Some(ended); continue }
            () = tokio::time::sleep(DRAIN), if code.is_some() && !attached => return code,
        };
        if sink.send(message).await.is_err() {
            return None;
        }
    }
}

async fn read(stream: Option<&Stream>, buffer: &mut [u8]) -> usize {
    match stream {
        Some(stream) => stream.read(buffer).await.unwrap_or(0),
        None => 0,
    }
}

async fn wait(process: &mut Option<&mut Process>) -> Result<i32, ShimError> {
    match process {
        Some(process) => process.wait().await,
        None => std::future::pending().await,
    }
}

/// Takes what the client sends. Ends when the client does.
async fn input(mut stream: SplitStream<WebSocket>, mut stdin: Option<Stream>, terminal: Option<OwnedFd>) {
    while let Some(Ok(message)) = stream.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        match bytes.split_first() {
            Some((0, data)) => {
                if let Some(to) = &stdin
                    && to.write_all(data).await.is_err()
                {
                    // Nobody reads any more; output goes on.
                    stdin = None;
                }
            }
            Some((4, size)) => {
                if let (Some(terminal), Ok(size)) = (&terminal, serde_json::from_slice::<Value>(size)) {
                    let side = |name: &str| size.get(name).and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok());
                    helper_size(terminal, side("Width").unwrap_or(0), side("Height").unwrap_or(0));
                }
            }
            Some((255, [0])) => stdin = None,
            _ => {}
        }
    }
}
