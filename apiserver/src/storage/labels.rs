//! Labels of objects: many objects have the same ones, of which one copy is kept. That takes less memory, and a selector that
//! looks at all objects finds what it compares in the processor's caches.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

/// Keys and values of an object's labels.
pub(crate) type Labels = Arc<[(Box<str>, Box<str>)]>;

/// Sets that are tolerated before those that nobody uses are looked for.
const LEAST: usize = 1024;

/// The labels that a kind's objects have.
#[derive(Default)]
pub(crate) struct LabelSets(Mutex<Sets>);

#[derive(Default)]
struct Sets {
    known: HashSet<Labels>,
    /// From how many on unused ones are looked for.
    sweep_at: usize,
}

impl LabelSets {
    /// The labels of an object, shared with all that have the same ones in the same order.
    pub(crate) fn of(&self, object: &Value) -> Labels {
        let labels = object["metadata"]["labels"].as_object();
        let labels: Vec<(Box<str>, Box<str>)> = labels
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into())))
            .collect();
        self.0.lock().shared(labels)
    }
}

impl Sets {
    fn shared(&mut self, labels: Vec<(Box<str>, Box<str>)>) -> Labels {
        if let Some(known) = self.known.get(&labels[..]) {
            return known.clone();
        }
        if self.known.len() >= self.sweep_at.max(LEAST) {
            self.known.retain(|labels| Arc::strong_count(labels) > 1);
            // So that the effort for each new one stays the same.
            self.sweep_at = 2 * self.known.len();
        }
        let labels: Labels = labels.into();
        self.known.insert(labels.clone());
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_labels_are_shared_and_unused_ones_are_let_go() {
        let sets = LabelSets::default();
        let of = |value: &str| sets.of(&json!({"metadata": {"labels": {"a": value, "b": "c"}}}));
        let first = of("1");
        assert!(Arc::ptr_eq(&first, &of("1")) && !Arc::ptr_eq(&first, &of("2")));
        assert!(sets.of(&json!({"metadata": {}})).is_empty());
        for i in 0..10 * LEAST {
            of(&i.to_string());
        }
        let known = sets.0.lock().known.len();
        assert!(known <= 2 * LEAST, "{known} sets for one in use");
        assert!(Arc::ptr_eq(&first, &of("1")));
        let held: Vec<Labels> = (0..3 * LEAST).map(|i| of(&i.to_string())).collect();
        assert!(sets.0.lock().known.len() >= held.len());
    }
}
