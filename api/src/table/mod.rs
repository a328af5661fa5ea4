//! Server-side tables (`meta.k8s.io/v1` Table): columns and cells as upstream's printers make them.

mod batch;
mod columns;
mod columns_policy;
mod columns_workloads;
mod network;
mod objects;
mod pod;
mod policy;
mod printers;
mod storage;
#[cfg(test)]
mod tests;
mod unstable;
mod workloads;

pub use pod::{Summary, summary};

use crate::catalogue::Resource;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// `string`, `integer`, …
    pub kind: &'static str,
    /// `name` for the object's name, else empty.
    pub format: &'static str,
    /// What it shows.
    pub description: &'static str,
    /// 0, or 1 for wide output only.
    pub priority: u8,
}

/// How objects of a kind are printed.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    /// Columns.
    pub columns: &'static [Column],
    /// The cells of an object, one for each column.
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

fn name(object: &Value) -> Value {
    crate::value::text(&object["metadata"], "name").into()
}

/// A text, or another one for an empty one.
fn or(text: &str, other: &str) -> Value {
    if text.is_empty() { other } else { text }.into()
}

fn age(object: &Value, now: Timestamp) -> Value {
    crate::time::age(&object["metadata"]["creationTimestamp"], now).into()
}

/// How much of an object its row carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// A PartialObjectMetadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// Reads the query parameter.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Metadata" => Some(Self::Metadata),
            "None" => Some(Self::None),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// What a table is to be like.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What rows carry.
    pub include_object: IncludeObject,
    /// Leave the columns out, as watch events after the first do.
    pub no_columns: bool,
    /// Metadata of the list: resourceVersion, continue, remainingItemCount.
    pub list_metadata: Map<String, Value>,
    /// `v1` (also when empty) or `v1beta1`.
    pub version: String,
}

/// A table of objects of a kind.
pub fn table(resource: &Resource, objects: &[Value], now: Timestamp, options: &Options) -> Value {
    printed(&resource.printer, objects, now, options)
}

/// A table of objects that are printed in one way.
pub fn printed(printer: &Printer, objects: &[Value], now: Timestamp, options: &Options) -> Value {
    let rows: Vec<Value> = objects.iter().map(|object| row_of(printer, object, now, options)).collect();
    let columns: Vec<Value> =
        if options.no_columns { Vec::new() } else { printer.columns.iter().map(definition).collect() };
    let version = if options.version.is_empty() { "v1" } else { &options.version };
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": Value::Object(options.list_metadata.clone()),
        "columnDefinitions": columns,
        "rows": rows,
    })
}

fn definition(column: &Column) -> Value {
    json!({
        "name": column.name,
        "type": column.kind,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    })
}

/// One row.
pub fn row(resource: &Resource, object: &Value, now: Timestamp, options: &Options) -> Value {
    row_of(&resource.printer, object, now, options)
}

fn row_of(printer: &Printer, object: &Value, now: Timestamp, options: &Options) -> Value {
    let cells = (printer.cells)(object, now);
    let mut row = Map::new();
    row.insert("cells".into(), Value::Array(cells));
    match options.include_object {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            row.insert("object".into(), partial_metadata(object));
        }
        IncludeObject::Object => {
            row.insert("object".into(), object.clone());
        }
    }
    Value::Object(row)
}

/// The PartialObjectMetadata of an object.
pub fn partial_metadata(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
