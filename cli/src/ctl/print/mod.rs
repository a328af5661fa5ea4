//! Output: tables, JSON, YAML, names, jsonpath, go-template, custom columns.

pub mod columns;
pub mod gotemplate;
pub mod jsonpath;
mod jsonpath_parse;
pub mod table;
pub mod yaml;

use std::io::Write;

use clap::Args;
use serde_json::{Map, Value};

use self::columns::Columns;
use self::gotemplate::{GoTemplate, go_value};
use self::jsonpath::Template;
use super::errors::{CtlError, Result};

/// The flags of everything that prints objects.
#[derive(Debug, Clone, Args)]
pub struct PrintFlags {
    /// Output format: json, yaml, name, go-template, go-template-file, template, templatefile, jsonpath,
    /// jsonpath-as-json, jsonpath-file (get: also wide, custom-columns, custom-columns-file)
    #[arg(short, long)]
    pub output: Option<String>,
    /// Template string or path to a template file to use with -o=go-template, -o=go-template-file, -o=jsonpath…
    #[arg(long)]
    pub template: Option<String>,
    /// Ignore fields and keys in templates that are missing (golang and jsonpath output)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub allow_missing_template_keys: bool,
    /// Keep managedFields when printing in JSON or YAML
    #[arg(long)]
    pub show_managed_fields: bool,
}

impl Default for PrintFlags {
    fn default() -> PrintFlags {
        PrintFlags { output: None, template: None, allow_missing_template_keys: true, show_managed_fields: false }
    }
}

/// Which formats a verb has beside the common ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Formats {
    /// Those of `get`.
    Tables,
    /// Those of verbs that change objects.
    Objects,
}

impl PrintFlags {
    /// The printer that the flags ask for.
    pub fn printer(&self, formats: Formats) -> Result<Printer> {
        let text = match (self.output.as_deref().unwrap_or_default(), &self.template) {
            ("", Some(template)) => format!("go-template={template}"),
            (name, Some(template)) if !name.contains('=') => format!("{name}={template}"),
            (text, _) => text.to_owned(),
        };
        let format = Format::parse(&text, self.output.as_deref().unwrap_or_default(), formats)?;
        Ok(Printer {
            format,
            lenient: self.allow_missing_template_keys,
            managed_fields: self.show_managed_fields,
            in_order: false,
        })
    }
}

/// A format with what shapes its output.
#[derive(Debug, Clone)]
pub struct Printer {
    /// What `-o` asks for.
    pub format: Format,
    /// Missing keys in templates are nothing.
    lenient: bool,
    /// managedFields stay.
    managed_fields: bool,
    /// JSON keeps the order of the object's fields, as kubectl does with objects that it made itself.
    in_order: bool,
}

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
    /// What a jsonpath template finds, as JSON.
    JsonPathAsJson(Template),
    /// A Go template.
    GoTemplate(Box<GoTemplate>),
    /// Columns chosen by the user.
    Columns(Columns),
}

const COMMON: &str =
    "go-template,go-template-file,json,jsonpath,jsonpath-as-json,jsonpath-file,name,template,templatefile";

impl Format {
    fn parse(text: &str, shown: &str, formats: Formats) -> Result<Format> {
        let (name, rest) = text.split_once('=').unwrap_or((text, ""));
        let tables = formats == Formats::Tables;
        let need = |what: &str| match rest {
            "" => Err(CtlError::plain(what.to_owned())),
            _ => Ok(rest),
        };
        const TEMPLATE: &str = "template format specified but no template given";
        const COLUMNS: &str = "custom-columns format specified but no custom columns given";
        let path = |text: &str| Template::parse(text);
        match name {
            "" => Ok(Format::Table),
            "wide" if tables => Ok(Format::Wide),
            "json" => Ok(Format::Json),
            "yaml" => Ok(Format::Yaml),
            "name" => Ok(Format::Name),
            "jsonpath" => path(need(TEMPLATE)?).map(Format::JsonPath),
            "jsonpath-as-json" => path(need(TEMPLATE)?).map(Format::JsonPathAsJson),
            "jsonpath-file" => path(&read("--template", need(TEMPLATE)?)?).map(Format::JsonPath),
            "custom-columns" if tables => Columns::parse(need(COLUMNS)?).map(Format::Columns),
            "custom-columns-file" if tables => {
                Columns::parse_file(&read("template", need(COLUMNS)?)?).map(Format::Columns)
            }
            "go-template" | "template" => go_template(need(TEMPLATE)?),
            "go-template-file" | "templatefile" => go_template(&read("--template", need(TEMPLATE)?)?),
            _ => {
                let all = match formats {
                    Formats::Tables => format!("custom-columns,custom-columns-file,{COMMON},wide,yaml"),
                    Formats::Objects => format!("{COMMON},yaml"),
                };
                Err(CtlError::plain(format!(
                    "unable to match a printer suitable for the output format {shown:?}, allowed formats are: {all}"
                )))
            }
        }
    }
}

