//! Sessions over WebSocket.
//!
//! Each message begins with a channel: 0 stdin, 1 stdout, 2 stderr, 3 the final status, 4 the terminal's size, and in
//! version 5 255 closes the channel that follows. The protocols of browsers have the channel as a digit and the rest
//! in base64.

use std::collections::VecDeque;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt, Stream, StreamExt};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Job;
use super::ends::Size;
use super::session::{self, Channel, Client, Input, Output, Status};
use crate::server::handshake::{Refusal, offered};
use crate::server::sessions::Place;

const V5: &str = "v5.channel.k8s.io";
const PROTOCOLS: [&str; 5] =
    [V5, "v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];
/// Longest message; clients send some kilobytes.
const MAX_MESSAGE: usize = 16 << 20;
/// Messages that wait for the process to read.
const QUEUE: usize = 4;
/// Bytes that are kept beyond these while the process does not read, but for the last message.
const MAX_HELD: usize = 1 << 20;

/// What differs between the protocols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Dialect {
    base64: bool,
    /// The final status is a text, and none for success.
    plain: bool,
    closes: bool,
}

impl Dialect {
    fn of(protocol: &str) -> Dialect {
        Dialect { base64: protocol.contains("base64"), plain: !protocol.starts_with('v'), closes: protocol == V5 }
    }

    fn encode(self, channel: u8, bytes: &[u8]) -> Message {
        if self.base64 {
            return Message::Text(format!("{channel}{}", STANDARD.encode(bytes)).into());
        }
        let mut message = Vec::with_capacity(bytes.len() + 1);
        message.push(channel);
        message.extend_from_slice(bytes);
        Message::Binary(message.into())
    }

    /// The channel and the rest of a message.
    fn decode(self, message: Bytes) -> Option<(u8, Bytes)> {
        let channel = *message.first()?;
        let rest = message.slice(1..);
        if self.base64 {
            return Some((channel.checked_sub(b'0')?, STANDARD.decode(&rest).ok()?.into()));
        }
        Some((channel, rest))
    }
}

/// Answers a WebSocket's handshake.
///
/// Clients of version 5 get a refusal as the session's status, as upstream's API server gives it to them; kubectl would
/// try SPDY after a failed handshake.
pub(super) async fn serve(request: Request, job: Result<Job, Refusal>) -> Response {
    let (mut parts, _) = request.into_parts();
    let offered = offered(&parts.headers);
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade.protocols(PROTOCOLS).max_message_size(MAX_MESSAGE),
        Err(rejection) => return rejection.into_response(),
    };
    if !offered.is_empty() && !offered.iter().any(|offer| PROTOCOLS.contains(&offer.as_str())) {
        let (wanted, all) = (offered.join(" "), PROTOCOLS.join(" "));
        let message = format!("requested protocol(s) are not supported: [{wanted}]; supports [{all}]");
        return Refusal::new(StatusCode::FORBIDDEN, message).into_response();
    }
    let place = Place::of(&parts.extensions);
    match job {
        Ok(job) => upgrade.on_upgrade(move |socket| async move {
            let _place = place;
            run(socket, job).await;
        }),
        Err(refusal) if offered.iter().any(|offer| offer == V5) => upgrade.on_upgrade(move |socket| async move {
            let _place = place;
            let (sink, _) = socket.split();
            let status = Status::Failed(format!("unable to upgrade connection: {}", refusal.message));
            Sender { sink, dialect: Dialect::of(V5) }.finish(&status).await;
        }),
        Err(refusal) => refusal.into_response(),
    }
}

async fn run(socket: WebSocket, job: Job) {
    let protocol = socket.protocol().and_then(|value| value.to_str().ok()).unwrap_or("channel.k8s.io").to_owned();
    let dialect = Dialect::of(&protocol);
    let (sink, stream) = socket.split();
    let (input_sender, input) = mpsc::channel(QUEUE);
    let (size_sender, sizes) = mpsc::channel(QUEUE);
    let gone = CancellationToken::new();
    let reading = tokio::spawn(read(stream, dialect, input_sender, size_sender, gone.clone()));
    session::run(job, Client { input, sizes, output: Sender { sink, dialect } }, gone).await;
    reading.abort();
}

struct Sender {
    sink: SplitSink<WebSocket, Message>,
    dialect: Dialect,
}

impl Output for Sender {
    async fn send(&mut self, channel: Channel, bytes: &[u8]) -> bool {
        let number = if channel == Channel::Out { 1 } else { 2 };
        self.sink.send(self.dialect.encode(number, bytes)).await.is_ok()
    }

    async fn finish(mut self, status: &Status) {
        let text = if self.dialect.plain { status.text() } else { status.json().to_string() };
        if !text.is_empty() {
            let _ = self.sink.send(self.dialect.encode(3, text.as_bytes())).await;
        }
        // kubectl takes an end without this code for an error.
        let end = Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: "".into() }));
        let _ = self.sink.send(end).await;
        let _ = self.sink.close().await;
    }
}

