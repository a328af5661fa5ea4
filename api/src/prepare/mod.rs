//! What the server decides about an object before it is validated: system metadata, status and spec resets, generation.

pub mod kinds;
pub mod storage;
pub mod workloads;

use crate::catalogue::{NewObject, Resource, UpdateOf};
use crate::{names, value};
use serde_json::{Map, Value};

/// Metadata that only the server sets.
const SYSTEM: &[&str] =
    &["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"];

pub(crate) fn create(resource: &Resource, object: &mut Value, new: &NewObject<'_>) {
    crate::decode::with_type(resource, object);
    if let Some(metadata) = value::object_mut(object, "metadata") {
        for key in SYSTEM.iter().chain(&["resourceVersion"]) {
            value::remove(metadata, key);
        }
        let base = value::text(metadata, "generateName").to_owned();
        if value::text(metadata, "name").is_empty() && !base.is_empty() {
            value::set(metadata, "name", names::generated(&base, new.name_suffix));
        }
        if resource.namespaced() {
            value::set_default_text(metadata, "namespace", new.namespace);
        } else if value::text(metadata, "namespace").is_empty() {
            value::remove(metadata, "namespace");
        }
        value::set(metadata, "uid", new.uid);
        value::set(metadata, "creationTimestamp", crate::time::seconds(new.now));
        if resource.generation {
            value::set(metadata, "generation", 1);
        }
    }
    if resource.has_status() && !resource.hooks.keeps_status_on_create {
        value::remove(object, "status");
    }
    (resource.hooks.prepare_create)(object);
}

pub(crate) fn update(resource: &Resource, object: &mut Value, old: &Value, of: UpdateOf<'_>) {
    crate::decode::with_type(resource, object);
    let old_metadata = old.get("metadata").cloned().unwrap_or(Value::Null);
    if let Some(metadata) = value::object_mut(object, "metadata") {
        for key in SYSTEM {
            // A uid that was given is checked, not overwritten: validation tells of the difference.
            if *key != "uid" || value::text(metadata, "uid").is_empty() {
                value::copy(metadata, &old_metadata, key);
            }
        }
        for key in ["name", "namespace", "generateName", "resourceVersion"] {
            if value::text(metadata, key).is_empty() {
                value::copy(metadata, &old_metadata, key);
            }
        }
    }
    match of {
        UpdateOf::Status => reset_to_old(object, old, &["status"]),
        UpdateOf::Main if resource.has_status() => value::copy(object, old, "status"),
        _ => {}
    }
    (resource.hooks.prepare_update)(object, old, of);
    // A binding does what the creator could have done: the pod it leads to is still the first one.
    let counts = !matches!(of, UpdateOf::Status | UpdateOf::Other("binding"));
    if resource.generation && counts && differs(object, old) {
        let generation = value::int(&old_metadata, "generation").unwrap_or(0) + 1;
        if let Some(metadata) = value::object_mut(object, "metadata") {
            value::set(metadata, "generation", generation);
        }
    }
}

/// Everything but some parts and metadata goes back to the old object's.
fn reset_to_old(object: &mut Value, old: &Value, except: &[&str]) {
    let mut reset = Map::new();
    let (Some(new_map), Some(old_map)) = (object.as_object_mut(), old.as_object()) else { return };
    for (key, old_value) in old_map {
        let from_new = except.contains(&key.as_str()) || matches!(key.as_str(), "metadata" | "kind" | "apiVersion");
        let kept = if from_new { new_map.shift_remove(key) } else { Some(old_value.clone()) };
        if let Some(kept) = kept {
            reset.insert(key.clone(), kept);
        }
    }
    for key in except {
        if let Some(new) = new_map.shift_remove(*key) {
            reset.insert((*key).to_owned(), new);
        }
    }
    *new_map = reset;
}

/// Whether anything but metadata and status differs; of metadata, a deletion that has begun counts as well.
fn differs(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| -> Map<String, Value> {
        let map = object.as_object().cloned().unwrap_or_default();
        let outside = |key: &str| matches!(key, "metadata" | "status" | "kind" | "apiVersion");
        map.into_iter().filter(|(key, v)| !outside(key) && !v.is_null()).collect()
    };
    rest(new) != rest(old) || new["metadata"]["deletionTimestamp"] != old["metadata"]["deletionTimestamp"]
}

/// Marks an object as being deleted: sets `deletionTimestamp` and the grace period, and counts the generation up.
/// With a shorter period on an object that is being deleted already, the period is shortened.
/// Answers whether anything changed.
pub fn mark_deleted(object: &mut Value, now: jiff::Timestamp, grace_seconds: i64) -> bool {
    let Some(metadata) = value::object_mut(object, "metadata") else { return false };
    let was_marked = value::has(metadata, "deletionTimestamp");
    let old_grace = value::int(metadata, "deletionGracePeriodSeconds").unwrap_or(0);
    if was_marked && old_grace <= grace_seconds {
        return false;
    }
    let from = match crate::time::of(&metadata["deletionTimestamp"]) {
        Some(then) => jiff::Timestamp::from_second(then.as_second() - old_grace).unwrap_or(now),
        None => now,
    };
    let at = jiff::Timestamp::from_second(from.as_second().saturating_add(grace_seconds)).unwrap_or(now);
    value::set(metadata, "deletionTimestamp", crate::time::seconds(at));
    value::set(metadata, "deletionGracePeriodSeconds", grace_seconds);
    if let Some(generation) = value::int(metadata, "generation").filter(|_| !was_marked) {
        value::set(metadata, "generation", generation + 1);
    }
    true
}

#[cfg(test)]
mod tests;
