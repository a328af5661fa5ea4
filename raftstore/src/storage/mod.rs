//! Everything on disk. The only place that knows RocksDB, which holds the state.
//!
//! A member's directory holds:
//!
//! - `member`: who this member is and which lineage its data belongs to;
//! - `log/`: the Raft log, the vote and the commit index, in files of their own that are only ever appended to;
//! - `reserve`, room that is given up when the disk is full;
//! - `rebuild`, if the state is damaged and has to be replaced, and `peers`, where to get another one;
//! - `state-<n>/` and `state`, a pointer file that names the current one: the applied state. It has no write-ahead log
//!   of its own, since the Raft log is one: what a crash takes from it is applied again;
//! - `snapshots/`: checkpoints of the state that are being sent or received;
//! - `recovering/`: a recovery in the making; `before-…/`: what was there before one, for the operator to remove.

pub(crate) mod collect;
pub(crate) mod disk;
pub(crate) mod engine;
pub(crate) mod export;
pub(crate) mod files;
pub(crate) mod history;
pub(crate) mod keys;
pub(crate) mod lineage;
pub(crate) mod log;
mod log_entry;
mod log_file;
#[cfg(test)]
mod log_model;
mod log_places;
mod log_queue;
pub(crate) mod log_record;
mod log_replay;
pub(crate) mod log_writer;
pub(crate) mod read;
pub(crate) mod rebuild;
pub(crate) mod records;
pub(crate) mod room;
pub(crate) mod snapshot;
pub(crate) mod space;
pub(crate) mod state;
pub(crate) mod verify;

/// What goes wrong on disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    #[error("database: {0}")]
    Rocks(#[from] rocksdb::Error),
    #[error("record on disk: {0}")]
    Codec(#[from] crate::codec::CodecError),
    #[error("{what}: {source}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("data is damaged: {0}")]
    Damaged(String),
    #[error("the group uses feature level {0}, this build knows only level {1}")]
    TooNew(u32, u32),
    /// It is whole and has to stay as it is, for the version that wrote it.
    #[error("{what}: {source}")]
    OtherVersion {
        what: String,
        #[source]
        source: crate::codec::CodecError,
    },
    /// What another member sent; nothing of this one's is wrong.
    #[error("a received snapshot cannot be used: {0}")]
    Received(#[source] Box<StorageError>),
}

impl StorageError {
    /// Whether what is on disk is not what was written; not, whether writing or reading failed.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Codec(error) => !error.is_of_other_version(),
            Self::Damaged(_) => true,
            // What is missing is told as an error of input, or of an argument where a database should be.
            Self::Rocks(error) => match error.kind() {
                rocksdb::ErrorKind::Corruption | rocksdb::ErrorKind::InvalidArgument => true,
                _ => error.as_ref().contains("No such file"),
            },
            Self::Io { .. } | Self::Received(_) | Self::TooNew(..) | Self::OtherVersion { .. } => false,
        }
    }

    /// Whether nothing is wrong but that another version wrote it.
    fn is_of_other_version(&self) -> bool {
        match self {
            Self::TooNew(..) | Self::OtherVersion { .. } => true,
            Self::Codec(error) => error.is_of_other_version(),
            _ => false,
        }
    }

    pub(crate) fn other_version(what: impl Into<String>, source: crate::codec::CodecError) -> Self {
        Self::OtherVersion { what: what.into(), source }
    }

    /// Why a database cannot be opened. One with more families than this version knows is of a newer one.
    fn opening(error: rocksdb::Error) -> Self {
        match error.as_ref().split_once("Column families not opened: ") {
            Some((_, names)) => {
                Self::other_version("the state", crate::codec::CodecError::Unknown(format!("its part {names}")))
            }
            None => Self::Rocks(error),
        }
    }

    /// Whether the disk is full: the same may work later.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Rocks(error) => error.as_ref().contains("No space left on device"),
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}

impl From<StorageError> for std::io::Error {
    fn from(error: StorageError) -> Self {
        std::io::Error::other(error)
    }
}

impl From<StorageError> for crate::types::StoreError {
    fn from(error: StorageError) -> Self {
        match error.is_of_other_version() {
            true => crate::types::StoreError::Version(format!("{error}: install the version that ran here before")),
            false => crate::types::StoreError::Storage(Box::new(error)),
        }
    }
}
