//! Replacements: a value of one object, put into fields of others.

use serde_json::{Map, Value, json};

use super::super::errors::{CtlError, Result};
use super::Item;
use super::patches::Target;
use super::place::Place;

/// Does what a kustomization's `replacements` say, in their order; some stand in files of their own.
pub fn run(place: &Place, entries: &Value, items: &mut [Item]) -> Result<()> {
    for entry in entries.as_array().into_iter().flatten() {
        let Some(path) = entry["path"].as_str() else {
            replace(entry, items)?;
            continue;
        };
        if !entry["source"].is_null() || !entry["targets"].is_null() {
            return Err(CtlError::plain("cannot specify both path and inline replacement"));
        }
        let written: Value =
            serde_norway::from_str(&place.text(path)?).map_err(|error| CtlError::plain(format!("{path}: {error}")))?;
        match written {
            Value::Array(all) => all.iter().try_for_each(|one| replace(one, items))?,
            one => replace(&one, items)?,
        }
    }
    Ok(())
}

fn replace(entry: &Value, items: &mut [Item]) -> Result<()> {
    if entry["source"].is_null() || !entry["targets"].is_array() {
        return Err(CtlError::plain("replacements must specify a source and at least one target"));
    }
    let value = value_of(&entry["source"], items)?;
    for target in entry["targets"].as_array().into_iter().flatten() {
        put(target, &value, items)?;
    }
    Ok(())
}

/// How kustomize names a selector.
fn name_of(written: &Value) -> String {
    let part = |field: &str, none: &str| written[field].as_str().unwrap_or(none).to_owned();
    let (kind, version, group) = (part("kind", "[noKind]"), part("version", "[noVer]"), part("group", "[noGrp]"));
    format!("{kind}.{version}.{group}/{}.{}", part("name", "[noName]"), part("namespace", "[noNs]"))
}

fn value_of(source: &Value, items: &[Item]) -> Result<Value> {
    let choice = Target::new(source)?;
    let mut found = items.iter().filter(|item| choice.means(item));
    let Some(item) = found.next() else {
        return Err(CtlError::plain(format!("nothing selected by {}", name_of(source))));
    };
    if found.next().is_some() {
        return Err(CtlError::plain(format!("multiple matches for selector {}", name_of(source))));
    }
    let path = source["fieldPath"].as_str().unwrap_or("metadata.name");
    let mut object = item.object.clone();
    let slots = slots(&mut object, &parts(path), false);
    let Some(value) = slots.into_iter().next().filter(|slot| !slot.is_null()).map(|slot| slot.clone()) else {
        return Err(CtlError::plain(format!(
            "fieldPath `{path}` is missing for replacement source {}",
            name_of(source)
        )));
    };
    let Some(delimiter) = source["options"]["delimiter"].as_str().filter(|text| !text.is_empty()) else {
        return Ok(value);
    };
    let whole = plain(&value);
    let index = source["options"]["index"].as_i64().unwrap_or_default();
    let part = usize::try_from(index).ok().and_then(|index| whole.split(delimiter).nth(index).map(str::to_owned));
    part.map(Value::from)
        .ok_or_else(|| CtlError::plain(format!("options.index {index} is out of bounds for value {whole}")))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn put(target: &Value, value: &Value, items: &mut [Item]) -> Result<()> {
    if !target["select"].is_object() {
        return Err(CtlError::plain("target must specify resources to select"));
    }
    let wanted = Target::new(&target["select"])?;
    let rejected = target["reject"].as_array().into_iter().flatten().map(Target::new).collect::<Result<Vec<_>>>()?;
    let paths: Vec<&str> = match target["fieldPaths"].as_array() {
        Some(paths) => paths.iter().filter_map(Value::as_str).collect(),
        None => vec!["metadata.name"],
    };
    let options = &target["options"];
    for item in items.iter_mut().filter(|item| wanted.means(item) && !rejected.iter().any(|no| no.means(item))) {
        for path in &paths {
            let create = options["create"] == true;
            let slots = slots(&mut item.object, &parts(path), create);
            if slots.is_empty() {
                return Err(CtlError::plain(format!("unable to find field {path:?} in replacement target")));
            }
            for slot in slots {
                *slot = changed(slot, value, options)?;
            }
        }
    }
    Ok(())
}

/// What a field becomes: the value, or the old text with one of its parts replaced.
fn changed(old: &Value, value: &Value, options: &Value) -> Result<Value> {
    let mut new = value.clone();
    if let Some(delimiter) = options["delimiter"].as_str().filter(|text| !text.is_empty()) {
        if old.is_object() || old.is_array() {
            return Err(CtlError::plain("delimiter option can only be used with scalar nodes"));
        }
        let (whole, part) = (plain(old), plain(value));
        let mut parts: Vec<&str> = whole.split(delimiter).collect();
        match usize::try_from(options["index"].as_i64().unwrap_or_default()) {
            Err(_) => parts.insert(0, &part),
            Ok(index) if index >= parts.len() => parts.push(&part),
            Ok(index) => parts[index] = &part,
        }
        new = Value::from(parts.join(delimiter));
    }
    // Numbers stay numbers, and texts stay texts.
    Ok(match (old, &new) {
        (Value::Number(_), Value::String(text)) => match serde_json::from_str::<Value>(text) {
            Ok(number) if number.is_number() => number,
            _ => return Err(CtlError::plain(format!("yaml: cannot decode !!str `{text}` as a !!int"))),
        },
        (Value::Bool(_), Value::String(text)) => match text.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => return Err(CtlError::plain(format!("yaml: cannot decode !!str `{text}` as a !!bool"))),
        },
        (Value::String(_), Value::Number(_) | Value::Bool(_)) => Value::from(plain(&new)),
        _ => new,
    })
}

