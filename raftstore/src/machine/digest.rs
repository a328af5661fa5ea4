//! A hash of the replicated state that every change moves on, so that members can compare what they have at the same
//! log index without reading it.
//!
//! `live` is the sum of one hash for each live record: it can be computed anew from what is on disk. `chain` runs over
//! every change ever made, so that a change that one member missed is seen even after it was overwritten. The hashes
//! guard against faults, not against an enemy: members trust each other.

use serde::{Deserialize, Serialize};
use twox_hash::{XxHash3_64, XxHash3_128};

use super::{Change, Meta, Record};

/// Hashes of the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Digest {
    pub(crate) live: u128,
    pub(crate) chain: u128,
}

impl Digest {
    /// The hash of one live record.
    pub(crate) fn of(key: &[u8], record: &Record) -> u128 {
        let mut head = [0; 48];
        let expires = record.expires_at_ms.map_or([0, 0], |at| [1, at]);
        let numbers = [record.create_revision, record.mod_revision, record.version, expires[0], expires[1]];
        head[..8].copy_from_slice(&XxHash3_64::oneshot(key).to_be_bytes());
        for (place, number) in head[8..].chunks_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        XxHash3_128::oneshot_with_seed(XxHash3_64::oneshot(&head), &record.value)
    }

    /// Moves the hashes on over one change.
    pub(super) fn change(&mut self, change: &Change) {
        if let Some(before) = &change.before {
            self.live = self.live.wrapping_sub(Self::of(&change.key, before));
        }
        let after = match &change.after {
            Some(after) => Self::of(&change.key, after),
            None => XxHash3_128::oneshot(&change.key),
        };
        if change.after.is_some() {
            self.live = self.live.wrapping_add(after);
        }
        let mut link = [0; 40];
        link[..16].copy_from_slice(&self.chain.to_be_bytes());
        link[16..24].copy_from_slice(&change.revision.to_be_bytes());
        link[24..].copy_from_slice(&after.to_be_bytes());
        self.chain = XxHash3_128::oneshot(&link);
    }
}

impl Meta {
    /// One hash of all that members have to agree on.
    pub(crate) fn hash(&self) -> u128 {
        let mut all = self.digest.live.to_be_bytes().to_vec();
        all.extend_from_slice(&self.digest.chain.to_be_bytes());
        for number in [self.revision, self.compacted, self.next_member, u64::from(self.feature_level)] {
            all.extend_from_slice(&number.to_be_bytes());
        }
        XxHash3_128::oneshot(&all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(mod_revision: u64, value: &'static str) -> Record {
        Record { create_revision: 2, mod_revision, version: 1, expires_at_ms: None, value: value.into() }
    }

    fn change(key: &'static str, revision: u64, before: Option<Record>, after: Option<Record>) -> Change {
        Change { key: key.into(), revision, before, after, more: false }
    }

    #[test]
    fn the_sum_follows_what_is_live_and_the_chain_all_that_happened() {
        let mut digest = Digest::default();
        digest.change(&change("/a", 2, None, Some(record(2, "x"))));
        digest.change(&change("/b", 3, None, Some(record(3, "y"))));
        digest.change(&change("/a", 4, Some(record(2, "x")), Some(record(4, "z"))));
        let sum = Digest::of(b"/a", &record(4, "z")).wrapping_add(Digest::of(b"/b", &record(3, "y")));
        assert_eq!(digest.live, sum);
        let mut missed = Digest::default();
        missed.change(&change("/b", 3, None, Some(record(3, "y"))));
        missed.change(&change("/a", 4, None, Some(record(4, "z"))));
        assert_eq!(missed.live, digest.live);
        assert_ne!(missed.chain, digest.chain);
        digest.change(&change("/a", 5, Some(record(4, "z")), None));
        digest.change(&change("/b", 6, Some(record(3, "y")), None));
        assert_eq!(digest.live, 0, "nothing is left");
    }

    #[test]
    fn every_part_of_a_record_counts() {
        let base = record(7, "value");
        let mut others = vec![Digest::of(b"/l", &base)];
        others.push(Digest::of(b"/k", &Record { create_revision: 3, ..base.clone() }));
        others.push(Digest::of(b"/k", &Record { mod_revision: 8, ..base.clone() }));
        others.push(Digest::of(b"/k", &Record { version: 2, ..base.clone() }));
        others.push(Digest::of(b"/k", &Record { expires_at_ms: Some(0), ..base.clone() }));
        others.push(Digest::of(b"/k", &Record { value: "valuf".into(), ..base.clone() }));
        let hash = Digest::of(b"/k", &base);
        assert!(others.iter().all(|other| *other != hash));
        let meta = Meta::default();
        assert_ne!(meta.hash(), Meta { next_member: 3, ..meta.clone() }.hash());
        assert_ne!(meta.hash(), Meta { compacted: 1, ..meta.clone() }.hash());
    }
}
