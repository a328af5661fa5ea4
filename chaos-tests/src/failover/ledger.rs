//! What was acknowledged, and what may have happened besides.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// An acknowledged write.
#[derive(Clone, Debug)]
pub struct Ack {
    /// Master that acknowledged it.
    pub master: usize,
    /// Object.
    pub name: String,
    /// What was written; `None`: it was deleted.
    pub value: Option<u64>,
    /// Its revision; 0 where the answer does not tell.
    pub revision: u64,
    /// When it was sent.
    pub begun: Instant,
    /// When the answer came.
    pub at: Instant,
}

/// What may be found in place of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The newest acknowledged value.
    pub acked: Option<u64>,
    /// Its revision.
    pub revision: u64,
    /// The newest value that was sent; nothing newer can exist.
    pub sent: u64,
    /// Its deletion was sent.
    pub deleting: bool,
    /// Its deletion was acknowledged.
    pub deleted: bool,
}

impl Expected {
    /// What is wrong with what was found: value and revision of the object, or `None`.
    pub fn contradicts(&self, found: Option<(u64, u64)>) -> Option<String> {
        match found {
            Some(_) if self.deleted => Some("its deletion was acknowledged, and it is there".to_owned()),
            None if self.acked.is_some() && !self.deleting => Some("it was acknowledged and is missing".to_owned()),
            Some((value, _)) if value > self.sent => Some(format!("it holds {value}, which nobody has written")),
            Some((value, revision)) => {
                let acked = self.acked.unwrap_or_default();
                let stale = value < acked || revision < self.revision;
                stale.then(|| {
                    let kept = self.revision;
                    format!("it holds {value} of revision {revision}, though {acked} was acknowledged at {kept}")
                })
            }
            None => None,
        }
    }
}

/// A request that failed: neither refused nor acknowledged.
#[derive(Clone, Debug)]
pub struct Failed {
    /// When the failure was known.
    pub at: Instant,
    /// Master that was asked.
    pub master: usize,
    /// What was said.
    pub why: String,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Ledger {
    acks: Mutex<Vec<Ack>>,
    objects: Mutex<BTreeMap<String, Expected>>,
    failures: Mutex<Vec<Failed>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// A write is about to be sent.
    pub fn sending(&self, name: &str, value: Option<u64>) {
        let mut objects = locked(&self.objects);
        let object = objects.entry(name.to_owned()).or_default();
        match value {
            Some(value) => object.sent = value,
            None => object.deleting = true,
        }
    }

    /// It was acknowledged.
    pub fn acknowledged(&self, ack: Ack) {
        let mut objects = locked(&self.objects);
        let object = objects.entry(ack.name.clone()).or_default();
        match ack.value {
            Some(_) => (object.acked, object.revision) = (ack.value, ack.revision),
            None => object.deleted = true,
        }
        drop(objects);
        locked(&self.acks).push(ack);
    }

    /// It failed, or its answer did not come.
    pub fn failed(&self, failed: Failed) {
        locked(&self.failures).push(failed);
    }

    /// All acknowledged writes.
    pub fn acks(&self) -> Vec<Ack> {
        locked(&self.acks).clone()
    }

    /// What is to be found now. Taken before a read, it is a lower bound of what the read has to show.
    pub fn expected(&self) -> BTreeMap<String, Expected> {
        locked(&self.objects).clone()
    }

    /// Failures at or after an instant.
    pub fn failures_since(&self, from: Instant) -> Vec<Failed> {
        locked(&self.failures).iter().filter(|failed| failed.at >= from).cloned().collect()
    }

    /// Instants of acknowledgements of all masters but one, in order.
    pub fn instants(&self, except: usize) -> Vec<Instant> {
        let mut all: Vec<Instant> =
            locked(&self.acks).iter().filter(|ack| ack.master != except).map(|ack| ack.at).collect();
        all.sort_unstable();
        all
    }
}

/// Writes that began after another was acknowledged and yet have a smaller revision. Deletions are not told theirs.
pub fn out_of_order(acks: &[Ack]) -> Vec<String> {
    let mut by_begin: Vec<&Ack> = acks.iter().filter(|ack| ack.revision > 0).collect();
    by_begin.sort_by_key(|ack| ack.begun);
    let mut by_end: Vec<&Ack> = by_begin.clone();
    by_end.sort_by_key(|ack| ack.at);
    let (mut ended, mut newest) = (by_end.into_iter().peekable(), None::<&Ack>);
    let mut found = Vec::new();
    for ack in by_begin {
        while let Some(before) = ended.next_if(|before| before.at < ack.begun) {
            if newest.is_none_or(|newest| newest.revision < before.revision) {
                newest = Some(before);
            }
        }
        if let Some(before) = newest.filter(|before| before.revision >= ack.revision) {
            found.push(format!(
                "{} was written at revision {} after {} had been acknowledged at {}",
                ack.name, ack.revision, before.name, before.revision
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_found_is_judged() {
        let kept = Expected { acked: Some(3), revision: 10, sent: 4, ..Expected::default() };
        assert_eq!(kept.contradicts(Some((3, 10))), None);
        assert_eq!(kept.contradicts(Some((4, 12))), None);
        for wrong in [None, Some((2, 9)), Some((2, 12)), Some((3, 9)), Some((5, 13))] {
            assert!(kept.contradicts(wrong).is_some(), "{wrong:?}");
        }
        let unknown = Expected { sent: 1, ..Expected::default() };
        assert!(unknown.contradicts(None).is_none() && unknown.contradicts(Some((1, 7))).is_none());
        let gone = Expected { deleting: true, deleted: true, ..kept.clone() };
        assert!(gone.contradicts(None).is_none() && gone.contradicts(Some((4, 12))).is_some());
        let going = Expected { deleting: true, ..kept };
        assert!(going.contradicts(None).is_none() && going.contradicts(Some((4, 12))).is_none());
    }

    #[test]
    fn order_in_time_is_order_of_revisions() {
        let start = Instant::now();
        let ack = |name: &str, revision, begun, at| Ack {
            master: 1,
            name: name.to_owned(),
            value: Some(1),
            revision,
            begun: start + Duration::from_millis(begun),
            at: start + Duration::from_millis(at),
        };
        let side_by_side = [ack("a", 6, 0, 10), ack("b", 5, 5, 12), ack("c", 7, 20, 30)];
        assert!(out_of_order(&side_by_side).is_empty());
        let with_deletion = [ack("a", 6, 0, 10), ack("a", 0, 11, 12), ack("b", 7, 13, 14)];
        assert!(out_of_order(&with_deletion).is_empty());
        let backwards = [ack("a", 6, 0, 10), ack("b", 5, 11, 12)];
        assert_eq!(out_of_order(&backwards).len(), 1);
    }
}
