//! openraft's view of the network.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use openraft::OptionalSend;
use openraft::alias::{SnapshotOf, VoteOf};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::confirmed::Confirmed;
use super::{TypeConfig, convert};
use crate::codec;
use crate::metrics::Metrics;
use crate::network::frames::FrameReader;
use crate::network::peers::{Lane, PeerError, Peers, Target};
use crate::network::server::DAMAGED;
use crate::network::snapshots;
use crate::network::wire::{
    AppendHead, AppendReply, SnapshotHave, SnapshotHead, SnapshotOffer, TransferReply, VoteReply, encode_append, path,
};
use crate::simulation;
use crate::storage::records::{MemberInfo, VoteRecord};
use crate::storage::snapshot::SnapshotDir;

/// How long a message of replication may stay unanswered: an fsync on a slow disk, not a lost connection.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a member may take to receive and install a snapshot.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);
/// How long it may take to look what it has of it.
const OFFER_TIMEOUT: Duration = Duration::from_secs(60);
/// Messages of replication under way on one stream.
const IN_FLIGHT: usize = 64;

/// After so many heartbeats in a row without an answer, the next one uses a new connection.
const MISSED: u32 = 3;

/// Half the pause after the first failure to open a stream of replication; doubled with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(5);
/// After so many failures the pause, 320 ms now, grows no more.
const MAX_BACKOFF_STEPS: u32 = 6;

type Error = RPCError<TypeConfig>;

/// Makes links to other members.
pub(crate) struct Transport {
    pub(crate) peers: Peers,
    pub(crate) metrics: Metrics,
    /// Bound on answers to votes.
    pub(crate) vote_timeout: Duration,
    /// Who confirmed which heartbeat.
    pub(crate) confirmed: Arc<Confirmed>,
    /// Told when another member found a snapshot of this one's state to be damaged.
    pub(crate) suspect: Arc<Notify>,
    /// Bytes of a snapshot in a second.
    pub(crate) snapshot_rate: u64,
}

/// The link to one other member.
pub(crate) struct PeerLink {
    peers: Peers,
    target: Target,
    lane: Lane,
    metrics: Metrics,
    vote_timeout: Duration,
    confirmed: Arc<Confirmed>,
    suspect: Arc<Notify>,
    snapshot_rate: u64,
    /// Streams of replication in a row that could not be opened, or heartbeats in a row without an answer.
    failures: u32,
    /// The stream of heartbeats, if one is open and nothing is unanswered on it.
    pulse: Option<Pulse>,
}

/// A stream that carries one heartbeat after another: a request for each would cost several times as much.
struct Pulse {
    heartbeats: mpsc::Sender<Bytes>,
    replies: FrameReader<Incoming>,
}

