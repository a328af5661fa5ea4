//! Watches behind the port: what each has to say, and events that are encoded once for all of them.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::frames;
use crate::codec;
use crate::store::Store;
use crate::types::{Event, Revision, StoreError, WatchBatch, WatchRequest};
use crate::watch::Watch;

/// How long a batch without events may be held back, so that a busy store does not send one for each change elsewhere.
const PROGRESS: Duration = Duration::from_millis(100);
/// Encoded events that are kept for other watchers.
const KEPT_EVENTS: usize = 4096;
const KEPT_BYTES: usize = 16 << 20;

/// What a watch has to say.
pub(super) enum Told {
    Begun,
    Batch { previous: bool, batch: WatchBatch },
    Ended(StoreError),
}

enum State {
    Begin(Store, WatchRequest),
    Open(Box<Open>),
    Over,
}

struct Open {
    watch: Watch,
    /// Progress that is held back, and for how long.
    held: Option<(Revision, Instant)>,
    told: Instant,
}

/// What a watch says, until it ends or is ended.
pub(super) fn watching(
    store: Store,
    id: u64,
    request: WatchRequest,
    previous: bool,
    end: CancellationToken,
) -> BoxStream<'static, (u64, Told)> {
    let told = stream::unfold(State::Begin(store, request), move |state| async move {
        match state {
            State::Begin(store, request) => match store.watch(request).await {
                Ok(watch) => {
                    let open = Open { watch, held: None, told: Instant::now() };
                    Some((Told::Begun, State::Open(Box::new(open))))
                }
                Err(error) => Some((Told::Ended(error), State::Over)),
            },
            State::Open(mut open) => match open.next().await? {
                Ok(batch) => Some((Told::Batch { previous, batch }, State::Open(open))),
                Err(error) => Some((Told::Ended(error), State::Over)),
            },
            State::Over => None,
        }
    });
    told.map(move |told| (id, told)).take_until(end.cancelled_owned()).boxed()
}

impl Open {
    async fn next(&mut self) -> Option<Result<WatchBatch, StoreError>> {
        loop {
            let next = match self.held {
                None => self.watch.next().await,
                Some((revision, until)) => match timeout_at(until, self.watch.next()).await {
                    Ok(next) => next,
                    Err(_) => Some(Ok(WatchBatch { revision, events: Vec::new() })),
                },
            };
            let due = self.told + PROGRESS;
            match next? {
                Ok(batch) if batch.events.is_empty() && Instant::now() < due => {
                    self.held = Some((batch.revision, due));
                }
                told => {
                    (self.held, self.told) = (None, Instant::now());
                    return Some(told);
                }
            }
        }
    }
}

/// Events as they were last encoded, in order of revision: those of a watcher are those of the next one, if they are the same
/// ones in memory. What was read again, for a watch that lags, is sent as it was read: tests want to see it.
#[derive(Default)]
pub(super) struct Encoded {
    bare: Mutex<Ring>,
    with_previous: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<Kept>,
    bytes: usize,
}

struct Kept {
    revision: Revision,
    /// Kept, so that nothing else comes to lie where it is.
    key: Bytes,
    encoded: Bytes,
}

impl Encoded {
    /// Appends a frame with a batch.
    pub(super) fn put(&self, output: &mut Vec<u8>, id: u64, previous: bool, batch: WatchBatch) {
        let mut ring = if previous { self.with_previous.lock() } else { self.bare.lock() };
        let events: Vec<Bytes> = batch.events.into_iter().map(|event| ring.encoded(event, previous)).collect();
        drop(ring);
        frames::put_events(output, id, batch.revision, &events);
    }
}

impl Ring {
    fn encoded(&mut self, mut event: Event, previous: bool) -> Bytes {
        let (revision, key) = (event.kv.mod_revision, event.kv.key.clone());
        if let Ok(found) = self.events.binary_search_by_key(&revision, |kept| kept.revision)
            && std::ptr::eq(self.events[found].key.as_ptr(), key.as_ptr())
        {
            return self.events[found].encoded.clone();
        }
        if !previous {
            event.previous = None;
        }
        let mut bytes = Vec::with_capacity(key.len() + event.kv.value.len() + 32);
        codec::append(&mut bytes, &event);
        let bytes = Bytes::from(bytes);
        // What is older than everything here is replayed for one watcher.
        if self.events.back().is_none_or(|newest| newest.revision < revision) {
            self.bytes += bytes.len();
            self.events.push_back(Kept { revision, key, encoded: bytes.clone() });
            while self.events.len() > KEPT_EVENTS || self.bytes > KEPT_BYTES {
                let Some(old) = self.events.pop_front() else { break };
                self.bytes -= old.encoded.len();
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::KeyValue;

    #[test]
    fn what_is_shared_is_encoded_once_and_what_was_read_again_is_sent_as_it_was_read() {
        let event = |value: &str| {
            let (key, value) = (Bytes::from("/k".to_owned()), Bytes::from(value.to_owned()));
            let kv = KeyValue { key, value, create_revision: 7, mod_revision: 7, version: 1 };
            Event { kv, previous: None, deleted: false }
        };
        let (mut ring, shared) = (Ring::default(), event("as it happened"));
        let first = ring.encoded(shared.clone(), true);
        assert_eq!(ring.encoded(shared, true).as_ptr(), first.as_ptr());
        let replayed = ring.encoded(event("wrong"), true);
        let sent = codec::take::<Event>(&replayed).map(|(event, _)| event.kv.value);
        assert_eq!(sent.ok(), Some("wrong".into()));
        assert_eq!((ring.events.len(), ring.bytes), (1, first.len()));
    }
}
