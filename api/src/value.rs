//! Small accessors for JSON objects. An absent value and one of another type read as empty, as they do in Go.

use serde_json::{Map, Value};

/// An object for those that have none.
static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

/// The text at a key, or "".
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a key.
pub fn int(value: &Value, key: &str) -> Option<i64> {
    value.get(key).and_then(Value::as_i64)
}

/// Whether the value at a key is true.
pub fn truth(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or_default()
}

/// The list at a key, or an empty one.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The object at a key, or an empty one.
pub fn map<'a>(value: &'a Value, key: &str) -> &'a Map<String, Value> {
    value.get(key).and_then(Value::as_object).unwrap_or(&EMPTY)
}

/// An object's map, or an empty one.
pub fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or(&EMPTY)
}

/// Whether a key has a value other than null.
pub fn has(value: &Value, key: &str) -> bool {
    value.get(key).is_some_and(|v| !v.is_null())
}

/// How many lists and objects a value has inside of each other.
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// What Go calls the kind of a value in its messages.
pub(crate) fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value as Go's `%+v` shows one of nested maps and slices.
pub(crate) fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut fields: Vec<(&String, &Value)> = map.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

/// The value at a path of keys, or null.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    let mut here = value;
    for key in path {
        match here.get(key) {
            Some(next) => here = next,
            None => return &Value::Null,
        }
    }
    here
}

/// Sets a key where it is absent or null.
pub fn set_default(value: &mut Value, key: &str, default: impl Into<Value>) {
    if let Value::Object(map) = value {
        match map.get(key) {
            Some(Value::Null) | None => {
                map.insert(key.to_owned(), default.into());
            }
            Some(_) => {}
        }
    }
}

/// Sets a key where it is absent, null or an empty text.
pub fn set_default_text(value: &mut Value, key: &str, default: &str) {
    if text(value, key).is_empty() && !value.get(key).is_some_and(|v| !v.is_null() && !v.is_string()) {
        set(value, key, default);
    }
}

/// Sets a key; nothing happens to a value that is no object.
pub fn set(value: &mut Value, key: &str, new: impl Into<Value>) {
    if let Value::Object(map) = value {
        map.insert(key.to_owned(), new.into());
    }
}

/// Removes a key.
pub fn remove(value: &mut Value, key: &str) -> Option<Value> {
    value.as_object_mut()?.shift_remove(key)
}

/// The object at a key, made if absent; nothing for a value that is no object.
pub fn object_mut<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    let entry = value.as_object_mut()?.entry(key.to_owned()).or_insert(Value::Null);
    if entry.is_null() {
        *entry = Value::Object(Map::new());
    }
    entry.is_object().then_some(entry)
}

/// The items of the list at a key.
pub fn items_mut<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Sets a key to a copy of another object's, or removes it where that has none.
pub fn copy(to: &mut Value, from: &Value, key: &str) {
    match from.get(key) {
        Some(value) if !value.is_null() => set(to, key, value.clone()),
        _ => {
            remove(to, key);
        }
    }
}
