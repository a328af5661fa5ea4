//! Keys of the column families, made so that byte order is the order in which they are read.

use bytes::Bytes;

use crate::types::{KeyRange, Revision};

/// Number of slashes after which keys are told apart in the index by bucket. With keys like `/registry/pods/ns/name`
/// a resumed watch of one kind then does not have to scan what happened to all others.
const BUCKET_SLASHES: usize = 3;

/// First key, and the first one that is not part of the range any more (none: no end).
pub(crate) fn bounds(range: &KeyRange) -> (Vec<u8>, Option<Vec<u8>>) {
    match range {
        KeyRange::Key(key) => {
            let mut end = key.to_vec();
            end.push(0);
            (key.to_vec(), Some(end))
        }
        KeyRange::Prefix(prefix) => (prefix.to_vec(), after_prefix(prefix)),
        KeyRange::Range { start, end } => (start.to_vec(), Some(end.to_vec())),
    }
}

/// Whether the key is in the range.
pub(crate) fn contains(range: &KeyRange, key: &[u8]) -> bool {
    match range {
        KeyRange::Key(k) => k == key,
        KeyRange::Prefix(prefix) => key.starts_with(prefix),
        KeyRange::Range { start, end } => &start[..] <= key && key < &end[..],
    }
}

fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut end = prefix[..=keep].to_vec();
    end[keep] += 1;
    Some(end)
}

/// Encodes a key so that no encoded key is a prefix of another one, and order is kept.
fn escape(out: &mut Vec<u8>, key: &[u8]) {
    for b in key {
        out.push(*b);
        if *b == 0 {
            out.push(0xff);
        }
    }
}

/// Key of the superseded state of a key: the key, then the revision that ended that state.
pub(crate) fn superseded(key: &[u8], ended: Revision) -> Vec<u8> {
    let mut out = superseded_prefix(key);
    out.extend_from_slice(&ended.to_be_bytes());
    out
}

/// What all superseded states of one key begin with.
pub(crate) fn superseded_prefix(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 12);
    escape(&mut out, key);
    out.extend_from_slice(&[0, 1]);
    out
}

/// Smallest key of superseded states at or after a key.
pub(crate) fn superseded_bound(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len());
    escape(&mut out, key);
    out
}

/// Takes apart what `superseded` made.
pub(crate) fn parse_superseded(encoded: &[u8]) -> Option<(Vec<u8>, Revision)> {
    let (front, revision) = encoded.split_last_chunk::<8>()?;
    let escaped = front.strip_suffix(&[0, 1])?;
    let mut key = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(b) = bytes.next() {
        key.push(*b);
        if *b == 0 && bytes.next() != Some(&0xff) {
            return None;
        }
    }
    Some((key, u64::from_be_bytes(*revision)))
}

/// The bucket of a key: everything up to and including its third slash; none if it has fewer.
pub(crate) fn bucket(key: &[u8]) -> Option<&[u8]> {
    let mut slashes = key.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i);
    slashes.nth(BUCKET_SLASHES - 1).map(|i| &key[..=i])
}

/// The one bucket that holds all keys of the range, if there is one.
pub(crate) fn range_bucket(range: &KeyRange) -> Option<&[u8]> {
    match range {
        KeyRange::Key(key) => bucket(key),
        KeyRange::Prefix(prefix) => bucket(prefix),
        KeyRange::Range { start, end } => {
            // Both ends may be in the bucket, or the end may be the first key after it.
            let b = bucket(start)?;
            (end.starts_with(b) || after_prefix(b).as_deref() == Some(&end[..])).then_some(b)
        }
    }
}

/// Key in the index by bucket.
pub(crate) fn bucket_key(bucket: &[u8], revision: Revision) -> Vec<u8> {
    let mut out = Vec::with_capacity(bucket.len() + 10);
    out.extend_from_slice(&(bucket.len() as u16).to_be_bytes());
    out.extend_from_slice(bucket);
    out.extend_from_slice(&revision.to_be_bytes());
    out
}

/// Key in the index of expiring records.
pub(crate) fn expiry_key(expires_at_ms: u64, key: &[u8]) -> Vec<u8> {
    let mut out = expires_at_ms.to_be_bytes().to_vec();
    out.extend_from_slice(key);
    out
}

/// Takes apart what `expiry_key` made.
pub(crate) fn parse_expiry(encoded: &[u8]) -> Option<(u64, Bytes)> {
    let (at, key) = encoded.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*at), Bytes::copy_from_slice(key)))
}

/// A revision at the end of an encoded key.
pub(crate) fn trailing_revision(encoded: &[u8]) -> Option<Revision> {
    encoded.last_chunk::<8>().map(|b| u64::from_be_bytes(*b))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn superseded_keys_keep_order_and_round_trip() {
        let keys: [&[u8]; 7] = [b"", b"\0", b"\0\xff", b"a", b"a\0", b"a\0b", b"ab"];
        for pair in keys.windows(2) {
            assert!(superseded(pair[0], u64::MAX) < superseded(pair[1], 0), "{pair:?}");
            assert!(superseded(pair[0], u64::MAX) < superseded_bound(pair[1]), "{pair:?}");
            assert!(superseded(pair[1], 0) >= superseded_bound(pair[1]), "{pair:?}");
        }
        for key in keys {
            assert_eq!(parse_superseded(&superseded(key, 77)).unwrap(), (key.to_vec(), 77));
        }
    }

    #[test]
    fn prefixes_end_where_they_should() {
        assert_eq!(after_prefix(b"a/"), Some(b"a0".to_vec()));
        assert_eq!(after_prefix(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"\xff"), None);
        assert_eq!(after_prefix(b""), None);
    }

    #[test]
    fn buckets() {
        assert_eq!(bucket(b"/registry/pods/ns/a"), Some(&b"/registry/pods/"[..]));
        assert_eq!(bucket(b"/trireme/fence"), None);
        let range = |s: &str, e: &str| KeyRange::Range { start: s.to_string().into(), end: e.to_string().into() };
        assert_eq!(range_bucket(&range("/r/pods/a", "/r/pods0")), Some(&b"/r/pods/"[..]));
        assert_eq!(range_bucket(&range("/r/pods/a", "/r/pods/b")), Some(&b"/r/pods/"[..]));
        assert_eq!(range_bucket(&range("/r/pods/a", "/r/q/")), None);
        assert_eq!(range_bucket(&KeyRange::Prefix("/r/".into())), None);
    }
}