/// Takes what the client sends, until it is `gone`. That has to be noticed also while the process does not read: so some of
/// what comes is kept.
async fn read(
    mut stream: impl Stream<Item = Result<Message, axum::Error>> + Unpin,
    dialect: Dialect,
    input: mpsc::Sender<Input>,
    sizes: mpsc::Sender<Size>,
    gone: CancellationToken,
) {
    let (mut waiting, mut held) = (VecDeque::new(), 0);
    loop {
        let message = tokio::select! {
            permit = input.reserve(), if !waiting.is_empty() => match (permit, waiting.pop_front()) {
                (Ok(permit), Some(first)) => {
                    held -= weight(&first);
                    permit.send(first);
                    continue;
                }
                _ => return,
            },
            message = stream.next(), if held < MAX_HELD => message,
        };
        let bytes: Bytes = match message {
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Text(text))) => text.into(),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Close(_)) | Err(_)) | None => break,
        };
        let next = match dialect.decode(bytes) {
            Some((0, data)) if !data.is_empty() => Input::Data(data),
            Some((255, channel)) if dialect.closes && channel[..] == [0] => Input::End,
            Some((4, size)) => {
                if let Some(size) = serde_json::from_slice(&size).ok().and_then(|size| self::size(&size))
                    && sizes.send(size).await.is_err()
                {
                    return;
                }
                continue;
            }
            _ => continue,
        };
        held += weight(&next);
        waiting.push_back(next);
    }
    gone.cancel();
    for input_left in waiting {
        if input.send(input_left).await.is_err() {
            return;
        }
    }
}

/// What keeping it costs, about.
fn weight(input: &Input) -> usize {
    match input {
        Input::Data(bytes) => bytes.len() + 64,
        Input::End => 64,
    }
}

/// A terminal's size as clients send it.
pub(super) fn size(value: &Value) -> Option<Size> {
    let side = |name: &str| u16::try_from(value.get(name)?.as_u64()?).ok();
    Some((side("Width")?, side("Height")?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn messages_of_all_dialects() {
        let binary = Dialect::of(V5);
        assert!(binary.closes && !binary.plain);
        assert_eq!(binary.encode(1, b"hi"), Message::Binary(b"\x01hi".to_vec().into()));
        assert_eq!(binary.decode(Bytes::from_static(b"\0hi")), Some((0, "hi".into())));
        assert_eq!(binary.decode(Bytes::new()), None);
        let text = Dialect::of("base64.channel.k8s.io");
        assert!(text.plain && !text.closes);
        assert_eq!(text.encode(1, b"hi"), Message::Text("1aGk=".into()));
        assert_eq!(text.decode("0aGk=".into()), Some((0, "hi".into())));
        assert_eq!(text.decode("0!".into()), None);
        assert!(!Dialect::of("v4.base64.channel.k8s.io").plain);
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_noticed_while_nobody_reads() {
        let ((input, mut kept), (sizes, _sizes)) = (mpsc::channel(1), mpsc::channel(1));
        let messages = (0..8).map(|_| Ok(Message::Binary(Bytes::from_static(b"\0data")))).collect::<Vec<_>>();
        let gone = CancellationToken::new();
        let reading = read(futures::stream::iter(messages), Dialect::of(V5), input, sizes, gone.clone());
        let reading = tokio::spawn(reading);
        tokio::time::timeout(std::time::Duration::from_secs(5), gone.cancelled()).await.unwrap();
        // What it has sent is not lost.
        for _ in 0..8 {
            assert_eq!(kept.recv().await, Some(Input::Data("data".into())));
        }
        assert_eq!(kept.recv().await, None);
        reading.await.unwrap();
    }

    #[tokio::test]
    async fn all_input_comes_through_in_order() {
        let ((input, mut got), (sizes, _sizes)) = (mpsc::channel(1), mpsc::channel(1));
        let (mut client, messages) = futures::channel::mpsc::channel(0);
        let reading = tokio::spawn(read(messages, Dialect::of(V5), input, sizes, CancellationToken::new()));
        // More than is kept: the client has to wait for the process.
        let piece = Bytes::from([&[0][..], &vec![7; 300 << 10]].concat());
        let sending = tokio::spawn(async move {
            for _ in 0..20 {
                client.send(Ok(Message::Binary(piece.clone()))).await.unwrap();
            }
            client.send(Ok(Message::Binary(Bytes::from_static(&[255, 0])))).await.unwrap();
            client
        });
        let mut length = 0;
        while let Some(Input::Data(data)) = got.recv().await {
            length += data.len();
        }
        assert_eq!(length, 20 * (300 << 10));
        drop(sending.await.unwrap());
        reading.await.unwrap();
    }

    #[test]
    fn sizes_have_both_sides() {
        assert_eq!(size(&serde_json::json!({"Width": 80, "Height": 24})), Some((80, 24)));
        assert_eq!(size(&serde_json::json!({"Width": 80})), None);
        assert_eq!(size(&serde_json::json!({"Width": 99999, "Height": 1})), None);
    }
}
