//! The kinds whose objects the garbage collector knows: a view of metadata over informers of any type.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Client;
use tokio_util::sync::CancellationToken;
use trireme_client::informer::{Informer, Informers, Meta, Object, ObjectKey, Source};

use super::Garbage;
use crate::discovery::Served;
use crate::runtime::Runner;

/// Names an object of any kind: the position of its kind, and its key.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Item {
    pub(super) kind: usize,
    pub(super) plural: Arc<str>,
    pub(super) key: ObjectKey,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.plural, self.key)
    }
}

/// A view of one kind's informer.
pub(super) trait View: Send + Sync {
    fn get(&self, key: &ObjectKey) -> Option<ObjectMeta>;
    fn owned_by(&self, uid: &str) -> Vec<ObjectMeta>;
    fn all(&self) -> Vec<ObjectKey>;
    /// Waits for the first list.
    fn synced(&self) -> BoxFuture<'_, ()>;
    /// Lets the runner follow the informer; `keys` gets metadata before and after.
    fn follow(&self, runner: Runner<Garbage>, keys: Mapper) -> Runner<Garbage>;
}

pub(super) type Mapper = Box<dyn Fn(Option<&ObjectMeta>, Option<&ObjectMeta>) -> Vec<Item> + Send>;

struct Typed<K: Object>(Informer<K>);

impl<K: Object> View for Typed<K> {
    fn get(&self, key: &ObjectKey) -> Option<ObjectMeta> {
        self.0.get(key).map(|object| object.object_meta().clone())
    }

    fn owned_by(&self, uid: &str) -> Vec<ObjectMeta> {
        self.0.owned_by(uid).iter().map(|object| object.object_meta().clone()).collect()
    }

    fn all(&self) -> Vec<ObjectKey> {
        self.0.list().iter().map(|object| ObjectKey::of(object.object_meta())).collect()
    }

    fn synced(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.synced())
    }

    fn follow(&self, runner: Runner<Garbage>, keys: Mapper) -> Runner<Garbage> {
        runner.on_change(&self.0, move |old: Option<&K>, new| keys(old.map(K::object_meta), new.map(K::object_meta)))
    }
}

/// One kind.
pub(super) struct Kind {
    pub(super) served: Served,
    pub(super) view: Box<dyn View>,
}

/// All kinds that can own or be owned.
pub(super) struct Kinds {
    kinds: Vec<Kind>,
    plurals: Vec<Arc<str>>,
    by_kind: HashMap<(String, String), usize>,
}

impl Kinds {
    /// The kinds served, over shared informers where there are some and over ones of their own, which live until
    /// `shutdown`, elsewhere.
    pub(super) fn new(served: &[Served], informers: &Informers, client: &Client, shutdown: &CancellationToken) -> Self {
        let kinds: Vec<Kind> = served
            .iter()
            .map(|served| {
                let own = || {
                    let source = Source::path(&served.path("")).metadata_only();
                    Box::new(Typed(Informer::<Meta>::start(client, source, shutdown))) as Box<dyn View>
                };
                Kind { served: served.clone(), view: shared(served, informers).unwrap_or_else(own) }
            })
            .collect();
        let by_kind = kinds.iter().enumerate();
        let by_kind = by_kind.map(|(at, kind)| ((kind.served.group.clone(), kind.served.kind.clone()), at)).collect();
        let plurals = kinds.iter().map(|kind| kind.served.plural.as_str().into()).collect();
        Self { kinds, plurals, by_kind }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Kind)> {
        self.kinds.iter().enumerate()
    }

    pub(super) fn get(&self, kind: usize) -> &Kind {
        &self.kinds[kind]
    }

    pub(super) fn item(&self, kind: usize, key: ObjectKey) -> Item {
        Item { kind, plural: self.plurals[kind].clone(), key }
    }

    /// The object that an owner reference in that namespace names, if its kind is known.
    pub(super) fn owner(&self, reference: &OwnerReference, namespace: &str) -> Option<Item> {
        let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
        let kind = *self.by_kind.get(&(group.to_owned(), reference.kind.clone()))?;
        let namespace = if self.kinds[kind].served.namespaced { namespace } else { "" };
        Some(self.item(kind, ObjectKey::new(namespace, &reference.name)))
    }

    /// The objects of all kinds that name this uid as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<(Item, ObjectMeta)> {
        let of_kind = |(at, kind): (usize, &Kind)| {
            let owned = kind.view.owned_by(uid).into_iter();
            owned.map(|meta| (self.item(at, ObjectKey::of(&meta)), meta)).collect::<Vec<_>>()
        };
        self.iter().flat_map(of_kind).collect()
    }
}

/// The view over a shared informer of that kind, if there is one.
fn shared(served: &Served, informers: &Informers) -> Option<Box<dyn View>> {
    fn view<K: Object>(informer: &Informer<K>) -> Option<Box<dyn View>> {
        Some(Box::new(Typed(informer.clone())))
    }
    match (served.group.as_str(), served.plural.as_str()) {
        ("", "pods") => view(&informers.pods),
        ("", "nodes") => view(&informers.nodes),
        ("", "namespaces") => view(&informers.namespaces),
        ("", "services") => view(&informers.services),
        ("", "endpoints") => view(&informers.endpoints),
        ("discovery.k8s.io", "endpointslices") => view(&informers.endpoint_slices),
        ("", "replicationcontrollers") => view(&informers.replication_controllers),
        ("apps", "replicasets") => view(&informers.replica_sets),
        ("apps", "deployments") => view(&informers.deployments),
        ("", "serviceaccounts") => view(&informers.service_accounts),
        ("", "configmaps") => view(&informers.config_maps),
        ("", "secrets") => view(&informers.secrets),
        _ => None,
    }
}
