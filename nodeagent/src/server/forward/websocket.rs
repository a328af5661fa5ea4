//! Forwarding over WebSocket: SPDY inside it, as kubectl does since 1.31, or `v4.channel.k8s.io`.
//!
//! In the latter the ports are part of the URL, and the n-th of them has channel 2n for data and 2n + 1 for errors. Both
//! begin with the port, in two bytes with the lower one first. `v5.portforward.trireme.io` is the same, and the client can
//! end its data: channel 255, then the channel that ends, as in `v5.channel.k8s.io` of exec. trictl asks for it, so that
//! programs may close one direction. It has a name of its own since upstream forwards no ports in `v5.channel.k8s.io`:
//! clients that offer it to every server do not expect the pod to see an end that they have not sent.

use std::io;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::SplitStream;
use futures::{SinkExt, StreamExt, future};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::connect::PodPorts;
use super::spdy;
use crate::server::handshake::{Refusal, offered};
use crate::server::sessions::Place;

const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: [&str; 2] = ["v5.portforward.trireme.io", "v4.channel.k8s.io"];
/// The channel that tells which one ends.
const CLOSE: u8 = 255;
/// Longest message; clients send some kilobytes.
const MAX_MESSAGE: usize = 16 << 20;
/// As many as there are channels for.
const MAX_PORTS: usize = 127;
/// Messages that wait for a port, or to be sent.
const QUEUE: usize = 8;
const CHUNK: usize = 32 << 10;

/// Answers a WebSocket's handshake.
pub(super) async fn serve(request: Request, query: &[(String, String)], ports: PodPorts) -> Response {
    let (mut parts, _) = request.into_parts();
    let tunnel = offered(&parts.headers).iter().any(|protocol| protocol == TUNNEL);
    let wanted = match wanted(query) {
        Ok(wanted) => wanted,
        // The ports of a tunnel come later, with its streams.
        Err(_) if tunnel => Vec::new(),
        Err(message) => return Refusal::new(StatusCode::BAD_REQUEST, message).into_response(),
    };
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade.max_message_size(MAX_MESSAGE),
        Err(rejection) => return rejection.into_response(),
    };
    let place = Place::of(&parts.extensions);
    match tunnel {
        true => upgrade.protocols([TUNNEL]).on_upgrade(move |socket| async move {
            let _place = place;
            tunnelled(socket, ports).await;
        }),
        false => upgrade.protocols(CHANNELS).on_upgrade(move |socket| async move {
            let _place = place;
            channels(socket, wanted, ports).await;
        }),
    }
}

fn wanted(query: &[(String, String)]) -> Result<Vec<u16>, String> {
    let texts: Vec<&str> = query.iter().filter(|(key, _)| key == "port").map(|(_, value)| value.as_str()).collect();
    if texts.is_empty() {
        return Err("query parameter \"port\" is required".to_owned());
    }
    let mut ports = Vec::new();
    for text in texts {
        if text.is_empty() {
            return Err("query parameter \"port\" cannot be empty".to_owned());
        }
        for port in text.split(',') {
            match port.parse() {
                Ok(0) => return Err(format!("port {text:?} must be > 0")),
                Ok(port) => ports.push(port),
                Err(_) => return Err(format!("unable to parse {text:?} as a port: {port:?} is not one")),
            }
        }
    }
    match ports.len() {
        0..=MAX_PORTS => Ok(ports),
        count => Err(format!("{count} ports are too many")),
    }
}

