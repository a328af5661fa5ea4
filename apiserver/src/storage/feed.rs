//! One watch of the whole store feeds all caches of a master, so that a single revision says how new they all are.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trireme_api::catalogue::Catalogue;
use trireme_raftstore::{
    Consistency, Event, KeyRange, KeyValue, RangeRequest, Revision, Store, StoreError, WatchBatch, WatchRequest,
};

use super::cache::{KindCache, WindowBound};
use super::keys;
use super::object::Object;
use crate::fence::FENCE_KEY;

const PAGE: usize = 500;

/// What is taken of the shared ranges; a hint for choosing, the store's compares decide.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) cluster_ips: HashSet<Ipv4Addr>,
    pub(crate) node_ports: HashSet<u16>,
}

/// All caches and how far they are.
pub(crate) struct Feed {
    /// By key prefix below `/registry/`, for example `pods` or `apps/deployments`.
    caches: HashMap<String, Arc<KindCache>>,
    taken: RwLock<Taken>,
    /// 0 until the first load is done.
    revision: watch::Sender<Revision>,
}

impl Feed {
    pub(crate) fn new(catalogue: &Catalogue, window: WindowBound, backlog: usize) -> Self {
        let mut caches = HashMap::new();
        for resource in catalogue.stored() {
            let cache = KindCache::new(resource.clone(), resource.prefix(), window, backlog);
            caches.entry(id(&resource.group, &resource.plural)).or_insert_with(|| Arc::new(cache));
        }
        Self { caches, taken: RwLock::default(), revision: watch::Sender::new(0) }
    }

    /// The cache of a kind.
    pub(crate) fn cache(&self, group: &str, plural: &str) -> Option<&Arc<KindCache>> {
        self.caches.get(&id(group, plural))
    }

    /// All caches.
    pub(crate) fn caches(&self) -> impl Iterator<Item = &Arc<KindCache>> {
        self.caches.values()
    }

    /// How far the caches are; 0 before they are loaded.
    pub(crate) fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// Waits until the caches have a revision; the current one is the error.
    pub(crate) async fn wait(&self, revision: Revision, limit: Duration) -> Result<(), Revision> {
        let mut receiver = self.revision.subscribe();
        let reached = receiver.wait_for(|now| *now >= revision.max(1));
        match tokio::time::timeout(limit, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(self.revision()),
        }
    }

    /// Reads what is taken.
    pub(crate) fn taken<T>(&self, read: impl FnOnce(&Taken) -> T) -> T {
        read(&self.taken.read())
    }

