//! How anything that leaves memory is encoded: a version byte, then bincode.
//!
//! bincode is used nowhere else. A record of a version that this build does not know is an error, never skipped.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version that this build writes, and the only one it reads.
pub(crate) const VERSION: u8 = 3;

/// Why bytes could not be decoded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    /// The version that was found, and the one that this build reads.
    #[error("{}", other_version(*.0, *.1))]
    UnknownVersion(u32, u32),
    /// What has a right checksum, but is not known to this version.
    #[error("written by a newer version: {0} is not known to this one")]
    Unknown(String),
    #[error("truncated record")]
    Truncated,
    #[error("checksum mismatch in {0}")]
    Checksum(&'static str),
    #[error("written by a newer version: it needs feature level {0}, this build knows {1}")]
    FeatureLevel(u32, u32),
    #[error("malformed record: {0}")]
    Malformed(#[source] bincode::error::DecodeError),
    #[error("malformed record: {0}")]
    Invalid(&'static str),
}

fn other_version(found: u32, reads: u32) -> String {
    match found > reads {
        true => format!("written by a newer version ({found}; this one reads up to {reads})"),
        false => format!("written by an older version ({found}; this one reads {reads})"),
    }
}

impl CodecError {
    /// The version byte of a record is not the one that this build reads.
    pub(crate) fn version(found: u8) -> Self {
        Self::UnknownVersion(found.into(), VERSION.into())
    }

    /// Whether nothing is wrong with the bytes: another version wrote them.
    pub(crate) fn is_of_other_version(&self) -> bool {
        matches!(self, Self::UnknownVersion(..) | Self::Unknown(_) | Self::FeatureLevel(..))
    }
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// Encodes a record with its version byte.
pub(crate) fn encode<T: Serialize + ?Sized>(record: &T) -> Vec<u8> {
    // Most records are short, and growing from nothing would be several allocations for each.
    let mut out = Vec::with_capacity(64);
    encode_into(&mut out, record);
    out
}

/// The same in the place of what was in a buffer.
pub(crate) fn encode_into<T: Serialize + ?Sized>(out: &mut Vec<u8>, record: &T) {
    out.clear();
    out.push(VERSION);
    append(out, record);
}

/// Appends a record without a version byte, for places where an enclosing record carries it.
pub(crate) fn append<T: Serialize + ?Sized>(out: &mut Vec<u8>, record: &T) {
    let written = bincode::serde::encode_into_std_write(record, out, bincode::config::standard());
    // Writing to memory cannot fail and none of our types has a fallible Serialize.
    written.expect("encoding to memory");
}

/// Decodes what `encode` wrote.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (version, body) = bytes.split_first().ok_or(CodecError::Truncated)?;
    if *version != VERSION {
        return Err(CodecError::version(*version));
    }
    let (record, used) = take(body)?;
    if used == body.len() { Ok(record) } else { Err(CodecError::Invalid("trailing bytes")) }
}

/// Decodes what `append` wrote from the front of the bytes; also tells how many bytes that took.
pub(crate) fn take<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, usize), CodecError> {
    bincode::serde::decode_from_slice(bytes, bincode::config::standard()).map_err(CodecError::Malformed)
}

/// Checksum of bytes that rest or travel.
pub(crate) fn checksum(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        let bytes = encode(&(7u64, "x".to_string()));
        assert_eq!(bytes[0], VERSION, "the version comes first");
        assert_eq!(decode::<(u64, String)>(&bytes).unwrap(), (7, "x".into()));
        let mut newer = bytes.clone();
        newer[0] = VERSION + 1;
        let refused = decode::<(u64, String)>(&newer).unwrap_err();
        assert!(refused.is_of_other_version(), "{refused}");
        let (next, own) = (VERSION + 1, VERSION);
        assert_eq!(refused.to_string(), format!("written by a newer version ({next}; this one reads up to {own})"));
        assert!(CodecError::version(VERSION - 1).to_string().contains("older version"));
        assert!(matches!(decode::<(u64, String)>(&[]), Err(CodecError::Truncated)));
        assert!(matches!(decode::<(u64, String)>(&bytes[..2]), Err(CodecError::Malformed(_))));
        let mut longer = bytes;
        longer.push(0);
        assert!(matches!(decode::<(u64, String)>(&longer), Err(CodecError::Invalid(_))));
    }
}