/// The messages' contents, one after the other, are a SPDY connection.
async fn tunnelled(socket: WebSocket, ports: PodPorts) {
    let (sink, stream) = socket.split();
    let bytes = stream.filter_map(|message| {
        future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(Message::Text(text)) => Some(Ok(Bytes::from(text))),
            Ok(_) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    let sink = sink
        .sink_map_err(io::Error::other)
        .with(|bytes: Bytes| future::ready(Ok::<_, io::Error>(Message::Binary(bytes))));
    let io = tokio::io::join(StreamReader::new(Box::pin(bytes)), SinkWriter::new(CopyToBytes::new(Box::pin(sink))));
    spdy::run(io, ports).await;
}

/// One connection for each port, from the beginning.
async fn channels(socket: WebSocket, wanted: Vec<u16>, ports: PodPorts) {
    let (mut sink, stream) = socket.split();
    let (out, mut messages) = mpsc::channel(QUEUE);
    let mut inboxes = Vec::new();
    let mut tasks = JoinSet::new();
    for (index, port) in wanted.into_iter().enumerate() {
        let (sender, inbox) = mpsc::channel(QUEUE);
        inboxes.push(Some(sender));
        let channel = u8::try_from(index * 2).unwrap_or(u8::MAX);
        tasks.spawn(connection(ports.clone(), port, channel, inbox, out.clone()));
    }
    drop(out);
    let sending = async {
        // Ends when the last connection has.
        while let Some(message) = messages.recv().await {
            if sink.send(Message::Binary(message)).await.is_err() {
                return;
            }
        }
        let end = CloseFrame { code: close_code::NORMAL, reason: "".into() };
        let _ = sink.send(Message::Close(Some(end))).await;
    };
    tokio::select! {
        () = sending => {}
        () = receive(stream, inboxes) => {}
    }
    tasks.shutdown().await;
}

/// Hands on what the client sends, until it is gone.
async fn receive(mut stream: SplitStream<WebSocket>, mut inboxes: Vec<Option<mpsc::Sender<Bytes>>>) {
    while let Some(Ok(message)) = stream.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        let Some((channel, data)) = bytes.first().copied().map(|channel| (channel, bytes.slice(1..))) else { continue };
        if let (CLOSE, [ended]) = (channel, &data[..]) {
            inboxes
                .get_mut(usize::from(ended / 2))
                .filter(|_| ended % 2 == 0)
                .into_iter()
                .for_each(|inbox| *inbox = None);
            continue;
        }
        let Some(inbox) = inboxes.get_mut(usize::from(channel / 2)).filter(|_| channel % 2 == 0) else { continue };
        if let Some(sender) = inbox
            && sender.send(data).await.is_err()
        {
            *inbox = None;
        }
    }
}

fn message(channel: u8, bytes: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(channel);
    message.extend_from_slice(bytes);
    message.into()
}

async fn connection(ports: PodPorts, port: u16, channel: u8, inbox: mpsc::Receiver<Bytes>, out: mpsc::Sender<Bytes>) {
    for number in [channel, channel + 1] {
        let _ = out.send(message(number, &port.to_le_bytes())).await;
    }
    let pod = match ports.connect(port).await {
        Ok(pod) => pod,
        Err(text) => {
            let _ = out.send(message(channel + 1, text.as_bytes())).await;
            return;
        }
    };
    let (read, write) = pod.into_split();
    exchange(channel, (read, write), inbox, &out).await;
}

/// Passes bytes both ways until the pod has sent its last.
async fn exchange(
    channel: u8,
    (mut read, mut write): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    mut inbox: mpsc::Receiver<Bytes>,
    out: &mpsc::Sender<Bytes>,
) {
    // Never ends: when the pod takes nothing more, its answer may still be on its way. What the client sends then is dropped.
    let upload = async {
        let mut open = true;
        while let Some(bytes) = inbox.recv().await {
            open = open && write.write_all(&bytes).await.is_ok();
        }
        if open {
            let _ = write.shutdown().await;
        }
        std::future::pending().await
    };
    let download = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            if out.send(message(channel, &buffer[..length])).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = download => {}
        () = upload => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn an_answer_is_read_to_its_end_when_the_pod_takes_nothing_more() {
        let (read, mut pod) = tokio::io::duplex(1024);
        // Whoever writes here finds the other side closed.
        let (write, closed) = tokio::io::duplex(1024);
        drop(closed);
        let (sender, inbox) = mpsc::channel(QUEUE);
        let (out, mut messages) = mpsc::channel(QUEUE);
        let exchange = tokio::spawn(async move { exchange(2, (read, write), inbox, &out).await });
        for _ in 0..3 * QUEUE {
            sender.send("request".into()).await.unwrap();
        }
        pod.write_all(b"413").await.unwrap();
        drop(pod);
        assert_eq!(messages.recv().await.unwrap(), message(2, b"413"));
        assert_eq!(messages.recv().await, None);
        exchange.await.unwrap();
    }

    #[test]
    fn ports_come_from_the_query() {
        let ask = |values: &[&str]| {
            let query: Vec<_> = values.iter().map(|value| ("port".to_owned(), (*value).to_owned())).collect();
            wanted(&query)
        };
        assert_eq!(ask(&["80", "81,82"]), Ok(vec![80, 81, 82]));
        assert_eq!(ask(&[]).unwrap_err(), "query parameter \"port\" is required");
        assert_eq!(ask(&[""]).unwrap_err(), "query parameter \"port\" cannot be empty");
        assert_eq!(ask(&["0"]).unwrap_err(), "port \"0\" must be > 0");
        assert!(ask(&["http"]).unwrap_err().starts_with("unable to parse \"http\" as a port"));
        assert!(ask(&["1"; 128]).is_err());
    }
}
