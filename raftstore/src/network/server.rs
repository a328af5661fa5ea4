//! The peer server: what other members ask of this one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body_util::BodyExt;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use openraft::raft::{AppendEntriesRequest, VoteResponse};
use openraft::{Snapshot, SnapshotMeta};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::frames::{FrameReader, frame};
use super::incoming::Incoming;
use super::peers::Lane;
use super::wire::*;
use super::{FROM_HEADER, LANE_HEADER, LINEAGE_HEADER, SUCCESSION_HEADER, TO_HEADER, snapshots};
use crate::codec;
use crate::consensus::{TypeConfig, convert};
use crate::simulation::{AnyConnection, Environment, Listener, blocking};
use crate::storage::records::VoteRecord;
use crate::storage::snapshot;
use crate::store::node::Node;

/// Connections at one time.
const MAX_CONNECTIONS: usize = 512;
/// Longest message that is not a stream.
const MAX_MESSAGE: usize = 64 << 20;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const WINDOW: u32 = 8 << 20;
/// How long one transfer of a snapshot may take to make room for another.
const HAND_OVER: Duration = Duration::from_secs(2);

/// Answer to a snapshot that is damaged: the sender should look at its own state.
pub(crate) const DAMAGED: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

type Shared = State<Arc<Node>>;

/// An answer that is not one: what and why.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

