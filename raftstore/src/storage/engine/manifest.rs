//! A look at a database's list of files before RocksDB reads it. Its reader goes round for ever at a record of a kind that only
//! recycled logs have (`log_reader.cc`: such a record is bad, and is not passed over); a list of files is never recycled, but one
//! wrong bit makes such a kind of any other.

use std::io::ErrorKind;
use std::path::Path;

use crate::storage::StorageError;

/// Records do not reach from one block into the next.
const BLOCK: usize = 32 << 10;
/// Checksum, length, kind.
const HEADER: usize = 7;

/// Kinds of records of recycled logs (`log_format.h`).
fn is_recycled(kind: u8) -> bool {
    matches!(kind, 5..=8 | 11 | 131)
}

/// Whether RocksDB comes to an end with it.
fn is_readable(manifest: &[u8]) -> bool {
    manifest.chunks(BLOCK).all(|block| {
        let mut rest = block;
        while let Some((header, body)) = rest.split_first_chunk::<HEADER>() {
            let (length, kind) = (usize::from(u16::from_le_bytes([header[4], header[5]])), header[6]);
            if is_recycled(kind) {
                return false;
            }
            // Room that was never written ends a block for RocksDB, and so does a length that is wrong.
            rest = if (length, kind) == (0, 0) { &[] } else { body.get(length..).unwrap_or_default() };
        }
        true
    })
}

/// Refuses a database whose list of files RocksDB would read for ever. Whatever else is wrong with it, RocksDB says itself.
pub(super) fn check(database: &Path) -> Result<(), StorageError> {
    let read = |name: &str| match std::fs::read(database.join(name)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StorageError::Io { what: format!("reading {name}"), source }),
        Ok(bytes) => Ok(Some(bytes)),
    };
    let Some(current) = read("CURRENT")? else { return Ok(()) };
    let name = String::from_utf8_lossy(&current);
    let name = name.trim_end();
    if !name.starts_with("MANIFEST-") || name.contains('/') {
        return Ok(());
    }
    match read(name)? {
        Some(manifest) if !is_readable(&manifest) => {
            Err(StorageError::Damaged(format!("{name}: a record of a kind that is not written to it")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::rocks::Rocks;
    use super::*;

    #[test]
    fn one_bit_does_not_keep_a_start_going_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        drop(Rocks::open(&path, true, Default::default()).unwrap());
        check(&path).unwrap();
        check(dir.path()).unwrap();
        let name = std::fs::read_to_string(path.join("CURRENT")).unwrap();
        let manifest = path.join(name.trim_end());
        let sound = std::fs::read(&manifest).unwrap();
        let mut refused = 0;
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 4;
            std::fs::write(&manifest, &bytes).unwrap();
            // All others RocksDB refuses, or finds to be the end: it must not hang here.
            match check(&path) {
                Err(error) => {
                    assert!(error.is_damage(), "{error}");
                    refused += 1;
                }
                Ok(()) => drop(Rocks::open_to_read(&path)),
            }
        }
        assert!(refused > 3, "{refused} of {}", sound.len());
    }
}
