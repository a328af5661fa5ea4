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
    feed: Arc<Feed>,
}

impl Metrics {
    pub(crate) fn new(store: &Store, feed: &Arc<Feed>) -> Self {
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
            feed: feed.clone(),
        };
        metrics.register(store);
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
        store.register_metrics(r);
    }

    /// Counts a request. Names that are not in the catalogue are not labels, so that nobody can make them grow.
    pub(crate) fn observe(&self, info: &RequestInfo, code: u16, took: Duration) {
        let known = info.is_resource && self.feed.cache(&info.group, &info.resource).is_some() && code != 404;
        let text = |s: &str| if known { s.to_owned() } else { String::new() };
        let labels = RequestLabels {
            verb: info.verb.clone(),
            group: text(&info.group),
            version: text(&info.version),
            resource: text(&info.resource),
            subresource: text(&info.subresource),
            code,
        };
        self.requests.get_or_create(&labels).inc();
        if !matches!(info.verb.as_str(), "watch") {
            let labels = VerbLabels { verb: info.verb.clone(), resource: text(&info.resource) };
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
