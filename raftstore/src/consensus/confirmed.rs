//! Who has confirmed a leader's heartbeats, and when those were sent: what a linearizable read is sure of.
//!
//! openraft counts too, but it finds the request that an answer on the stream of entries belongs to by the log position alone.
//! The answer to an older request then confirms also a newer one without entries: after a pause of the leader's process
//! that is an answer from before the pause, when somebody else may lead. A heartbeat is answered before the next one is sent.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::storage::records::VoteRecord;
use crate::types::MemberId;

/// The newest confirmed heartbeat of each member.
pub(crate) struct Confirmed {
    newest: Mutex<BTreeMap<MemberId, (VoteRecord, Instant)>>,
    count: watch::Sender<u64>,
}

impl Confirmed {
    pub(crate) fn new() -> Self {
        Self { newest: Mutex::default(), count: watch::Sender::new(0) }
    }

    /// A member has confirmed a heartbeat that was sent under a vote at a time.
    pub(crate) fn note(&self, member: MemberId, vote: VoteRecord, sent: Instant) {
        self.newest.lock().insert(member, (vote, sent));
        self.count.send_modify(|count| *count += 1);
    }

    /// Told of each confirmation.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    /// Whether a majority of each set of voters, the leader among them, has confirmed a heartbeat that was not sent before a
    /// time.
    pub(crate) fn by_quorum(
        &self,
        leader: MemberId,
        vote: VoteRecord,
        since: Instant,
        voters: &[BTreeSet<MemberId>],
    ) -> bool {
        let newest = self.newest.lock();
        let confirmed = |id: &MemberId| {
            *id == leader || newest.get(id).is_some_and(|(under, sent)| *under == vote && *sent >= since)
        };
        voters.iter().all(|set| set.iter().filter(|id| confirmed(id)).count() > set.len() / 2)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_was_sent_since_and_under_the_same_vote_counts() {
        let vote = |term| VoteRecord { term, node: 1, committed: true };
        let (confirmed, begin) = (Confirmed::new(), Instant::now());
        let later = begin + Duration::from_millis(5);
        let three: [BTreeSet<MemberId>; 1] = [[1, 2, 3].into()];
        assert!(!confirmed.by_quorum(1, vote(4), begin, &three));
        assert!(confirmed.by_quorum(1, vote(4), begin, &[[1].into()]), "alone it is a quorum");
        confirmed.note(2, vote(4), begin);
        assert!(confirmed.by_quorum(1, vote(4), begin, &three));
        assert!(!confirmed.by_quorum(1, vote(4), later, &three), "an answer to what was sent before proves nothing");
        assert!(!confirmed.by_quorum(1, vote(5), begin, &three), "nor does one under another vote");
        confirmed.note(2, vote(4), later);
        assert!(confirmed.by_quorum(1, vote(4), later, &three));
        // Both sets of a change of membership count, and whoever is in neither does not.
        let joint: [BTreeSet<MemberId>; 2] = [[1, 2, 3].into(), [1, 4, 5].into()];
        confirmed.note(9, vote(4), later);
        assert!(!confirmed.by_quorum(1, vote(4), begin, &joint));
        confirmed.note(5, vote(4), later);
        assert!(confirmed.by_quorum(1, vote(4), begin, &joint));
        let four: [BTreeSet<MemberId>; 1] = [[1, 2, 6, 7].into()];
        assert!(!confirmed.by_quorum(1, vote(4), begin, &four), "half is no majority");
    }
}
