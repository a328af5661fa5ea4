//! A queue of keys: each at most once, at most one worker a key, waits that grow with failures. Pure: the time and
//! the jitter are passed in.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::{FIRST_RETRY, LAST_RETRY};

/// How working on a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing more to do until something changes.
    Done,
    /// To be looked at again after this time.
    After(Duration),
    /// To be tried again, later each time.
    Failed,
}

enum Phase {
    Ready { since: Instant },
    Running { again: bool },
    Waiting { place: (Instant, u64) },
}

struct Entry {
    phase: Phase,
    failures: u32,
}

/// The queue.
pub(crate) struct KeyQueue<K> {
    entries: HashMap<K, Entry>,
    ready: VecDeque<K>,
    waiting: BTreeMap<(Instant, u64), K>,
    sequence: u64,
}

impl<K> Default for KeyQueue<K> {
    fn default() -> Self {
        Self { entries: HashMap::new(), ready: VecDeque::new(), waiting: BTreeMap::new(), sequence: 0 }
    }
}

impl<K: Clone + Eq + Hash> KeyQueue<K> {
    /// Asks for a key to be worked on, at once if it is not already.
    pub(crate) fn add(&mut self, key: K, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else {
            self.entries.insert(key.clone(), Entry { phase: Phase::Ready { since: now }, failures: 0 });
            self.ready.push_back(key);
            return;
        };
        match &mut entry.phase {
            Phase::Ready { .. } => {}
            Phase::Running { again } => *again = true,
            Phase::Waiting { place } => {
                self.waiting.remove(place);
                entry.phase = Phase::Ready { since: now };
                self.ready.push_back(key);
            }
        }
    }

    /// The next key to work on, which then counts as being worked on until `finish`, and since when it was ready.
    pub(crate) fn next(&mut self) -> Option<(K, Instant)> {
        let key = self.ready.pop_front()?;
        let entry = self.entries.get_mut(&key)?;
        match std::mem::replace(&mut entry.phase, Phase::Running { again: false }) {
            Phase::Ready { since } => Some((key, since)),
            Phase::Running { .. } | Phase::Waiting { .. } => None,
        }
    }

    /// How many keys wait to be worked on now.
    pub(crate) fn depth(&self) -> usize {
        self.ready.len()
    }

    /// Tells how working on a key ended. `jitter` is in 0..1.
    pub(crate) fn finish(&mut self, key: K, outcome: Outcome, now: Instant, jitter: f64) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let again = matches!(entry.phase, Phase::Running { again: true });
        let wait = match outcome {
            Outcome::Failed => {
                entry.failures = entry.failures.saturating_add(1);
                backoff(entry.failures).mul_f64(0.5 + jitter / 2.0)
            }
            _ if again => {
                entry.failures = 0;
                entry.phase = Phase::Ready { since: now };
                self.ready.push_back(key);
                return;
            }
            Outcome::Done => {
                self.entries.remove(&key);
                return;
            }
            Outcome::After(wait) => {
                entry.failures = 0;
                wait
            }
        };
        self.sequence += 1;
        let place = (now + wait, self.sequence);
        entry.phase = Phase::Waiting { place };
        self.waiting.insert(place, key);
    }

    /// Makes the keys ready whose wait is over.
    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some(first) = self.waiting.first_entry() {
            if first.key().0 > now {
                return;
            }
            let key = first.remove();
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.phase = Phase::Ready { since: now };
                self.ready.push_back(key);
            }
        }
    }

    /// When the next wait is over.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }
}

fn backoff(failures: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << (failures - 1).min(20)).min(LAST_RETRY)
}

#[cfg(test)]
mod tests {
    use trireme_client::informer::ObjectKey;

    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("default", name)
    }

    fn next(queue: &mut KeyQueue<ObjectKey>) -> Option<ObjectKey> {
        queue.next().map(|(key, _)| key)
    }

    #[test]
    fn a_key_is_queued_once_and_worked_on_by_one() {
        let (mut queue, now) = (KeyQueue::default(), Instant::now());
        queue.add(key("a"), now);
        queue.add(key("a"), now);
        queue.add(key("b"), now);
        assert_eq!(next(&mut queue), Some(key("a")));
        queue.add(key("a"), now);
        assert_eq!(next(&mut queue), Some(key("b")));
        assert_eq!(next(&mut queue), None, "a is being worked on");
        queue.finish(key("a"), Outcome::Done, now, 0.0);
        assert_eq!(next(&mut queue), Some(key("a")), "it changed while it was worked on");
        queue.finish(key("a"), Outcome::Done, now, 0.0);
        queue.finish(key("b"), Outcome::Done, now, 0.0);
        assert!(queue.entries.is_empty() && queue.next().is_none() && queue.next_due().is_none());
    }

    #[test]
    fn failures_wait_longer_each_time_up_to_a_cap() {
        let (mut queue, mut now) = (KeyQueue::default(), Instant::now());
        queue.add(key("a"), now);
        let mut waits = Vec::new();
        for _ in 0..16 {
            assert_eq!(next(&mut queue), Some(key("a")));
            queue.finish(key("a"), Outcome::Failed, now, 1.0);
            let due = queue.next_due().into_iter().next();
            waits.extend(due.map(|due| due - now));
            queue.tick(now);
            assert_eq!(next(&mut queue), None);
            now = due.unwrap_or(now);
            queue.tick(now);
        }
        assert_eq!(waits[..4], [5, 10, 20, 40].map(Duration::from_millis));
        assert_eq!(waits[15], LAST_RETRY);
    }

    #[test]
    fn a_change_ends_a_wait() {
        let (mut queue, now) = (KeyQueue::default(), Instant::now());
        queue.add(key("a"), now);
        queue.next();
        queue.finish(key("a"), Outcome::After(Duration::from_secs(30)), now, 0.0);
        assert_eq!(next(&mut queue), None);
        queue.add(key("a"), now);
        assert_eq!(next(&mut queue), Some(key("a")));
        assert_eq!(queue.next_due(), None);
    }
}
