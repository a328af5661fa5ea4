//! JSON patch (RFC 6902) as upstream's library reads it: what it takes beyond the RFC (indices from the end, `replace` of
//! what is not there, absent for null in `test`), its limit on what is copied, and its texts, since clients show them.

use super::PatchError;
use crate::decode::{MAX_OBJECT_DEPTH, TOO_DEEP};
use crate::value;
use serde_json::Value;

/// Most operations in a patch.
const MAX_OPERATIONS: usize = 10_000;
/// Most bytes that the copies of one patch may add up to: each can double what the next one copies.
const MAX_COPIED: usize = 3 * 1024 * 1024;

type Outcome<T> = Result<T, String>;

const MISSING: &str = "missing value";
const BAD_INDEX: &str = "invalid index referenced";

/// An operation, as far as it could be read.
struct Operation<'a> {
    kind: &'a str,
    path: Option<&'a str>,
    from: Option<&'a str>,
    value: &'a Value,
}

/// Applies a patch; one that fails changes nothing.
pub(super) fn apply(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations = operations(patch)?;
    if operations.len() > MAX_OPERATIONS {
        let text = format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        );
        return Err(PatchError::TooLarge(text));
    }
    let mut patched = target.clone();
    let mut copied = 0;
    for operation in &operations {
        operation.run(&mut patched, &mut copied).map_err(PatchError::Unprocessable)?;
    }
    *target = patched;
    Ok(())
}

fn operations(patch: &Value) -> Result<Vec<Operation<'_>>, PatchError> {
    let list = patch.as_array().ok_or_else(|| unreadable(patch, "value of type []handlers.jsonPatchOp"))?;
    list.iter().map(operation).collect()
}

fn operation(item: &Value) -> Result<Operation<'_>, PatchError> {
    let Value::Object(map) = item else { return Err(unreadable(item, "value of type handlers.jsonPatchOp")) };
    let text = |key: &str| match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(other) => Err(unreadable(other, &format!("struct field jsonPatchOp.{key} of type string"))),
    };
    let value = map.get("value").unwrap_or(&Value::Null);
    Ok(Operation { kind: text("op")?.unwrap_or("unknown"), path: text("path")?, from: text("from")?, value })
}

/// What Go says of a value of the wrong type.
pub(super) fn unreadable(value: &Value, of: &str) -> PatchError {
    let what = value::go_kind(value);
    PatchError::Malformed(format!("error decoding patch: json: cannot unmarshal {what} into Go {of}"))
}

impl Operation<'_> {
    fn run(&self, doc: &mut Value, copied: &mut usize) -> Outcome<()> {
        match self.kind {
            "add" => {
                let path = self.path()?;
                let missing = || format!("add operation does not apply: doc is missing path: \"{path}\": {MISSING}");
                let (within, key) = find(doc, path).ok_or_else(missing)?;
                fits(path, self.value)?;
                add(within, &key, self.value.clone()).map_err(|e| format!("error in add for path: '{path}': {e}"))
            }
            "remove" => {
                let path = self.path()?;
                let missing = || format!("remove operation does not apply: doc is missing path: \"{path}\": {MISSING}");
                let (within, key) = find(doc, path).ok_or_else(missing)?;
                let removed = remove(within, &key);
                removed.map(drop).map_err(|e| format!("error in remove for path: '{path}': {e}"))
            }
            "replace" => self.replace(doc),
            "move" => self.relocate(doc),
            "copy" => self.copy(doc, copied),
            "test" => self.test(doc),
            other => Err(format!("Unexpected kind: {other}")),
        }
    }

    fn path(&self) -> Outcome<&str> {
        let failed =
            || format!("{} operation failed to decode path: operation missing path field: {MISSING}", self.kind);
        self.path.ok_or_else(failed)
    }

    fn from(&self) -> Outcome<&str> {
        let failed =
            || format!("{} operation failed to decode from: operation, missing from field: {MISSING}", self.kind);
        self.from.ok_or_else(failed)
    }

    fn replace(&self, doc: &mut Value) -> Outcome<()> {
        let path = self.path()?;
        fits(path, self.value)?;
        if path.is_empty() {
            if !self.value.is_object() && !self.value.is_array() {
                return Err("replace operation value must be object or array".to_owned());
            }
            *doc = self.value.clone();
            return Ok(());
        }
        let missing =
            |what: &str| format!("replace operation does not apply: doc is missing {what}: {path}: {MISSING}");
        let (within, key) = find(doc, path).ok_or_else(|| missing("path"))?;
        match within {
            Value::Object(map) => {
                map.insert(key, self.value.clone());
            }
            Value::Array(list) => {
                let at = index(&key, list.len()).map_err(|_| missing("key"))?;
                list[at] = self.value.clone();
            }
            _ => return Err(missing("path")),
        }
        Ok(())
    }

    fn relocate(&self, doc: &mut Value) -> Outcome<()> {
        let from = self.from()?;
        let missing = || format!("move operation does not apply: doc is missing from path: {from}: {MISSING}");
        let (within, key) = find(doc, from).ok_or_else(missing)?;
        let value = remove(within, &key).map_err(|e| format!("error in move for path: '{key}': {e}"))?;
        let path = self.path()?;
        let missing = || format!("move operation does not apply: doc is missing destination path: {path}: {MISSING}");
        let (within, key) = find(doc, path).ok_or_else(missing)?;
        fits(path, &value)?;
        add(within, &key, value).map_err(|e| format!("error in move for path: '{path}': {e}"))
    }

    fn copy(&self, doc: &mut Value, copied: &mut usize) -> Outcome<()> {
        let from = self.from()?;
        let missing = || format!("copy operation does not apply: doc is missing from path: {from}: {MISSING}");
        let (within, key) = find(doc, from).ok_or_else(missing)?;
        let value = get(within, &key).map_err(|e| format!("error in copy for from: '{from}': {e}"))?;
        let value = value.cloned().unwrap_or_default();
        let path = self.path()?;
        let missing = || format!("copy operation does not apply: doc is missing destination path: {path}: {MISSING}");
        let (within, key) = find(doc, path).ok_or_else(missing)?;
        *copied += value.to_string().len();
        if *copied > MAX_COPIED {
            let why = "Unable to complete the copy, the accumulated size increase of copy is";
            return Err(format!("{why} {copied}, exceeding the limit {MAX_COPIED}"));
        }
        fits(path, &value)?;
        add(within, &key, value).map_err(|e| format!("error in add for path: '{path}': {e}"))
    }

    fn test(&self, doc: &mut Value) -> Outcome<()> {
        let path = self.path()?;
        let failed = || Err(format!("testing value {path} failed: test failed"));
        if path.is_empty() {
            return if doc == self.value { Ok(()) } else { failed() };
        }
        let missing = || format!("test operation does not apply: is missing path: {path}: {MISSING}");
        let (within, key) = find(doc, path).ok_or_else(missing)?;
        let found = get(within, &key).map_err(|e| format!("error in test for path: '{path}': {e}"))?;
        if found.unwrap_or(&Value::Null) == self.value { Ok(()) } else { failed() }
    }
}

