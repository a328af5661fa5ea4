//! The objects of one kind, indexed, with the revision up to which they are complete.
//!
//! An object is decoded when it is asked for, or when somebody follows the changes; never with the store locked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::entry::{Entry, Raw};
use super::subscription::{Buffer, Change};
use super::{Object, ObjectKey};

/// A secondary key under which objects can be looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Index {
    /// Objects that name the object of this uid as an owner.
    Owner(String),
    /// Pods bound to this node.
    Node(String),
}

/// The objects of one kind. Reads take a short lock and hand out shared objects.
pub struct Store<K> {
    state: RwLock<State<K>>,
    revision: watch::Sender<u64>,
    by_node: bool,
}

struct State<K> {
    objects: BTreeMap<ObjectKey, Arc<Entry<K>>>,
    indices: HashMap<Index, BTreeSet<ObjectKey>>,
    subscribers: Vec<Weak<Buffer<K>>>,
}

impl<K: Object> Store<K> {
    pub(super) fn new(by_node: bool) -> Self {
        let state = State { objects: BTreeMap::new(), indices: HashMap::new(), subscribers: Vec::new() };
        Self { state: RwLock::new(state), revision: watch::Sender::new(0), by_node }
    }

    /// The object of that key.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        let entry = self.state.read().objects.get(key).cloned();
        entry?.object()
    }

    /// The object of that namespace (empty for cluster-wide kinds) and name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get(&ObjectKey::new(namespace, name))
    }

    /// All objects, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.snapshot(|| {})
    }

    /// The objects of one namespace, ordered by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let from = ObjectKey::new(namespace, "");
        let inside = |state: &State<K>| {
            let found = state.objects.range(from..).take_while(|(key, _)| &*key.namespace == namespace);
            found.map(|(_, entry)| entry.clone()).collect()
        };
        self.read(inside)
    }

    /// The objects found under a secondary key, ordered by namespace and name.
    pub fn by_index(&self, index: &Index) -> Vec<Arc<K>> {
        self.read(|state| {
            let keys = state.indices.get(index).into_iter().flatten();
            keys.filter_map(|key| state.objects.get(key).cloned()).collect()
        })
    }

    /// Objects that are chosen with the store locked, and decoded afterwards.
    fn read(&self, choose: impl FnOnce(&State<K>) -> Vec<Arc<Entry<K>>>) -> Vec<Arc<K>> {
        let chosen = choose(&self.state.read());
        chosen.iter().filter_map(|entry| entry.object()).collect()
    }

    /// The objects that name the object of this uid as an owner.
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        self.by_index(&Index::Owner(uid.to_owned()))
    }

    /// The objects (pods) on this node.
    pub fn on_node(&self, node: &str) -> Vec<Arc<K>> {
        self.by_index(&Index::Node(node.to_owned()))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The last revision seen; zero before the first list.
    pub fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Waits until everything up to `revision` has been seen (and the first list is there).
    pub async fn wait_for(&self, revision: u64) {
        let mut seen = self.revision.subscribe();
        // The sender lives in self, so the channel cannot close while this waits.
        let _ = seen.wait_for(|seen| *seen >= revision.max(1)).await;
    }

    /// Waits for the first list.
    pub async fn synced(&self) {
        self.wait_for(1).await;
    }

    /// Waits until the object of this key and uid is gone or marked for deletion: how the effect of one's own
    /// delete becomes visible.
    pub async fn wait_deleting(&self, key: &ObjectKey, uid: &str) {
        let mut seen = self.revision.subscribe();
        loop {
            seen.mark_unchanged();
            let there = self.get(key).is_some_and(|object| {
                let meta = object.object_meta();
                meta.uid.as_deref() == Some(uid) && meta.deletion_timestamp.is_none()
            });
            if !there || seen.changed().await.is_err() {
                return;
            }
        }
    }

    /// How many objects have been decoded.
    #[cfg(test)]
    pub(super) fn read_so_far(&self) -> usize {
        self.state.read().objects.values().filter(|entry| entry.is_read()).count()
    }

    pub(super) fn attach(&self, buffer: &Arc<Buffer<K>>) {
        let mut state = self.state.write();
        state.subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        state.subscribers.push(Arc::downgrade(buffer));
    }

    /// All objects, with `then` run before any further change can be published.
    pub(super) fn snapshot(&self, then: impl FnOnce()) -> Vec<Arc<K>> {
        self.read(|state| {
            then();
            state.objects.values().cloned().collect()
        })
    }

    /// Takes a changed or new object out of a watch.
    pub(super) fn upsert(&self, raw: Raw<K>) {
        let (key, revision) = (raw.key(), raw.revision());
        let entry = Arc::new(Entry::new(raw, self.by_node));
        if self.state.read().is_followed() {
            // Whoever follows wants it at once, and nobody should wait for the lock meanwhile.
            entry.object();
        }
        self.state.write().put(key, entry);
        self.advance(revision);
    }

    /// Takes a deletion out of a watch.
    pub(super) fn delete(&self, raw: &Raw<K>) {
        self.state.write().remove(&raw.key());
        self.advance(raw.revision());
    }

    /// Takes a fresh list: what it lacks is gone.
    pub(super) fn replace(&self, objects: Vec<Raw<K>>, revision: u64) {
        let mut state = self.state.write();
        let keep: BTreeSet<ObjectKey> = objects.iter().map(Raw::key).collect();
        let gone: Vec<ObjectKey> = state.objects.keys().filter(|key| !keep.contains(key)).cloned().collect();
        for key in gone {
            state.remove(&key);
        }
        for raw in objects {
            let key = raw.key();
            let known = state.objects.get(&key).map(|old| old.revision);
            if known != Some(raw.revision()) {
                state.put(key, Arc::new(Entry::new(raw, self.by_node)));
            }
        }
        drop(state);
        self.advance(revision);
    }

    /// Takes a bookmark.
    pub(super) fn advance(&self, revision: u64) {
        // Also without progress: those who wait for an object to go must look again.
        self.revision.send_modify(|seen| *seen = (*seen).max(revision));
    }
}

