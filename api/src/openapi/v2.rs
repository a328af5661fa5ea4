//! The version 2 (Swagger) document.

use super::definitions::{self, Dialect};
use super::operations::{self, Body, Operation, PathItem};
use crate::catalogue::Catalogue;
use serde_json::{Map, Value, json};

const PRODUCES: [&str; 2] = ["application/json", "application/yaml"];

pub(super) fn document(catalogue: &Catalogue) -> Value {
    let mut paths = Map::new();
    for (group, versions) in catalogue.groups() {
        for version in versions {
            for item in operations::paths(catalogue, group, version) {
                paths.insert(item.path.clone(), path_item(&item));
            }
        }
    }
    json!({
        "swagger": "2.0",
        "info": super::info(),
        "paths": paths,
        "definitions": definitions::all(catalogue, Dialect::V2),
    })
}

fn path_item(item: &PathItem) -> Value {
    let mut out = Map::new();
    for one in &item.operations {
        out.insert(one.method.into(), operation(one));
    }
    if !item.parameters.is_empty() {
        let one = |(name, description): &(&str, String)| {
            json!({
                "name": name, "in": "path", "required": true, "type": "string", "uniqueItems": true,
                "description": description,
            })
        };
        out.insert("parameters".into(), item.parameters.iter().map(one).collect());
    }
    Value::Object(out)
}

fn operation(operation: &Operation) -> Value {
    let mut parameters = Vec::new();
    let schema = match &operation.body {
        Body::None => None,
        Body::Object(name, required) => Some((Dialect::V2.reference(name), *required)),
        Body::Patch => Some((Dialect::V2.reference("io.k8s.apimachinery.pkg.apis.meta.v1.Patch"), true)),
    };
    if let Some((schema, required)) = schema {
        parameters.push(json!({"name": "body", "in": "body", "required": required, "schema": schema}));
    }
    parameters.extend(operation.query.iter().map(|(name, kind, description)| {
        json!({"name": name, "in": "query", "type": kind, "uniqueItems": true, "description": description})
    }));
    let answer = match operation.answer.as_str() {
        "" => json!({"type": "string"}),
        name => Dialect::V2.reference(name),
    };
    let text = |code: u16| match code {
        201 => "Created",
        202 => "Accepted",
        _ => "OK",
    };
    let mut responses: Map<String, Value> = operation
        .codes
        .iter()
        .map(|code| (code.to_string(), json!({"description": text(*code), "schema": answer.clone()})))
        .collect();
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    let consumes = if operation.body == Body::Patch { operations::PATCHES.to_vec() } else { vec!["*/*"] };
    let (group, version, kind) = &operation.gvk;
    json!({
        "description": operation.description,
        "operationId": operation.id,
        "tags": [operation.tag],
        "consumes": consumes,
        "produces": PRODUCES,
        "schemes": ["https"],
        "parameters": parameters,
        "responses": responses,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
    })
}
