//! Objects from files, folders and standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::errors::{CtlError, Result};

/// One object with where it came from.
#[derive(Debug, Clone)]
pub struct Document {
    /// The object.
    pub object: Value,
    /// File name, or `STDIN`.
    pub source: String,
}

/// `-f` and `-R`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Files {
    /// Filename or directory with the objects; - is standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", value_delimiter = ',')]
    pub filename: Vec<String>,
    /// Process directories recursively
    #[arg(short = 'R', long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = clap::ArgAction::Set, hide_possible_values = true)]
    pub recursive: bool,
    /// Process a kustomization directory
    #[arg(short = 'k', long, value_name = "DIR")]
    pub kustomize: Option<String>,
}

impl Files {
    /// Whether no file was given.
    pub fn is_empty(&self) -> bool {
        self.filename.is_empty() && self.kustomize.is_none()
    }

    /// All objects, lists taken apart, with the errors of those that cannot be read.
    pub fn read(&self) -> Result<(Vec<Document>, Vec<CtlError>)> {
        let (mut documents, mut failures) = (Vec::new(), Vec::new());
        if let Some(folder) = &self.kustomize {
            if !self.filename.is_empty() {
                return Err(CtlError::plain("only one of -f or -k can be specified"));
            }
            let objects = super::kustomize::build(Path::new(folder))?;
            documents.extend(objects.into_iter().map(|object| Document { object, source: folder.clone() }));
        }
        for name in &self.filename {
            match read_source(name, self.recursive) {
                Ok(found) => {
                    for result in found {
                        match result {
                            Ok(document) => documents.push(document),
                            Err(error) => failures.push(error),
                        }
                    }
                }
                Err(error) => failures.push(error),
            }
        }
        Ok((documents, failures))
    }
}

fn read_source(name: &str, recursive: bool) -> Result<Vec<Result<Document>>> {
    if name == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(parse(&text, "STDIN"));
    }
    if name.starts_with("http://") || name.starts_with("https://") {
        return Ok(parse(&super::fetch::text(name)?, name));
    }
    let path = Path::new(name);
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => CtlError::plain(format!("the path {name:?} does not exist")),
        _ => CtlError::plain(format!("the path {name:?} cannot be accessed: {error}")),
    })?;
    if !metadata.is_dir() {
        return read_file(path);
    }
    let mut files = Vec::new();
    collect(path, recursive, &mut files)?;
    if files.is_empty() {
        return Err(CtlError::plain(format!(
            "error reading [{name}]: recognized file extensions are [.json .yaml .yml]"
        )));
    }
    let mut documents = Vec::new();
    for file in files {
        documents.extend(read_file(&file)?);
    }
    Ok(documents)
}

fn read_file(path: &Path) -> Result<Vec<Result<Document>>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| CtlError::plain(format!("open {}: {}", path.display(), super::print::os_reason(&error))))?;
    Ok(parse(&text, &path.display().to_string()))
}

fn collect(folder: &Path, recursive: bool, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<_>>()?;
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            if recursive {
                collect(&entry, true, files)?;
            }
        } else if entry.extension().is_some_and(|end| end == "json" || end == "yaml" || end == "yml") {
            files.push(entry);
        }
    }
    Ok(())
}

/// The objects of JSON texts that follow each other; nothing if this is something else than JSON.
fn parse_json(text: &str, source: &str) -> Option<Vec<Result<Document>>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut documents = Vec::new();
    for part in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        match part {
            Ok(value) => flatten(value, source, &mut documents),
            Err(error) if error.is_eof() => {
                documents.push(Err(CtlError::plain(format!("error parsing {source}: unexpected EOF"))));
                break;
            }
            // YAML may begin with a brace too.
            Err(_) => return None,
        }
    }
    Some(documents)
}

/// The objects of a YAML stream or of JSON text.
pub fn parse(text: &str, source: &str) -> Vec<Result<Document>> {
    // Editors of Windows put a mark before the text.
    let text = text.trim_start_matches('\u{feff}');
    if let Some(documents) = parse_json(text, source) {
        return documents;
    }
    let mut documents = Vec::new();
    for part in serde_norway::Deserializer::from_str(text) {
        let value = match Value::deserialize(part) {
            Ok(Value::Null) => continue,
            Ok(value) => value,
            Err(error) => {
                let reason = format!(
                    "error parsing {source}: error converting YAML to JSON: {}",
                    yaml_reason(&error.to_string())
                );
                documents.push(Err(CtlError::plain(reason)));
                // What follows a syntax error cannot be told apart any more.
                break;
            }
        };
        flatten(value, source, &mut documents);
    }
    documents
}

