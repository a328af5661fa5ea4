//! Connections to the other members: made when needed, kept, and made anew when they break.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;

use super::{FROM_HEADER, LANE_HEADER, LINEAGE_HEADER, SUCCESSION_HEADER, TO_HEADER};
use crate::codec;
use crate::simulation::Network;
use crate::types::MemberId;

/// Body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Longest answer that is not a stream.
const MAX_ANSWER: usize = 64 << 20;
/// Flow-control windows, large enough that a stream is not held up by round trips.
const WINDOW: u32 = 8 << 20;
/// For how long answers to given-up requests are expected. Measured by the machine's clock also in a simulation, where nothing
/// takes as long by that.
const LATE_ANSWERS: Duration = Duration::from_secs(60);

/// Kinds of traffic, each with a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Heartbeats and votes.
    Control,
    /// Entries.
    Append,
    /// Snapshots.
    Snapshot,
    /// Writes, reads and membership on the way to the leader.
    Forward,
}

impl Lane {
    /// How a request tells which lane it is on.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Append => "append",
            Self::Snapshot => "snapshot",
            Self::Forward => "forward",
        }
    }
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// It was surely not sent.
    #[error("cannot reach {address}: {reason}")]
    NotSent { address: String, reason: String },
    /// It may have been received.
    #[error("no answer from {address}: {reason}")]
    Lost { address: String, reason: String },
    /// The member refused it before acting on it.
    #[error("{address} refused: {status} {reason}")]
    Refused { address: String, status: StatusCode, reason: String },
}

/// One connection, or none at the moment.
#[derive(Default)]
struct Held {
    sender: Option<SendRequest<Body>>,
    /// When the last attempt failed, and why.
    failure: Option<(Instant, String)>,
}

/// Locked while connecting, so that all who wait share the attempt.
type Slot = Arc<tokio::sync::Mutex<Held>>;

/// What a member says whose lineage follows this one.
#[derive(Clone, Debug)]
pub(crate) struct Superseded {
    pub(crate) why: String,
    /// How long its lineage had lasted when it said so.
    pub(crate) age: Duration,
    /// When that was.
    pub(crate) heard: Instant,
}

impl Superseded {
    /// Whether its lineage was there already when something began here.
    pub(crate) fn was_before(&self, began: Instant) -> bool {
        self.heard.saturating_duration_since(began) <= self.age
    }
}

/// How connections come about.
#[derive(Clone)]
pub(crate) enum Road {
    /// TLS over TCP.
    Tls(Arc<ClientConfig>),
    /// What a simulation connects.
    Simulated(Arc<dyn Network>),
}

/// All connections of this member to others.
#[derive(Clone)]
pub(crate) struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    id: MemberId,
    lineage: String,
    road: Road,
    connect_timeout: Duration,
    runtime: tokio::runtime::Handle,
    slots: Mutex<HashMap<(String, Lane), Slot>>,
    /// What a member said whose lineage follows this one.
    superseded: watch::Sender<Option<Superseded>>,
}

/// Whom to talk to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) id: MemberId,
    pub(crate) address: String,
}

impl Peers {
    pub(crate) fn new(
        id: MemberId,
        lineage: &str,
        road: Road,
        connect_timeout: Duration,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let (lineage, slots) = (lineage.to_owned(), Mutex::default());
        let superseded = watch::Sender::new(None);
        Self { inner: Arc::new(Inner { id, lineage, road, connect_timeout, runtime, slots, superseded }) }
    }

    /// Sends a message and waits for its answer.
    pub(crate) async fn call<M: Serialize, R: DeserializeOwned>(
        &self,
        target: &Target,
        lane: Lane,
        path: &str,
        message: &M,
        timeout: Duration,
    ) -> Result<R, PeerError> {
        let body = Full::new(Bytes::from(codec::encode(message))).map_err(|never| match never {}).boxed_unsync();
        let lost = |reason: String| PeerError::Lost { address: target.address.clone(), reason };
        let answer = async {
            let response = self.send(target, lane, path, body).await?;
            let bytes = collect(response.into_body()).await.map_err(lost)?;
            codec::decode(&bytes).map_err(|e| lost(e.to_string()))
        };
        match tokio::time::timeout(timeout, answer).await {
            Ok(result) => result,
            Err(_) => Err(lost(format!("nothing within {timeout:?}"))),
        }
    }

