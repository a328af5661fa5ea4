//! Makes `src/schema/numbers.txt`, the protobuf field numbers of upstream's types, from the sources of the `k8s-pb` crate,
//! which are generated from upstream's `generated.proto` files: `cargo run -p trireme-api --example field_numbers
//! K8S_PB_FOLDER/src > api/src/schema/numbers.txt`. Run it again after adding a root type to `src/schema/roots.rs`.

use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

/// A field: normalised name, number, Rust type.
type Fields = Vec<(String, u32, String)>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("give the src folder of k8s-pb")?;
    let mut messages = HashMap::new();
    read(Path::new(&folder), "io.k8s", &mut messages)?;
    let definitions = trireme_api::schema::definitions();
    let mut names: Vec<&String> = definitions.keys().collect();
    names.sort();
    println!("# Made by examples/field_numbers.rs; see src/decode/protobuf.rs for the format.");
    for name in names {
        let Some(properties) = definitions[name]["properties"].as_object() else { continue };
        // What has become stable since k8s-pb was made has the numbers that it had before.
        let key = name.to_lowercase();
        match messages.get(&key).or_else(|| messages.get(&key.replace(".v1.", ".v1beta1."))) {
            Some(fields) => println!("{name}{}", render(name, fields, properties, &messages)),
            None => eprintln!("no message for {name}"),
        }
    }
    Ok(())
}

fn read(folder: &Path, prefix: &str, messages: &mut HashMap<String, Fields>) -> Result<(), Box<dyn std::error::Error>> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            read(&path, &format!("{prefix}.{}", name.replace('_', "-")), messages)?;
        } else if name == "mod.rs" {
            parse(&std::fs::read_to_string(&path)?, prefix, messages);
        }
    }
    Ok(())
}

fn normal(name: &str) -> String {
    name.trim_start_matches("r#").replace(['_', '-'], "").to_lowercase()
}

fn parse(text: &str, prefix: &str, messages: &mut HashMap<String, Fields>) {
    let mut message = String::new();
    let mut number = None;
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            // prost writes `PodOs` for `PodOS`.
            message = format!("{prefix}.{}", rest.trim_end_matches(['{', '}', ' ', ';'])).to_lowercase();
            messages.entry(message.clone()).or_default();
        } else if line.contains("tag = \"") {
            number = line.split("tag = \"").nth(1).and_then(|t| t.split('"').next()).and_then(|t| t.parse().ok());
        } else if let (Some(rest), Some(tag)) = (line.strip_prefix("pub "), number)
            && let Some((name, kind)) = rest.split_once(':')
        {
            messages.entry(message.clone()).or_default().push((normal(name), tag, kind.trim().to_owned()));
            number = None;
        }
    }
}

/// ` name=1 …`, with the fields of an embedded message in parentheses after its number.
fn render(name: &str, fields: &Fields, properties: &Map<String, Value>, all: &HashMap<String, Fields>) -> String {
    let mut out = String::new();
    for (field, number, kind) in fields {
        if let Some(property) = properties.keys().find(|p| normal(p.trim_start_matches('$')) == *field) {
            let _ = write!(out, " {property}={number}");
            continue;
        }
        let embedded = kind.rsplit('<').next().unwrap_or_default().trim_end_matches(['>', ',', ' ']);
        let module = name.rsplit_once('.').map_or("", |(module, _)| module);
        // Unstable versions embed stable ones' messages.
        let (embedded, other) = match embedded.rsplit_once("::") {
            Some((path, last)) => (last, path.rsplit("::").next().unwrap_or_default()),
            None => (embedded, ""),
        };
        let elsewhere = module.rsplit_once('.').map(|(group, _)| format!("{group}.{other}"));
        let module = elsewhere.filter(|_| !other.is_empty()).unwrap_or_else(|| module.to_owned());
        match all.get(&format!("{module}.{embedded}").to_lowercase()) {
            Some(inner) => {
                let _ = write!(out, " {number}({} )", render(name, inner, properties, all));
            }
            None => eprintln!("{name}: nothing for field {field} of type {kind}"),
        }
    }
    out
}
