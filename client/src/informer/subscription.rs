//! Subscriptions to a store: bounded, and never losing a key.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Object;
use super::store::Store;

/// One change of one object: created (`old` is none), changed, or deleted (`new` is none).
#[derive(Clone, Debug)]
pub struct Change<K> {
    /// The object before.
    pub old: Option<Arc<K>>,
    /// The object after.
    pub new: Option<Arc<K>>,
}

/// What a subscriber hears.
#[derive(Debug)]
pub enum Notice<K> {
    /// One object changed.
    Change(Change<K>),
    /// The whole content: at the beginning, and whenever the subscriber fell too far behind. Changes that follow
    /// are exactly those made after it; objects that the subscriber knows and that are not in it are gone.
    Resync(Vec<Arc<K>>),
}

/// The most changes that wait for one subscriber before it gets the whole content instead.
pub(super) const CAPACITY: usize = 4096;

pub(super) struct Buffer<K> {
    state: Mutex<BufferState<K>>,
    wake: Notify,
}

enum BufferState<K> {
    Following(VecDeque<Change<K>>),
    Overflowed,
}

impl<K> Buffer<K> {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(BufferState::Overflowed), wake: Notify::new() }
    }

    pub(super) fn push(&self, change: &Change<K>) {
        let mut state = self.state.lock();
        if let BufferState::Following(queue) = &mut *state {
            if queue.len() >= CAPACITY {
                *state = BufferState::Overflowed;
            } else {
                queue.push_back(Change { old: change.old.clone(), new: change.new.clone() });
            }
        }
        drop(state);
        self.wake.notify_one();
    }
}

/// A place in the stream of a store's changes.
pub struct Subscription<K: Object> {
    store: Arc<Store<K>>,
    buffer: Arc<Buffer<K>>,
}

impl<K: Object> Subscription<K> {
    pub(super) fn new(store: Arc<Store<K>>) -> Self {
        let buffer = Arc::new(Buffer::new());
        store.attach(&buffer);
        Self { store, buffer }
    }

    /// The next notice; the first one is always the whole content. Waits while the informer has not listed yet.
    pub async fn recv(&mut self) -> Notice<K> {
        self.store.synced().await;
        loop {
            if let Some(notice) = self.try_recv() {
                return notice;
            }
            self.buffer.wake.notified().await;
        }
    }

    /// The next notice if there is one now.
    pub fn try_recv(&mut self) -> Option<Notice<K>> {
        match &mut *self.buffer.state.lock() {
            BufferState::Following(queue) => return queue.pop_front().map(Notice::Change),
            BufferState::Overflowed => {}
        }
        // Changes are pushed with the store locked for writing, so nothing falls between content and queue.
        Some(Notice::Resync(self.store.snapshot(|| {
            *self.buffer.state.lock() = BufferState::Following(VecDeque::new());
        })))
    }

    /// The notices as a stream that never ends.
    pub fn into_stream(self) -> impl Stream<Item = Notice<K>> + Send {
        futures::stream::unfold(self, |mut subscription| async move {
            let notice = subscription.recv().await;
            Some((notice, subscription))
        })
    }
}
