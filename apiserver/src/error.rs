//! Errors of this crate, and the one place where store errors become HTTP codes.

use trireme_api::status::Status;
use trireme_raftstore::StoreError;

/// Why an API server cannot be built, started or used by its process.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration cannot work.
    #[error("API server configuration: {0}")]
    Config(String),
    /// The store refused.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// Keys or certificates are unusable.
    #[error("TLS: {0}")]
    Tls(String),
    /// The listener failed.
    #[error("listener")]
    Listen(#[source] std::io::Error),
    /// Another master has begun a reign meanwhile.
    #[error("another master has taken the fence")]
    Deposed,
    /// A request of the server to itself failed.
    #[error("bootstrap: {0}")]
    Bootstrap(Status),
}

/// What every step of a request answers with.
pub(crate) type ApiResult<T> = Result<T, Status>;

/// The Status for a store error.
pub(crate) fn store_status(error: &StoreError) -> Status {
    match error {
        StoreError::Compacted { requested, compacted } => Status::compacted(*requested, *compacted),
        StoreError::FutureRevision { requested, current } => Status::too_large_resource_version(*requested, *current),
        StoreError::Unavailable { reason, maybe_applied: false } => {
            let mut status = Status::service_unavailable(format!("the store cannot do that at the moment: {reason}"));
            status.details =
                Some(Box::new(trireme_api::status::Details { retry_after_seconds: 1, ..Default::default() }));
            status
        }
        StoreError::Unavailable { reason, maybe_applied: true } => Status::timeout(
            &format!(
                "request did not complete within the allotted time and may or may not have been applied: {reason}"
            ),
            0,
        ),
        StoreError::Invalid(why) => {
            let mut status = Status::request_entity_too_large(0);
            status.message = format!("the store refused the request: {why}");
            status
        }
        StoreError::ShuttingDown => Status::service_unavailable("the server is shutting down"),
        // What an operator of etcd knows as "database space exceeded".
        StoreError::NoSpace(_) => {
            let mut status = Status::internal(error);
            status.code = 507;
            status
        }
        StoreError::StateDamaged(_) => Status::service_unavailable(error.to_string()),
        StoreError::SlowWatcher(_) => Status::expired("the watch fell behind; resume it"),
        other => Status::internal(other),
    }
}

/// A decoding failure of something the store holds.
pub(crate) fn corrupt(error: impl std::fmt::Display) -> Status {
    Status::internal(format!("stored object: {error}"))
}
