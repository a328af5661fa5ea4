//! `exec` and `attach`: a process in a container, its input, output, terminal and exit status over one connection.
//!
//! Clients speak WebSocket ([`websocket`]) or SPDY ([`spdy`]); beneath both is the same [`session`].

mod ends;
mod session;
mod spdy;
mod websocket;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::pods::{Context, PodView};
use crate::server::handshake::{Refusal, Upgrade};
use crate::server::sessions::{Running, Sessions};

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
        // What a terminal shows is one stream.
        options.stderr &= !options.tty;
        options
    }
}

/// What a session is about.
struct Job {
    view: Arc<PodView>,
    /// The container's id.
    id: String,
    options: Options,
    attach: Option<Attached>,
    /// Counts it among the pod's sessions.
    _running: Running,
}

/// What matters for `attach` alone.
#[derive(Clone, Copy)]
struct Attached {
    /// The container's own terminal; the client has no choice.
    terminal: bool,
    /// Whether the container reads input at all.
    stdin: bool,
    /// The session goes on when its input ends, and the container's input ends with it.
    once: bool,
}

type Target = Path<(String, String, String)>;

/// `/exec/{namespace}/{pod}/{container}`
pub(super) async fn exec(
    State(context): State<Arc<Context>>,
    Path(target): Target,
    Query(query): Query<Vec<(String, String)>>,
    Extension(sessions): Extension<Sessions>,
    request: Request,
) -> Response {
    let options = Options::parse(query);
    let job = match options.command.is_empty() {
        true => Err(Refusal::new(StatusCode::BAD_REQUEST, "you must specify at least 1 command for the container")),
        false => job(&context, &sessions, &target, options.clone(), false),
    };
    serve(request, &options, job).await
}

/// `/attach/{namespace}/{pod}/{container}`
pub(super) async fn attach(
    State(context): State<Arc<Context>>,
    Path(target): Target,
    Query(query): Query<Vec<(String, String)>>,
    Extension(sessions): Extension<Sessions>,
    request: Request,
) -> Response {
    let options = Options::parse(query);
    let job = job(&context, &sessions, &target, options.clone(), true);
    serve(request, &options, job).await
}

async fn serve(request: Request, options: &Options, job: Result<Job, Refusal>) -> Response {
    if !(options.stdin || options.stdout || options.stderr) {
        let message = "you must specify at least 1 of stdin, stdout, stderr";
        return Refusal::new(StatusCode::BAD_REQUEST, message).into_response();
    }
    match Upgrade::of(request.headers()) {
        Upgrade::WebSocket => websocket::serve(request, job).await,
        Upgrade::Spdy => job.map_or_else(IntoResponse::into_response, |job| spdy::serve(request, job)),
        Upgrade::Nothing => Refusal::no_upgrade().into_response(),
    }
}

fn job(
    context: &Context,
    sessions: &Sessions,
    (namespace, pod, container): &(String, String, String),
    options: Options,
    attach: bool,
) -> Result<Job, Refusal> {
    let Some(view) = context.register.get(namespace, pod) else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "pod does not exist"));
    };
    let found = view.containers.get(container);
    let Some((found, id)) = found.and_then(|found| Some((found, found.running.clone()?))) else {
        let message = format!("container not found (\"{container}\")");
        return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message));
    };
    let attach = attach.then(|| {
        let specs = view.pod.spec.iter().flat_map(|spec| {
            spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|c| (&c.name, c.stdin_once))
        });
        let once = specs.filter(|(name, _)| *name == container).any(|(_, once)| once == Some(true));
        Attached { terminal: found.terminal, stdin: found.stdin, once: once && !found.terminal }
    });
    let Some(running) = sessions.begin(view.pod.metadata.uid.as_deref().unwrap_or_default()) else {
        let message = format!("pod \"{pod}\" has too many exec and attach sessions at this time");
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, message));
    };
    Ok(Job { view: view.clone(), id, options, attach, _running: running })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_from_the_query() {
        let parse = |pairs: &[(&str, &str)]| {
            Options::parse(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        let options = parse(&[("command", "sh"), ("command", "-c"), ("input", "1"), ("tty", "true"), ("error", "1")]);
        assert_eq!(options.command, ["sh", "-c"]);
        assert!(options.stdin && options.tty && !options.stdout);
        assert!(!options.stderr, "a terminal has no second output");
        assert!(parse(&[("error", "1")]).stderr);
    }
}
