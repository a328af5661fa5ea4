//! `crds`: definitions of custom resources, in the form of Go's generator, that say which of their fields hold names.

use serde_json::Value;

use super::super::errors::{CtlError, Result};
use super::fields::{Field, Reference, Tables};
use super::text;

/// How deep definitions are followed, should they go in circles.
const DEPTH: usize = 20;

/// What a file of definitions adds to the tables.
pub fn tables(written: &str, file: &str) -> Result<Tables> {
    let definitions: Value =
        serde_norway::from_str(written).map_err(|error| CtlError::plain(format!("loading CRDs [{file}]: {error}")))?;
    let mut tables = Tables::default();
    for (name, definition) in definitions.as_object().into_iter().flatten() {
        let properties = &definition["Schema"]["properties"];
        if ["apiVersion", "kind", "metadata"].iter().all(|field| properties.get(*field).is_some()) {
            let kind = name.rsplit('.').next().unwrap_or(name);
            follow(&definitions, kind, name, "", DEPTH, &mut tables);
        }
    }
    Ok(tables)
}

fn follow(definitions: &Value, kind: &str, name: &str, path: &str, depth: usize, tables: &mut Tables) {
    let Some(left) = depth.checked_sub(1) else { return };
    for (field, schema) in definitions[name]["Schema"]["properties"].as_object().into_iter().flatten() {
        let here = if path.is_empty() { field.clone() } else { format!("{path}/{field}") };
        if schema.get("x-kubernetes-annotation").is_some() {
            tables.annotations.push(Field::of(kind, &here));
        }
        if schema.get("x-kubernetes-label-selector").is_some() {
            tables.labels.push(Field::of(kind, &here));
        }
        if schema.get("x-kubernetes-identity").is_some() {
            tables.prefix.push(Field::of(kind, &here));
        }
        let (whose, version) =
            (text(schema, "x-kubernetes-object-ref-kind"), text(schema, "x-kubernetes-object-ref-api-version"));
        if !whose.is_empty() && !version.is_empty() {
            let key = schema["x-kubernetes-object-ref-name-key"].as_str().unwrap_or("name");
            tables.names.push(Reference::new(whose, vec![Field::of(kind, &format!("{here}/{key}"))]));
        }
        if let Some(next) = schema["$ref"].as_str() {
            follow(definitions, kind, next, &here, left, tables);
        }
    }
}