/// A path's parts: `a.b.[name=x.y].0`, where `\.` is a dot of a name.
fn parts(path: &str) -> Vec<String> {
    let (mut parts, mut part, mut depth) = (Vec::new(), String::new(), 0_usize);
    let mut letters = path.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if letters.peek() == Some(&'.') => part.extend(letters.next()),
            '.' if depth == 0 => parts.push(std::mem::take(&mut part)),
            _ => {
                depth = match letter {
                    '[' => depth + 1,
                    ']' => depth.saturating_sub(1),
                    _ => depth,
                };
                part.push(letter);
            }
        }
    }
    parts.push(part);
    parts.retain(|part| !part.is_empty());
    parts
}

/// The fields that a path leads to; missing ones are made if `create`.
fn slots<'a>(value: &'a mut Value, parts: &[String], create: bool) -> Vec<&'a mut Value> {
    let Some((part, rest)) = parts.split_first() else { return vec![value] };
    if let Some((key, wanted)) =
        part.strip_prefix('[').and_then(|p| p.strip_suffix(']')).and_then(|p| p.split_once('='))
    {
        if value.is_null() && create {
            *value = json!([]);
        }
        let Some(list) = value.as_array_mut() else { return Vec::new() };
        let is_it = |entry: &Value| if key.is_empty() { plain(entry) == wanted } else { plain(&entry[key]) == wanted };
        if create && !key.is_empty() && !list.iter().any(is_it) {
            list.push(json!({key: wanted}));
        }
        return list.iter_mut().filter(|entry| is_it(entry)).flat_map(|entry| slots(entry, rest, create)).collect();
    }
    if value.is_null() && create {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Array(list) => {
            if part == "*" {
                return list.iter_mut().flat_map(|entry| slots(entry, rest, create)).collect();
            }
            if part == "-" && create {
                list.push(Value::Null);
            }
            let index = if part == "-" { list.len().checked_sub(1) } else { part.parse().ok() };
            let entry = index.and_then(|index: usize| list.get_mut(index));
            entry.map(|entry| slots(entry, rest, create)).unwrap_or_default()
        }
        Value::Object(map) => {
            if part == "*" && !map.contains_key("*") {
                return map.values_mut().flat_map(|entry| slots(entry, rest, create)).collect();
            }
            if create {
                map.entry(part.clone()).or_insert(Value::Null);
            }
            map.get_mut(part).map(|entry| slots(entry, rest, create)).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        assert_eq!(parts(r"a.b\.c.[name=x.y].0"), ["a", "b.c", "[name=x.y]", "0"]);
    }

    #[test]
    fn fields_are_found_and_made() {
        let mut object = json!({"a": [{"name": "x", "v": 1}, {"name": "y", "v": 2}]});
        let found = |object: &mut Value, path: &str, create: bool| slots(object, &parts(path), create).len();
        for (path, create, count) in [
            ("a.*.v", false, 2),
            ("a.[name=y].v", false, 1),
            ("a.1.v", false, 1),
            ("a.7.v", false, 0),
            ("b.c", false, 0),
            ("b.c", true, 1),
            ("a.v", true, 0),
            ("a.[name=z].v", true, 1),
        ] {
            assert_eq!(found(&mut object, path, create), count, "{path}");
        }
    }

    #[test]
    fn parts_of_texts_are_replaced() {
        let change = |old: Value, options: Value| changed(&old, &json!("n"), &options).unwrap();
        assert_eq!(change(json!("a.b"), json!({"delimiter": ".", "index": 1})), "a.n");
        assert_eq!(change(json!("a.b"), json!({"delimiter": ".", "index": 9})), "a.b.n");
        assert_eq!(change(json!("a.b"), json!({"delimiter": ".", "index": -1})), "n.a.b");
        assert_eq!(changed(&json!(1), &json!("80"), &json!({})).unwrap(), json!(80));
        assert_eq!(changed(&json!("1"), &json!(80), &json!({})).unwrap(), json!("80"));
        assert!(changed(&json!({}), &json!("x"), &json!({"delimiter": "."})).is_err());
        let said = changed(&json!(1), &json!("x"), &json!({})).unwrap_err().reason_text();
        assert_eq!(said, "yaml: cannot decode !!str `x` as a !!int");
    }
}
