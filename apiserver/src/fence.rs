//! The fence: the key whose `mod_revision` identifies a leader's reign.

use bytes::Bytes;
use trireme_raftstore::{Compare, Consistency, KeyRange, Op, OpResult, RangeRequest, Revision, Store, Txn};

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

    #[cfg(test)]
    pub(crate) fn at(revision: Revision) -> Fence {
        Fence { revision }
    }

    pub(crate) fn compare(&self) -> Compare {
        Compare::ModRevision(Bytes::from_static(FENCE_KEY.as_bytes()), self.revision)
    }
}

/// Commits a new fence: everything that carries an older one fails from here on. It replaces the fence that is there when
/// it begins and no other, so that what a deposed leader still has under way cannot take it from its successor.
pub(crate) async fn acquire(store: &Store, holder: &str) -> Result<Fence, ServerError> {
    let key = Bytes::from_static(FENCE_KEY.as_bytes());
    let present = store
        .range(RangeRequest {
            range: KeyRange::Key(key.clone()),
            revision: None,
            limit: 1,
            consistency: Consistency::Linearizable,
            keys_only: true,
        })
        .await?;
    let seen = present.kvs.first().map_or(0, |kv| kv.mod_revision);
    let compare = Compare::ModRevision(key.clone(), seen);
    let put = Op::Put { key, value: Bytes::copy_from_slice(holder.as_bytes()), expires_at_ms: None };
    let answer = store.txn(Txn { compares: vec![compare], then: vec![put], otherwise: vec![] }).await?;
    if !answer.succeeded {
        return Err(ServerError::Deposed);
    }
    match answer.results.first() {
        Some(OpResult::Put { revision, .. }) => Ok(Fence { revision: *revision }),
        _ => Err(ServerError::Config("the store did not answer the fence's put".into())),
    }
}
