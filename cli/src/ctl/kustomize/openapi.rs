//! `openapi`: schemas of custom resources, for the lists that patches merge by a key.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::errors::{CtlError, Result};
use super::place::Place;
use super::{Item, text};

/// Definitions by group, version and kind.
#[derive(Debug, Default)]
pub struct Schema {
    definitions: Value,
    kinds: BTreeMap<(String, String, String), String>,
}

/// Reads the file that the field names.
pub fn read(place: &Place, field: &Value) -> Result<Schema> {
    if field["version"].as_str().is_some_and(|version| version != "v1.21.2") {
        return Err(CtlError::plain("the specified OpenAPI version is not built in"));
    }
    let Some(file) = field["path"].as_str() else { return Ok(Schema::default()) };
    let document: Value = serde_norway::from_str(&place.text(file)?)
        .map_err(|error| CtlError::plain(format!("error parsing openapi schema {file}: {error}")))?;
    let definitions = document["definitions"].clone();
    let mut kinds = BTreeMap::new();
    for (name, definition) in definitions.as_object().into_iter().flatten() {
        for kind in definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
            let part = |field: &str| text(kind, field).to_owned();
            kinds.insert((part("group"), part("version"), part("kind")), name.clone());
        }
    }
    Ok(Schema { definitions, kinds })
}

impl Schema {
    /// Merges a patch into an object of a kind that is not built in, or for which there is a schema; else the answer is no.
    pub fn merge(&self, item: &mut Item, patch: &Value) -> bool {
        let (group, version) = item.group_version();
        let key = (group.to_owned(), version.to_owned(), item.kind().to_owned());
        let definition = match self.kinds.get(&key) {
            Some(name) => &self.definitions[name],
            None if trireme_api::Catalogue::builtin().by_kind(group, version, item.kind()).is_some() => return false,
            None => &Value::Null,
        };
        self.overlay(&mut item.object, patch, definition);
        true
    }

    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/definitions/")) {
            Some(name) => &self.definitions[name],
            None => schema,
        }
    }

    fn overlay(&self, value: &mut Value, patch: &Value, schema: &Value) {
        let schema = self.resolved(schema);
        match patch {
            Value::Object(fields) if patch["$patch"] == "replace" => {
                let fields = fields.iter().filter(|(name, _)| *name != "$patch");
                *value = Value::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect());
            }
            Value::Object(fields) => {
                if !value.is_object() {
                    *value = Value::Object(Map::new());
                }
                let Some(map) = value.as_object_mut() else { return };
                for (name, patch) in fields {
                    if patch.is_null() || patch["$patch"] == "delete" {
                        map.remove(name);
                        continue;
                    }
                    let inner = match schema["properties"].get(name) {
                        Some(inner) => inner,
                        None => &schema["additionalProperties"],
                    };
                    self.overlay(map.entry(name).or_insert(Value::Null), patch, inner);
                }
            }
            Value::Array(entries) => match schema["x-kubernetes-patch-merge-key"].as_str() {
                Some(key) if value.is_array() => self.list(value, entries, key, &schema["items"]),
                _ => *value = patch.clone(),
            },
            patch => *value = patch.clone(),
        }
    }

    /// What the patch names stands first, in its order, as kustomize writes it.
    fn list(&self, value: &mut Value, entries: &[Value], key: &str, schema: &Value) {
        let Some(list) = value.as_array_mut() else { return };
        let mut merged = Vec::new();
        for entry in entries {
            let known = list.iter().position(|known| known[key] == entry[key]).map(|at| list.remove(at));
            if entry["$patch"] == "delete" {
                continue;
            }
            let mut value = known.unwrap_or(Value::Null);
            self.overlay(&mut value, entry, schema);
            merged.push(value);
        }
        merged.append(list);
        *list = merged;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_merged_by_their_key() {
        let list = json!({"type": "array", "x-kubernetes-patch-merge-key": "name"});
        let schema = Schema {
            definitions: json!({"Bee": {"properties": {"list": {"$ref": "#/definitions/L"}}}, "L": list}),
            kinds: [(("g".to_owned(), "v1".to_owned(), "Bee".to_owned()), "Bee".to_owned())].into(),
        };
        let mut item = Item::new(json!({"apiVersion": "g/v1", "kind": "Bee", "plain": [1],
            "list": [{"name": "a", "v": 1}, {"name": "b"}]}));
        let patch =
            json!({"plain": [2], "list": [{"name": "a", "w": 2}, {"name": "c"}, {"name": "b", "$patch": "delete"}]});
        assert!(schema.merge(&mut item, &patch));
        assert_eq!(item.object["list"], json!([{"name": "a", "v": 1, "w": 2}, {"name": "c"}]));
        assert_eq!(item.object["plain"], json!([2]));
        assert!(!schema.merge(&mut Item::new(json!({"apiVersion": "v1", "kind": "Pod"})), &patch));
    }
}
