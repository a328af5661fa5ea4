//! Objects as a server sent them: what stores look at is read at once, all else when somebody asks for the object.
//!
//! Every master follows all kinds, so that taking over lists nothing, but only the leader's loops ever look at the objects.
//! As JSON they take a fraction of what they take as values, in memory and in time.

use std::marker::PhantomData;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Object, ObjectKey, slim};

/// An object of a list or a watch.
pub(super) struct Raw<K> {
    json: Box<RawValue>,
    head: Head,
    kind: PhantomData<fn() -> K>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Head {
    #[serde(default)]
    metadata: HeadMeta,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeadMeta {
    name: Option<Box<str>>,
    namespace: Option<Box<str>>,
    resource_version: Option<Box<str>>,
    owner_references: Option<Vec<HeadOwner>>,
}

#[derive(Clone, Debug, Deserialize)]
struct HeadOwner {
    #[serde(default)]
    uid: Box<str>,
}

/// The node that an object is bound to.
#[derive(Default, Deserialize)]
struct Bound {
    #[serde(default)]
    spec: Option<BoundSpec>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BoundSpec {
    node_name: Option<Box<str>>,
}

impl<K> Clone for Raw<K> {
    fn clone(&self) -> Self {
        Self { json: self.json.clone(), head: self.head.clone(), kind: PhantomData }
    }
}

impl<'de, K> Deserialize<'de> for Raw<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        let head = serde_json::from_str(json.get()).map_err(serde::de::Error::custom)?;
        Ok(Self { json, head, kind: PhantomData })
    }
}

impl<K> Raw<K> {
    /// The key of the object.
    pub(super) fn key(&self) -> ObjectKey {
        let meta = &self.head.metadata;
        ObjectKey::new(meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""))
    }

    /// Its `resourceVersion`, zero when that is absent or no number.
    pub(super) fn revision(&self) -> u64 {
        self.head.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
    }
}

/// An object in a store.
pub(super) struct Entry<K> {
    pub(super) revision: u64,
    /// Uids of the owners.
    pub(super) owners: Box<[Box<str>]>,
    /// The node that it is bound to, where the store has that index.
    pub(super) node: Option<Box<str>>,
    held: Mutex<Held<K>>,
}

enum Held<K> {
    Json(Box<RawValue>),
    Object(Arc<K>),
    /// It is none of its kind.
    Broken,
}

impl<K: Object> Entry<K> {
    pub(super) fn new(raw: Raw<K>, by_node: bool) -> Self {
        let revision = raw.revision();
        let owners = raw.head.metadata.owner_references.unwrap_or_default().into_iter().map(|owner| owner.uid);
        let bound: Option<Bound> = by_node.then(|| serde_json::from_str(raw.json.get()).unwrap_or_default());
        let node = bound.and_then(|bound| bound.spec?.node_name).filter(|node| !node.is_empty());
        Self { revision, owners: owners.collect(), node, held: Mutex::new(Held::Json(raw.json)) }
    }

    /// The object; `None` if it is none of its kind, which is told once.
    pub(super) fn object(&self) -> Option<Arc<K>> {
        let mut held = self.held.lock();
        if let Held::Json(json) = &*held {
            *held = match serde_json::from_str::<K>(json.get()) {
                Ok(mut object) => {
                    slim(object.object_meta_mut());
                    Held::Object(Arc::new(object))
                }
                Err(error) => {
                    tracing::error!(kind = std::any::type_name::<K>(), %error, "an object that cannot be read");
                    Held::Broken
                }
            };
        }
        match &*held {
            Held::Object(object) => Some(object.clone()),
            _ => None,
        }
    }

    /// Whether the object has been read already.
    #[cfg(test)]
    pub(super) fn is_read(&self) -> bool {
        matches!(&*self.held.lock(), Held::Object(_))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::super::Store;
    use super::super::store::Index;
    use super::super::subscription::Buffer;
    use super::*;

    fn raw(object: &serde_json::Value) -> Raw<Pod> {
        serde_json::from_str(&object.to_string()).unwrap()
    }

    fn pod(name: &str, revision: u64, node: &str) -> serde_json::Value {
        json!({"metadata": {"name": name, "namespace": "n", "resourceVersion": revision.to_string(),
            "ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "x", "uid": "u"}]},
            "spec": {"nodeName": node, "containers": []}})
    }

    #[test]
    fn what_stores_look_at_is_read_without_the_object() {
        let raw = raw(&pod("a", 7, "n1"));
        assert_eq!((raw.key(), raw.revision()), (ObjectKey::new("n", "a"), 7));
        let entry = Entry::new(raw.clone(), true);
        assert_eq!(entry.node.as_deref(), Some("n1"));
        assert_eq!(entry.owners.iter().map(|uid| &**uid).collect::<Vec<_>>(), ["u"]);
        assert!(Entry::new(raw, false).node.is_none());
        assert!(!entry.is_read());
        assert_eq!(entry.object().unwrap().metadata.name.as_deref(), Some("a"));
        assert!(entry.is_read() && Arc::ptr_eq(&entry.object().unwrap(), &entry.object().unwrap()));
        assert!(Entry::new(self::raw(&json!({"metadata": {}, "spec": {"nodeName": ""}})), true).node.is_none());
    }

    #[test]
    fn nothing_is_read_for_nobody() {
        let store = Store::<Pod>::new(true);
        store.replace(vec![raw(&pod("a", 1, "n1"))], 1);
        store.upsert(raw(&pod("b", 2, "n1")));
        store.upsert(raw(&pod("a", 3, "n2")));
        assert_eq!((store.len(), store.revision(), store.read_so_far()), (2, 3, 0));
        assert_eq!(store.on_node("n1").len(), 1);
        assert_eq!(store.read_so_far(), 1, "of those asked for");
        let follower = Arc::new(Buffer::new());
        store.attach(&follower);
        store.upsert(raw(&pod("c", 4, "")));
        assert_eq!(store.read_so_far(), 2);
        drop(follower);
        store.upsert(raw(&pod("d", 5, "")));
        assert_eq!((store.read_so_far(), store.list().len(), store.read_so_far()), (2, 4, 4));
    }

    #[test]
    fn what_is_none_of_its_kind_is_not_there_and_stops_nobody() {
        let store = Store::<Pod>::new(true);
        let odd =
            json!({"metadata": {"name": "odd", "namespace": "n", "resourceVersion": "2"}, "spec": {"containers": 7}});
        store.replace(vec![raw(&pod("a", 1, "")), raw(&odd)], 2);
        assert_eq!(store.list().len(), 1);
        assert!(store.find("n", "odd").is_none() && store.by_index(&Index::Owner("u".into())).len() == 1);
        store.upsert(raw(&pod("odd", 3, "")));
        assert!(store.find("n", "odd").is_some());
        store.delete(&raw(&odd));
        assert_eq!(store.len(), 1);
    }
}
