//! The objects of one kind, indexed, with the revision up to which they are complete.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::subscription::{Buffer, Change};
use super::{Object, ObjectKey, revision_of, slim};

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
    node_of: fn(&K) -> Option<&str>,
}

struct State<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    indices: HashMap<Index, BTreeSet<ObjectKey>>,
    subscribers: Vec<Weak<Buffer<K>>>,
}

impl<K: Object> Store<K> {
    pub(super) fn new(node_of: fn(&K) -> Option<&str>) -> Self {
        let state = State { objects: BTreeMap::new(), indices: HashMap::new(), subscribers: Vec::new() };
        Self { state: RwLock::new(state), revision: watch::Sender::new(0), node_of }
    }

    /// The object of that key.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.state.read().objects.get(key).cloned()
    }

    /// The object of that namespace (empty for cluster-wide kinds) and name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get(&ObjectKey::new(namespace, name))
    }

    /// All objects, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.state.read().objects.values().cloned().collect()
    }

    /// The objects of one namespace, ordered by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        let from = ObjectKey::new(namespace, "");
        state
            .objects
            .range(from..)
            .take_while(|(key, _)| &*key.namespace == namespace)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The objects found under a secondary key, ordered by namespace and name.
    pub fn by_index(&self, index: &Index) -> Vec<Arc<K>> {
        let state = self.state.read();
        let keys = state.indices.get(index).into_iter().flatten();
        keys.filter_map(|key| state.objects.get(key).cloned()).collect()
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

    pub(super) fn attach(&self, buffer: &Arc<Buffer<K>>) {
        let mut state = self.state.write();
        state.subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        state.subscribers.push(Arc::downgrade(buffer));
    }

    /// All objects, with `then` run before any further change can be published.
    pub(super) fn snapshot(&self, then: impl FnOnce()) -> Vec<Arc<K>> {
        let state = self.state.read();
        then();
        state.objects.values().cloned().collect()
    }

    /// Takes a changed or new object out of a watch.
    pub(super) fn upsert(&self, object: K) {
        let revision = revision_of(object.object_meta());
        self.state.write().put(object, self.node_of);
        self.advance(revision);
    }

    /// Takes a deletion out of a watch.
    pub(super) fn delete(&self, object: &K) {
        let meta = object.object_meta();
        self.state.write().remove(&ObjectKey::of(meta), self.node_of);
        self.advance(revision_of(meta));
    }

    /// Takes a fresh list: what it lacks is gone.
    pub(super) fn replace(&self, objects: Vec<K>, revision: u64) {
        let mut state = self.state.write();
        let keep: BTreeSet<ObjectKey> = objects.iter().map(|object| ObjectKey::of(object.object_meta())).collect();
        let gone: Vec<ObjectKey> = state.objects.keys().filter(|key| !keep.contains(key)).cloned().collect();
        for key in gone {
            state.remove(&key, self.node_of);
        }
        for object in objects {
            let key = ObjectKey::of(object.object_meta());
            let known = state.objects.get(&key).map(|old| revision_of(old.object_meta()));
            if known != Some(revision_of(object.object_meta())) {
                state.put(object, self.node_of);
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
    fn put(&mut self, mut object: K, node_of: fn(&K) -> Option<&str>) {
        slim(object.object_meta_mut());
        let key = ObjectKey::of(object.object_meta());
        let new = Arc::new(object);
        let old = self.objects.insert(key.clone(), new.clone());
        if let Some(old) = &old {
            self.unindex(&key, old, node_of);
        }
        for index in indices_of(&*new, node_of) {
            self.indices.entry(index).or_default().insert(key.clone());
        }
        self.publish(Change { old, new: Some(new) });
    }

    fn remove(&mut self, key: &ObjectKey, node_of: fn(&K) -> Option<&str>) {
        if let Some(old) = self.objects.remove(key) {
            self.unindex(key, &old, node_of);
            self.publish(Change { old: Some(old), new: None });
        }
    }

    fn unindex(&mut self, key: &ObjectKey, object: &K, node_of: fn(&K) -> Option<&str>) {
        for index in indices_of(object, node_of) {
            if let Some(keys) = self.indices.get_mut(&index) {
                keys.remove(key);
                if keys.is_empty() {
                    self.indices.remove(&index);
                }
            }
        }
    }

    fn publish(&self, change: Change<K>) {
        for subscriber in &self.subscribers {
            if let Some(buffer) = subscriber.upgrade() {
                buffer.push(&change);
            }
        }
    }
}

fn indices_of<K: Object>(object: &K, node_of: fn(&K) -> Option<&str>) -> Vec<Index> {
    let owners = object.object_meta().owner_references.iter().flatten();
    let owners = owners.map(|owner| Index::Owner(owner.uid.clone()));
    owners.chain(node_of(object).map(|node| Index::Node(node.to_owned()))).collect()
}
