//! Creating strategic merge patches, two-way and three-way, by upstream's rules.

mod merge;

use serde_json::{Map, Value, json};

use self::merge::merge_patches;
use super::shape::Shape;

/// Directives that parallel lists start with.
pub(super) const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";
pub(super) const ORDER_PREFIX: &str = "$setElementOrder/";
pub(super) const RETAIN: &str = "$retainKeys";
pub(super) const DIRECTIVE: &str = "$patch";

type Object = Map<String, Value>;
/// The text says what is wrong with the documents.
pub type Diffed<T> = Result<T, String>;

/// What a difference leaves out.
#[derive(Clone, Copy, Default)]
struct Options {
    no_changes: bool,
    no_deletions: bool,
    retain_keys: bool,
}

/// The patch that turns `original` into `modified`.
pub fn two_way(original: &Value, modified: &Value, shape: &Shape) -> Diffed<Value> {
    diff_maps(&object(original)?, &object(modified)?, shape, Options::default()).map(Value::Object)
}

/// The patch that takes from `original` to `modified` while keeping what others put into `current`.
pub fn three_way(original: &Value, modified: &Value, current: &Value, shape: &Shape) -> Diffed<Value> {
    let (original, modified, current) = (object(original)?, object(modified)?, object(current)?);
    let changes = Options { no_deletions: true, ..Options::default() };
    let delta = diff_maps(&current, &modified, shape, changes)?;
    let deletions = Options { no_changes: true, ..Options::default() };
    let deletions = diff_maps(&original, &modified, shape, deletions)?;
    merge_patches(deletions, delta, shape).map(Value::Object)
}

fn object(value: &Value) -> Diffed<Object> {
    match value {
        Value::Null => Ok(Object::new()),
        Value::Object(map) => Ok(map.clone()),
        _ => Err("not an object".to_owned()),
    }
}

fn diff_maps(original: &Object, modified: &Object, shape: &Shape, options: Options) -> Diffed<Object> {
    let mut patch = Object::new();
    let below = Options { retain_keys: false, ..options };
    for (key, wanted) in modified {
        match original.get(key) {
            None => {
                if !options.no_changes {
                    patch.insert(key.clone(), wanted.clone());
                }
            }
            Some(Value::Object(had)) if wanted.is_object() => {
                diff_map_field(key, had, wanted, &mut patch, shape, below)?;
            }
            Some(Value::Array(had)) if wanted.is_array() => {
                diff_list_field(key, had, wanted, &mut patch, shape, below)?;
            }
            Some(had) => {
                if !options.no_changes && had != wanted {
                    patch.insert(key.clone(), wanted.clone());
                }
            }
        }
    }
    let gone: Vec<&String> = original.keys().filter(|key| !modified.contains_key(*key)).collect();
    if !options.no_deletions {
        patch.extend(gone.iter().map(|key| ((*key).clone(), Value::Null)));
    }
    if options.retain_keys && !modified.is_empty() && (!patch.is_empty() || !gone.is_empty()) {
        let mut keys: Vec<&String> = modified.keys().collect();
        keys.sort();
        patch.insert(RETAIN.to_owned(), json!(keys));
    }
    Ok(patch)
}

fn diff_map_field(
    key: &str,
    had: &Object,
    wanted: &Value,
    patch: &mut Object,
    shape: &Shape,
    options: Options,
) -> Diffed<()> {
    let field = shape.field(key);
    let options = Options { retain_keys: field.strategy.retain_keys, ..options };
    if field.strategy.replace {
        if !options.no_changes && Value::Object(had.clone()) != *wanted {
            patch.insert(key.to_owned(), wanted.clone());
        }
        return Ok(());
    }
    let inner = diff_maps(had, &object(wanted)?, &field.shape, options)?;
    if !inner.is_empty() {
        patch.insert(key.to_owned(), Value::Object(inner));
    }
    Ok(())
}

