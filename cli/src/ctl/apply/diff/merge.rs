//! Putting two strategic merge patches together: the deletions first, then the changes.

use serde_json::Value;

use super::super::shape::Shape;
use super::{DELETE_PREFIX, DIRECTIVE, Diffed, ORDER_PREFIX, Object, RETAIN, key_of};

/// `second` on top of `first`; both are patches of `shape`.
pub(super) fn merge_patches(mut first: Object, mut second: Object, shape: &Shape) -> Diffed<Object> {
    match second.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => {
            second.remove(DIRECTIVE);
            return Ok(second);
        }
        Some("delete") => return Ok(Object::new()),
        Some(other) => return Err(format!("unknown patch type: {other}")),
        None => {}
    }
    move_directives(&mut first, &mut second)?;
    for (key, value) in second {
        let Some(had) = first.get(&key) else {
            first.insert(key, without_deletions(value));
            continue;
        };
        let field = shape.field(&key);
        let merged = match (had, value) {
            (Value::Object(had), Value::Object(value)) if !field.strategy.replace => {
                Value::Object(merge_patches(had.clone(), value, &field.shape)?)
            }
            (Value::Array(had), Value::Array(value)) if field.strategy.merge => {
                Value::Array(merge_lists(had, &value, &field.shape, field.strategy.key)?)
            }
            (_, value) => value,
        };
        first.insert(key, merged);
    }
    Ok(first)
}

/// What is new as a whole has nothing to delete: directives that a manifest carries go out of it.
fn without_deletions(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let kept = items.into_iter().filter(|item| item.get(DIRECTIVE).and_then(Value::as_str) != Some("delete"));
            Value::Array(kept.map(without_deletions).collect())
        }
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(key, _)| key != DIRECTIVE);
            Value::Object(kept.map(|(key, value)| (key, without_deletions(value))).collect())
        }
        other => other,
    }
}

/// Directives of both patches have to agree; those of the second move to the first.
fn move_directives(first: &mut Object, second: &mut Object) -> Diffed<()> {
    let is_directive = |key: &String| key == RETAIN || key.starts_with(ORDER_PREFIX) || key.starts_with(DELETE_PREFIX);
    let directives: Vec<String> = second.keys().filter(|key| is_directive(key)).cloned().collect();
    for key in directives {
        let Some(value) = second.remove(&key) else { continue };
        match first.get(&key) {
            Some(known) if !key.starts_with(DELETE_PREFIX) && *known != value => {
                return Err(format!("the two patches disagree about {key}"));
            }
            _ => {
                first.insert(key, value);
            }
        }
    }
    Ok(())
}

fn merge_lists(first: &[Value], second: &[Value], shape: &Shape, key: Option<&str>) -> Diffed<Vec<Value>> {
    if !first.iter().chain(second).any(Value::is_object) {
        let mut merged: Vec<Value> = Vec::new();
        for value in first.iter().chain(second) {
            if !merged.contains(value) {
                merged.push(value.clone());
            }
        }
        return Ok(ordered(merged, second, first, |left, right| left == right));
    }
    let key = key.ok_or("list of maps without a merge key")?;
    let mut merged = first.to_vec();
    let mut plain: Vec<Value> = Vec::new();
    for item in second {
        match item.get(DIRECTIVE).and_then(Value::as_str) {
            Some("delete") => {
                let gone = key_of(item, key)?.clone();
                merged.retain(|other| other.get(key) != Some(&gone));
            }
            Some("replace") => {
                return Ok(second.iter().filter(|item| item.get(DIRECTIVE).is_none()).cloned().collect());
            }
            _ => plain.push(item.clone()),
        }
    }
    for item in &plain {
        let wanted = key_of(item, key)?;
        match merged.iter_mut().find(|other| other.get(key) == Some(wanted)) {
            Some(known) => {
                if let (Value::Object(had), Value::Object(value)) = (&*known, item) {
                    *known = Value::Object(merge_patches(had.clone(), value.clone(), shape)?);
                }
            }
            None => merged.push(item.clone()),
        }
    }
    Ok(ordered(merged, &plain, first, |left, right| left.get(key) == right.get(key)))
}

/// Items of the second patch in its order, the others between them where the first had them.
fn ordered(merged: Vec<Value>, second: &[Value], first: &[Value], same: impl Fn(&Value, &Value) -> bool) -> Vec<Value> {
    let place = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item));
    let (mut ours, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(second, item).is_some());
    ours.sort_by_key(|item| place(second, item));
    others.sort_by_key(|item| place(first, item));
    let mut result = Vec::with_capacity(ours.len() + others.len());
    let (mut ours, mut others) = (ours.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let from_others = match (others.peek(), ours.peek()) {
            (None, None) => return result,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(own)) => match (place(first, other), place(first, own)) {
                (Some(other), Some(own)) => other < own,
                _ => false,
            },
        };
        result.extend(if from_others { others.next() } else { ours.next() });
    }
}
