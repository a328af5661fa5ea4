//! The end of RocksDB's write-ahead log after a crash: torn, which is what crashes do, or damaged, which is loss.
//!
//! A write that was not fsynced may have reached the disk in part: its last record then lacks its end, or has sectors of
//! zeros in it, and nothing follows. Whatever else does not match its checksum was once acknowledged.

use std::fs;
use std::path::{Path, PathBuf};

use super::StorageError;

/// RocksDB's log consists of blocks; no header crosses the end of one.
const BLOCK: usize = 32 << 10;
/// Checksum, length, type.
const HEADER: usize = 7;
/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// How a write-ahead log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// After a good record.
    Whole,
    /// In a write that a crash cut short.
    Torn,
    /// In, or before, something that was a good record once.
    Damaged,
}

/// How the newest write-ahead log in the directory of a database ends; there may be neither.
pub(super) fn end(dir: &Path) -> Result<End, StorageError> {
    if !dir.is_dir() {
        return Ok(End::Whole);
    }
    let what = |e| StorageError::io(dir.display().to_string(), e);
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(dir).map_err(what)? {
        let path = entry.map_err(what)?.path();
        let number = path.extension().is_some_and(|e| e == "log").then(|| path.file_stem()?.to_str()?.parse().ok());
        if let Some(number) = number.flatten()
            && newest.as_ref().is_none_or(|(n, _)| number > *n)
        {
            newest = Some((number, path));
        }
    }
    match newest {
        Some((_, path)) => Ok(judge(&fs::read(&path).map_err(|e| StorageError::io(path.display().to_string(), e))?)),
        None => Ok(End::Whole),
    }
}

/// What is found at a place where a record should begin.
enum Found {
    /// A record that ends here.
    Record(usize),
    /// One that does not match its checksum, or has no end in its block.
    Bad,
    /// Nothing is left of the block.
    Padding,
}

fn record(bytes: &[u8], at: usize) -> Found {
    let block_end = (at / BLOCK + 1) * BLOCK;
    if at + HEADER > block_end.min(bytes.len()) {
        return if bytes.len() < block_end { Found::Bad } else { Found::Padding };
    }
    let header = &bytes[at..at + HEADER];
    let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let end = at + HEADER + length;
    if header[6] == 0 || end > block_end.min(bytes.len()) {
        return Found::Bad;
    }
    let stored = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    if stored == masked_crc32c(&bytes[at + 6..end]) { Found::Record(end) } else { Found::Bad }
}

fn judge(bytes: &[u8]) -> End {
    let mut at = 0;
    while at < bytes.len() {
        match record(bytes, at) {
            Found::Record(end) => at = end,
            Found::Padding => at = (at / BLOCK + 1) * BLOCK,
            Found::Bad if tail_is_torn(bytes, at) => return End::Torn,
            Found::Bad => return End::Damaged,
        }
    }
    End::Whole
}

/// Judges what follows the last good record.
fn tail_is_torn(bytes: &[u8], bad: usize) -> bool {
    // A good record at the beginning of a later block was written after the bad one.
    let later = (bad / BLOCK + 1) * BLOCK;
    if (later..bytes.len()).step_by(BLOCK).any(|at| matches!(record(bytes, at), Found::Record(_))) {
        return false;
    }
    let rest = &bytes[bad..];
    if rest.len() < HEADER {
        return true;
    }
    let length = HEADER + usize::from(u16::from_le_bytes([rest[4], rest[5]]));
    let runs_out = bad + length > bytes.len();
    let first = bad.div_ceil(SECTOR) * SECTOR;
    let end = if rest[6] == 0 { bytes.len() } else { (bad + length).min(bytes.len()) };
    let zeros = (first..end).step_by(SECTOR).any(|at| {
        let sector = &bytes[at..(at + SECTOR).min(bytes.len())];
        sector.iter().all(|b| *b == 0)
    });
    zeros || rest.iter().all(|b| *b == 0) || (runs_out && !is_whole(rest))
}

/// Whether the bytes begin with a record that is whole but for its length, which the checksum does not cover.
fn is_whole(rest: &[u8]) -> bool {
    let stored = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
    let mut crc = u32::MAX;
    rest[6..].iter().take(BLOCK).any(|b| {
        crc = step(crc, *b);
        mask(crc) == stored
    })
}

/// The checksum of RocksDB's log: CRC-32C, masked.
fn masked_crc32c(bytes: &[u8]) -> u32 {
    mask(bytes.iter().fold(u32::MAX, |crc, b| step(crc, *b)))
}

fn step(crc: u32, byte: u8) -> u32 {
    CRC32C[((crc ^ u32::from(byte)) & 0xff) as usize] ^ (crc >> 8)
}

fn mask(crc: u32) -> u32 {
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

static CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let (mut crc, mut bit) = (i as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn put(out: &mut Vec<u8>, body: &[u8]) {
        assert!(out.len() % BLOCK + HEADER + body.len() <= BLOCK);
        let mut typed = vec![1];
        typed.extend_from_slice(body);
        out.extend_from_slice(&masked_crc32c(&typed).to_le_bytes());
        out.extend_from_slice(&(body.len() as u16).to_le_bytes());
        out.extend_from_slice(&typed);
    }

    #[test]
    fn a_torn_end_is_told_from_damage() {
        let mut log = Vec::new();
        for i in 0..10u8 {
            put(&mut log, &[i + 1; 2000]);
        }
        assert_eq!(judge(&log), End::Whole);
        for cut in [log.len() - 1, log.len() - 1500, log.len() - 2005] {
            assert_eq!(judge(&log[..cut]), End::Torn, "cut at {cut}");
        }
        let last = log.len() - 2007;
        let mut zeros = log.clone();
        zeros[last + 600..].fill(0);
        assert_eq!(judge(&zeros), End::Torn, "its later sectors did not reach the disk");
        let mut grown = log.clone();
        grown.extend_from_slice(&[0; 4096]);
        assert_eq!(judge(&grown), End::Torn, "the file grew before its content came");
        // In the body, in the checksum, and in the length of the last record and others.
        for at in [last + 100, last + 4, last + 5, 5000, 3, 5] {
            let mut flipped = log.clone();
            flipped[at] ^= 0x10;
            assert_eq!(judge(&flipped), End::Damaged, "bit flipped at {at}");
        }
        // Zeros in the middle, with good records in a later block, are damage.
        let mut long = log.clone();
        while long.len() < BLOCK - 2100 {
            put(&mut long, &[7; 2000]);
        }
        let rest = BLOCK - long.len() - HEADER;
        put(&mut long, &vec![7; rest]);
        put(&mut long, &[8; 100]);
        assert_eq!(judge(&long), End::Whole);
        long[4096..8192].fill(0);
        assert_eq!(judge(&long), End::Damaged);
    }
}
