//! The fence: the key whose `mod_revision` identifies a leader's reign.

use bytes::Bytes;
use trireme_raftstore::{Compare, Op, OpResult, Revision, Store, Txn};

use crate::error::ServerError;

/// Key of the fence.
pub const FENCE_KEY: &str = "/trireme/fence";

/// A reign. Requests that carry it write only as long as no other reign has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    revision: Revision,
}

impl Fence {
    /// Revision at which the fence was committed.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn compare(&self) -> Compare {
        Compare::ModRevision(Bytes::from_static(FENCE_KEY.as_bytes()), self.revision)
    }
}

/// Commits a new fence: everything that carries an older one fails from here on.
pub(crate) async fn acquire(store: &Store, holder: &str) -> Result<Fence, ServerError> {
    let put = Op::Put {
        key: Bytes::from_static(FENCE_KEY.as_bytes()),
        value: Bytes::copy_from_slice(holder.as_bytes()),
        expires_at_ms: None,
    };
    let answer = store.txn(Txn { compares: vec![], then: vec![put], otherwise: vec![] }).await?;
    match answer.results.first() {
        Some(OpResult::Put { revision, .. }) => Ok(Fence { revision: *revision }),
        _ => Err(ServerError::Config("the store did not answer the fence's put".into())),
    }
}
