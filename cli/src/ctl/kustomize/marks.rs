//! `buildMetadata`: where objects come from and what changed them, in annotations, and a label that says who built them.

use serde_json::{Value, json};

use super::super::print::yaml;
use super::place::Place;
use super::{Item, strings, transform};

/// What is to be noted.
pub fn wants(config: &Value, what: &str) -> bool {
    strings(&config["buildMetadata"]).any(|known| known == what)
}

/// Something built in that a kustomization or a file asks for.
pub fn by(place: &Place, file: &str, kind: &str, name: &str) -> Value {
    let mut by = json!({"apiVersion": "builtin", "kind": kind});
    if !name.is_empty() {
        by["name"] = json!(name);
    }
    json!({"configuredIn": place.seen_from_top(file), "configuredBy": by})
}

/// Writes down what was noted.
pub fn write(wanted: &Value, items: &mut [Item]) {
    let asked = json!({"buildMetadata": wanted});
    for item in items {
        let mut annotations = serde_json::Map::new();
        if wants(&asked, "originAnnotations") && !item.origin.is_null() {
            annotations.insert("config.kubernetes.io/origin".to_owned(), json!(in_order(&item.origin)));
        }
        if wants(&asked, "transformerAnnotations") && !item.changed_by.is_empty() {
            let list = Value::Array(item.changed_by.clone());
            annotations.insert("alpha.config.kubernetes.io/transformations".to_owned(), json!(in_order(&list)));
        }
        if !annotations.is_empty() {
            transform::extend(&mut item.object["metadata"]["annotations"], &annotations);
        }
        if wants(&asked, "managedByLabel") {
            let label = [("app.kubernetes.io/managed-by".to_owned(), json!("kustomize-(devel)"))];
            transform::extend(&mut item.object["metadata"]["labels"], &label.into_iter().collect());
        }
    }
}

/// The YAML of it, with `configuredIn` first, as Go's structures are written.
fn in_order(value: &Value) -> String {
    let sorted = yaml::document(value);
    let mut out: Vec<String> = Vec::new();
    // Sorted, `configuredBy` with what is below stands before `configuredIn`.
    let mut held: Vec<String> = Vec::new();
    for line in sorted.lines() {
        let bare = line.trim_start_matches(['-', ' ']);
        if let Some(rest) = bare.strip_prefix("configuredIn:") {
            let is_item = held.first().is_some_and(|first| first.starts_with("- "));
            let lead = if is_item { "- " } else { "" };
            out.push(format!("{lead}configuredIn:{rest}"));
            for line in held.drain(..) {
                out.push(line.replacen("- configuredBy", "  configuredBy", 1));
            }
        } else if bare.starts_with("configuredBy:") || !held.is_empty() {
            held.push(line.to_owned());
        } else {
            out.push(line.to_owned());
        }
    }
    out.extend(held);
    out.join("\n") + "\n"
}