impl<K: Object> State<K> {
    fn is_followed(&self) -> bool {
        self.subscribers.iter().any(|subscriber| subscriber.strong_count() > 0)
    }

    fn put(&mut self, key: ObjectKey, new: Arc<Entry<K>>) {
        let old = self.objects.insert(key.clone(), new.clone());
        if let Some(old) = &old {
            self.unindex(&key, old);
        }
        for index in indices_of(&new) {
            self.indices.entry(index).or_default().insert(key.clone());
        }
        self.publish(old.as_deref(), Some(&new));
    }

    fn remove(&mut self, key: &ObjectKey) {
        if let Some(old) = self.objects.remove(key) {
            self.unindex(key, &old);
            self.publish(Some(&old), None);
        }
    }

    fn unindex(&mut self, key: &ObjectKey, entry: &Entry<K>) {
        for index in indices_of(entry) {
            if let Some(keys) = self.indices.get_mut(&index) {
                keys.remove(key);
                if keys.is_empty() {
                    self.indices.remove(&index);
                }
            }
        }
    }

    fn publish(&self, old: Option<&Entry<K>>, new: Option<&Entry<K>>) {
        if !self.is_followed() {
            return;
        }
        let change = Change { old: old.and_then(Entry::object), new: new.and_then(Entry::object) };
        for subscriber in &self.subscribers {
            if let Some(buffer) = subscriber.upgrade() {
                buffer.push(&change);
            }
        }
    }
}

fn indices_of<K>(entry: &Entry<K>) -> Vec<Index> {
    let owners = entry.owners.iter().map(|uid| Index::Owner(uid.to_string()));
    owners.chain(entry.node.iter().map(|node| Index::Node(node.to_string()))).collect()
}