/// Each operation could put what the one before has made a level deeper: what could not be read again is not made.
fn fits(path: &str, value: &Value) -> Outcome<()> {
    let levels = path.matches('/').count() + value::depth(value);
    if levels > MAX_OBJECT_DEPTH { Err(TOO_DEEP.to_owned()) } else { Ok(()) }
}

/// The object or list that a path ends in, and the last key; nothing if there is none.
fn find<'a>(doc: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (before, last) = path.rsplit_once('/')?;
    let mut here = doc;
    // What stands before the first slash is not looked at.
    for part in before.split('/').skip(1) {
        let key = decoded(part);
        here = match here {
            Value::Object(map) => map.get_mut(&key)?,
            Value::Array(list) => {
                let at = index(&key, list.len()).ok()?;
                &mut list[at]
            }
            _ => return None,
        };
    }
    (here.is_object() || here.is_array()).then(|| (here, decoded(last)))
}

fn decoded(key: &str) -> String {
    key.replace("~1", "/").replace("~0", "~")
}

/// The place of an item that is there; negative ones count from the end.
fn index(key: &str, length: usize) -> Outcome<usize> {
    let given: i64 = key.parse().map_err(|_| format!("strconv.Atoi: parsing {key:?}: invalid syntax"))?;
    let place = if given < 0 { given + length as i64 } else { given };
    let wrong = || format!("Unable to access invalid index: {given}: {BAD_INDEX}");
    usize::try_from(place).ok().filter(|at| *at < length).ok_or_else(wrong)
}

fn get<'a>(within: &'a Value, key: &str) -> Outcome<Option<&'a Value>> {
    match within {
        Value::Array(list) => Ok(Some(&list[index(key, list.len())?])),
        other => Ok(other.get(key)),
    }
}

fn add(within: &mut Value, key: &str, value: Value) -> Outcome<()> {
    match within {
        Value::Object(map) => {
            map.insert(key.to_owned(), value);
        }
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => {
            let wrong = |e: String| match key.parse::<i64>() {
                Ok(_) => e,
                Err(_) => format!("value was not a proper array index: '{key}': {e}"),
            };
            let at = index(key, list.len() + 1).map_err(wrong)?;
            list.insert(at, value);
        }
        _ => {}
    }
    Ok(())
}

fn remove(within: &mut Value, key: &str) -> Outcome<Value> {
    match within {
        Value::Array(list) => {
            let at = index(key, list.len())?;
            Ok(list.remove(at))
        }
        other => value::remove(other, key).ok_or_else(|| format!("Unable to remove nonexistent key: {key}: {MISSING}")),
    }
}
