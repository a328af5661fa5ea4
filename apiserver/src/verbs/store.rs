//! Store transactions of the write verbs: what has to hold, what is written, and which error each broken condition is.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::Value;
use trireme_api::status::Status;
use trireme_raftstore::{Compare, Limits, Op, OpResult, Revision, Txn};

use super::ctx::Ctx;
use crate::error::{ApiResult, corrupt, store_status};
use crate::storage::object::Object;
use crate::storage::{codec, keys};

/// What a compare of a transaction stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The reign of the caller's leader.
    Fence,
    /// The object is as it was read, or absent for a creation.
    Object,
    /// The namespace exists and accepts content.
    Namespace,
    /// Nobody has the address.
    ClusterIp(Ipv4Addr),
    /// Nobody has the port.
    NodePort(u16),
}

/// A transaction in the making.
#[derive(Debug, Default)]
pub(crate) struct Change {
    guards: Vec<Guard>,
    txn: Txn,
}

/// How a transaction ended.
pub(crate) enum Outcome {
    /// Committed; the revision of the object's own change.
    Done(Revision),
    /// This did not hold; nothing was changed.
    Broken(Guard),
}

impl Change {
    /// An empty change that is bound to the caller's fence.
    pub(crate) fn new(ctx: &Ctx) -> Self {
        let mut change = Self::default();
        if let Some(fence) = &ctx.caller.fence {
            change.guard(Guard::Fence, fence.compare());
        }
        change
    }

    pub(crate) fn guard(&mut self, guard: Guard, compare: Compare) {
        self.guards.push(guard);
        self.txn.compares.push(compare);
    }

    pub(crate) fn op(&mut self, op: Op) {
        self.txn.then.push(op);
    }

    /// Commits. The first operation has to be the one on the object.
    pub(crate) async fn commit(self, ctx: &Ctx) -> ApiResult<Outcome> {
        let answer = ctx.server.inner.store.txn(self.txn).await.map_err(|e| store_status(&e))?;
        if answer.succeeded {
            let revision = match answer.results.first() {
                Some(OpResult::Put { revision, .. } | OpResult::Delete { revision, .. }) if *revision > 0 => *revision,
                _ => answer.revision,
            };
            ctx.note.committed(ctx.caller.fence, revision);
            return Ok(Outcome::Done(revision));
        }
        let broken = answer.failed_compare.and_then(|i| self.guards.get(i).cloned()).unwrap_or(Guard::Object);
        if broken == Guard::Fence {
            let why = "the leader that sent this request was deposed; its fence is no longer the current one";
            return Err(Status::conflict(ctx.group(), ctx.plural(), ctx.name(), why));
        }
        Ok(Outcome::Broken(broken))
    }
}

/// The stored form of an object in the request's version; its managers are given as text, or it has them.
pub(crate) fn encode(ctx: &Ctx, object: &Value, managers: Option<&str>) -> ApiResult<Bytes> {
    let value = encode_with(ctx, object, managers)?;
    if value.len() > Limits::default().max_value_bytes {
        // As upstream has it: what has no room with its owners may have room without.
        return encode_with(ctx, object, Some(""));
    }
    Ok(value)
}

fn encode_with(ctx: &Ctx, object: &Value, managers: Option<&str>) -> ApiResult<Bytes> {
    let encoded = if ctx.resource.converts() {
        let mut stored = object.clone();
        ctx.resource.to_storage(&mut stored);
        codec::encode(&stored, &ctx.resource.storage.version, managers)
    } else {
        codec::encode(object, &ctx.resource.version, managers)
    };
    encoded.map_err(corrupt)
}

/// The write of an object.
pub(crate) fn put(ctx: &Ctx, suffix: &str, value: Bytes) -> Op {
    let is_event = ctx.resource.storage.plural == "events";
    Op::Put {
        key: ctx.cache.store_key(suffix),
        value,
        expires_at_ms: is_event.then(|| now_ms() + ctx.server.config().event_ttl.as_millis() as u64),
    }
}

/// The object is the one that was read.
pub(crate) fn unchanged(ctx: &Ctx, object: &Object) -> Compare {
    Compare::ModRevision(ctx.cache.store_key(&object.key), object.revision)
}

/// The object as it was committed, for the response.
pub(crate) fn committed(suffix: &str, value: &Bytes, revision: Revision) -> ApiResult<Object> {
    Object::written(Arc::from(suffix), value, revision).map_err(corrupt)
}

/// Milliseconds since the epoch; used for expiry times only.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// A creation that failed because its namespace is not active: 404 or 403, from the newest state.
pub(crate) async fn namespace_error(ctx: &Ctx, name: &str) -> Status {
    let namespace = ctx.info.namespace.as_deref().unwrap_or_default();
    if let Err(status) = ctx.server.barrier().await {
        return status;
    }
    match ctx.server.inner.feed.cache("", "namespaces").and_then(|c| c.get(namespace)) {
        Some(_) => Status::namespace_terminating(ctx.group(), ctx.plural(), name, namespace),
        None => Status::not_found("", "namespaces", namespace),
    }
}

/// The condition that the namespace accepts content.
pub(crate) fn namespace_active(namespace: &str) -> Compare {
    Compare::Exists(keys::namespace_active(namespace))
}
