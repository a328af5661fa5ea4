//! Version 3 documents, one for each group and version, with the schemas that it reaches.

use super::definitions::{self, Dialect, references};
use super::operations::{self, Body, Operation, PathItem};
use crate::catalogue::Catalogue;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

pub(super) fn document(catalogue: &Catalogue, group: &str, version: &str) -> Option<Value> {
    let items = operations::paths(catalogue, group, version);
    if items.is_empty() {
        return None;
    }
    let paths: Map<String, Value> = items.iter().map(|item| (item.path.clone(), path_item(item))).collect();
    let paths = Value::Object(paths);
    let all = definitions::all(catalogue, Dialect::V3);
    let schemas = reached(&paths, all);
    Some(json!({
        "openapi": "3.0.0",
        "info": super::info(),
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

fn reached(paths: &Value, mut all: Map<String, Value>) -> Map<String, Value> {
    let mut wanted = BTreeSet::new();
    let mut queue: Vec<String> = Vec::new();
    let mut found = Vec::new();
    references(paths, &mut found);
    queue.extend(found.into_iter().map(str::to_owned));
    while let Some(name) = queue.pop() {
        let Some(schema) = all.get(&name) else { continue };
        if !wanted.insert(name) {
            continue;
        }
        let mut found = Vec::new();
        references(schema, &mut found);
        queue.extend(found.into_iter().map(str::to_owned));
    }
    wanted.into_iter().filter_map(|name| all.shift_remove(&name).map(|schema| (name, schema))).collect()
}

fn path_item(item: &PathItem) -> Value {
    let mut out = Map::new();
    for one in &item.operations {
        out.insert(one.method.into(), operation(one));
    }
    if !item.parameters.is_empty() {
        let one = |(name, description): &(&str, String)| {
            json!({
                "name": name, "in": "path", "required": true, "description": description,
                "schema": {"type": "string", "uniqueItems": true},
            })
        };
        out.insert("parameters".into(), item.parameters.iter().map(one).collect());
    }
    Value::Object(out)
}

fn operation(operation: &Operation) -> Value {
    let parameter = |(name, kind, description): &operations::Parameter| {
        json!({
            "name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true},
        })
    };
    let answer = match operation.answer.as_str() {
        "" => json!({"text/plain": {"schema": {"type": "string"}}}),
        name => json!({
            "application/json": {"schema": Dialect::V3.reference(name)},
            "application/yaml": {"schema": Dialect::V3.reference(name)},
        }),
    };
    let text = |code: u16| match code {
        201 => "Created",
        202 => "Accepted",
        _ => "OK",
    };
    let mut responses: Map<String, Value> = operation
        .codes
        .iter()
        .map(|code| (code.to_string(), json!({"description": text(*code), "content": answer.clone()})))
        .collect();
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    let (group, version, kind) = &operation.gvk;
    let mut out = json!({
        "tags": [operation.tag],
        "description": operation.description,
        "operationId": operation.id,
        "parameters": operation.query.iter().map(parameter).collect::<Vec<Value>>(),
        "responses": responses,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
    });
    match &operation.body {
        Body::None => {}
        Body::Object(name, required) => {
            let content = json!({"*/*": {"schema": Dialect::V3.reference(name)}});
            out["requestBody"] = json!({"content": content, "required": required});
        }
        Body::Patch => {
            let schema = json!({"schema": Dialect::V3.reference("io.k8s.apimachinery.pkg.apis.meta.v1.Patch")});
            let content: Map<String, Value> =
                operations::PATCHES.iter().map(|t| ((*t).to_owned(), schema.clone())).collect();
            out["requestBody"] = json!({"content": content, "required": true});
        }
    }
    out
}
