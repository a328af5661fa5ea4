//! Backups of the store: one file that holds every key as it is at one revision.
//!
//! The file knows nothing of RocksDB: a magic word, then frames (kind, length, CRC-32, content). The first frame is the
//! header, JSON; then come parts with records in the order of their keys; the last is the summary, JSON, with a SHA-256 of
//! everything before it. A file without its summary was not written to its end.

mod file;
mod format;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::types::{MemberId, Revision};

pub use file::BackupFile;
pub(crate) use format::{Encoder, Reader};

/// Version of the file format that this build writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// By how much a restore or a recovery raises the revision. No cluster makes so many changes after a backup, so no client
/// has seen a revision of the former lineage that the new one uses again. etcd's documentation recommends the same.
pub const REVISION_BUMP: u64 = 1_000_000_000;

/// A lineage that this one follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ancestor {
    /// Its identity.
    pub lineage: String,
    /// The revision at which it was left.
    pub revision: Revision,
    /// How it was left.
    pub by: Succession,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// What begins a new lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Succession {
    /// A restore from a backup.
    Restore,
    /// A recovery from one member's data after the loss of a majority.
    Recovery,
}

impl std::fmt::Display for Succession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Restore => "restored from a snapshot",
            Self::Recovery => "recovered after the loss of its majority",
        })
    }
}

/// A member at the time of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupMember {
    /// Identity.
    pub id: MemberId,
    /// Name.
    pub name: String,
    /// `host:port` of its peer server.
    pub peer_address: String,
    /// Opaque address for clients.
    pub client_address: String,
    /// Whether it voted.
    pub voter: bool,
}

/// What a backup says of itself first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupHeader {
    /// Version of the file format.
    pub format: u32,
    /// Version of the program that wrote it.
    pub version: String,
    /// Lineage of the data.
    pub lineage: String,
    /// The lineages before it, oldest first.
    pub ancestors: Vec<Ancestor>,
    /// Revision at which the content is consistent.
    pub revision: Revision,
    /// What was compacted then.
    pub compacted: Revision,
    /// Raft term of the last applied entry.
    pub term: u64,
    /// Raft index of the last applied entry.
    pub index: u64,
    /// Committed feature level.
    pub feature_level: u32,
    /// The id that the next new member would have got.
    pub next_member: MemberId,
    /// The member that wrote it.
    pub taken_by: String,
    /// When, milliseconds since the Unix epoch.
    pub taken_at_ms: u64,
    /// All members.
    pub members: Vec<BackupMember>,
}

/// What a backup says of itself last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupSummary {
    /// Number of keys.
    pub keys: u64,
    /// Bytes of keys and values.
    pub content_bytes: u64,
    /// CRC-32 of all records: equal content has an equal hash, whoever wrote it and when.
    pub hash: u32,
    /// SHA-256 of the file up to the summary, in hexadecimal.
    pub sha256: String,
}

/// A backup that was read to its end and is sound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupInfo {
    /// Its header.
    pub header: BackupHeader,
    /// Its summary.
    pub summary: BackupSummary,
    /// Size of the file.
    pub file_bytes: u64,
}

/// One key in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BackupRecord {
    pub(crate) key: Bytes,
    pub(crate) create_revision: Revision,
    pub(crate) mod_revision: Revision,
    pub(crate) version: u64,
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) value: Bytes,
}

/// Why a backup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is something else.
    #[error("this is not a snapshot of a Trireme store")]
    NotABackup,
    /// It was written by a later version.
    #[error("the snapshot has format {0}; this version reads up to format {FORMAT}")]
    UnknownFormat(u32),
    /// It has no end.
    #[error("the snapshot is cut off after {0} bytes: it was not written, or not copied, to its end")]
    CutOff(u64),
    /// Some of its bytes changed.
    #[error("the snapshot is damaged: {what} at byte {at}")]
    Damaged {
        /// What does not fit.
        what: String,
        /// Where.
        at: u64,
    },
    /// Reading failed.
    #[error("reading the snapshot")]
    Read(#[source] std::io::Error),
}

/// Reads a backup to its end and verifies every checksum in it.
///
/// # Errors
/// When it cannot be read, is something else, is damaged or incomplete.
pub fn verify(path: &Path) -> Result<BackupInfo, BackupError> {
    let (mut reader, header) = open(path)?;
    while reader.next_part()?.is_some() {}
    let (summary, file_bytes) = reader.finish()?;
    Ok(BackupInfo { header, summary, file_bytes })
}

/// Opens a backup.
pub(crate) fn open(path: &Path) -> Result<(Reader<BufReader<File>>, BackupHeader), BackupError> {
    let file = File::open(path).map_err(|source| BackupError::File { path: path.to_owned(), source })?;
    Reader::new(BufReader::with_capacity(1 << 20, file))
}

/// The time, for people: nothing is decided by it.
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
