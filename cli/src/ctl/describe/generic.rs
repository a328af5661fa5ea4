//! Any other object: its fields with readable names.

use serde_json::Value;

use super::writer::{Page, plain};

/// An object of a kind that has no layout of its own.
pub fn describe(page: &mut Page, object: &Value) {
    page.field(0, "Name", &plain(&object["metadata"]["name"]));
    page.field(0, "Namespace", &plain(&object["metadata"]["namespace"]));
    page.labels("Labels", &object["metadata"]["labels"]);
    page.annotations(&object["metadata"]["annotations"]);
    let mut rest = object.clone();
    if let Some(metadata) = rest["metadata"].as_object_mut() {
        for field in ["name", "namespace", "labels", "annotations", "managedFields"] {
            metadata.remove(field);
        }
    }
    fields(page, &rest, 0);
}

fn fields(page: &mut Page, value: &Value, level: usize) {
    let mut entries: Vec<(String, &Value)> =
        value.as_object().into_iter().flatten().map(|(key, value)| (readable(key), value)).collect();
    entries.sort_by(|left, right| left.0.cmp(&right.0));
    for (name, value) in entries {
        match value {
            Value::Object(_) => {
                page.line(level, &format!("{name}:"));
                fields(page, value, level + 1);
            }
            Value::Array(items) => {
                page.line(level, &format!("{name}:"));
                for item in items {
                    match item {
                        Value::Object(_) => fields(page, item, level + 1),
                        other => page.line(level + 1, &plain(other)),
                    }
                }
            }
            Value::Null => page.field(level, &name, "<nil>"),
            other => page.field(level, &name, &plain(other)),
        }
    }
}

/// `resourceVersion` as `Resource Version`; runs of capitals stay together.
fn readable(key: &str) -> String {
    if !key.chars().all(|c| c.is_ascii_alphanumeric()) {
        return key.to_owned();
    }
    let mut out = String::with_capacity(key.len() + 4);
    let mut before_small = false;
    for (index, c) in key.chars().enumerate() {
        if c.is_ascii_uppercase() && before_small {
            out.push(' ');
        }
        before_small = !c.is_ascii_uppercase();
        out.push(if index == 0 { c.to_ascii_uppercase() } else { c });
    }
    match out.as_str() {
        "Api Version" => "API Version".to_owned(),
        "Uid" => "UID".to_owned(),
        _ => out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_readable() {
        let cases = [
            ("apiVersion", "API Version"),
            ("uid", "UID"),
            ("resourceVersion", "Resource Version"),
            ("a/b", "a/b"),
            ("podIPs", "Pod IPs"),
        ];
        for (key, name) in cases {
            assert_eq!(readable(key), name);
        }
    }
}
