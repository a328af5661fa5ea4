//! The receiving end of a leader's heartbeats.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use futures::Stream;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};

use super::frames::FrameReader;
use super::server::append_request;
use super::wire::AppendReply;
use crate::consensus::{TypeConfig, convert};
use crate::storage::records::VoteRecord;
use crate::store::node::Node;

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
        let (vote, matching) = (request.vote, request.prev_log_id.as_ref().map(convert::position));
        self.node.heard_from(&convert::vote_record(&vote));
        let raft = &self.node.raft;
        let appending = async {
            match raft.append_entries(request).await {
                Ok(AppendEntriesResponse::HigherVote(vote)) => Ok(AppendReply::HigherVote(convert::vote_record(&vote))),
                // Only what the leader takes for known here can be missing.
                Ok(AppendEntriesResponse::Conflict) => {
                    Ok(matching.map_or(AppendReply::Matched(None), AppendReply::Conflict))
                }
                Ok(_) => Ok(AppendReply::Matched(matching)),
                Err(fatal) => Err(io::Error::other(fatal.to_string())),
            }
        };
        // openraft answers once everything accepted so far is on disk. A heartbeat only says who leads: for that it is
        // enough that the engine, after it has seen the message, holds to this very leader.
        let held = async {
            match raft.with_raft_state(move |state| *state.vote_ref() == vote).await {
                Ok(true) => Ok(AppendReply::Matched(matching)),
                Ok(false) => std::future::pending().await,
                Err(fatal) => Err(io::Error::other(fatal.to_string())),
            }
        };
        let reply = tokio::select! {
            biased;
            reply = appending => reply,
            reply = held => reply,
        };
        if matches!(reply, Ok(AppendReply::Matched(_))) {
            self.leader = Some(convert::vote_record(&vote));
        }
        reply
    }
}
