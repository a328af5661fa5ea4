//! Makes `src/schema/facts.txt` from upstream's OpenAPI document: `cargo run -p trireme-api --example facts [FOLDER] >
//! api/src/schema/facts.txt`, where the folder (default `../shared/kubernetes`) has `openapi-v2.json`. Run it again after
//! adding a root type to `src/schema/roots.rs`.

use serde_json::Value;
use std::fmt::Write as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "../shared/kubernetes".into());
    let bytes = std::fs::read(format!("{folder}/openapi-v2.json"))?;
    let upstream: Value = serde_json::from_slice(&bytes)?;
    print!("{}", facts(&upstream));
    Ok(())
}

/// The table for the definitions that the catalogue reaches.
pub fn facts(upstream: &Value) -> String {
    let mut out = String::from("# Made by examples/facts.rs; see src/schema/facts.rs for the format.\n");
    let own = trireme_api::schema::definitions();
    let mut names: Vec<&String> = own.keys().collect();
    names.sort();
    for name in names {
        let theirs = &upstream["definitions"][name];
        let mut head = String::new();
        if theirs["x-kubernetes-map-type"] == "atomic" {
            head.push_str(" atomic");
        }
        if sorted(&theirs["required"]) != sorted(&own[name]["required"]) {
            let _ = write!(head, " required={}", sorted(&theirs["required"]).join(","));
        }
        let mut lines = String::new();
        for (property, schema) in theirs["properties"].as_object().into_iter().flatten() {
            let line = property_facts(schema);
            if !line.is_empty() {
                let _ = writeln!(lines, " {property}{line}");
            }
        }
        if !head.is_empty() || !lines.is_empty() {
            let _ = write!(out, "{name}{head}\n{lines}");
        }
    }
    out
}

fn sorted(list: &Value) -> Vec<&str> {
    let mut list: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    list.sort_unstable();
    list
}

fn property_facts(schema: &Value) -> String {
    let mut line = String::new();
    let keys: Vec<&str> =
        schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let text = |name: &str| schema[name].as_str().unwrap_or_default();
    for (key, value) in [
        ("list", text("x-kubernetes-list-type")),
        ("keys", keys.join(",").as_str()),
        ("merge", text("x-kubernetes-patch-merge-key")),
        ("strategy", text("x-kubernetes-patch-strategy")),
        ("map", text("x-kubernetes-map-type")),
    ] {
        if !value.is_empty() {
            let _ = write!(line, " {key}={value}");
        }
    }
    line
}
