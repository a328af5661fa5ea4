//! Conversion between the two groups of Events, which are stored as core ones, and between the versions of
//! HorizontalPodAutoscalers.

pub mod autoscaler;
pub mod devices;

use crate::value::{remove, set};
use serde_json::{Map, Value};

/// Names of the same fields: in core and in `events.k8s.io`.
const FIELDS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// An `events.k8s.io` Event as a core one.
pub fn event_to_core(object: &mut Value) {
    for (core, new) in FIELDS {
        if let Some(value) = remove(object, new) {
            set(object, core, value);
        }
    }
    set(object, "apiVersion", "v1");
    crate::defaults::objects::core_event(object);
}

/// A core Event as an `events.k8s.io` one.
pub fn event_from_core(object: &mut Value) {
    for (core, new) in FIELDS {
        if let Some(value) = remove(object, core) {
            let empty = Value::Object(Map::new());
            if !value.is_null() && value != empty && value != "" {
                set(object, new, value);
            }
        }
    }
    crate::value::set_default(object, "eventTime", Value::Null);
    set(object, "apiVersion", "events.k8s.io/v1");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn events_come_back_as_they_went() {
        let event = json!({
            "kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": {"name": "e"}, "regarding": {"kind": "Pod"},
            "note": "n", "reason": "r", "reportingController": "c", "reportingInstance": "i", "eventTime": "2026-01-01T00:00:00.000000Z",
        });
        let mut core = event.clone();
        event_to_core(&mut core);
        assert_eq!(core["involvedObject"]["kind"], "Pod");
        assert_eq!(
            (&core["message"], &core["reportingComponent"], &core["apiVersion"]),
            (&json!("n"), &json!("c"), &json!("v1"))
        );
        event_from_core(&mut core);
        assert_eq!(core, event);
    }
}