/// Removes who manages which fields, of an object or of each in a list.
pub fn forget_managers(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(forget_managers);
}

fn go_template(text: &str) -> Result<Format> {
    GoTemplate::parse(text)
        .map(|template| Format::GoTemplate(Box::new(template)))
        .map_err(|reason| CtlError::plain(format!("error parsing template {text}, {reason}")))
}

impl Printer {
    /// Whether the server renders (tables) rather than sends objects.
    pub fn is_table(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// The same, but JSON keeps the order of the object's fields.
    pub fn in_order(self) -> Printer {
        Printer { in_order: true, ..self }
    }

    /// Removes from JSON and YAML what is for machines, unless it was asked for. Templates see everything.
    pub fn tidy(&self, object: &mut Value) {
        if !self.managed_fields && matches!(self.format, Format::Json | Format::Yaml) {
            forget_managers(object);
        }
    }

    /// Renders whole objects (a single one or a `List`). Tables are not rendered here.
    pub fn render(&self, object: &Value, label: &str) -> Result<String> {
        Ok(match &self.format {
            Format::Table | Format::Wide | Format::Name => named(object, label),
            Format::Json if self.in_order => pretty(object, b"    "),
            Format::Json => json(object),
            Format::Yaml => yaml::document(object),
            Format::JsonPath(template) => {
                template.render(object, self.lenient).map_err(|reason| jsonpath_failed(template, object, &reason))?
            }
            Format::JsonPathAsJson(template) => {
                let found = template.collect(object, self.lenient);
                let found = found.map_err(|reason| jsonpath_failed(template, object, &reason))?;
                json(&Value::Array(found))
            }
            Format::GoTemplate(template) => self.fill(template, object)?,
            Format::Columns(columns) => columns.render(object)?,
        })
    }

    fn fill(&self, template: &GoTemplate, object: &Value) -> Result<String> {
        template.render(object, self.lenient).or_else(|failure| {
            emit(&format!(
                "{}Error executing template: {reason}. Printing more information for debugging the template:\n\t\
                 template was:\n\t\t{}\n\traw data was:\n\t\t{}\n\tobject given to template engine was:\n\t\t{}\n\n",
                failure.written,
                template.source(),
                sorted(object),
                go_value(object),
                reason = failure.reason,
            ))?;
            let source = template.source();
            Err(CtlError::plain(format!("error executing template {source:?}: {}", failure.reason)))
        })
    }
}

fn jsonpath_failed(template: &Template, object: &Value, reason: &str) -> CtlError {
    let source = template.source();
    CtlError::plain(format!(
        "error executing jsonpath {source:?}: Error executing template: {reason}. Printing more information for \
         debugging the template:\n\ttemplate was:\n\t\t{source}\n\tobject given to jsonpath engine was:\n\t\t{}\n\n",
        go_syntax(object)
    ))
}

/// `%#v` of decoded JSON.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(_) | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            let pairs: Vec<String> =
                pairs.into_iter().map(|(key, value)| format!("{key:?}:{}", go_syntax(value))).collect();
            format!("map[string]interface {{}}{{{}}}", pairs.join(", "))
        }
    }
}

fn read(what: &str, path: &str) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| CtlError::plain(format!("error reading {what} {path}, open {path}: {}", os_reason(&error))))
}

/// An operating system's reason in Go's words.
pub fn os_reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "is a directory".to_owned(),
        _ => error.to_string(),
    }
}

fn named(object: &Value, label: &str) -> String {
    format!("{label}/{}\n", object["metadata"]["name"].as_str().unwrap_or_default())
}

/// JSON with sorted keys and four spaces, as kubectl prints it.
pub fn json(value: &Value) -> String {
    pretty(&sorted(value), b"    ")
}

/// JSON in the order of its keys.
pub fn pretty(value: &Value, indent: &[u8]) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    // Values always serialize.
    let _ = serde::Serialize::serialize(value, &mut serializer);
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
