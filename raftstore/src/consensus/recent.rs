//! The records that were written or asked for last, so that apply need not ask the database for what it wrote itself. A value
//! is then in memory once: as what a key holds, as what an event tells, and as what the next event says was there before.
//!
//! So apply does not look at what the disk made of a record that is still here. Nothing wrong comes of that: what it knows is
//! what it wrote, which is also what goes into the hash that members compare. That the disk has something else, a reader
//! notices by the checksum of its block, and the reading of the whole state, now and then, by its hash (`store/integrity`).

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::machine::{Base, Record};

/// What an entry costs besides key and value.
const OVERHEAD: usize = 128;

/// Two generations: what is used moves to the younger one; when that has half of the bytes, the older one is forgotten.
pub(crate) struct Recent {
    generations: Mutex<Generations>,
    max_bytes: usize,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Bytes, Option<Record>>,
    old: HashMap<Bytes, Option<Record>>,
    young_bytes: usize,
}

fn weight(key: &Bytes, record: Option<&Record>) -> usize {
    OVERHEAD + key.len() + record.map_or(0, |r| r.value.len())
}

impl Recent {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { generations: Mutex::default(), max_bytes }
    }

    /// What is known of a key: nothing, that it is absent, or its record.
    fn get(&self, key: &[u8]) -> Option<Option<Record>> {
        let mut held = self.generations.lock();
        if let Some(known) = held.young.get(key) {
            return Some(known.clone());
        }
        let (key, known) = held.old.remove_entry(key)?;
        self.keep(&mut held, key, known.clone());
        Some(known)
    }

    /// Notes what a key holds now. It must be what a reader of the database would find.
    pub(crate) fn put(&self, key: Bytes, record: Option<Record>) {
        self.keep(&mut self.generations.lock(), key, record);
    }

    fn keep(&self, held: &mut Generations, key: Bytes, record: Option<Record>) {
        held.old.remove(&key);
        held.young_bytes += weight(&key, record.as_ref());
        if let Some(replaced) = held.young.insert(key.clone(), record) {
            held.young_bytes -= weight(&key, replaced.as_ref());
        }
        if held.young_bytes > self.max_bytes / 2 {
            held.old = std::mem::take(&mut held.young);
            held.young_bytes = 0;
        }
    }

    /// Forgets everything, since the database is another one.
    pub(crate) fn clear(&self) {
        *self.generations.lock() = Generations::default();
    }
}

/// A base whose recent records are known.
pub(crate) struct Known<'a, B> {
    pub(crate) base: &'a B,
    pub(crate) recent: &'a Recent,
}

impl<B: Base> Base for Known<'_, B> {
    type Error = B::Error;

    fn record(&self, key: &[u8]) -> Result<Option<Record>, B::Error> {
        if let Some(known) = self.recent.get(key) {
            return Ok(known);
        }
        let found = self.base.record(key)?;
        // What is absent is about to be written, or asked for once.
        if found.is_some() {
            self.recent.put(Bytes::copy_from_slice(key), found.clone());
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;

    use super::*;

    /// Has every key that begins with "k", and counts who asks.
    #[derive(Default)]
    struct Counting(Cell<usize>);

    fn record(value: &str) -> Record {
        let value = Bytes::copy_from_slice(value.as_bytes());
        Record { create_revision: 1, mod_revision: 1, version: 1, expires_at_ms: None, value }
    }

    impl Base for Counting {
        type Error = std::convert::Infallible;

        fn record(&self, key: &[u8]) -> Result<Option<Record>, Self::Error> {
            self.0.set(self.0.get() + 1);
            Ok((key[0] == b'k').then(|| record("base")))
        }
    }

    #[test]
    fn what_is_used_is_kept_and_the_rest_forgotten() {
        let (base, recent) = (Counting::default(), Recent::new(20 * (OVERHEAD + 10)));
        let known = Known { base: &base, recent: &recent };
        assert_eq!(known.record(b"k").unwrap(), Some(record("base")));
        assert_eq!(known.record(b"k").unwrap(), Some(record("base")));
        assert_eq!(base.0.get(), 1);
        recent.put("k".into(), Some(record("new")));
        recent.put("kd".into(), None);
        assert_eq!(known.record(b"k").unwrap(), Some(record("new")));
        assert_eq!(known.record(b"kd").unwrap(), None, "deleted, whatever the base says");
        assert_eq!(known.record(b"absent").unwrap(), None);
        assert_eq!(base.0.get(), 2);
        // Many others: what is asked for meanwhile stays, what is not goes, and the size is bounded.
        for i in 0..1000 {
            recent.put(format!("o{i}").into(), Some(record("x")));
            assert_eq!(known.record(b"k").unwrap(), Some(record("new")));
            let held = recent.generations.lock();
            assert!(held.young.len() + held.old.len() <= 21, "{}", held.young.len() + held.old.len());
            let weighed: usize = held.young.iter().map(|(key, r)| weight(key, r.as_ref())).sum();
            assert_eq!(weighed, held.young_bytes);
        }
        assert_eq!(known.record(b"kd").unwrap(), Some(record("base")));
        recent.clear();
        assert_eq!(known.record(b"k").unwrap(), Some(record("base")));
    }
}
