//! Where in the files of the log entries are. Four bytes for each entry; knows no disk.

use std::collections::VecDeque;
use std::ops::Range;

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u32,
}

/// Entries that follow one another, in one segment.
#[derive(Debug)]
struct Run {
    segment: u64,
    first: u64,
    offsets: Vec<u32>,
}

impl Run {
    /// Index after its last entry.
    fn end(&self) -> u64 {
        self.first + self.offsets.len() as u64
    }
}

/// A segment that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) len: u64,
}

/// All segments, and where entries are in them.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// In the order of entries, which is that of segments.
    runs: VecDeque<Run>,
    segments: VecDeque<Segment>,
}

impl Places {
    /// A segment follows.
    pub(super) fn begin(&mut self, number: u64, len: u64) {
        if let Some(run) = self.runs.back_mut() {
            run.offsets.shrink_to_fit();
        }
        self.segments.push_back(Segment { number, len });
    }

    /// The newest segment is so long now.
    pub(super) fn grow(&mut self, len: u64) {
        if let Some(segment) = self.segments.back_mut() {
            segment.len = len;
        }
    }

    /// The newest segment.
    pub(super) fn newest(&self) -> Option<Segment> {
        self.segments.back().copied()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }

    /// An entry was written to the newest segment, behind all others.
    pub(super) fn put(&mut self, index: u64, offset: u64) {
        let Some(Segment { number, .. }) = self.newest() else { return };
        match self.runs.back_mut() {
            Some(run) if run.segment == number && run.end() == index => run.offsets.push(offset as u32),
            _ => self.runs.push_back(Run { segment: number, first: index, offsets: vec![offset as u32] }),
        }
    }

    /// Entries from an index on were cut off.
    pub(super) fn truncate(&mut self, from: u64) {
        while let Some(run) = self.runs.back_mut() {
            if run.first < from {
                let keep = (from - run.first).min(run.offsets.len() as u64);
                run.offsets.truncate(keep as usize);
                break;
            }
            self.runs.pop_back();
        }
    }

    /// Entries up to an index were removed.
    pub(super) fn purge(&mut self, upto: u64) {
        while self.runs.front().is_some_and(|run| run.end() <= upto + 1) {
            self.runs.pop_front();
        }
    }

    /// The oldest segment, if none of its entries is left and another one follows.
    pub(super) fn unused(&self) -> Option<u64> {
        let oldest = self.segments.front()?.number;
        let needed = self.runs.front().map_or(self.newest()?.number, |run| run.segment);
        (oldest < needed).then_some(oldest)
    }

    /// The oldest segment is gone.
    pub(super) fn forget_oldest(&mut self) {
        self.segments.pop_front();
    }

    /// The first entry that there is.
    pub(super) fn first(&self) -> Option<u64> {
        self.runs.front().map(|run| run.first)
    }

    /// Places of entries from the beginning of a range on, without gaps.
    pub(super) fn find(&self, range: Range<u64>) -> Vec<Place> {
        let mut run = self.runs.partition_point(|run| run.end() <= range.start);
        let mut found = Vec::new();
        for index in range {
            let at = match self.runs.get(run) {
                Some(at) if index < at.end() => at,
                _ => {
                    run += 1;
                    let Some(at) = self.runs.get(run) else { break };
                    at
                }
            };
            let Some(offset) = index.checked_sub(at.first).and_then(|skip| at.offsets.get(skip as usize)) else {
                break;
            };
            found.push(Place { segment: at.segment, offset: *offset });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(places: &Places, range: Range<u64>) -> Vec<(u64, u32)> {
        places.find(range).into_iter().map(|place| (place.segment, place.offset)).collect()
    }

    #[test]
    fn entries_are_found_where_they_were_written_last() {
        let mut places = Places::default();
        places.begin(1, 10);
        (0..5).for_each(|i| places.put(i, 10 + i));
        places.begin(2, 20);
        (5..8).for_each(|i| places.put(i, 20 + i));
        assert_eq!(offsets(&places, 3..100), [(1, 13), (1, 14), (2, 25), (2, 26), (2, 27)]);
        // Cut off into the segment before, and written anew.
        places.truncate(3);
        assert_eq!(offsets(&places, 0..9), [(1, 10), (1, 11), (1, 12)]);
        places.put(3, 70);
        places.grow(71);
        assert_eq!(offsets(&places, 2..9), [(1, 12), (2, 70)]);
        assert_eq!((places.bytes(), places.unused(), places.first()), (81, None, Some(0)));
        places.purge(1);
        assert_eq!((places.unused(), offsets(&places, 2..9).len()), (None, 2), "the first segment is needed");
        places.purge(2);
        assert_eq!((places.unused(), places.first()), (Some(1), Some(3)));
        places.forget_oldest();
        assert_eq!((places.unused(), places.bytes()), (None, 71), "never the newest");
        places.purge(9);
        assert!(offsets(&places, 0..100).is_empty() && places.first().is_none());
        places.put(10, 80);
        assert_eq!(offsets(&places, 10..11), [(2, 80)]);
        places.truncate(0);
        assert!(offsets(&places, 0..100).is_empty());
    }
}
