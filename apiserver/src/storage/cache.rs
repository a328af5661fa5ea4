//! The cache of one kind: its live objects, its latest changes, and the watchers that want the next ones.

pub(crate) mod page;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::broadcast;
use trireme_api::catalogue::Resource;

use super::labels::LabelSets;
use super::object::{Change, Object};
use super::skim::Skim;

/// Field by which the agents' watches select; the only indexed one.
pub(crate) const NODE_FIELD: &str = "spec.nodeName";

/// What watchers of a kind are sent.
#[derive(Clone, Debug)]
pub(crate) enum Signal {
    /// An object changed.
    Change(Arc<Change>),
    /// Everything up to this revision was sent; pass it on as a bookmark at once.
    Bookmark(u64),
    /// The cache was rebuilt: resume from the last revision.
    Cut,
}

/// Cache of one kind.
pub(crate) struct KindCache {
    pub(crate) resource: Arc<Resource>,
    pub(crate) skim: Skim,
    pub(crate) labels: LabelSets,
    pub(crate) prefix: String,
    state: RwLock<State>,
    /// Made with the first watcher: of most kinds nobody ever watches anything.
    signals: OnceLock<broadcast::Sender<Signal>>,
    backlog: usize,
    bound: WindowBound,
}

/// How many of a kind's latest changes are kept to resume watches from. What is older comes from the store's history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowBound {
    pub(crate) events: usize,
    /// Of the changes with their frames; the newest change is kept whatever its size.
    pub(crate) bytes: usize,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Arc<str>, Arc<Object>>,
    by_node: HashMap<Box<str>, BTreeSet<Arc<str>>>,
    window: VecDeque<Arc<Change>>,
    window_bytes: usize,
    /// Every change above this revision is in the window.
    floor: u64,
    /// Revision of the newest change.
    last: u64,
}

impl State {
    fn insert(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let old = self.objects.insert(object.key.clone(), object.clone());
        if let Some(old) = &old {
            self.unindex(old);
        }
        if let Some(node) = object.field(NODE_FIELD).filter(|n| !n.is_empty()) {
            self.by_node.entry(node.into()).or_default().insert(object.key.clone());
        }
        old
    }

    fn remove(&mut self, key: &str) -> Option<Arc<Object>> {
        let old = self.objects.remove(key)?;
        self.unindex(&old);
        Some(old)
    }

    fn remember(&mut self, change: Arc<Change>, bound: WindowBound) {
        self.window_bytes += change.weight();
        self.window.push_back(change);
        while self.window.len() > bound.events || (self.window_bytes > bound.bytes && self.window.len() > 1) {
            let Some(dropped) = self.window.pop_front() else { return };
            self.window_bytes -= dropped.weight();
            self.floor = dropped.revision;
        }
    }

    fn unindex(&mut self, object: &Object) {
        let Some(node) = object.field(NODE_FIELD).filter(|n| !n.is_empty()) else { return };
        if let Some(keys) = self.by_node.get_mut(node) {
            keys.remove(&object.key);
            if keys.is_empty() {
                self.by_node.remove(node);
            }
        }
    }
}

/// Which part of a kind a list or watch is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) node: Option<String>,
}

/// How a watch starts.
pub(crate) enum Subscription {
    /// From the window: what happened since, and what will.
    Live { missed: Vec<Arc<Change>>, signals: broadcast::Receiver<Signal> },
    /// The window does not reach back far enough; history does, up to this revision at least.
    TooOld { floor: u64 },
}

impl KindCache {
    pub(crate) fn new(resource: Arc<Resource>, prefix: String, bound: WindowBound, backlog: usize) -> Self {
        let skim = Skim::of(&resource);
        Self {
            resource,
            skim,
            labels: LabelSets::default(),
            prefix,
            state: RwLock::default(),
            signals: OnceLock::new(),
            backlog,
            bound,
        }
    }

    /// Replaces everything after a (re)load and cuts all watchers.
    pub(crate) fn reset(&self, objects: Vec<Arc<Object>>, revision: u64) {
        let mut state = State { floor: revision, last: 0, ..State::default() };
        for object in objects {
            state.last = state.last.max(object.revision);
            state.insert(object);
        }
        let mut guard = self.state.write();
        *guard = state;
        self.signal(|| Signal::Cut);
    }

