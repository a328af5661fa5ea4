//! Between the store's types and those of histories. A value is written with a tail as long as it says, which is left out
//! of the history.

use bytes::Bytes;
use trireme_raftstore as store;

use crate::store::history::*;

/// What fills a value up.
const FILL: u8 = b'~';

/// The bytes of a value such as `3.17/200`: itself, and 200 bytes more.
pub fn value_bytes(value: &str) -> Bytes {
    let fill = value.rsplit_once('/').and_then(|(_, fill)| fill.parse().ok()).unwrap_or(0);
    let mut bytes = value.as_bytes().to_vec();
    bytes.resize(bytes.len() + fill, FILL);
    bytes.into()
}

/// The value that bytes stand for; bytes that nobody writes stand for themselves.
pub fn value_text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == FILL).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
    if value_bytes(&text) == bytes { text } else { String::from_utf8_lossy(bytes).into_owned() }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A range of keys.
pub fn range(keys: &Keys) -> store::KeyRange {
    match keys {
        Keys::Key(key) => store::KeyRange::Key(bytes(key)),
        Keys::Prefix(prefix) => store::KeyRange::Prefix(bytes(prefix)),
    }
}

/// A key with its value.
pub fn kv(kv: &store::KeyValue) -> Kv {
    Kv {
        key: text(&kv.key),
        value: value_text(&kv.value),
        created: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
    }
}

fn compare(compare: &Compare) -> store::Compare {
    match compare {
        Compare::Modified(key, revision) => store::Compare::ModRevision(bytes(key), *revision),
        Compare::Created(key, revision) => store::Compare::CreateRevision(bytes(key), *revision),
        Compare::Exists(key) => store::Compare::Exists(bytes(key)),
        Compare::Absent(key) => store::Compare::Absent(bytes(key)),
        Compare::Value(key, value) => store::Compare::Value(bytes(key), value_bytes(value)),
    }
}

fn step(step: &Step) -> store::Op {
    match step {
        Step::Put { key, value, expires_at_ms } => {
            store::Op::Put { key: bytes(key), value: value_bytes(value), expires_at_ms: *expires_at_ms }
        }
        Step::Delete(key) => store::Op::Delete { key: bytes(key) },
        Step::Get(key) => store::Op::Get { key: bytes(key) },
    }
}

/// A transaction.
fn txn(txn: &Txn) -> store::Txn {
    store::Txn {
        compares: txn.compares.iter().map(compare).collect(),
        then: txn.then.iter().map(step).collect(),
        otherwise: txn.otherwise.iter().map(step).collect(),
    }
}

/// What a transaction did.
fn txn_answer(response: store::TxnResponse) -> Answer {
    let result = |result: &store::OpResult| match result {
        store::OpResult::Put { revision, create_revision } => {
            StepResult::Put { revision: *revision, created: *create_revision }
        }
        store::OpResult::Delete { previous, revision } => {
            StepResult::Delete { previous: previous.as_ref().map(kv), revision: *revision }
        }
        store::OpResult::Get(found) => StepResult::Get(found.as_ref().map(kv)),
    };
    Answer::Txn(TxnAnswer {
        succeeded: response.succeeded,
        failed: response.failed_compare,
        revision: response.revision,
        results: response.results.iter().map(result).collect(),
    })
}

/// What a read found.
fn range_answer(response: &store::RangeResponse) -> Answer {
    Answer::Range {
        revision: response.revision,
        kvs: response.kvs.iter().map(kv).collect(),
        more: response.more,
        count: response.count,
    }
}

/// What an error leaves open. Of a read nothing is left open.
fn error_answer(error: store::StoreError, writes: bool) -> Answer {
    use store::StoreError as E;
    match error {
        E::Compacted { requested, compacted } => Answer::Compacted { requested, compacted },
        E::FutureRevision { requested, current } => Answer::Future { requested, current },
        E::Invalid(why) | E::NoSpace(why) | E::Unavailable { reason: why, maybe_applied: false } => {
            Answer::Refused(why)
        }
        other if writes => Answer::Unknown(other.to_string()),
        other => Answer::Refused(other.to_string()),
    }
}

/// Whoever answers requests: a member in its own process, or a connection to one.
pub trait Serves {
    /// Reads.
    fn range(&self, request: store::RangeRequest) -> impl Future<Output = Told<store::RangeResponse>> + Send;
    /// Writes.
    fn txn(&self, txn: store::Txn) -> impl Future<Output = Told<store::TxnResponse>> + Send;
    /// Forgets history.
    fn compact(&self, revision: Revision) -> impl Future<Output = Told<()>> + Send;
}

type Told<T> = Result<T, store::StoreError>;

impl Serves for store::Store {
    fn range(&self, request: store::RangeRequest) -> impl Future<Output = Told<store::RangeResponse>> + Send {
        store::Store::range(self, request)
    }

    fn txn(&self, txn: store::Txn) -> impl Future<Output = Told<store::TxnResponse>> + Send {
        store::Store::txn(self, txn)
    }

    fn compact(&self, revision: Revision) -> impl Future<Output = Told<()>> + Send {
        store::Store::compact(self, revision)
    }
}

impl Serves for store::port::Client {
    fn range(&self, request: store::RangeRequest) -> impl Future<Output = Told<store::RangeResponse>> + Send {
        store::port::Client::range(self, request)
    }

    fn txn(&self, txn: store::Txn) -> impl Future<Output = Told<store::TxnResponse>> + Send {
        store::port::Client::txn(self, txn)
    }

    fn compact(&self, revision: Revision) -> impl Future<Output = Told<()>> + Send {
        store::port::Client::compact(self, revision)
    }
}

/// Asks, and says what was answered.
pub async fn ask(server: &impl Serves, call: &Call) -> Answer {
    match call {
        Call::Range { keys, at, limit, local } => {
            let consistency = if *local { store::Consistency::Local } else { store::Consistency::Linearizable };
            let range = range(keys);
            let request = store::RangeRequest { range, revision: *at, limit: *limit, consistency, keys_only: false };
            match server.range(request).await {
                Ok(response) => range_answer(&response),
                Err(error) => error_answer(error, false),
            }
        }
        Call::Txn(asked) => match server.txn(txn(asked)).await {
            Ok(response) => txn_answer(response),
            Err(error) => error_answer(error, true),
        },
        Call::Compact(revision) => match server.compact(*revision).await {
            Ok(()) => Answer::Done,
            Err(error) => error_answer(error, true),
        },
    }
}

/// A delivery of a watch.
pub fn batch(at: Micros, batch: &store::WatchBatch) -> Batch {
    let event = |event: &store::Event| Event {
        kv: kv(&event.kv),
        previous: event.previous.as_ref().map(kv),
        deleted: event.deleted,
    };
    Batch { at, revision: batch.revision, events: batch.events.iter().map(event).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_as_long_as_they_say() {
        for value in ["3.17/0", "3.17/200", "plain"] {
            assert_eq!(value_text(&value_bytes(value)), value);
        }
        assert_eq!(value_bytes("1/5").len(), 8);
        assert_eq!(value_text(b"1/5~~~~"), "1/5~~~~", "one byte is missing");
        assert_eq!(value_text(b"1/5~~~~~~"), "1/5~~~~~~", "one byte too many");
    }
}