fn broken(error: impl std::fmt::Display) -> Refusal {
    Refusal(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

type Answer = Result<Response, Refusal>;

fn answer<T: Serialize>(reply: &T) -> Answer {
    Ok(codec::encode(reply).into_response())
}

async fn message<T: DeserializeOwned>(request: Request) -> Result<T, Refusal> {
    let body = axum::body::to_bytes(request.into_body(), MAX_MESSAGE).await;
    let body = body.map_err(|e| Refusal(StatusCode::BAD_REQUEST, e.to_string()))?;
    codec::decode(&body).map_err(|e| Refusal(StatusCode::BAD_REQUEST, e.to_string()))
}

/// Where peers come in.
pub(crate) enum Door {
    /// TLS over TCP.
    Tls(TcpListener, TlsAcceptor),
    /// What a simulation lets in.
    Simulated(Box<dyn Listener>),
}

/// Somebody at the door.
enum Guest {
    Tls(TcpStream, TlsAcceptor),
    Simulated(AnyConnection),
}

impl Door {
    /// Listens on an address.
    pub(crate) async fn open(
        address: SocketAddr,
        tls: Option<Arc<rustls::ServerConfig>>,
        environment: &Environment,
    ) -> std::io::Result<Self> {
        match (environment.network(), tls) {
            (Some(network), _) => Ok(Self::Simulated(network.listen(address).await?)),
            (None, Some(tls)) => Ok(Self::Tls(TcpListener::bind(address).await?, TlsAcceptor::from(tls))),
            (None, None) => Err(std::io::Error::other("no certificate")),
        }
    }

    async fn accept(&mut self) -> std::io::Result<Guest> {
        match self {
            Self::Tls(listener, acceptor) => {
                let (stream, _) = listener.accept().await?;
                Ok(Guest::Tls(stream, acceptor.clone()))
            }
            Self::Simulated(listener) => listener.accept().await.map(Guest::Simulated),
        }
    }
}

/// Serves peers until the member stops.
pub(crate) async fn serve(node: Arc<Node>, mut door: Door) {
    let router = router(node.clone());
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match door.accept().await {
            Ok(guest) => {
                let router = router.clone();
                node.spawn(async move {
                    if let Err(error) = connection(guest, router).await {
                        tracing::debug!(%error, "peer connection ended");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a peer");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(guest: Guest, router: Router) -> std::io::Result<()> {
    match guest {
        Guest::Tls(stream, acceptor) => {
            stream.set_nodelay(true)?;
            speak(tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??, router).await
        }
        Guest::Simulated(stream) => speak(stream, router).await,
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) -> std::io::Result<()> {
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .max_frame_size(1 << 20)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        // Nobody reads it, and it is the only thing on the way between members that depends on the time of day.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
        .map_err(std::io::Error::other)
}

fn router(node: Arc<Node>) -> Router {
    Router::new()
        .route(path::APPEND, post(append))
        .route(path::VOTE, post(vote))
        .route(path::PRE_VOTE, post(pre_vote))
        .route(path::TRANSFER, post(transfer))
        .route(path::SNAPSHOT, post(install))
        .route(path::SNAPSHOT_OFFER, post(snapshot_offer))
        .route(path::FORWARD, post(forward))
        .route(path::READ_INDEX, post(read_index))
        .route(path::MEMBERS, post(members))
        .route(path::ADD_MEMBER, post(add_member))
        .route(path::REMOVE_MEMBER, post(remove_member))
        .route(path::PROMOTE_MEMBER, post(promote_member))
        .route(path::UPDATE_MEMBER, post(update_member))
        .route(path::HELLO, post(hello))
        .route(path::STATE, post(state))
        .route(path::UPGRADE, post(upgrade))
        .route(path::HASHES, post(hashes))
        .route(path::DIFFERS, post(differs))
        .layer(middleware::from_fn_with_state(node.clone(), check))
        .with_state(node)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Refusal> {
    let found = headers.get(name).and_then(|v| v.to_str().ok());
    found.ok_or_else(|| Refusal(StatusCode::BAD_REQUEST, format!("no {name} header")))
}

/// Refuses what comes from another lineage or is meant for somebody else.
async fn check(State(node): Shared, request: Request, next: Next) -> Answer {
    let headers = request.headers();
    let from: u64 = header(headers, FROM_HEADER)?.parse().map_err(|_| broken("sender"))?;
    let lineage = header(headers, LINEAGE_HEADER)?;
    if lineage != node.identity.lineage {
        return match node.stranger(from, lineage) {
            (why, Some(ago)) => {
                let ago = [(SUCCESSION_HEADER, ago.as_millis().to_string())];
                Ok((StatusCode::CONFLICT, ago, why).into_response())
            }
            (why, None) => Err(Refusal(StatusCode::FORBIDDEN, why)),
        };
    }
    if header(headers, TO_HEADER)? != node.identity.id.to_string() {
        let id = node.identity.id;
        return Err(Refusal(StatusCode::MISDIRECTED_REQUEST, format!("this is member {id}")));
    }
    if let Some(why) = node.has_left() {
        return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, why));
    }
    // What only members may ask is refused to those who were removed. Raft's own messages are not: while the
    // membership changes, the members do not all know the same, and Raft copes with that.
    let stranger = || node.leads() && node.target(from).is_none() && !node.machine.members().nodes.contains_key(&from);
    if FOR_MEMBERS.contains(&request.uri().path()) && stranger() {
        // A leader that was replaced may not know of it yet.
        node.read_index_here().await.map_err(broken)?;
    }
    if FOR_MEMBERS.contains(&request.uri().path()) && stranger() {
        return Err(Refusal(StatusCode::GONE, format!("member {from} does not belong to the group")));
    }
    Ok(next.run(request).await)
}

/// Requests that the leader answers to members of the group only.
const FOR_MEMBERS: [&str; 9] = [
    path::FORWARD,
    path::READ_INDEX,
    path::MEMBERS,
    path::ADD_MEMBER,
    path::REMOVE_MEMBER,
    path::PROMOTE_MEMBER,
    path::UPDATE_MEMBER,
    path::STATE,
    path::UPGRADE,
];

async fn append(State(node): Shared, request: Request) -> Answer {
    let heartbeats = request.headers().get(LANE_HEADER).is_some_and(|lane| lane == Lane::Control.name());
    let reader = FrameReader::new(request.into_body());
    if heartbeats {
        let body = super::pulse::replies(node, reader).map(|reply| reply.map(|r| frame(&codec::encode(&r))));
        return Ok(Body::from_stream(body).into_response());
    }
    let requests = append_requests(node.clone(), reader);
    let replies = node.raft.stream_append(requests).map(|result| match result {
        Ok(result) => Ok(convert::append_reply(result)),
        Err(fatal) => Err(std::io::Error::other(fatal.to_string())),
    });
    let body = replies.map(|reply| reply.map(|r| frame(&codec::encode(&r))));
    Ok(Body::from_stream(body).into_response())
}

/// Messages of replication, until the stream ends or one cannot be read.
fn append_requests(
    node: Arc<Node>,
    reader: FrameReader<Body>,
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send {
    futures::stream::unfold((node, reader), |(node, mut reader)| async move {
        let request = append_request(&mut reader).await?;
        // Behind a disk that does not answer, entries wait in the network and not in this member's memory.
        let bytes = request.entries.iter().map(|e| convert::log_entry(e).weight()).sum();
        node.writer.take_in(bytes).await;
        Some((request, (node, reader)))
    })
}

/// The next message of replication, unless the stream ends or it cannot be read.
pub(super) async fn append_request(reader: &mut FrameReader<Body>) -> Option<AppendEntriesRequest<TypeConfig>> {
    let message: Bytes = match reader.next().await? {
        Ok(message) => message,
        Err(error) => {
            tracing::debug!(%error, "replication stream");
            return None;
        }
    };
    match decode_append(&message) {
        Ok((head, entries)) => Some(AppendEntriesRequest {
            vote: convert::vote(head.vote),
            prev_log_id: head.prev.map(convert::log_id),
            entries: entries.into_iter().map(convert::entry).collect(),
            leader_commit: head.commit.map(convert::log_id),
        }),
        Err(error) => {
            tracing::error!(%error, "a message of replication cannot be read");
            None
        }
    }
}

fn vote_reply(response: VoteResponse<TypeConfig>) -> Answer {
    answer(&VoteReply {
        vote: convert::vote_record(&response.vote),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(convert::position),
    })
}

async fn vote(State(node): Shared, request: Request) -> Answer {
    let request = convert::vote_request(&message(request).await?);
    vote_reply(node.raft.vote(request).await.map_err(broken)?)
}

async fn pre_vote(State(node): Shared, request: Request) -> Answer {
    let request = convert::vote_request(&message(request).await?);
    vote_reply(node.raft.pre_vote(request).await.map_err(broken)?)
}

async fn transfer(State(node): Shared, request: Request) -> Answer {
    let m: TransferMessage = message(request).await?;
    let request = convert::transfer_request(&m);
    let result = node.raft.handle_transfer_leader(request).await.map_err(broken)?;
    answer(&convert::transfer_reply(result))
}

async fn install(State(node): Shared, request: Request) -> Answer {
    let transfer = node.transfer.lock().clone();
    let mut reader = FrameReader::until(request.into_body(), transfer);
    let head = snapshots::receive_head(&mut reader).await.map_err(broken)?;
    let sent = head.files.iter().filter(|file| !file.kept).count();
    tracing::info!(at = ?head.at, files = head.files.len(), sent, "receiving a snapshot");
    let dir = {
        let mut incoming = incoming(&node).await?;
        incoming.receive(&mut reader, &head).await.map_err(broken)?
    };
    let received = dir.clone();
    let checked = blocking(move || snapshot::check_received(&received)).await.map_err(broken)?;
    if let Err(error) = checked {
        tracing::error!(%error, "refusing a snapshot");
        return Err(Refusal(DAMAGED, error.to_string()));
    }
    let meta = SnapshotMeta {
        last_log_id: head.at.map(convert::log_id),
        last_membership: convert::stored_membership(&head.members),
    };
    let snapshot = Snapshot { meta, snapshot: dir };
    let response = node.raft.install_full_snapshot(convert::vote(head.vote), snapshot).await.map_err(broken)?;
    answer(&convert::vote_record(&response.vote))
}

/// What has come of a snapshot, once nobody else is at it.
async fn incoming(node: &Node) -> Result<tokio::sync::MutexGuard<'_, Incoming>, Refusal> {
    let free = tokio::time::timeout(HAND_OVER, node.incoming.lock()).await;
    free.map_err(|_| broken("another snapshot is being received"))
}

/// Tells which files of a snapshot are here from an attempt that broke off.
async fn snapshot_offer(State(node): Shared, request: Request) -> Answer {
    let from = header(request.headers(), FROM_HEADER)?.parse().map_err(|_| broken("sender"))?;
    let offer: SnapshotOffer = message(request).await?;
    node.begin_transfer(from);
    let mut incoming = incoming(&node).await?;
    answer(&incoming.have(&offer.files).await.map_err(broken)?)
}

/// Hands out the whole state to a member that lost its own.
async fn state(State(node): Shared, request: Request) -> Answer {
    let m: StateMessage = message(request).await?;
    node.check_running().map_err(broken)?;
    if m.leader_only && !node.leads() {
        return Err(broken("this member does not lead"));
    }
    let applied = node.machine.applied().index();
    if applied < m.at_least {
        return Err(broken(format!("this member has only applied up to entry {applied}")));
    }
    let machine = node.machine.clone();
    let built = blocking(move || machine.checkpoint()).await.map_err(broken)?.map_err(broken)?;
    let vote = VoteRecord { term: 0, node: 0, committed: false };
    let files = built.dir.files().map_err(broken)?;
    let files = snapshots::all(files);
    let head = SnapshotHead { vote, at: built.applied.at, members: built.members, files };
    tracing::info!(at = ?head.at, "handing out the state to a member that lost its own");
    Ok(Body::new(snapshots::body(&head, built.dir, node.config.limits.snapshot_bytes_per_second, node.metrics.clone()))
        .into_response())
}

async fn upgrade(State(node): Shared, request: Request) -> Answer {
    let _ = request.into_body().collect().await;
    let reply: UpgradeReply = node.upgrade_here().await;
    answer(&reply)
}

async fn hashes(State(node): Shared, request: Request) -> Answer {
    let _ = request.into_body().collect().await;
    answer(&node.hashes_here())
}

async fn differs(State(node): Shared, request: Request) -> Answer {
    node.differs_here(message(request).await?);
    answer(&())
}

async fn forward(State(node): Shared, request: Request) -> Answer {
    let m: ForwardMessage = message(request).await?;
    answer(&node.propose_for_others(m.proposals).await)
}

async fn read_index(State(node): Shared, _request: Request) -> Answer {
    let reply: ReadIndexReply = node.read_index_here().await;
    answer(&reply)
}

async fn members(State(node): Shared, request: Request) -> Answer {
    let from = header(request.headers(), FROM_HEADER)?.parse().map_err(|_| broken("sender"))?;
    node.note_report(from, message(request).await?);
    let reply: MembersReply = match node.leads() {
        true => Ok(node.members_here()),
        false => Err(AdminError::NotLeader),
    };
    answer(&reply)
}

async fn add_member(State(node): Shared, request: Request) -> Answer {
    let m: AddMemberMessage = message(request).await?;
    let reply: AddMemberReply = node.add_member_here(m.member, m.options).await;
    answer(&reply)
}

async fn remove_member(State(node): Shared, request: Request) -> Answer {
    let m: RemoveMemberMessage = message(request).await?;
    let reply: RemoveMemberReply = node.remove_member_here(m).await;
    answer(&reply)
}

async fn promote_member(State(node): Shared, request: Request) -> Answer {
    let id: u64 = message(request).await?;
    let reply: RemoveMemberReply = node.promote_member_here(id).await;
    answer(&reply)
}

async fn update_member(State(node): Shared, request: Request) -> Answer {
    let m: UpdateMemberMessage = message(request).await?;
    let reply: RemoveMemberReply = node.update_member_here(m).await;
    answer(&reply)
}

async fn hello(State(node): Shared, request: Request) -> Answer {
    // Nothing is in the body; reading it to its end keeps the connection usable.
    let _ = request.into_body().collect().await;
    let (id, feature_level) = (node.identity.id, node.config.feature_level);
    answer(&HelloReply { id, feature_level, last: node.writer.log().ends().1 })
}