    /// Whether the process that listened on the address is gone: its host answers that nobody listens. Silence is no
    /// proof of anything, nor is a connection that comes about.
    pub(crate) async fn refuses(&self, target: &Target) -> bool {
        // The kernel closes a dying process's files one after another, so the first answer may come too early.
        for pause in [0, 2, 5, 15, 40] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let connecting = self.knock(&target.address);
            match tokio::time::timeout(Duration::from_millis(100), connecting).await {
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => return true,
                Ok(Ok(())) => {}
                _ => return false,
            }
        }
        false
    }

    /// Sends a request with a body of any kind; returns once the answer begins.
    pub(crate) async fn send(
        &self,
        target: &Target,
        lane: Lane,
        path: &str,
        body: Body,
    ) -> Result<Response<Incoming>, PeerError> {
        let address = &target.address;
        let mut sender = self.connection(target, lane).await?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("https://{address}{path}"))
            .header(LINEAGE_HEADER, &self.inner.lineage)
            .header(FROM_HEADER, self.inner.id)
            .header(TO_HEADER, target.id)
            .header(LANE_HEADER, lane.name())
            .body(body);
        let not_sent = |reason: String| PeerError::NotSent { address: address.clone(), reason };
        let request = request.map_err(|e| not_sent(e.to_string()))?;
        let response = sender.try_send_request(request).await.map_err(|mut error| {
            let reason = error.error().to_string();
            match error.take_message() {
                Some(_) => not_sent(reason),
                None => PeerError::Lost { address: address.clone(), reason },
            }
        })?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let succeeded = response.headers().get(SUCCESSION_HEADER).and_then(|at| at.to_str().ok()?.parse().ok());
        let reason = collect(response.into_body()).await.unwrap_or_default();
        let reason = String::from_utf8_lossy(&reason).into_owned();
        if let (StatusCode::CONFLICT, Some(ago)) = (status, succeeded) {
            let (why, age) = (format!("{address} says: {reason}"), Duration::from_millis(ago));
            self.inner.superseded.send_replace(Some(Superseded { why, age, heard: Instant::now() }));
        }
        Err(PeerError::Refused { address: address.clone(), status, reason })
    }

    /// The lineage of this member.
    pub(crate) fn lineage(&self) -> &str {
        &self.inner.lineage
    }

    /// What members say whose lineage follows this one.
    pub(crate) fn superseded(&self) -> watch::Receiver<Option<Superseded>> {
        self.inner.superseded.subscribe()
    }

    /// Gives the connection up: it does not answer any more, and a new one may.
    pub(crate) fn forget(&self, target: &Target, lane: Lane) {
        self.inner.slots.lock().remove(&(target.address.clone(), lane));
    }

    async fn connection(&self, target: &Target, lane: Lane) -> Result<SendRequest<Body>, PeerError> {
        let (asked, key) = (Instant::now(), (target.address.clone(), lane));
        let slot = self.inner.slots.lock().entry(key).or_default().clone();
        // Who loses patience here leaves nothing behind.
        let held = slot.lock_owned().await;
        if let Some(sender) = held.sender.as_ref().filter(|s| !s.is_closed()) {
            return Ok(sender.clone());
        }
        let not_sent = |reason: String| PeerError::NotSent { address: target.address.clone(), reason };
        if let Some((_, reason)) = held.failure.as_ref().filter(|(at, _)| *at > asked) {
            return Err(not_sent(reason.clone()));
        }
        // A task of its own: who asked may have less patience than a handshake takes on a busy machine, and the next
        // one should find it done.
        let (peers, address) = (self.clone(), target.address.clone());
        let connecting = self.inner.runtime.spawn(async move { peers.attempt(held, &address).await });
        connecting.await.unwrap_or_else(|e| Err(e.to_string())).map_err(not_sent)
    }

    /// Connects, once; those who wait for the slot meanwhile find what came of it.
    async fn attempt(&self, mut held: OwnedMutexGuard<Held>, address: &str) -> Result<SendRequest<Body>, String> {
        *held = Held::default();
        let timeout = self.inner.connect_timeout;
        let connected = match tokio::time::timeout(timeout, self.connect(address)).await {
            Ok(connected) => connected.map_err(|e| e.to_string()),
            Err(_) => Err(format!("no connection within {timeout:?}")),
        };
        match &connected {
            Ok(sender) => held.sender = Some(sender.clone()),
            Err(reason) => held.failure = Some((Instant::now(), reason.clone())),
        }
        connected
    }

    /// Whether anybody listens.
    async fn knock(&self, address: &str) -> std::io::Result<()> {
        match &self.inner.road {
            Road::Tls(_) => TcpStream::connect(address).await.map(drop),
            Road::Simulated(network) => network.connect(address.to_owned()).await.map(drop),
        }
    }

    async fn connect(&self, address: &str) -> std::io::Result<SendRequest<Body>> {
        let tls = match &self.inner.road {
            Road::Tls(tls) => tls.clone(),
            Road::Simulated(network) => return self.speak(network.connect(address.to_owned()).await?, address).await,
        };
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        let tls = tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await?;
        self.speak(tls, address).await
    }

    /// Begins HTTP on a connection.
    async fn speak(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: &str,
    ) -> std::io::Result<SendRequest<Body>> {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW)
            .max_frame_size(1 << 20)
            .reset_stream_duration(LATE_ANSWERS)
            // A peer that vanished without closing is noticed by its silence. Heartbeats notice sooner.
            .keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2))
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(std::io::Error::other)?;
        let address = address.to_owned();
        self.inner.runtime.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "connection to a peer ended");
            }
        });
        Ok(sender)
    }
}

