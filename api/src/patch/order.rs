//! The order of merged lists: what the patch orders keeps the patch's order, what only the server has keeps the server's,
//! and the two are interleaved by the server's order as far as it tells.

use super::PatchError;
use super::strategic::{DIRECTIVE, no_merge_key};
use serde_json::Value;
use std::collections::HashMap;

/// Where the items of a list are: by their merge key, or by themselves where there is none. Lists can be long, so that
/// nobody may look through one for each item of another.
pub(super) struct Places<'a> {
    merge_key: Option<&'a str>,
    at: HashMap<String, usize>,
}

impl<'a> Places<'a> {
    pub(super) fn of(list: &[Value], merge_key: Option<&'a str>) -> Self {
        let mut places = Self { merge_key, at: HashMap::with_capacity(list.len()) };
        for (i, item) in list.iter().enumerate() {
            places.add(item, i);
        }
        places
    }

    /// Notes an item, unless there is one with its key already.
    pub(super) fn add(&mut self, item: &Value, place: usize) {
        if let Some(key) = self.key(item) {
            self.at.entry(key).or_insert(place);
        }
    }

    /// Where the first item with the same key is.
    pub(super) fn find(&self, item: &Value) -> Option<usize> {
        self.at.get(&self.key(item)?).copied()
    }

    fn key(&self, item: &Value) -> Option<String> {
        match self.merge_key {
            None => Some(item.to_string()),
            Some(key) => item.get(key).map(Value::to_string),
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
    let deletions: Vec<Value> = patch.iter().filter(|item| item[DIRECTIVE] == "delete").cloned().collect();
    let deleted = Places::of(&deletions, Some(key));
    let mut out: Vec<Value> = old.iter().filter(|item| deleted.find(item).is_none()).cloned().collect();
    let places = Places::of(&out, Some(key));
    let added = patch.iter().filter(|item| item.get(DIRECTIVE).is_none() && places.find(item).is_none());
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
    let (patch, server) = (Places::of(patch_order, merge_key), Places::of(server_order, merge_key));
    let placed = merged.into_iter().map(|item| (patch.find(&item), server.find(&item), item));
    let (mut ours, mut theirs): (Vec<_>, Vec<_>) = placed.partition(|(in_patch, _, _)| in_patch.is_some());
    ours.sort_by_key(|(in_patch, _, _)| *in_patch);
    theirs.sort_by_key(|(_, in_server, _)| *in_server);
    let mut out = Vec::with_capacity(ours.len() + theirs.len());
    let (mut left, mut right) = (theirs.into_iter().peekable(), ours.into_iter().peekable());
    loop {
        let from_left = match (left.peek(), right.peek()) {
            (None, None) => return Ok(out),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((_, l, _)), Some((_, r, _))) => matches!((l, r), (Some(l), Some(r)) if l < r),
        };
        let next = if from_left { left.next() } else { right.next() };
        out.extend(next.map(|(_, _, item)| item));
    }
}
