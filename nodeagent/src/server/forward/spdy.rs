//! Forwarding over SPDY: for each connection the client opens two streams with the same request id, one for data and
//! one for what went wrong.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connect::PodPorts;
use crate::server::handshake;
use crate::server::spdy::{Incoming, Session, StreamReader, StreamWriter};

/// The protocol's name; also what a WebSocket carries with `SPDY/3.1+` in front.
pub(super) const PROTOCOL: &str = "portforward.k8s.io";
/// The second stream of a pair has to come within this time.
const PAIR: Duration = Duration::from_secs(30);
const CHUNK: usize = 32 << 10;

/// Answers the handshake.
pub(super) fn serve(request: Request, ports: PodPorts) -> Response {
    match handshake::negotiate(request.headers(), &[PROTOCOL]) {
        Ok(protocol) => handshake::switch(request, protocol, move |io| run(io, ports)),
        Err(response) => *response,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Data,
    Error,
}

/// What a new stream is for.
#[derive(Debug, PartialEq, Eq)]
struct Purpose {
    port: u16,
    role: Role,
    request: String,
}

impl Purpose {
    /// `None` for streams that are refused.
    fn of(stream: &Incoming) -> Option<Purpose> {
        Purpose::read(stream.id, |name| stream.headers.get(name).map(String::as_str))
    }

    fn read<'a>(id: u32, header: impl Fn(&str) -> Option<&'a str>) -> Option<Purpose> {
        let port = header("port")?.parse().ok().filter(|port| *port > 0)?;
        let role = match header("streamtype")? {
            "data" => Role::Data,
            "error" => Role::Error,
            _ => return None,
        };
        let request = header("requestid").filter(|request| !request.is_empty()).map(str::to_owned);
        // Old clients open the error stream first and the data stream right after it.
        let first = if role == Role::Error { id } else { id.saturating_sub(2) };
        Some(Purpose { port, role, request: request.unwrap_or_else(|| first.to_string()) })
    }
}

type Both = (StreamReader, StreamWriter);

/// A pair of which one stream is there.
struct Half {
    role: Role,
    stream: Both,
    until: Instant,
}

/// Serves a client's connections until it is gone.
pub(super) async fn run(io: impl AsyncRead + AsyncWrite + Send + 'static, ports: PodPorts) {
    let mut session = Session::start(io);
    let mut halves: HashMap<String, Half> = HashMap::new();
    // Ends with this function, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        let oldest = halves.values().map(|half| half.until).min();
        let stream = tokio::select! {
            stream = session.accept() => stream,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            () = expired(oldest) => {
                // Dropping the lonely streams resets them.
                halves.retain(|_, half| half.until > Instant::now());
                continue;
            }
        };
        let Some(stream) = stream else { break };
        let Some(purpose) = Purpose::of(&stream) else {
            stream.refuse().await;
            continue;
        };
        if halves.get(&purpose.request).is_some_and(|half| half.role == purpose.role) {
            stream.refuse().await;
            continue;
        }
        let Ok(stream) = stream.accept().await else { break };
        match halves.remove(&purpose.request) {
            None => {
                let half = Half { role: purpose.role, stream, until: Instant::now() + PAIR };
                halves.insert(purpose.request, half);
            }
            Some(other) => {
                let (data, error) =
                    if purpose.role == Role::Data { (stream, other.stream) } else { (other.stream, stream) };
                connections.spawn(forward(ports.clone(), purpose.port, data, error));
            }
        }
    }
    connections.shutdown().await;
    session.finish().await;
}

async fn expired(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn forward(ports: PodPorts, port: u16, (mut from, mut to): Both, (_, mut error): Both) {
    match ports.connect(port).await {
        Err(message) => {
            tracing::debug!(%message, "port-forward");
            let _ = error.write(message.into()).await;
        }
        Ok(pod) => {
            let (mut read, write) = pod.into_split();
            let gone = to.gone();
            let upload = upload(&mut from, write);
            let download = async {
                let mut buffer = BytesMut::new();
                loop {
                    buffer.reserve(CHUNK);
                    match read.read_buf(&mut buffer).await {
                        // A reset by the pod ends this connection alone.
                        Ok(0) | Err(_) => return,
                        Ok(_) if to.write(buffer.split().freeze()).await.is_err() => return,
                        Ok(_) => {}
                    }
                }
            };
            tokio::select! {
                () = download => {}
                // The pod may go on sending after the client has finished.
                () = upload => {}
                () = gone.cancelled() => {}
            }
        }
    }
    let _ = to.finish().await;
    let _ = error.finish().await;
}

/// Ends only if the pod's side fails.
async fn upload(from: &mut StreamReader, mut write: OwnedWriteHalf) {
    while let Some(bytes) = from.read().await {
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
    let _ = write.shutdown().await;
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn purpose(id: u32, headers: &[(&str, &'static str)]) -> Option<Purpose> {
        Purpose::read(id, |name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
    }

    #[test]
    fn streams_say_what_they_are_for() {
        let data = purpose(7, &[("port", "80"), ("streamtype", "data"), ("requestid", "3")]).unwrap();
        assert_eq!(data, Purpose { port: 80, role: Role::Data, request: "3".into() });
        for wrong in ["0", "65536", "x", ""] {
            assert_eq!(purpose(1, &[("port", wrong), ("streamtype", "data")]), None, "{wrong}");
        }
        assert_eq!(purpose(1, &[("streamtype", "data")]), None);
        assert_eq!(purpose(1, &[("port", "80")]), None);
        assert_eq!(purpose(1, &[("port", "80"), ("streamtype", "stdin")]), None);
    }

    #[test]
    fn pairs_of_old_clients_follow_from_the_order() {
        let error = purpose(5, &[("port", "80"), ("streamtype", "error")]).unwrap();
        let data = purpose(7, &[("port", "80"), ("streamtype", "data")]).unwrap();
        assert_eq!(error.request, data.request);
    }
}
