//! Output: tables, JSON, YAML, names, jsonpath, custom columns.

pub mod columns;
pub mod jsonpath;
mod jsonpath_parse;
pub mod table;
pub mod yaml;

use std::io::Write;

use serde_json::{Map, Value};

use self::columns::Columns;
use self::jsonpath::Template;
use super::errors::{CtlError, Result};

/// What `-o` asks for.
#[derive(Debug, Clone)]
pub enum Format {
    /// Tables for people.
    Table,
    /// Tables with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// `resource/name`.
    Name,
    /// A jsonpath template.
    JsonPath(Template),
    /// Columns chosen by the user.
    Columns(Columns),
}

impl Format {
    /// Parses the value of `-o`; nothing is a table.
    pub fn parse(text: Option<&str>) -> Result<Format> {
        let text = text.unwrap_or_default();
        let (name, rest) = text.split_once('=').unwrap_or((text, ""));
        match name {
            "" => Ok(Format::Table),
            "wide" => Ok(Format::Wide),
            "json" => Ok(Format::Json),
            "yaml" => Ok(Format::Yaml),
            "name" => Ok(Format::Name),
            "jsonpath" | "jsonpath-as-json" if rest.is_empty() => {
                Err(CtlError::plain("template format specified but no template given"))
            }
            "jsonpath" => Template::parse(rest).map(Format::JsonPath),
            "jsonpath-file" => Template::parse(&read(rest)?).map(Format::JsonPath),
            "custom-columns" if rest.is_empty() => {
                Err(CtlError::plain("custom-columns format specified but no custom columns given"))
            }
            "custom-columns" => Columns::parse(rest).map(Format::Columns),
            "custom-columns-file" => Columns::parse_file(&read(rest)?).map(Format::Columns),
            "go-template" | "template" | "go-template-file" | "templatefile" => {
                Err(CtlError::plain("go-template output is not supported, use jsonpath or custom-columns"))
            }
            _ => Err(CtlError::plain(format!(
                "unable to match a printer suitable for the output format {text:?}, allowed formats are: \
                 custom-columns,custom-columns-file,json,jsonpath,jsonpath-file,name,wide,yaml"
            ))),
        }
    }

    /// Whether the server renders (tables) rather than sends objects.
    pub fn is_table(&self) -> bool {
        matches!(self, Format::Table | Format::Wide)
    }

    /// Renders whole objects (a single one or a `List`). Tables are not rendered here.
    pub fn render(&self, object: &Value, label: &str) -> Result<String> {
        Ok(match self {
            Format::Table | Format::Wide | Format::Name => named(object, label),
            Format::Json => json(object),
            Format::Yaml => yaml::document(object),
            Format::JsonPath(template) => template.render(object)?,
            Format::Columns(columns) => columns.render(object)?,
        })
    }
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| CtlError::plain(format!("error reading {path}: {error}")))
}

fn named(object: &Value, label: &str) -> String {
    format!("{label}/{}\n", object["metadata"]["name"].as_str().unwrap_or_default())
}

/// JSON with sorted keys and four spaces, as kubectl prints it.
pub fn json(value: &Value) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    // Values always serialize.
    let _ = serde::Serialize::serialize(&sorted(value), &mut serializer);
    bytes.push(b'\n');
    String::from_utf8(bytes).unwrap_or_default()
}

/// The value with the keys of all objects in order.
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            Value::Object(entries.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// Writes to standard output at once.
pub fn emit(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}