fn diff_list_field(
    key: &str,
    had: &[Value],
    wanted: &Value,
    patch: &mut Object,
    shape: &Shape,
    options: Options,
) -> Diffed<()> {
    let field = shape.field(key);
    let wanted_items = wanted.as_array().map(Vec::as_slice).unwrap_or_default();
    if !field.strategy.merge {
        if !options.no_changes && had != wanted_items {
            patch.insert(key.to_owned(), wanted.clone());
        }
        return Ok(());
    }
    let options = Options { retain_keys: field.strategy.retain_keys, ..options };
    let lists = diff_lists(had, wanted_items, &field.shape, field.strategy.key, options)?;
    let mut put = |key: String, list: Vec<Value>| {
        if !list.is_empty() {
            patch.insert(key, Value::Array(list));
        }
    };
    put(key.to_owned(), lists.patch);
    put(format!("{DELETE_PREFIX}{key}"), lists.deletions);
    put(format!("{ORDER_PREFIX}{key}"), lists.order);
    Ok(())
}

/// What becomes of a merged list: a patch and its two parallel lists.
#[derive(Default)]
struct Lists {
    patch: Vec<Value>,
    deletions: Vec<Value>,
    order: Vec<Value>,
}

fn diff_lists(
    had: &[Value],
    wanted: &[Value],
    shape: &Shape,
    key: Option<&'static str>,
    options: Options,
) -> Diffed<Lists> {
    if had.is_empty() {
        let patch = if options.no_changes { Vec::new() } else { wanted.to_vec() };
        return Ok(Lists { patch, ..Lists::default() });
    }
    let objects = had.iter().chain(wanted).filter(|item| item.is_object()).count();
    match objects {
        0 => Ok(diff_scalars(had, wanted, options)),
        n if n == had.len() + wanted.len() => {
            let key = key.ok_or("list of maps without a merge key")?;
            diff_keyed(had, wanted, shape, key, options)
        }
        _ => Err("list element types are not identical".to_owned()),
    }
}

/// The text by which scalars and merge keys are ordered.
pub(super) fn sort_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn key_of<'a>(item: &'a Value, key: &str) -> Diffed<&'a Value> {
    item.get(key).ok_or_else(|| format!("map: {item} does not contain declared merge key: {key}"))
}

fn diff_scalars(had: &[Value], wanted: &[Value], options: Options) -> Lists {
    let mut old: Vec<&Value> = had.iter().collect();
    let mut new: Vec<&Value> = wanted.iter().collect();
    old.sort_by_key(|value| sort_text(value));
    new.sort_by_key(|value| sort_text(value));
    let (mut added, mut deleted): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        let order = match (old.get(i), new.get(j)) {
            (Some(old), Some(new)) => sort_text(old).cmp(&sort_text(new)),
            (Some(_), None) => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        };
        match order {
            std::cmp::Ordering::Equal => {
                i += 1;
                j += 1;
            }
            std::cmp::Ordering::Less => {
                if !options.no_deletions && !deleted.contains(old[i]) {
                    deleted.push(old[i].clone());
                }
                i += 1;
            }
            std::cmp::Ordering::Greater => {
                if !options.no_changes {
                    added.push(new[j].clone());
                }
                j += 1;
            }
        }
    }
    let place = |value: &Value| wanted.iter().position(|other| other == value);
    added.sort_by_key(|value| place(value));
    let ordered = (!options.no_deletions && !deleted.is_empty()) || (!options.no_changes && had != wanted);
    Lists { patch: added, deletions: deleted, order: if ordered { wanted.to_vec() } else { Vec::new() } }
}

