//! Cells of controllers of pods and of templates.

use super::{age, name};
use crate::selector::LabelSelector;
use crate::value::{int, list, map, text};
use jiff::Timestamp;
use serde_json::{Map, Value};

/// `a=b,c=d`, or `<none>`.
pub(super) fn labels(labels: &Map<String, Value>) -> String {
    if labels.is_empty() {
        return "<none>".into();
    }
    let mut pairs: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    pairs.sort();
    pairs.join(",")
}

pub(super) fn containers(template: &Value) -> [Value; 2] {
    let join = |key: &str| -> Value {
        let texts: Vec<&str> = list(&template["spec"], "containers").iter().map(|c| text(c, key)).collect();
        texts.join(",").into()
    };
    [join("name"), join("image")]
}

pub(super) fn selector(object: &Value) -> Value {
    match LabelSelector::from_object(&object["spec"]["selector"]) {
        // No selector selects nothing, an empty one everything; neither has a text.
        Ok(selector) => super::or(&selector.to_string(), "<none>"),
        Err(error) => error.to_string().into(),
    }
}

pub(super) fn count(value: &Value, key: &str) -> Value {
    int(value, key).unwrap_or(0).into()
}

fn replicas(object: &Value, now: Timestamp, selector: Value) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = containers(&spec["template"]);
    let (desired, current, ready) =
        (count(spec, "replicas"), count(status, "replicas"), count(status, "readyReplicas"));
    vec![name(object), desired, current, ready, age(object, now), names, images, selector]
}

pub(super) fn replication_controller(object: &Value, now: Timestamp) -> Vec<Value> {
    replicas(object, now, labels(map(&object["spec"], "selector")).into())
}

pub(super) fn replica_set(object: &Value, now: Timestamp) -> Vec<Value> {
    replicas(object, now, selector(object))
}

pub(super) fn deployment(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let [names, images] = containers(&spec["template"]);
    let ready = format!("{}/{}", count(status, "readyReplicas"), count(spec, "replicas"));
    vec![
        name(object),
        ready.into(),
        count(status, "updatedReplicas"),
        count(status, "availableReplicas"),
        age(object, now),
        names,
        images,
        selector(object),
    ]
}

pub(super) fn pod_template(object: &Value, _: Timestamp) -> Vec<Value> {
    let [names, images] = containers(&object["template"]);
    vec![name(object), names, images, labels(map(&object["template"]["metadata"], "labels")).into()]
}

pub(super) fn controller_revision(object: &Value, now: Timestamp) -> Vec<Value> {
    let owners = list(&object["metadata"], "ownerReferences");
    let controller = owners.iter().find(|o| crate::value::truth(o, "controller"));
    let controller = controller.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let group = text(owner, "apiVersion").split_once('/').map_or("", |(group, _)| group);
            let kind = crate::status::qualified(group, &text(owner, "kind").to_lowercase());
            format!("{kind}/{}", text(owner, "name"))
        },
    );
    vec![name(object), controller.into(), count(object, "revision"), age(object, now)]
}

/// A Scale.
pub(super) fn scale(scale: &Value, now: Timestamp) -> Vec<Value> {
    let replicas = |part: &str| Value::from(crate::value::int(&scale[part], "replicas").unwrap_or(0));
    vec![name(scale), replicas("spec"), replicas("status"), age(scale, now)]
}
