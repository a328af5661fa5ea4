//! What `/metrics` tells.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use trireme_raftstore::Store;

use crate::audit::Audit;
use crate::request::info::RequestInfo;
use crate::storage::feed::Feed;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerbLabels {
    verb: String,
    resource: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    resource: String,
}

/// Verbs that are labels; the last ones are what the method of a path without resources may be.
const VERBS: &str = "get list watch create update patch delete deletecollection post put head options trace";

/// Metrics of one API server.
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<RequestLabels, Counter>,
    durations: Family<VerbLabels, Histogram>,
    objects: Family<KindLabels, Gauge>,
    watchers: Family<KindLabels, Gauge>,
    cache_revision: Gauge,
    pub(crate) panics: Counter,
    pub(crate) slow_watchers: Counter,
    /// Lists that are being sent.
    pub(crate) list_streams: Gauge,
    /// Bytes of them that are encoded and that their connections have not taken.
    pub(crate) list_bytes: Gauge,
    pub(crate) lists_cut: Counter,
    feed: Arc<Feed>,
}

impl Metrics {
    pub(crate) fn new(store: &Store, feed: &Arc<Feed>, audit: &Audit) -> Self {
        let durations = Family::<VerbLabels, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.001, 2.0, 15))
        });
        let metrics = Self {
            registry: Mutex::new(Registry::default()),
            requests: Family::default(),
            durations,
            objects: Family::default(),
            watchers: Family::default(),
            cache_revision: Gauge::default(),
            panics: Counter::default(),
            slow_watchers: Counter::default(),
            list_streams: Gauge::default(),
            list_bytes: Gauge::default(),
            lists_cut: Counter::default(),
            feed: feed.clone(),
        };
        metrics.register(store);
        audit.register(&mut metrics.registry.lock());
        metrics
    }

    fn register(&self, store: &Store) {
        let mut registry = self.registry.lock();
        let r = &mut *registry;
        r.register("apiserver_request", "Requests by verb, resource and code.", self.requests.clone());
        r.register("apiserver_request_duration_seconds", "Time to the response's head.", self.durations.clone());
        r.register("apiserver_storage_objects", "Objects by resource.", self.objects.clone());
        r.register("apiserver_registered_watchers", "Open watches by resource.", self.watchers.clone());
        r.register("apiserver_cache_revision", "Revision of this server's caches.", self.cache_revision.clone());
        r.register("apiserver_panics", "Requests that panicked.", self.panics.clone());
        r.register("apiserver_slow_watchers", "Watches cut because they fell behind.", self.slow_watchers.clone());
        r.register("apiserver_list_streams", "Large lists that are being sent.", self.list_streams.clone());
        r.register("apiserver_list_waiting_bytes", "Bytes of them that wait for clients.", self.list_bytes.clone());
        r.register(
            "apiserver_lists_broken_off",
            "Lists broken off: slow client, lost history.",
            self.lists_cut.clone(),
        );
        store.register_metrics(r);
    }

    /// Lets another part of this process add its own.
    pub(crate) fn add(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock());
    }

    /// Counts a request. Names that are not in the catalogue are not labels, so that nobody can make them grow.
    pub(crate) fn observe(&self, info: &RequestInfo, code: u16, took: Duration) {
        let cache = if info.is_resource { self.feed.cache(&info.group, &info.resource) } else { None };
        let cache = cache.filter(|_| code != 404);
        let text = |s: &str| if cache.is_some() { s.to_owned() } else { String::new() };
        let known_sub = cache.is_some_and(|c| c.resource.subresource(&info.subresource).is_some());
        let verb = VERBS.split(' ').find(|verb| *verb == info.verb).unwrap_or("other");
        let labels = RequestLabels {
            verb: verb.to_owned(),
            group: text(&info.group),
            version: if cache.is_some_and(|c| c.resource.version == info.version) {
                text(&info.version)
            } else {
                String::new()
            },
            resource: text(&info.resource),
            subresource: if known_sub { text(&info.subresource) } else { String::new() },
            code,
        };
        self.requests.get_or_create(&labels).inc();
        if verb != "watch" {
            let labels = VerbLabels { verb: verb.to_owned(), resource: text(&info.resource) };
            self.durations.get_or_create(&labels).observe(took.as_secs_f64());
        }
    }

    /// The exposition in OpenMetrics text.
    pub(crate) fn exposition(&self) -> String {
        for cache in self.feed.caches() {
            let labels = KindLabels { resource: cache.resource.qualified() };
            self.objects.get_or_create(&labels).set(cache.len() as i64);
            self.watchers.get_or_create(&labels).set(cache.watchers() as i64);
        }
        self.cache_revision.set(self.feed.revision() as i64);
        let mut out = String::new();
        if text::encode(&mut out, &self.registry.lock()).is_err() {
            out.clear();
        }
        out
    }
}