/// A parser's complaint in the words of Go's, which counts lines from zero except while it reads tokens.
pub fn yaml_reason(text: &str) -> String {
    let (reason, place) = text.split_once(" at line ").unwrap_or((text, ""));
    let parsing = reason.starts_with("did not find expected");
    let digits: String = place.chars().take_while(char::is_ascii_digit).collect();
    let line: usize = digits.parse().unwrap_or_default();
    match if parsing { line.saturating_sub(1) } else { line } {
        0 => format!("yaml: {reason}"),
        line => format!("yaml: line {line}: {reason}"),
    }
}

fn flatten(object: Value, source: &str, documents: &mut Vec<Result<Document>>) {
    let missing: Vec<String> = ["apiVersion", "kind"]
        .into_iter()
        .filter(|field| !object[*field].is_string())
        .map(|field| match object[field].is_null() {
            true => format!("{field} not set"),
            false => format!("{field} isn't string type"),
        })
        .collect();
    if !missing.is_empty() {
        let what = if missing.len() > 1 { format!("[{}]", missing.join(", ")) } else { missing.concat() };
        documents.push(Err(CtlError::plain(format!(
            "error validating {source:?}: error validating data: {what}; if you choose to ignore these errors, turn \
             validation off with --validate=false"
        ))));
        return;
    }
    let is_list = object["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) && object["items"].is_array();
    if !is_list {
        documents.push(Ok(Document { object, source: source.to_owned() }));
        return;
    }
    let (version, kind) = (object["apiVersion"].clone(), object["kind"].as_str().unwrap_or_default().to_owned());
    for item in object["items"].as_array().into_iter().flatten() {
        let mut item = item.clone();
        // Items of typed lists may leave out what the list says.
        if kind != "List"
            && let Some(map) = item.as_object_mut()
        {
            map.entry("apiVersion").or_insert_with(|| version.clone());
            map.entry("kind").or_insert_with(|| Value::from(kind.trim_end_matches("List")));
        }
        flatten(item, source, documents);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn streams_and_lists_are_taken_apart() {
        let text = "# only a comment\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n\n---\napiVersion: v1\nkind: List\n\
                    items:\n- {apiVersion: v1, kind: Service}\n---\napiVersion: v1\nkind: ConfigMapList\nitems: [{metadata: {name: c}}]\n";
        let kinds: Vec<String> =
            parse(text, "x").into_iter().map(|d| d.unwrap().object["kind"].as_str().unwrap().to_owned()).collect();
        assert_eq!(kinds, ["Pod", "Service", "ConfigMap"]);
        let pod = "{\"apiVersion\": \"v1\", \"kind\": \"Pod\"}";
        assert_eq!(parse(&format!("\u{feff}{pod}\n{pod}{pod}"), "x").into_iter().filter(Result::is_ok).count(), 3);
        assert!(parse("{apiVersion: v1, kind: Pod}", "x").remove(0).is_ok());
    }

    #[test]
    fn mistakes_name_the_source() {
        let text = |input: &str| parse(input, "f.yaml").pop().unwrap().unwrap_err().text();
        assert_eq!(text("{\"a\":"), "error: error parsing f.yaml: unexpected EOF\n");
        assert!(text("a: [").starts_with("error: error parsing f.yaml: error converting YAML to JSON: yaml: "));
        assert_eq!(
            text("apiVersion: v1\n"),
            "error: error validating \"f.yaml\": error validating data: kind not set; if you choose to ignore these errors, turn validation off with --validate=false\n"
        );
        assert_eq!(read_source("/no/such", false).unwrap_err().text(), "error: the path \"/no/such\" does not exist\n");
    }

    #[test]
    fn folders_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for (name, kind) in [("b.yaml", "B"), ("a.json", "A"), ("c.txt", "C")] {
            let text = format!("{{\"apiVersion\": \"v1\", \"kind\": \"{kind}\"}}");
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let found = read_source(folder.path().to_str().unwrap(), false).unwrap();
        let kinds: Vec<Value> = found.into_iter().map(|d| d.unwrap().object["kind"].clone()).collect();
        assert_eq!(kinds, ["A", "B"]);
    }
}