async fn collect(body: Incoming) -> Result<Bytes, String> {
    let whole = Limited::new(body, MAX_ANSWER).collect().await;
    whole.map(|b| b.to_bytes()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::net::TcpListener;

    use super::*;
    use crate::network::tls::PeerTlsConfig;
    use crate::network::wire::{HelloReply, path};
    use crate::store::tests_tls::Ca;

    /// No two machines' clocks are compared: one that is slow changes nothing.
    #[test]
    fn ages_tell_which_was_there_first() {
        let began = Instant::now();
        let heard = began + Duration::from_secs(10);
        let of = |seconds| Superseded { why: String::new(), age: Duration::from_secs(seconds), heard };
        assert!(of(11).was_before(began) && of(10).was_before(began));
        assert!(!of(9).was_before(began), "somebody recovered while this member ran");
    }

    #[tokio::test]
    async fn attempts_at_a_silent_peer_do_not_pile_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target { id: 2, address: listener.local_addr().unwrap().to_string() };
        let attempts = Arc::new(AtomicUsize::new(0));
        let counter = attempts.clone();
        let silent = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                open.push(stream);
            }
        });
        let client = PeerTlsConfig::new(&Ca::new().member("a")).unwrap().client;
        let peers = Peers::new(1, "l", Road::Tls(client), Duration::from_secs(1), tokio::runtime::Handle::current());
        let ask = |patience: Duration| {
            let (peers, target) = (peers.clone(), target.clone());
            async move { peers.call::<_, HelloReply>(&target, Lane::Control, path::HELLO, &(), patience).await }
        };
        for answer in join_all((0..30).map(|_| ask(Duration::from_millis(20)))).await {
            assert!(matches!(&answer, Err(PeerError::Lost { .. })), "{answer:?}");
        }
        // The attempt goes on without those who asked for it, and its failure is everybody's.
        for answer in join_all((0..10).map(|_| ask(Duration::from_secs(60)))).await {
            assert!(matches!(&answer, Err(PeerError::NotSent { .. })), "{answer:?}");
        }
        let made = attempts.load(Ordering::SeqCst);
        assert!((1..=2).contains(&made), "{made} attempts");
        // Who asks later gets a new one.
        assert!(ask(Duration::from_secs(60)).await.is_err());
        assert!(attempts.load(Ordering::SeqCst) > made);
        silent.abort();
    }
}
