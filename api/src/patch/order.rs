//! The order of merged lists: what the patch orders keeps the patch's order, what only the server has keeps the server's,
//! and the two are interleaved by the server's order as far as it tells.

use super::PatchError;
use super::strategic::{DIRECTIVE, no_merge_key};
use serde_json::Value;

/// Where an item is in a list: by its merge key, or by itself where there is none.
pub(super) fn index(list: &[Value], item: &Value, merge_key: Option<&str>) -> Option<usize> {
    match merge_key {
        None => list.iter().position(|other| other == item),
        Some(key) => {
            let value = item.get(key)?;
            list.iter().position(|other| other.get(key) == Some(value))
        }
    }
}

/// Checks that the items of a patch list come in the order of its `$setElementOrder`.
pub(super) fn check(
    patch: &[Value],
    wanted: &[Value],
    merge_key: Option<&str>,
    directive: &str,
) -> Result<(), PatchError> {
    let mut rest = wanted.iter();
    let ordinary = patch.iter().filter(|item| merge_key.is_none() || item.get(DIRECTIVE).is_none());
    for item in ordinary {
        let same = |other: &Value| match merge_key {
            None => other == item,
            Some(key) => item.get(key).is_some() && other.get(key) == item.get(key),
        };
        if !rest.any(same) {
            let (patch, wanted) = (Value::from(patch.to_vec()), Value::from(wanted.to_vec()));
            return Err(PatchError::Malformed(format!(
                "The order in patch list:\n{patch}\n doesn't match {directive} list:\n{wanted}\n"
            )));
        }
    }
    Ok(())
}

/// The order that counts as the server's beside `$setElementOrder`. Upstream deletes from and appends to the server's list
/// in place, so that new items take the places at the end that deleted ones have freed; its tests expect that.
pub(super) fn of_server(old: &[Value], patch: Option<&[Value]>, merge_key: Option<&str>) -> Vec<Value> {
    let (Some(key), Some(patch)) = (merge_key, patch) else { return old.to_vec() };
    let deleted = |item: &Value| patch.iter().any(|p| p[DIRECTIVE] == "delete" && p.get(key) == item.get(key));
    let mut out: Vec<Value> = old.iter().filter(|item| !deleted(item)).cloned().collect();
    let added = patch.iter().filter(|item| item.get(DIRECTIVE).is_none() && index(&out, item, merge_key).is_none());
    let added: Vec<Value> = added.take(old.len() - out.len()).cloned().collect();
    out.extend(added);
    out
}

/// Puts a merged list in order.
pub(super) fn normalize(
    merged: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    merge_key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    if let Some(key) = merge_key
        && let Some(item) = merged.iter().find(|item| item.get(key).is_none())
    {
        return Err(no_merge_key(item, key));
    }
    let (mut ours, mut theirs): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| index(patch_order, item, merge_key).is_some());
    ours.sort_by_key(|item| index(patch_order, item, merge_key));
    theirs.sort_by_key(|item| index(server_order, item, merge_key));
    let mut out = Vec::with_capacity(ours.len() + theirs.len());
    let (mut left, mut right) = (theirs.into_iter().peekable(), ours.into_iter().peekable());
    loop {
        let from_left = match (left.peek(), right.peek()) {
            (None, None) => return Ok(out),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(l), Some(r)) => match (index(server_order, l, merge_key), index(server_order, r, merge_key)) {
                (Some(l), Some(r)) => l < r,
                _ => false,
            },
        };
        out.extend(if from_left { left.next() } else { right.next() });
    }
}
