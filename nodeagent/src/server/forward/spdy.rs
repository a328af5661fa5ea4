//! Forwarding over SPDY: for each connection the client opens two streams with the same request id, one for data and
//! one for what went wrong.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connect::PodPorts;
use crate::server::handshake;
use crate::server::spdy::{Incoming, MAX_STREAMS, Session, StreamReader, StreamWriter};

/// The protocol's name; also what a WebSocket carries with `SPDY/3.1+` in front.
pub(super) const PROTOCOL: &str = "portforward.k8s.io";
/// The second stream of a pair has to come within this time.
const PAIR: Duration = Duration::from_secs(30);
/// Pairs at one time, whether whole or half. A client frees a stream's place by resetting it; what is held for it here has to
/// have a limit of its own.
const MAX_PAIRS: usize = MAX_STREAMS / 2;
/// Longest name of a pair; clients count.
const MAX_REQUEST: usize = 256;
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
        if request.as_ref().is_some_and(|request| request.len() > MAX_REQUEST) {
            return None;
        }
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

/// The pairs that wait for their second stream.
#[derive(Default)]
struct Halves(HashMap<String, Half>);

impl Halves {
    /// Forgets those whose time is over or that the client has reset. Dropping a lonely stream resets it.
    fn sweep(&mut self) {
        let now = Instant::now();
        self.0.retain(|_, half| half.until > now && !half.stream.1.gone().is_cancelled());
    }

    /// Whether a stream of this purpose may come while so many pairs are whole.
    fn admit(&self, purpose: &Purpose, whole: usize) -> bool {
        match self.0.get(&purpose.request) {
            Some(half) => half.role != purpose.role,
            None => self.0.len() + whole < MAX_PAIRS,
        }
    }

    /// Both streams, data first, if this is the second one.
    fn add(&mut self, purpose: Purpose, stream: Both) -> Option<(Both, Both)> {
        match self.0.remove(&purpose.request) {
            None => {
                let half = Half { role: purpose.role, stream, until: Instant::now() + PAIR };
                self.0.insert(purpose.request, half);
                None
            }
            Some(other) if purpose.role == Role::Data => Some((stream, other.stream)),
            Some(other) => Some((other.stream, stream)),
        }
    }

    fn oldest(&self) -> Option<Instant> {
        self.0.values().map(|half| half.until).min()
    }
}

/// Serves a client's connections until it is gone.
pub(super) async fn run(io: impl AsyncRead + AsyncWrite + Send + 'static, ports: PodPorts) {
    let mut session = Session::start(io);
    let mut halves = Halves::default();
    // Ends with this function, and with it every connection.
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = session.accept() => stream,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            () = expired(halves.oldest()) => {
                halves.sweep();
                continue;
            }
        };
        let Some(stream) = stream else { break };
        halves.sweep();
        while connections.try_join_next().is_some() {}
        let Some(purpose) = Purpose::of(&stream).filter(|purpose| halves.admit(purpose, connections.len())) else {
            stream.refuse().await;
            continue;
        };
        let port = purpose.port;
        let Ok(stream) = stream.accept().await else { break };
        if let Some((data, error)) = halves.add(purpose, stream) {
            connections.spawn(forward(ports.clone(), port, data, error));
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

async fn forward(ports: PodPorts, port: u16, (from, mut to): Both, (_, mut error): Both) {
    let gone = to.gone();
    let work = async {
        match ports.connect(port).await {
            Err(message) => {
                tracing::debug!(%message, "port-forward");
                let _ = error.write(message.into()).await;
            }
            Ok(pod) => {
                let (read, write) = pod.into_split();
                tokio::select! {
                    () = download(read, &mut to) => {}
                    // The pod may go on sending after the client has finished.
                    () = upload(from, write) => {}
                }
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = gone.cancelled() => {}
    }
    let _ = to.finish().await;
    let _ = error.finish().await;
}

/// Passes the pod's answer on. A reset by the pod ends this connection alone.
async fn download(mut read: impl AsyncRead + Unpin, to: &mut StreamWriter) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match read.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) if to.write(buffer.split().freeze()).await.is_err() => return,
            Ok(_) => {}
        }
    }
}

/// Never ends: the answer may still be on its way when the pod takes nothing more. What the client sends then is read and
/// dropped, since its other streams come over the same connection.
async fn upload(mut from: StreamReader, mut write: impl AsyncWrite + Unpin) {
    let mut open = true;
    while let Some(bytes) = from.read().await {
        open = open && write.write_all(&bytes).await.is_ok();
    }
    if open {
        let _ = write.shutdown().await;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::server::spdy::tests::pair;

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
        let long: &'static str = "x".repeat(MAX_REQUEST + 1).leak();
        assert_eq!(purpose(1, &[("port", "80"), ("streamtype", "data"), ("requestid", long)]), None);
    }

    #[tokio::test]
    async fn what_is_held_of_pairs_has_a_limit() {
        let (mut session, mut peer) = pair();
        let mut halves = Halves::default();
        let total = 3 * u32::try_from(MAX_PAIRS).unwrap();
        for number in 0..total {
            let (id, request) = (1 + 2 * number, number.to_string());
            peer.open(id, &[("port", "80"), ("streamtype", "data"), ("requestid", &request)]).await;
            let stream = session.accept().await.unwrap();
            let purpose = Purpose::of(&stream).unwrap();
            assert!(halves.admit(&purpose, 0), "{number}");
            let both = stream.accept().await.unwrap();
            let gone = both.1.gone();
            assert!(halves.add(purpose, both).is_none());
            // The last one stays.
            if number + 1 < total {
                peer.reset(id).await;
                gone.cancelled().await;
                halves.sweep();
                assert!(halves.0.is_empty());
            }
        }
        let asks = |request: u32, role| Purpose { port: 80, role, request: request.to_string() };
        assert!(halves.admit(&asks(0, Role::Data), MAX_PAIRS - 2));
        assert!(!halves.admit(&asks(0, Role::Data), MAX_PAIRS - 1), "one is half, the others are whole");
        assert!(halves.admit(&asks(total - 1, Role::Error), MAX_PAIRS - 1), "a pair that becomes whole is no new one");
        assert!(!halves.admit(&asks(total - 1, Role::Data), 0));
    }

    #[tokio::test]
    async fn a_pod_that_takes_nothing_more_does_not_stop_the_other_streams() {
        let (mut session, mut peer) = pair();
        peer.open(1, &[]).await;
        let (reader, _writer) = session.accept().await.unwrap().accept().await.unwrap();
        let (write, closed) = tokio::io::duplex(64);
        drop(closed);
        let upload = tokio::spawn(upload(reader, write));
        for _ in 0..64 {
            peer.data(1, false, b"request").await;
        }
        peer.data(1, true, b"").await;
        peer.ping().await;
        assert!(!upload.is_finished(), "the answer has to come first");
        upload.abort();
    }

    #[test]
    fn pairs_of_old_clients_follow_from_the_order() {
        let error = purpose(5, &[("port", "80"), ("streamtype", "error")]).unwrap();
        let data = purpose(7, &[("port", "80"), ("streamtype", "data")]).unwrap();
        assert_eq!(error.request, data.request);
    }
}
