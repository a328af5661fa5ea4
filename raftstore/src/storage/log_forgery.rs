//! Segments as a later version of this program might have written them: whole, with right checksums, and unknown to this one.

use super::*;

/// What of a segment a later version wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Newer {
    Head,
    Vote,
    Entry,
    /// A kind of record that this version does not know.
    Record,
    /// A kind of entry that it does not know.
    Payload,
}

/// Every form of it.
pub(crate) const ALL: [Newer; 5] = [Newer::Head, Newer::Vote, Newer::Entry, Newer::Record, Newer::Payload];

/// Makes the last such part of a segment one of a later version; whether there is one.
pub(crate) fn forge(bytes: &mut [u8], newer: Newer) -> bool {
    let (head, begin) = Head::decode(bytes).expect("a segment");
    if newer == Newer::Head {
        bytes[PREFIX] += 1;
        let sum = codec::checksum(&[&bytes[PREFIX..PREFIX + number(&bytes[8..12]) as usize]]);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        return true;
    }
    let (mut at, mut found) = (begin, None);
    while let Some(frame) = (Part { segment: head.number, base: 0, bytes }).frame(at) {
        let wanted = if newer == Newer::Vote { VOTE } else { ENTRY };
        if frame.kind == wanted {
            found = Some((at, frame.body.clone()));
        }
        at = frame.end();
    }
    let Some((at, body)) = found else { return false };
    match newer {
        Newer::Record => bytes[at + 16] = 99,
        Newer::Payload => bytes[body.start + 1] = 99,
        _ => bytes[body.start] += 1,
    }
    if wanted_entry(newer) {
        crate::storage::log_entry::sign(&mut bytes[body.clone()]);
    }
    let sum = codec::checksum(&[&bytes[body]]);
    bytes[at + 8..at + 12].copy_from_slice(&sum.to_le_bytes());
    let sum = header_checksum(head.number, at as u64, &bytes[at..at + HEADER]);
    bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
    true
}

fn wanted_entry(newer: Newer) -> bool {
    matches!(newer, Newer::Entry | Newer::Payload)
}
