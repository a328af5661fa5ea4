//! The receiving end of a leader's heartbeats.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use axum::body::Body;
use futures::Stream;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::frames::FrameReader;
use super::server::append_request;
use super::wire::AppendReply;
use crate::consensus::{Raft, TypeConfig, convert};
use crate::storage::records::VoteRecord;
use crate::store::node::Node;

/// Heartbeats of which the engine knows that something accepted before them is not on disk yet.
pub(crate) const HEARTBEATS: usize = 64;

/// A stream of heartbeats. When it ends, for whatever reason, the member looks whether the leader is still there.
struct Pulse {
    node: Arc<Node>,
    reader: FrameReader<Body>,
    /// The leader that is heard here.
    leader: Option<VoteRecord>,
}

impl Drop for Pulse {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            // If nobody has looked into the last ones yet, one more tells nothing new.
            let _ = self.node.lost.try_send(leader);
        }
    }
}

/// Answers heartbeats one after another, until there are no more or one is refused.
pub(super) fn replies(
    node: Arc<Node>,
    reader: FrameReader<Body>,
) -> impl Stream<Item = io::Result<AppendReply>> + Send + 'static {
    let begin = Some(Pulse { node, reader, leader: None });
    futures::stream::unfold(begin, |pulse| async move {
        let mut pulse = pulse?;
        let request = append_request(&mut pulse.reader).await?;
        let reply = pulse.answer(request).await;
        let goes_on = matches!(reply, Ok(AppendReply::Matched(_)));
        Some((reply, goes_on.then_some(pulse)))
    })
}

impl Pulse {
    async fn answer(&mut self, request: AppendEntriesRequest<TypeConfig>) -> io::Result<AppendReply> {
        let leader = convert::vote_record(&request.vote);
        self.node.heard_from(&leader);
        // Beyond the bound heartbeats stay unanswered, until the disk has done something.
        let permit = self.node.heartbeats.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (answer, answered) = oneshot::channel();
        self.node.spawn(hold(self.node.raft.clone(), request, answer, permit));
        let reply = answered.await.map_err(io::Error::other)?;
        if matches!(reply, Ok(AppendReply::Matched(_))) {
            self.leader = Some(leader);
        }
        reply
    }
}

/// Hands a heartbeat to the engine and answers it as soon as possible. The engine keeps it until everything accepted so
/// far is on disk, also when nobody waits any more; the permit is held for as long.
async fn hold(
    raft: Raft,
    request: AppendEntriesRequest<TypeConfig>,
    answer: oneshot::Sender<io::Result<AppendReply>>,
    permit: OwnedSemaphorePermit,
) {
    let (vote, matching) = (request.vote, request.prev_log_id.as_ref().map(convert::position));
    let mut appending = pin!(async {
        match raft.append_entries(request).await {
            Ok(AppendEntriesResponse::HigherVote(vote)) => Ok(AppendReply::HigherVote(convert::vote_record(&vote))),
            // Only what the leader takes for known here can be missing.
            Ok(AppendEntriesResponse::Conflict) => {
                Ok(matching.map_or(AppendReply::Matched(None), AppendReply::Conflict))
            }
            Ok(_) => Ok(AppendReply::Matched(matching)),
            Err(fatal) => Err(io::Error::other(fatal.to_string())),
        }
    });
    // A heartbeat only says who leads: for that it is enough that the engine, after it has seen the message, holds to
    // this very leader.
    let held = async {
        let (tell, told) = oneshot::channel();
        let asked = raft.external_request(move |state| {
            // Mostly nobody waits any more, since nothing had to be written.
            let _ = tell.send(*state.vote_ref() == vote);
        });
        match asked.await {
            Ok(()) => match told.await {
                Ok(true) => Ok(AppendReply::Matched(matching)),
                // When the engine has ended, the other answer says why.
                Ok(false) | Err(_) => std::future::pending().await,
            },
            Err(fatal) => Err(io::Error::other(fatal.to_string())),
        }
    };
    let (reply, on_disk) = tokio::select! {
        biased;
        reply = &mut appending => (reply, true),
        reply = held => (reply, false),
    };
    let _ = answer.send(reply);
    if !on_disk {
        let _ = appending.await;
    }
    drop(permit);
}
