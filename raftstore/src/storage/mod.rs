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
    #[error(
        "the group uses feature level {0}, this build knows only level {1}: install the version that ran here before"
    )]
    TooNew(u32, u32),
    /// What another member sent; nothing of this one's is wrong.
    #[error("a received snapshot is damaged: {0}")]
    Received(#[source] Box<StorageError>),
}

impl StorageError {
    /// Whether what is on disk is not what was written; not, whether writing or reading failed.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Codec(_) | Self::Damaged(_) => true,
            // What is missing is told as an error of input, or of an argument where a database should be.
            Self::Rocks(error) => match error.kind() {
                rocksdb::ErrorKind::Corruption | rocksdb::ErrorKind::InvalidArgument => true,
                _ => error.as_ref().contains("No such file"),
            },
            Self::Io { .. } | Self::Received(_) | Self::TooNew(..) => false,
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
        match error {
            StorageError::TooNew(..) => crate::types::StoreError::Version(error.to_string()),
            error => crate::types::StoreError::Storage(Box::new(error)),
        }
    }
}
