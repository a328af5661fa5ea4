//! Everything on disk. The only place that knows RocksDB.
//!
//! A member's directory holds:
//!
//! - `member`: who this member is and which lineage its data belongs to;
//! - `log/`: the Raft log, the vote and the commit index, in a database whose write-ahead log is fsynced;
//! - `state-<n>/` and `state`, a pointer file that names the current one: the applied state. It has no write-ahead log
//!   of its own, since the Raft log is one: what a crash takes from it is applied again;
//! - `snapshots/`: checkpoints of the state that are being sent or received.

pub(crate) mod collect;
pub(crate) mod files;
pub(crate) mod history;
pub(crate) mod keys;
pub(crate) mod log;
pub(crate) mod log_writer;
pub(crate) mod read;
pub(crate) mod records;
pub(crate) mod snapshot;
pub(crate) mod state;

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
}

impl StorageError {
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
        crate::types::StoreError::Storage(Box::new(error))
    }
}