    /// Applies one change and hands it to the watchers; `object` is `None` for a deletion.
    pub(crate) fn apply(&self, key: &str, object: Option<Arc<Object>>, revision: u64) {
        let mut state = self.state.write();
        if revision <= state.floor && state.window.is_empty() || revision <= state.last {
            return;
        }
        let old = match &object {
            Some(object) => state.insert(object.clone()),
            None => state.remove(key),
        };
        state.last = revision;
        if object.is_none() && old.is_none() {
            return;
        }
        let change = Arc::new(Change::new(revision, object, old));
        state.remember(change.clone(), self.bound);
        // Sent under the lock, so that a subscription sees each change exactly once.
        self.signal(|| Signal::Change(change));
    }

    fn signal(&self, signal: impl FnOnce() -> Signal) {
        if let Some(signals) = self.signals.get() {
            let _ = signals.send(signal());
        }
    }

    /// Called under the lock of the state, so that nothing is missed between a look at it and the first signal.
    fn listen(&self) -> broadcast::Receiver<Signal> {
        self.signals.get_or_init(|| broadcast::channel(self.backlog).0).subscribe()
    }

    /// Tells the watchers that everything up to a revision was sent.
    pub(crate) fn bookmark(&self, revision: u64) {
        self.signal(|| Signal::Bookmark(revision));
    }

    /// One object.
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.state.read().objects.get(key).cloned()
    }

    /// Number of objects.
    pub(crate) fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Number of open watches.
    pub(crate) fn watchers(&self) -> usize {
        self.signals.get().map_or(0, broadcast::Sender::receiver_count)
    }

    /// The objects of a part in key order; `keep` sees each once.
    pub(crate) fn snapshot(&self, part: &Part, keep: impl Fn(&Object) -> bool) -> Vec<Arc<Object>> {
        collect(&self.state.read(), part, keep)
    }

    /// The changes after a revision and everything that follows.
    pub(crate) fn subscribe(&self, after: u64) -> Subscription {
        let state = self.state.read();
        if after < state.floor {
            return Subscription::TooOld { floor: state.floor };
        }
        let start = state.window.partition_point(|c| c.revision <= after);
        let missed = state.window.range(start..).cloned().collect();
        Subscription::Live { missed, signals: self.listen() }
    }

    /// Key of an object of this kind in the store.
    pub(crate) fn store_key(&self, suffix: &str) -> Bytes {
        Bytes::from(format!("{}{suffix}", self.prefix))
    }
}