    /// Follows the store until told to stop.
    pub(crate) async fn run(self: Arc<Self>, store: Store, stop: CancellationToken) {
        loop {
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.follow(&store) => outcome,
            };
            if let Err(error) = outcome {
                tracing::warn!(%error, "the feed of the caches was interrupted; it resumes");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
    }

    async fn follow(&self, store: &Store) -> Result<(), StoreError> {
        let mut start = self.revision();
        if start == 0 {
            start = self.load(store).await?;
        }
        let request = WatchRequest {
            range: KeyRange::Prefix(Bytes::from_static(keys::ROOT.as_bytes())),
            start_revision: Some(start + 1),
        };
        let mut watch = store.watch(request).await?;
        while let Some(batch) = watch.next().await {
            match batch {
                Ok(batch) => self.apply(batch),
                Err(error) => {
                    if matches!(error, StoreError::Compacted { .. }) {
                        self.revision.send_replace(0);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn load(&self, store: &Store) -> Result<Revision, StoreError> {
        let end = keys::prefix_end(keys::ROOT.as_bytes());
        let mut start = Bytes::from_static(keys::ROOT.as_bytes());
        let mut revision = None;
        let mut objects: HashMap<String, Vec<Arc<Object>>> = HashMap::new();
        let mut taken = Taken::default();
        loop {
            let page = store
                .range(RangeRequest {
                    range: KeyRange::Range { start, end: end.clone() },
                    revision,
                    limit: PAGE,
                    consistency: Consistency::Local,
                    keys_only: false,
                })
                .await?;
            revision.get_or_insert(page.revision);
            for kv in &page.kvs {
                self.load_one(kv, &mut objects, &mut taken);
            }
            match page.kvs.last() {
                Some(last) if page.more => start = Bytes::from([&last.key[..], &[0]].concat()),
                _ => break,
            }
        }
        let revision = revision.unwrap_or(1).max(1);
        for (id, cache) in &self.caches {
            cache.reset(objects.remove(id.as_str()).unwrap_or_default(), revision);
        }
        *self.taken.write() = taken;
        self.revision.send_replace(revision);
        Ok(revision)
    }

    fn load_one(&self, kv: &KeyValue, out: &mut HashMap<String, Vec<Arc<Object>>>, taken: &mut Taken) {
        let Ok(key) = std::str::from_utf8(&kv.key) else { return };
        if let Some((id, cache, suffix)) = self.find(key) {
            if let Some(object) = read(cache, suffix, kv) {
                out.entry(id.to_owned()).or_default().push(object);
            }
        } else {
            taken.note(key, true);
        }
    }

    /// Cache and `namespace/name` of a key.
    fn find<'a>(&'a self, key: &'a str) -> Option<(&'a str, &'a Arc<KindCache>, &'a str)> {
        let rest = key.strip_prefix(keys::REGISTRY)?;
        let (first, after) = rest.split_once('/')?;
        if let Some((id, cache)) = self.caches.get_key_value(first) {
            return Some((id, cache, after));
        }
        let (second, suffix) = after.split_once('/')?;
        let id = &rest[..first.len() + 1 + second.len()];
        self.caches.get_key_value(id).map(|(id, cache)| (id.as_str(), cache, suffix))
    }

    fn apply(&self, batch: WatchBatch) {
        let mut fence = false;
        for event in &batch.events {
            fence |= self.apply_one(event);
        }
        self.revision.send_replace(batch.revision);
        if fence {
            for cache in self.caches.values() {
                cache.bookmark(batch.revision);
            }
        }
    }

    /// Whether the event was a new fence.
    fn apply_one(&self, event: &Event) -> bool {
        let Ok(key) = std::str::from_utf8(&event.kv.key) else { return false };
        if let Some((_, cache, suffix)) = self.find(key) {
            let object = if event.deleted { None } else { read(cache, suffix, &event.kv) };
            // What this version cannot read is not gone: an agent that was told so would end its pods.
            if event.deleted || object.is_some() {
                cache.apply(suffix, object, event.kv.mod_revision);
            }
            return false;
        }
        self.taken.write().note(key, !event.deleted);
        key == FENCE_KEY
    }
}

fn id(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{group}/{plural}") }
}

impl Taken {
    fn note(&mut self, key: &str, taken: bool) {
        if let Some(ip) = key.strip_prefix(keys::CLUSTER_IPS).and_then(|ip| ip.parse().ok()) {
            if taken {
                self.cluster_ips.insert(ip)
            } else {
                self.cluster_ips.remove(&ip)
            };
        } else if let Some(port) = key.strip_prefix(keys::NODE_PORTS).and_then(|port| port.parse().ok()) {
            if taken {
                self.node_ports.insert(port)
            } else {
                self.node_ports.remove(&port)
            };
        }
    }
}

/// An unreadable value is left out of the caches and reported; it must not take the whole server down.
pub(crate) fn read(cache: &KindCache, suffix: &str, kv: &KeyValue) -> Option<Arc<Object>> {
    match Object::read(cache, Arc::from(suffix), &kv.value, kv.mod_revision) {
        Ok(object) => Some(Arc::new(object)),
        Err(error) => {
            tracing::error!(key = %String::from_utf8_lossy(&kv.key), %error, "unreadable object in the store");
            None
        }
    }
}
