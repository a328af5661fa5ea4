//! What the controllers' queues tell, under the names that upstream gives them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    name: &'static str,
}

/// Metrics of all queues of this process.
#[derive(Clone, Debug)]
pub struct Metrics {
    depth: Family<Labels, Gauge>,
    adds: Family<Labels, Counter>,
    retries: Family<Labels, Counter>,
    waited: Family<Labels, Histogram>,
    worked: Family<Labels, Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        // Ten microseconds to ten seconds.
        let histogram = || Histogram::new(exponential_buckets(1e-5, 10.0, 7));
        Self {
            depth: Family::default(),
            adds: Family::default(),
            retries: Family::default(),
            waited: Family::new_with_constructor(histogram),
            worked: Family::new_with_constructor(histogram),
        }
    }
}

impl Metrics {
    /// Makes them known.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("workqueue_depth", "Current depth of workqueue.", self.depth.clone());
        registry.register("workqueue_adds", "Number of adds handled by workqueue.", self.adds.clone());
        registry.register("workqueue_retries", "Number of retries handled by workqueue.", self.retries.clone());
        registry.register(
            "workqueue_queue_duration_seconds",
            "How long an item stays in workqueue before being requested.",
            self.waited.clone(),
        );
        registry.register(
            "workqueue_work_duration_seconds",
            "How long processing an item from workqueue takes.",
            self.worked.clone(),
        );
    }

    /// Those of one queue.
    pub(crate) fn queue(&self, name: &'static str) -> QueueMetrics {
        let labels = Labels { name };
        QueueMetrics {
            depth: self.depth.get_or_create_owned(&labels),
            adds: self.adds.get_or_create_owned(&labels),
            retries: self.retries.get_or_create_owned(&labels),
            waited: self.waited.get_or_create_owned(&labels),
            worked: self.worked.get_or_create_owned(&labels),
        }
    }
}

/// Metrics of one queue.
#[derive(Clone, Debug)]
pub(crate) struct QueueMetrics {
    pub(crate) depth: Gauge,
    pub(crate) adds: Counter,
    pub(crate) retries: Counter,
    pub(crate) waited: Histogram,
    pub(crate) worked: Histogram,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn queues_are_told_apart_by_name() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        metrics.queue("deployment").adds.inc_by(3);
        metrics.queue("namespace").depth.set(2);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("workqueue_adds_total{name=\"deployment\"} 3"), "{text}");
        assert!(text.contains("workqueue_depth{name=\"namespace\"} 2"), "{text}");
    }
}
