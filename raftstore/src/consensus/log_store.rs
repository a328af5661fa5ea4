//! openraft's view of the log.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::time::Instant;

use futures::Stream;
use openraft::OptionalSend;
use openraft::alias::{EntryOf, LogIdOf, VoteOf};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::{TypeConfig, convert};
use crate::storage::log_writer::LogWriter;
use crate::store::timeline::Timeline;

/// Bytes of one message of replication, and of one step of applying.
const CHUNK_BYTES: usize = 2 << 20;

/// The log, as openraft writes and reads it.
#[derive(Clone)]
pub(crate) struct LogStore {
    writer: Arc<LogWriter>,
    timeline: Arc<Timeline>,
}

impl LogStore {
    pub(crate) fn new(writer: Arc<LogWriter>, timeline: Arc<Timeline>) -> Self {
        Self { writer, timeline }
    }

    fn entries(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<EntryOf<TypeConfig>>> {
        let found = self.writer.log().read(range, max_bytes)?;
        Ok(found.into_iter().map(convert::entry).collect())
    }
}

fn range(bounds: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match bounds.start_bound() {
        Bound::Included(i) => *i,
        Bound::Excluded(i) => i + 1,
        Bound::Unbounded => 0,
    };
    let end = match bounds.end_bound() {
        Bound::Included(i) => i + 1,
        Bound::Excluded(i) => *i,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        bounds: RB,
    ) -> Result<Vec<EntryOf<TypeConfig>>, io::Error> {
        self.entries(range(&bounds), usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<VoteOf<TypeConfig>>, io::Error> {
        Ok(self.writer.log().vote().map(convert::vote))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<EntryOf<TypeConfig>>, io::Error> {
        self.entries(start..end, CHUNK_BYTES)
    }

    /// Reads piece by piece, so that catching up does not take the memory of everything that is missing.
    async fn entries_stream<RB>(
        &mut self,
        bounds: RB,
    ) -> impl Stream<Item = Result<EntryOf<TypeConfig>, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let begin = (self.clone(), range(&bounds), VecDeque::new());
        futures::stream::unfold(begin, |(store, mut rest, mut ready)| async move {
            if ready.is_empty() && !rest.is_empty() {
                match store.entries(rest.clone(), CHUNK_BYTES) {
                    Ok(found) => ready.extend(found),
                    Err(error) => return Some((Err(error), (store, 0..0, ready))),
                }
            }
            let entry: EntryOf<TypeConfig> = ready.pop_front()?;
            rest.start = entry.log_id.index + 1;
            Some((Ok(entry), (store, rest, ready)))
        })
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let (purged, last) = self.writer.log().ends();
        Ok(LogState { last_purged_log_id: purged.map(convert::log_id), last_log_id: last.map(convert::log_id) })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<TypeConfig>) -> Result<(), io::Error> {
        self.writer.save_vote(convert::vote_record(vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<TypeConfig>>) -> Result<(), io::Error> {
        match committed {
            Some(committed) => self.writer.save_committed(convert::position(&committed)).await,
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> Result<Option<LogIdOf<TypeConfig>>, io::Error> {
        // The record may name an entry that was not fsynced any more, or one that was cut off after a restart.
        let (_, last) = self.writer.log().ends();
        Ok(self.writer.log().committed().min(last).map(convert::log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = EntryOf<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().map(|e| convert::log_entry(&e)).collect();
        let range = entries.first().zip(entries.last()).map(|(first, last)| (first.at.index, last.at.index));
        let Some((first, last)) = range else {
            return self.writer.append(entries, Box::new(move |result| callback.io_completed(result))).await;
        };
        self.timeline.appended(first, last, Instant::now());
        let timeline = self.timeline.clone();
        let appended = Box::new(move |result| {
            timeline.synced(first, last, Instant::now());
            callback.io_completed(result);
        });
        self.writer.append(entries, appended).await
    }

    async fn truncate_after(&mut self, last: Option<LogIdOf<TypeConfig>>) -> Result<(), io::Error> {
        self.writer.truncate_after(last.as_ref().map(convert::position)).await
    }

    async fn purge(&mut self, upto: LogIdOf<TypeConfig>) -> Result<(), io::Error> {
        self.writer.purge(convert::position(&upto)).await
    }
}
