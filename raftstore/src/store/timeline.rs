//! When entries of the log were where, so that a slow write can be taken apart.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Appends that are remembered.
const REMEMBERED: usize = 4096;

/// Entries that were appended together.
#[derive(Clone, Copy, Debug)]
struct Mark {
    first: u64,
    last: u64,
    appended: Instant,
    synced: Option<Instant>,
}

/// Entries that were applied together.
#[derive(Clone, Copy, Debug)]
struct Applied {
    first: u64,
    last: u64,
    begun: Instant,
    ended: Instant,
}

/// What is known of the newest entries. Knows no clock.
#[derive(Default)]
pub(crate) struct Timeline {
    appends: Mutex<VecDeque<Mark>>,
    applies: Mutex<VecDeque<Applied>>,
}

/// Where the time of a write went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    /// From the call until the engine appended it.
    pub(crate) queue: Option<Duration>,
    /// Until this member's disk had it.
    pub(crate) fsync: Option<Duration>,
    /// From the append until it was applied here: until a quorum had it, and what came before it was applied.
    pub(crate) replicate: Option<Duration>,
    /// Applying the batch that it was in.
    pub(crate) apply: Option<Duration>,
}

fn find<T: Copy>(marks: &VecDeque<T>, index: u64, range: impl Fn(&T) -> (u64, u64)) -> Option<T> {
    // A truncated entry was there before under the same index; the last one counts.
    marks.iter().rev().find(|m| range(m).0 <= index && index <= range(m).1).copied()
}

impl Timeline {
    /// Entries were appended in memory and are on their way to the disk.
    pub(crate) fn appended(&self, first: u64, last: u64, at: Instant) {
        let mut appends = self.appends.lock();
        if appends.len() == REMEMBERED {
            appends.pop_front();
        }
        appends.push_back(Mark { first, last, appended: at, synced: None });
    }

    /// They are on the disk.
    pub(crate) fn synced(&self, first: u64, last: u64, at: Instant) {
        let mut appends = self.appends.lock();
        let mark = appends.iter_mut().rev().find(|m| (m.first, m.last) == (first, last) && m.synced.is_none());
        if let Some(mark) = mark {
            mark.synced = Some(at);
        }
    }

    /// They are applied.
    pub(crate) fn applied(&self, first: u64, last: u64, begun: Instant, ended: Instant) {
        let mut applies = self.applies.lock();
        if applies.len() == REMEMBERED {
            applies.pop_front();
        }
        applies.push_back(Applied { first, last, begun, ended });
    }

    /// Where the time went of a write that was called for at a moment and became an entry.
    pub(crate) fn parts(&self, index: u64, called: Instant) -> Parts {
        let append = find(&self.appends.lock(), index, |m| (m.first, m.last));
        let apply = find(&self.applies.lock(), index, |m| (m.first, m.last));
        let between = |from: Instant, to: Instant| to.saturating_duration_since(from);
        Parts {
            queue: append.map(|a| between(called, a.appended)),
            fsync: append.and_then(|a| Some(between(a.appended, a.synced?))),
            replicate: append.and_then(|a| Some(between(a.appended, apply?.begun))),
            apply: apply.map(|a| between(a.begun, a.ended)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_taken_apart() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let ms = |ms: u64| Some(Duration::from_millis(ms));
        let timeline = Timeline::default();
        timeline.appended(1, 4, at(5));
        timeline.appended(5, 9, at(10));
        timeline.synced(1, 4, at(8));
        assert_eq!(timeline.parts(6, at(2)), Parts { queue: ms(8), ..Parts::default() });
        timeline.synced(5, 9, at(40));
        timeline.applied(1, 7, at(60), at(63));
        let parts = Parts { queue: ms(8), fsync: ms(30), replicate: ms(50), apply: ms(3) };
        assert_eq!(timeline.parts(6, at(2)), parts);
        assert_eq!(timeline.parts(99, at(0)), Parts::default());
        // What was cut off and written anew counts as it is now.
        timeline.appended(5, 5, at(100));
        assert_eq!(timeline.parts(5, at(99)).queue, ms(1));
        for i in 0..10_000 {
            timeline.appended(i, i, at(i));
            timeline.applied(i, i, at(i), at(i));
        }
        assert!(timeline.appends.lock().len() <= REMEMBERED && timeline.applies.lock().len() <= REMEMBERED);
    }
}
