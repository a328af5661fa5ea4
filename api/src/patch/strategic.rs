//! Strategic merge patch, following upstream's `apimachinery/pkg/util/strategicpatch` step by step, since clients depend on
//! its treatment of order and directives in every corner.

use super::PatchError;
use super::order::{self, Places};
use crate::schema::{Node, Property, Schemas, Strategy, TypeId};
use serde_json::{Map, Value};

pub(super) const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

type Object = Map<String, Value>;

/// The type of the object being patched; without one, maps are merged and lists replaced.
#[derive(Clone, Copy)]
struct Scope<'a> {
    schemas: &'a Schemas,
    node: Option<&'a Node>,
}

impl<'a> Scope<'a> {
    fn property(&self, key: &str) -> Option<&'a Property> {
        match self.node {
            Some(Node::Struct(id)) => self.schemas.get(*id).property(key),
            _ => None,
        }
    }

    fn child(&self, key: &str) -> Scope<'a> {
        let node = match self.node {
            Some(Node::Map(values)) => Some(values.as_ref()),
            _ => self.property(key).map(|p| &p.node),
        };
        Scope { node, ..*self }
    }

    fn items(&self) -> Scope<'a> {
        let node = match self.node {
            Some(Node::List(list)) => Some(&list.items),
            _ => None,
        };
        Scope { node, ..*self }
    }

    fn strategy(&self, key: &str) -> Strategy {
        self.property(key).map(|p| p.strategy).unwrap_or_default()
    }
}

fn malformed<T>(text: impl Into<String>) -> Result<T, PatchError> {
    Err(PatchError::Malformed(text.into()))
}

pub(super) fn no_merge_key(item: &Value, key: &str) -> PatchError {
    PatchError::Malformed(format!("map: {item} does not contain declared merge key: {key}"))
}

pub(super) fn apply(schemas: &Schemas, root: TypeId, target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let node = Node::Struct(root);
    let scope = Scope { schemas, node: Some(&node) };
    let Value::Object(patch) = patch else { return malformed("a strategic merge patch must be an object") };
    let original = match target {
        Value::Object(map) => map.clone(),
        Value::Null => Object::new(),
        _ => return malformed("the patched value must be an object"),
    };
    // On failure the target stays as it was.
    *target = Value::Object(merge_map(original, patch.clone(), scope)?);
    Ok(())
}

fn merge_map(mut original: Object, mut patch: Object, scope: Scope<'_>) -> Result<Object, PatchError> {
    if let Some(directive) = patch.shift_remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => malformed(format!("unknown patch type: {directive} in map: {}", Value::Object(patch))),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, scope)?;
    for (key, value) in patch {
        let (key, deletes) = match key.strip_prefix(DELETE_FROM) {
            Some(list) => (list.to_owned(), true),
            None => (key, false),
        };
        if value.is_null() {
            original.shift_remove(&key);
            continue;
        }
        merge_key(&mut original, key, value, deletes, scope)?;
    }
    Ok(original)
}

fn merge_key(
    original: &mut Object,
    key: String,
    value: Value,
    deletes: bool,
    scope: Scope<'_>,
) -> Result<(), PatchError> {
    let strategy = scope.strategy(&key);
    let child = scope.child(&key);
    let merged = match (original.get_mut(&key).map(Value::take), value) {
        (Some(Value::Object(_)), Value::Object(new)) if strategy.replace => Some(Value::Object(new)),
        (Some(Value::Object(old)), Value::Object(new)) => Some(Value::Object(merge_map(old, new, child)?)),
        (Some(Value::Array(old)), Value::Array(new)) if strategy.merge || deletes => {
            Some(Value::Array(merge_list(old, new, child.items(), strategy.key, deletes)?))
        }
        (Some(Value::Array(_)), new @ Value::Array(_)) => Some(new),
        // A list to delete from that is not there, or is no list, deletes nothing.
        (old, _) if deletes => old,
        (_, new) => fresh(new),
    };
    match merged {
        Some(value) => {
            original.insert(key, value);
        }
        None => {
            original.shift_remove(&key);
        }
    }
    Ok(())
}

/// A value that the original lacks, without directives and nulls; nothing for one that is to be deleted.
pub(super) fn fresh(value: Value) -> Option<Value> {
    match value {
        Value::Object(mut map) => {
            match map.shift_remove(DIRECTIVE) {
                None => {}
                Some(directive) if directive == "replace" => {}
                Some(_) => return None,
            }
            let special = |key: &str| key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_FROM);
            let kept = map.into_iter().filter(|(key, value)| !special(key) && !value.is_null());
            Some(Value::Object(kept.filter_map(|(key, value)| Some((key, fresh(value)?))).collect()))
        }
        Value::Array(items) => {
            let ordinary = items.into_iter().filter(|item| item.get(DIRECTIVE).is_none());
            Some(Value::Array(ordinary.filter_map(fresh).collect()))
        }
        other => Some(other),
    }
}

fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(list) = patch.shift_remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = list else { return malformed("invalid patch format of retainKeys") };
    let retained = |key: &str| keys.iter().any(|k| k.as_str() == Some(key));
    let stray = patch.iter().any(|(key, value)| {
        !value.is_null() && !key.starts_with(DELETE_FROM) && !key.starts_with(SET_ORDER) && !retained(key)
    });
    if stray {
        return malformed("invalid patch format of retainKeys");
    }
    original.retain(|key, _| retained(key));
    Ok(())
}

/// Takes `$setElementOrder/x` and the `x` beside it out of the patch and merges them into the original's `x`.
fn merge_ordered_lists(original: &mut Object, patch: &mut Object, scope: Scope<'_>) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let Some(wanted) = patch.shift_remove(&directive) else { continue };
        let Value::Array(wanted) = wanted else { return malformed(format!("{directive} must be a list")) };
        let key = directive.trim_start_matches(SET_ORDER).to_owned();
        let as_list = |object: &mut Object| match object.get(&key) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list.clone())),
            Some(_) => malformed(format!("{key} must be a list, since {directive} is given")),
        };
        let old = as_list(original)?;
        // A patch that sets the list to null deletes it whatever the order.
        if patch.get(&key).is_some_and(Value::is_null) {
            continue;
        }
        let new = as_list(patch)?;
        let strategy = scope.strategy(&key);
        let merge_key = strategy.key;
        order::check(new.as_deref().unwrap_or_default(), &wanted, merge_key, &directive)?;
        let server_order = order::of_server(old.as_deref().unwrap_or_default(), new.as_deref(), merge_key);
        let merged = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => match fresh(Value::Array(new)) {
                Some(Value::Array(list)) => list,
                _ => Vec::new(),
            },
            (Some(old), Some(new)) if strategy.merge => {
                merge_list(old, new, scope.child(&key).items(), merge_key, false)?
            }
            (Some(_), Some(new)) => new,
        };
        patch.shift_remove(&key);
        let ordered = order::normalize(merged, &wanted, &server_order, merge_key)?;
        original.insert(key, Value::Array(ordered));
    }
    Ok(())
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    items: Scope<'_>,
    merge_key: Option<&'static str>,
    deletes: bool,
) -> Result<Vec<Value>, PatchError> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let maps = original.iter().chain(&patch).filter(|v| v.is_object()).count();
    if maps != 0 && maps != original.len() + patch.len() {
        return malformed("list element types are not identical");
    }
    if maps == 0 {
        if deletes {
            let gone = Places::of(&patch, None);
            return Ok(original.into_iter().filter(|item| gone.find(item).is_none()).collect());
        }
        let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
        let mut places = Places::of(&[], None);
        for item in original.iter().chain(&patch) {
            if places.find(item).is_none() {
                places.add(item, merged.len());
                merged.push(item.clone());
            }
        }
        return order::normalize(merged, &patch, &original, None);
    }
    let Some(key) = merge_key else { return malformed("cannot merge lists without merge key") };
    let (original, patch) = special_items(original, patch, key)?;
    let mut merged = original.clone();
    let mut places = Places::of(&merged, Some(key));
    for item in patch.iter().cloned() {
        if item.get(key).is_none() {
            return Err(no_merge_key(&item, key));
        }
        match (places.find(&item), item) {
            (Some(at), Value::Object(new)) => {
                let Value::Object(old) = merged[at].take() else { continue };
                merged[at] = Value::Object(merge_map(old, new, items)?);
            }
            (_, item) => {
                if let Some(item) = fresh(item) {
                    places.add(&item, merged.len());
                    merged.push(item);
                }
            }
        }
    }
    order::normalize(merged, &patch, &original, Some(key))
}

/// Carries out `$patch: delete` and `$patch: replace` items; answers what is left of both lists.
fn special_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut ordinary = Vec::with_capacity(patch.len());
    let mut deletions = Vec::new();
    let mut replace = false;
    for item in patch {
        match item.get(DIRECTIVE).map(|d| d.as_str().unwrap_or_default()) {
            None => ordinary.push(item),
            Some("delete") => {
                if item.get(key).is_none() {
                    return Err(no_merge_key(&item, key));
                }
                deletions.push(item);
            }
            Some("replace") => replace = true,
            Some("merge") => return malformed("merging lists cannot yet be specified in the patch"),
            Some(other) => return malformed(format!("unknown patch type: {other} in map: {item}")),
        }
    }
    let gone = Places::of(&deletions, Some(key));
    original.retain(|old| gone.find(old).is_none());
    Ok(if replace { (ordinary, Vec::new()) } else { (original, ordinary) })
}