impl Transport {
    fn link(&self, target: u64, node: &MemberInfo, lane: Lane) -> PeerLink {
        PeerLink {
            peers: self.peers.clone(),
            target: Target { id: target, address: node.peer_address.clone() },
            lane,
            metrics: self.metrics.clone(),
            vote_timeout: self.vote_timeout,
            confirmed: self.confirmed.clone(),
            suspect: self.suspect.clone(),
            snapshot_rate: self.snapshot_rate,
            failures: 0,
            pulse: None,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Transport {
    type Network = PeerLink;

    async fn new_client(&mut self, target: u64, node: &MemberInfo) -> PeerLink {
        self.link(target, node, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &MemberInfo) -> PeerLink {
        self.link(target, node, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &MemberInfo) -> PeerLink {
        self.link(target, node, Lane::Snapshot)
    }
}

fn rpc_error(error: PeerError) -> Error {
    match error {
        // Trying at once again makes no sense: openraft backs off.
        PeerError::NotSent { .. } | PeerError::Refused { .. } => RPCError::Unreachable(Unreachable::from_string(error)),
        PeerError::Lost { .. } => RPCError::Network(NetworkError::from_string(error)),
    }
}

fn network(why: impl ToString) -> StreamingError<TypeConfig> {
    StreamingError::Network(NetworkError::from_string(why.to_string()))
}

impl PeerLink {
    /// Sends what the member does not have of a snapshot, and waits until it is installed there.
    async fn send_snapshot(
        &self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, Arc<SnapshotDir>>,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let dir = snapshot.snapshot;
        let files = dir.files().map_err(network)?;
        let offer = SnapshotOffer { files: files.clone() };
        let asked = self.peers.call(&self.target, Lane::Snapshot, path::SNAPSHOT_OFFER, &offer, OFFER_TIMEOUT);
        let have: SnapshotHave = asked.await.map_err(|e| StreamingError::from(rpc_error(e)))?;
        let compared = dir.clone();
        let compared = simulation::blocking(move || snapshots::missing(&compared, files, &have)).await;
        let files = compared.map_err(network)?.map_err(network)?;
        let bytes = |kept: bool| files.iter().filter(|f| f.kept == kept).map(|f| f.size).sum::<u64>();
        let (to_send, kept) = (bytes(false), bytes(true));
        let membership = snapshot.meta.last_membership;
        let head = SnapshotHead {
            vote: convert::vote_record(&vote),
            at: snapshot.meta.last_log_id.as_ref().map(convert::position),
            members: convert::members_record(
                membership.log_id().as_ref().map(convert::position),
                membership.membership(),
            ),
            files,
        };
        tracing::info!(to = self.target.id, at = ?head.at, bytes = to_send, resumed = kept, "sending a snapshot");
        self.metrics.snapshot_resumed_bytes.inc_by(kept);
        let body = snapshots::body(&head, dir, self.snapshot_rate, self.metrics.clone());
        let sent = async {
            let response = self.peers.send(&self.target, Lane::Snapshot, path::SNAPSHOT, body).await;
            if let Err(PeerError::Refused { status: DAMAGED, reason, .. }) = &response {
                tracing::error!(to = self.target.id, reason, "the snapshot was refused; verifying the state here");
                self.suspect.notify_one();
            }
            let response = response.map_err(|e| StreamingError::from(rpc_error(e)))?;
            let reply = response.into_body().collect().await.map_err(network)?;
            let vote: VoteRecord = codec::decode(&reply.to_bytes()).map_err(network)?;
            Ok(SnapshotResponse::new(convert::vote(vote)))
        };
        // A mebibyte a second is slow for any network that masters share.
        let limit = SNAPSHOT_TIMEOUT + Duration::from_secs(to_send >> 20);
        let result = tokio::time::timeout(limit, sent).await;
        result.unwrap_or_else(|_| Err(network(format!("snapshot not installed within {limit:?}"))))
    }

    async fn ask_vote(&self, path: &str, rpc: &VoteRequest<TypeConfig>) -> Result<VoteResponse<TypeConfig>, Error> {
        let message = convert::vote_message(rpc);
        let asked = self.peers.call(&self.target, Lane::Control, path, &message, self.vote_timeout);
        let reply: VoteReply = asked.await.map_err(rpc_error)?;
        Ok(VoteResponse::new(convert::vote(reply.vote), reply.last.map(convert::log_id), reply.granted))
    }

    /// Sends a heartbeat and waits for its answer. If it is dropped meanwhile, the next one opens a new stream.
    async fn beat(
        &mut self,
        request: &AppendEntriesRequest<TypeConfig>,
    ) -> Result<StreamAppendResult<TypeConfig>, Error> {
        if self.failures >= MISSED {
            self.peers.forget(&self.target, self.lane);
            self.failures = 0;
        }
        self.failures += 1;
        let message = encode_request(request);
        loop {
            let held = self.pulse.take();
            let fresh = held.is_none();
            let mut pulse = match held {
                Some(pulse) => pulse,
                None => self.open_pulse().await.map_err(rpc_error)?,
            };
            let at = Instant::now();
            let sent = pulse.heartbeats.send(message.clone()).await.is_ok();
            let why = match pulse.replies.next().await {
                Some(Ok(reply)) if sent => {
                    let reply = codec::decode::<AppendReply>(&reply);
                    let reply = reply.map_err(|e| RPCError::Network(NetworkError::from_string(e)))?;
                    self.failures = 0;
                    // After any other answer the other side reads no further.
                    if matches!(reply, AppendReply::Matched(_)) {
                        self.confirmed.note(self.target.id, convert::vote_record(&request.vote), at);
                        self.pulse = Some(pulse);
                    }
                    return Ok(append_result(reply));
                }
                Some(Err(error)) => error.to_string(),
                _ => "the stream of heartbeats ended".to_owned(),
            };
            if fresh {
                return Err(RPCError::Network(NetworkError::from_string(why)));
            }
        }
    }

    async fn open_pulse(&self) -> Result<Pulse, PeerError> {
        let (heartbeats, queue) = mpsc::channel(1);
        let frames = ReceiverStream::new(queue).map(|message| Ok::<_, std::io::Error>(Frame::data(message)));
        let body = StreamBody::new(frames).boxed_unsync();
        let response = self.peers.send(&self.target, self.lane, path::APPEND, body).await?;
        Ok(Pulse { heartbeats, replies: FrameReader::new(response.into_body()) })
    }

    async fn open_append<S>(&self, input: S) -> Result<AppendReplies, Error>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let sent = Arc::new(Mutex::new(VecDeque::new()));
        let ended = CancellationToken::new();
        // openraft's requests hold a lock while they wait for entries: they must end as soon as nobody listens to the
        // replies any more, also when the connection hangs.
        let guard = ended.clone().drop_guard();
        let slots = Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT));
        let (times, permits) = (sent.clone(), slots.clone());
        let frames = input.take_until(ended.cancelled_owned()).then(move |request| {
            let (times, permits) = (times.clone(), permits.clone());
            async move {
                // Returned by the reply.
                if let Ok(permit) = permits.acquire().await {
                    permit.forget();
                }
                times.lock().push_back(Instant::now());
                Ok::<_, std::io::Error>(Frame::data(encode_request(&request)))
            }
        });
        let body = StreamBody::new(frames).boxed_unsync();
        let opened = self.peers.send(&self.target, self.lane, path::APPEND, body);
        let response = match timeout_at(Instant::now() + APPEND_TIMEOUT, opened).await {
            Ok(response) => response.map_err(rpc_error)?,
            Err(_) => return Err(RPCError::Network(NetworkError::from_string("replication stream was not accepted"))),
        };
        Ok(AppendReplies { reader: FrameReader::new(response.into_body()), sent, slots, _guard: guard, over: false })
    }
}

/// A frame with the request.
fn encode_request(request: &AppendEntriesRequest<TypeConfig>) -> Bytes {
    let entries: Vec<_> = request.entries.iter().map(convert::log_entry).collect();
    let head = AppendHead {
        vote: convert::vote_record(&request.vote),
        prev: request.prev_log_id.as_ref().map(convert::position),
        commit: request.leader_commit.as_ref().map(convert::position),
        count: entries.len() as u32,
    };
    encode_append(&head, &entries)
}

/// Replies on one stream of replication. Dropping it ends the stream.
struct AppendReplies {
    reader: FrameReader<Incoming>,
    /// When the messages that are not answered yet were sent.
    sent: Arc<Mutex<VecDeque<Instant>>>,
    slots: Arc<tokio::sync::Semaphore>,
    _guard: DropGuard,
    over: bool,
}

impl AppendReplies {
    async fn next(&mut self) -> Option<Result<StreamAppendResult<TypeConfig>, Error>> {
        if self.over {
            return None;
        }
        let network = |why: String| Some(Err(RPCError::Network(NetworkError::from_string(why))));
        loop {
            let now = Instant::now();
            let due = self.sent.lock().front().map(|at| *at + APPEND_TIMEOUT);
            if due.is_some_and(|due| due <= now) {
                self.over = true;
                return network(format!("no reply within {APPEND_TIMEOUT:?}"));
            }
            match timeout_at(due.unwrap_or(now + APPEND_TIMEOUT), self.reader.next()).await {
                Err(_) => continue,
                Ok(None) => {
                    self.over = true;
                    let unanswered = self.sent.lock().len();
                    return if unanswered == 0 { None } else { network("replication stream ended".into()) };
                }
                Ok(Some(Err(error))) => {
                    self.over = true;
                    return network(error.to_string());
                }
                Ok(Some(Ok(message))) => {
                    self.sent.lock().pop_front();
                    self.slots.add_permits(1);
                    return match codec::decode::<AppendReply>(&message) {
                        Ok(reply) => Some(Ok(append_result(reply))),
                        Err(error) => network(error.to_string()),
                    };
                }
            }
        }
    }
}

fn append_result(reply: AppendReply) -> StreamAppendResult<TypeConfig> {
    match reply {
        AppendReply::Matched(at) => Ok(at.map(convert::log_id)),
        AppendReply::Conflict(at) => Err(StreamAppendError::Conflict(convert::log_id(at))),
        AppendReply::HigherVote(vote) => Err(StreamAppendError::HigherVote(convert::vote(vote))),
    }
}

impl RaftNetworkV2<TypeConfig> for PeerLink {
    type SnapshotData = Arc<SnapshotDir>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Error> {
        let mut replies = self.open_append(futures::stream::iter([rpc])).await?;
        match replies.next().await {
            Some(reply) => reply.map(AppendEntriesResponse::from),
            None => Err(RPCError::Network(NetworkError::from_string("no reply"))),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, Error>>, Error>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if self.lane == Lane::Control {
                let mut input = input;
                let reply = match input.next().await {
                    Some(heartbeat) => Some(Ok(self.beat(&heartbeat).await?)),
                    None => None,
                };
                return Ok(Box::pin(futures::stream::iter(reply)) as BoxStream<'s, _>);
            }
            let replies = match self.open_append(input).await {
                Ok(replies) => replies,
                Err(error) => {
                    // openraft's own back-off is part of the requests, which nobody reads when there is no stream.
                    self.failures = (self.failures + 1).min(MAX_BACKOFF_STEPS);
                    tokio::time::sleep(FIRST_BACKOFF * (1 << self.failures)).await;
                    return Err(error);
                }
            };
            self.failures = 0;
            let stream = futures::stream::unfold(replies, |mut replies| async move {
                let next = replies.next().await?;
                Some((next, replies))
            });
            Ok(Box::pin(stream) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Error> {
        self.ask_vote(path::VOTE, &rpc).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, Error> {
        self.ask_vote(path::PRE_VOTE, &rpc).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: SnapshotOf<TypeConfig, Arc<SnapshotDir>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let begun = Instant::now();
        let sending = self.send_snapshot(vote, snapshot);
        let result = tokio::select! {
            result = sending => result,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        match &result {
            Ok(_) => {
                self.metrics.snapshots_sent.inc();
                self.metrics.snapshot_send.observe(begun.elapsed().as_secs_f64());
            }
            Err(_) => drop(self.metrics.snapshot_send_failures.inc()),
        }
        result
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, Error> {
        let message = convert::transfer_message(&request);
        let asked = self.peers.call(&self.target, Lane::Control, path::TRANSFER, &message, self.vote_timeout);
        let reply: TransferReply = asked.await.map_err(rpc_error)?;
        Ok(convert::transfer_response(reply))
    }
}