fn collect(state: &State, part: &Part, keep: impl Fn(&Object) -> bool) -> Vec<Arc<Object>> {
    let wanted = |o: &&Arc<Object>| part.name.as_deref().is_none_or(|n| n == o.name()) && keep(o);
    if let Some(node) = &part.node {
        let keys = state.by_node.get(node.as_str()).into_iter().flatten();
        let inside = |o: &&Arc<Object>| part.namespace.is_none() || part.namespace.as_deref() == o.namespace();
        return keys.filter_map(|k| state.objects.get(k)).filter(inside).filter(wanted).cloned().collect();
    }
    if let Some(namespace) = &part.namespace {
        if let Some(name) = &part.name {
            let key = super::keys::suffix(Some(namespace), name);
            return state.objects.get(key.as_str()).into_iter().filter(wanted).cloned().collect();
        }
        let (start, end) = (format!("{namespace}/"), format!("{namespace}0"));
        let range = (Bound::Included(start.as_str()), Bound::Excluded(end.as_str()));
        return state.objects.range::<str, _>(range).map(|(_, o)| o).filter(wanted).cloned().collect();
    }
    state.objects.values().filter(wanted).cloned().collect()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::storage::codec;
    use serde_json::json;
    use trireme_api::catalogue::Catalogue;

    fn cache(events: usize) -> KindCache {
        bounded(WindowBound { events, bytes: usize::MAX })
    }

    pub(crate) fn bounded(window: WindowBound) -> KindCache {
        let pods = Catalogue::builtin().resource("", "v1", "pods").unwrap();
        let prefix = pods.prefix();
        KindCache::new(pods, prefix, window, 64)
    }

    pub(crate) fn pod(cache: &KindCache, key: &str, node: &str, revision: u64) -> Arc<Object> {
        let (namespace, name) = key.split_once('/').unwrap();
        let value = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name, "namespace": namespace},
                           "spec": {"nodeName": node}});
        let bytes = codec::encode(&value, "v1", None).unwrap();
        Arc::new(Object::read(cache, Arc::from(key), &bytes, revision).unwrap())
    }

    pub(crate) fn put(cache: &KindCache, key: &str, node: &str, revision: u64) {
        cache.apply(key, Some(pod(cache, key, node, revision)), revision);
    }

    fn keys(cache: &KindCache, part: &Part) -> Vec<String> {
        cache.snapshot(part, |_| true).iter().map(|o| o.key.to_string()).collect()
    }

    #[test]
    fn parts_and_index() {
        let cache = cache(8);
        cache.reset(vec![pod(&cache, "a/x", "n1", 2)], 5);
        put(&cache, "a/y", "n2", 6);
        put(&cache, "a0/z", "n1", 7);
        put(&cache, "b/x", "", 8);
        let namespace = |n: &str| Part { namespace: Some(n.into()), ..Part::default() };
        assert_eq!(keys(&cache, &namespace("a")), ["a/x", "a/y"]);
        assert_eq!(keys(&cache, &Part { node: Some("n1".into()), ..Part::default() }), ["a/x", "a0/z"]);
        put(&cache, "a/x", "n2", 9);
        assert_eq!(keys(&cache, &Part { node: Some("n1".into()), ..namespace("a") }), Vec::<String>::new());
        assert_eq!(keys(&cache, &Part { node: Some("n2".into()), ..namespace("a") }), ["a/x", "a/y"]);
        assert_eq!(keys(&cache, &Part { name: Some("x".into()), ..Part::default() }), ["a/x", "b/x"]);
        cache.apply("a/x", None, 10);
        assert_eq!(keys(&cache, &Part { node: Some("n2".into()), ..Part::default() }), ["a/y"]);
    }

    #[test]
    fn the_window_is_bounded_by_bytes_too() {
        let cache = bounded(WindowBound { events: 1000, bytes: 10_000 });
        cache.reset(Vec::new(), 0);
        for revision in 1..=100 {
            put(&cache, "a/p", "n", revision);
        }
        let state = cache.state.read();
        let held: usize = state.window.iter().map(|change| change.weight()).sum();
        assert_eq!(held, state.window_bytes);
        assert!(held <= 10_000 && state.window.len() > 5, "{held} bytes in {} changes", state.window.len());
        assert_eq!(state.floor + state.window.len() as u64, 100, "what has left is below the floor");
        drop(state);
        let small = bounded(WindowBound { events: 1000, bytes: 1 });
        small.reset(Vec::new(), 0);
        put(&small, "a/p", "n", 1);
        put(&small, "a/p", "n", 2);
        assert!(matches!(small.subscribe(1), Subscription::Live { missed, .. } if missed.len() == 1));
    }

    #[test]
    fn a_subscription_has_no_gap_and_no_duplicate() {
        let cache = cache(3);
        cache.reset(Vec::new(), 10);
        assert!(matches!(cache.subscribe(9), Subscription::TooOld { floor: 10 }));
        for revision in 11..=15 {
            put(&cache, &format!("a/p{revision}"), "", revision);
        }
        // Applying again what is known changes nothing.
        put(&cache, "a/p15", "", 15);
        assert!(matches!(cache.subscribe(11), Subscription::TooOld { floor: 12 }));
        let Subscription::Live { missed, mut signals } = cache.subscribe(13) else { panic!() };
        assert_eq!(missed.iter().map(|c| c.revision).collect::<Vec<_>>(), [14, 15]);
        cache.apply("a/p15", None, 16);
        let Ok(Signal::Change(change)) = signals.try_recv() else { panic!() };
        assert_eq!((change.revision, change.new.is_none(), change.old.is_some()), (16, true, true));
        assert!(signals.try_recv().is_err());
    }
}
