//! Sessions over SPDY: the client opens one stream for each of error, stdin, stdout, stderr and resize.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::{Deserializer, Value};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::ends::Size;
use super::session::{self, Channel, Client, Input, Output, Status};
use super::{Job, Options, websocket};
use crate::server::handshake;
use crate::server::spdy::{Session, StreamReader, StreamWriter};

const PROTOCOLS: [&str; 5] =
    ["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// The client has so long to open all its streams.
const STREAMS: Duration = Duration::from_secs(30);
/// Pieces of input that wait for the process to read.
const QUEUE: usize = 4;
/// More text without a whole size in it is nonsense.
const MAX_SIZE_TEXT: usize = 4096;

/// Answers the handshake.
pub(super) fn serve(request: Request, job: Job) -> Response {
    match handshake::negotiate(request.headers(), &PROTOCOLS) {
        Ok(protocol) => handshake::switch(request, protocol, move |io| run(io, job, protocol)),
        Err(response) => *response,
    }
}

/// Names of the streams that the client will open.
fn expected(options: &Options, resizes: bool) -> Vec<&'static str> {
    let all = [
        ("error", true),
        ("stdin", options.stdin),
        ("stdout", options.stdout),
        ("stderr", options.stderr),
        ("resize", options.tty && resizes),
    ];
    all.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect()
}

type Streams = BTreeMap<String, (StreamReader, StreamWriter)>;

async fn run(io: TokioIo<Upgraded>, job: Job, protocol: &'static str) {
    let mut session = Session::start(io);
    let plain = !matches!(protocol, "v5.channel.k8s.io" | "v4.channel.k8s.io");
    let resizes = !matches!(protocol, "v2.channel.k8s.io" | "channel.k8s.io");
    let expected = expected(&job.options, resizes);
    let Ok(Some(mut streams)) = tokio::time::timeout(STREAMS, open(&mut session, &expected)).await else {
        tracing::debug!(?expected, "a client has not opened its streams");
        return session.finish().await;
    };
    let closed = session.closed();
    let (input_sender, input) = mpsc::channel(QUEUE);
    let (size_sender, sizes) = mpsc::channel(QUEUE);
    // The other halves: nothing is ever written to what only the client writes to.
    let mut idle = Vec::new();
    let mut take = |name: &str| streams.remove(name);
    let mut tasks = tokio::task::JoinSet::new();
    let stdin = take("stdin").map(|(reader, writer)| {
        idle.push(writer);
        reader
    });
    tasks.spawn(read_input(stdin, input_sender, closed.clone()));
    if let Some((reader, writer)) = take("resize") {
        idle.push(writer);
        tasks.spawn(read_sizes(reader, size_sender));
    }
    let mut writer = |name: &str| take(name).map(|(_, writer)| writer);
    let output = Sender { stdout: writer("stdout"), stderr: writer("stderr"), error: writer("error"), plain };
    session::run(job, Client { input, sizes, output }, closed).await;
    for mut writer in idle {
        let _ = writer.finish().await;
    }
    session.finish().await;
}

/// Takes streams until all that are expected are there; `None` if the client is gone. Others are refused.
async fn open(session: &mut Session, expected: &[&str]) -> Option<Streams> {
    let mut streams = Streams::new();
    while streams.len() < expected.len() {
        let incoming = session.accept().await?;
        let name = incoming.headers.get("streamtype").cloned().unwrap_or_default();
        if !expected.contains(&name.as_str()) || streams.contains_key(&name) {
            incoming.refuse().await;
            continue;
        }
        streams.insert(name, incoming.accept().await.ok()?);
    }
    Some(streams)
}

/// Ends when the client is gone, and drops the sender only then.
async fn read_input(stdin: Option<StreamReader>, input: mpsc::Sender<Input>, closed: CancellationToken) {
    let reading = async {
        if let Some(mut stdin) = stdin {
            while let Some(data) = stdin.read().await {
                if input.send(Input::Data(data)).await.is_err() {
                    return;
                }
            }
            if !closed.is_cancelled() {
                let _ = input.send(Input::End).await;
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        () = reading => {}
        () = closed.cancelled() => {}
    }
}

async fn read_sizes(mut stream: StreamReader, sizes: mpsc::Sender<Size>) {
    let mut text = Vec::new();
    while let Some(bytes) = stream.read().await {
        text.extend_from_slice(&bytes);
        for size in take_sizes(&mut text) {
            if sizes.send(size).await.is_err() {
                return;
            }
        }
        if text.len() > MAX_SIZE_TEXT {
            return;
        }
    }
}

/// Sizes follow each other as JSON; what is not whole yet stays.
fn take_sizes(text: &mut Vec<u8>) -> Vec<Size> {
    let mut values = Deserializer::from_slice(text).into_iter::<Value>();
    let mut sizes = Vec::new();
    let mut broken = false;
    for value in values.by_ref() {
        match value {
            Ok(value) => sizes.extend(websocket::size(&value)),
            Err(error) => {
                broken = !error.is_eof();
                break;
            }
        }
    }
    let read = if broken { text.len() } else { values.byte_offset() };
    text.drain(..read);
    sizes
}

struct Sender {
    stdout: Option<StreamWriter>,
    stderr: Option<StreamWriter>,
    error: Option<StreamWriter>,
    plain: bool,
}

impl Output for Sender {
    async fn send(&mut self, channel: Channel, bytes: &[u8]) -> bool {
        let stream = if channel == Channel::Out { &mut self.stdout } else { &mut self.stderr };
        match stream {
            Some(stream) => stream.write(Bytes::copy_from_slice(bytes)).await.is_ok(),
            None => true,
        }
    }

    async fn finish(self, status: &Status) {
        for mut stream in [self.stdout, self.stderr].into_iter().flatten() {
            let _ = stream.finish().await;
        }
        if let Some(mut error) = self.error {
            let text = if self.plain { status.text() } else { status.json().to_string() };
            let _ = error.write(text.into()).await;
            let _ = error.finish().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_follow_from_the_options() {
        let options = Options { stdin: true, stdout: true, tty: true, ..Options::default() };
        assert_eq!(expected(&options, true), ["error", "stdin", "stdout", "resize"]);
        assert_eq!(expected(&options, false), ["error", "stdin", "stdout"]);
        assert_eq!(expected(&Options { stderr: true, ..Options::default() }, true), ["error", "stderr"]);
    }

    #[test]
    fn sizes_come_in_pieces() {
        let mut text = b"{\"Width\":80,\"Height\":24}\n{\"Width\":1".to_vec();
        assert_eq!(take_sizes(&mut text), [(80, 24)]);
        assert!(take_sizes(&mut text).is_empty());
        text.extend_from_slice(b"0,\"Height\":5}\n");
        assert_eq!(take_sizes(&mut text), [(10, 5)]);
        text = b"nonsense {\"Width\":1,\"Height\":1}".to_vec();
        assert!(take_sizes(&mut text).is_empty() && text.is_empty());
    }
}