fn diff_keyed(had: &[Value], wanted: &[Value], shape: &Shape, key: &str, options: Options) -> Diffed<Lists> {
    let (old, new) = (by_key(had, key)?, by_key(wanted, key)?);
    let (mut patch, mut deleted) = (Vec::new(), Vec::new());
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        let order = match (old.get(i), new.get(j)) {
            (Some((old, _)), Some((new, _))) => old.cmp(new),
            (Some(_), None) => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        };
        match order {
            std::cmp::Ordering::Equal => {
                let mut inner = diff_maps(&object(old[i].1)?, &object(new[j].1)?, shape, options)?;
                if !inner.is_empty() {
                    inner.insert(key.to_owned(), key_of(new[j].1, key)?.clone());
                    patch.push(Value::Object(inner));
                }
                i += 1;
                j += 1;
            }
            std::cmp::Ordering::Less => {
                if !options.no_deletions {
                    let value = key_of(old[i].1, key)?.clone();
                    deleted.push(json!({ DIRECTIVE: "delete", key: value }));
                }
                i += 1;
            }
            std::cmp::Ordering::Greater => {
                if !options.no_changes {
                    patch.push(new[j].1.clone());
                }
                j += 1;
            }
        }
    }
    let place = |item: &Value| wanted.iter().position(|other| other.get(key) == item.get(key));
    patch.sort_by_key(|item| place(item));
    patch.extend(deleted);
    let ordered = (!options.no_changes && (!patch.is_empty() || !same_order(had, wanted, key)))
        || (!options.no_deletions && !patch.is_empty());
    let order = if ordered {
        let only_key = |item: &Value| Ok(json!({ key: key_of(item, key)? }));
        wanted.iter().map(only_key).collect::<Diffed<Vec<Value>>>()?
    } else {
        Vec::new()
    };
    Ok(Lists { patch, deletions: Vec::new(), order })
}

fn by_key<'a>(items: &'a [Value], key: &str) -> Diffed<Vec<(String, &'a Value)>> {
    let keyed = items.iter().map(|item| Ok((sort_text(key_of(item, key)?), item)));
    let mut keyed = keyed.collect::<Diffed<Vec<_>>>()?;
    keyed.sort_by(|left, right| left.0.cmp(&right.0));
    Ok(keyed)
}

/// Whether the items stand in the same order, by their keys.
fn same_order(had: &[Value], wanted: &[Value], key: &str) -> bool {
    had.len() == wanted.len() && had.iter().zip(wanted).all(|(left, right)| left.get(key) == right.get(key))
}

/// The same for types that are not known: a JSON merge patch.
pub fn three_way_plain(original: &Value, modified: &Value, current: &Value) -> Value {
    let mut patch = plain_changes(current, modified);
    merge_missing(&mut patch, plain_deletions(original, modified));
    patch
}

fn plain_changes(current: &Value, modified: &Value) -> Value {
    let mut patch = Object::new();
    for (key, wanted) in modified.as_object().into_iter().flatten() {
        match (current.get(key), wanted) {
            (Some(had), wanted) if had == wanted => {}
            (Some(had @ Value::Object(_)), Value::Object(_)) => {
                let inner = plain_changes(had, wanted);
                if inner.as_object().is_some_and(|map| !map.is_empty()) {
                    patch.insert(key.clone(), inner);
                }
            }
            (_, Value::Null) => {}
            _ => {
                patch.insert(key.clone(), wanted.clone());
            }
        }
    }
    Value::Object(patch)
}

fn plain_deletions(original: &Value, modified: &Value) -> Value {
    let mut patch = Object::new();
    for (key, had) in original.as_object().into_iter().flatten() {
        match modified.get(key) {
            None | Some(Value::Null) => {
                patch.insert(key.clone(), Value::Null);
            }
            Some(wanted @ Value::Object(_)) if had.is_object() => {
                let inner = plain_deletions(had, wanted);
                if inner.as_object().is_some_and(|map| !map.is_empty()) {
                    patch.insert(key.clone(), inner);
                }
            }
            Some(_) => {}
        }
    }
    Value::Object(patch)
}

fn merge_missing(into: &mut Value, from: Value) {
    if let (Some(into), Value::Object(from)) = (into.as_object_mut(), from) {
        for (key, value) in from {
            match into.get_mut(&key) {
                Some(known) => merge_missing(known, value),
                None => {
                    into.insert(key, value);
                }
            }
        }
    }
}
