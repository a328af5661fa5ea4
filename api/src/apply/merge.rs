//! One object merged into another, and some of its fields taken away.

use super::ApplyError;
use super::set::{Element, FieldSet};
use super::walk::{At, Items, Shape};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The live value with what is applied on top.
pub(super) fn merge(at: At<'_>, live: &Value, applied: &Value) -> Result<Value, ApplyError> {
    let shape = at.shape();
    match (&shape, live, applied) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(old), Value::Object(new)) => {
            let mut merged = old.clone();
            for (name, value) in new {
                let value = match (at.step(&shape, name), old.get(name)) {
                    (Some(inner), Some(before)) => merge(inner, before, value)?,
                    _ => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Ok(Value::Object(merged))
        }
        (Shape::Set | Shape::Keyed(_), Value::Array(_), Value::Array(_)) => merge_lists(at, &shape, live, applied),
        _ => Ok(applied.clone()),
    }
}

/// Items that are applied are in the order in which they are applied; those that only the live list has stay before the
/// item that they stood before, as far as both orders can be kept.
fn merge_lists(at: At<'_>, shape: &Shape<'_>, live: &Value, applied: &Value) -> Result<Value, ApplyError> {
    let (old, new) = (Items::of(shape, live, "")?, Items::of(shape, applied, "")?);
    let inner = at.inner(shape);
    let both = |element: &Element, item: &Value| match old.single(element) {
        Some(before) => merge(inner, before, item),
        None => Ok(item.clone()),
    };
    let mut shared = new.list.iter().map(|(e, _)| e).filter(|e| old.has(e));
    let mut next_shared = shared.next();
    let (mut merged, mut taken) = (Vec::new(), BTreeSet::new());
    let (mut l, mut r) = (0, 0);
    while l < old.list.len() || r < new.list.len() {
        if let (Some((left, _)), Some((right, item))) = (old.list.get(l), new.list.get(r)) {
            if left == right {
                taken.insert(right);
                merged.push(both(right, item)?);
                (l, r) = (l + 1, r + 1);
                next_shared = shared.next();
                continue;
            }
            if new.has(left) && next_shared.is_some_and(|next| next != left) {
                // It comes where it is applied.
                l += 1;
                continue;
            }
        }
        if let Some((left, item)) = old.list.get(l) {
            if !new.has(left) {
                merged.push((*item).clone());
                l += 1;
                continue;
            }
            if taken.contains(left) {
                l += 1;
            }
        }
        if let Some((right, item)) = new.list.get(r) {
            taken.insert(right);
            merged.push(both(right, item)?);
            r += 1;
            if next_shared == Some(right) {
                next_shared = shared.next();
            }
        }
    }
    Ok(Value::Array(merged))
}

/// A value without some fields; null if nothing is left of it.
pub(super) fn remove(at: At<'_>, value: &Value, gone: &FieldSet) -> Result<Value, ApplyError> {
    let shape = at.shape();
    match (&shape, value) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(map)) => {
            let mut kept = Map::new();
            for (name, value) in map {
                let rest = match (gone.field(name), at.step(&shape, name)) {
                    (Some(step), _) if step.member => continue,
                    (Some(step), Some(inner)) => remove(inner, value, &step.below)?,
                    _ => value.clone(),
                };
                kept.insert(name.clone(), rest);
            }
            Ok(if kept.is_empty() && !map.is_empty() { Value::Null } else { Value::Object(kept) })
        }
        (Shape::Set | Shape::Keyed(_), Value::Array(list)) => {
            let mut kept = Vec::new();
            for (element, item) in Items::of(&shape, value, "")?.list {
                match gone.step(&element) {
                    Some(step) if step.member => {}
                    Some(step) => kept.push(remove(at.inner(&shape), item, &step.below)?),
                    None => kept.push(item.clone()),
                }
            }
            Ok(if kept.is_empty() && !list.is_empty() { Value::Null } else { Value::Array(kept) })
        }
        _ => Ok(value.clone()),
    }
}
