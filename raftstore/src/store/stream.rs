//! Reading a range of any size in bounded memory.

use std::sync::Arc;

use bytes::Bytes;

use super::node::Handle;
use crate::storage::keys;
use crate::storage::read::Wanted;
use crate::types::{KeyRange, RangeRequest, RangeResponse, Revision, StoreError};

/// Bytes of keys and values in one piece, but for the last of them, which may be of any size.
const PIECE: usize = 1 << 20;

/// A range in pieces, all of them at one revision. Nothing is read ahead, so one who takes his time holds up nobody; who
/// takes longer than history is kept is told [`StoreError::Compacted`] and has to begin again.
pub struct RangeStream {
    handle: Arc<Handle>,
    request: RangeRequest,
    /// What is left; nothing when it has ended.
    rest: Option<KeyRange>,
    revision: Option<Revision>,
}

impl RangeStream {
    pub(super) fn new(handle: Arc<Handle>, request: RangeRequest) -> Self {
        let (rest, revision) = (Some(request.range.clone()), request.revision);
        Self { handle, request, rest, revision }
    }

    /// The next piece; `None` after the last. A piece's `count` is the number of its own keys, its `more` tells whether
    /// another one follows. An empty range is one empty piece.
    ///
    /// # Errors
    /// As those of [`Store::range`](super::Store::range). Nothing follows an error.
    pub async fn next(&mut self) -> Option<Result<RangeResponse, StoreError>> {
        let range = self.rest.take()?;
        let RangeRequest { limit, consistency, keys_only, .. } = self.request;
        let wanted = Wanted { limit, piece: Some(PIECE), keys_only };
        let mut piece = match self.handle.node.range(range.clone(), self.revision, consistency, wanted).await {
            Ok(piece) => piece,
            Err(error) => return Some(Err(error)),
        };
        piece.count = piece.kvs.len() as u64;
        self.revision = Some(piece.revision);
        if limit > 0 {
            self.request.limit = limit - piece.kvs.len();
            piece.more &= self.request.limit > 0;
        }
        if let (true, Some(last)) = (piece.more, piece.kvs.last()) {
            let start = Bytes::from([&last.key[..], &[0]].concat());
            // No key is longer, so none comes after.
            let beyond = || vec![0xff; self.handle.node.config.limits.max_key_bytes + 1];
            let end = keys::bounds(&range).1.unwrap_or_else(beyond).into();
            self.rest = Some(KeyRange::Range { start, end });
        }
        Some(Ok(piece))
    }
}
