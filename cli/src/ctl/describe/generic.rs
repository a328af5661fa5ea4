//! Any other object: its fields with readable names.

use serde_json::Value;

use super::writer::{Page, in_order, plain};

/// An object of a kind that has no layout of its own.
pub fn describe(page: &mut Page, object: &Value) {
    page.named(object);
    page.marked(object);
    let mut rest = object.clone();
    if let Some(metadata) = rest["metadata"].as_object_mut() {
        for field in ["name", "namespace", "labels", "annotations", "managedFields"] {
            metadata.remove(field);
        }
    }
    fields(page, &rest, 0);
}

fn fields(page: &mut Page, value: &Value, level: usize) {
    for (key, value) in in_order(value) {
        let name = readable(key);
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

/// `resourceVersion` as `Resource Version`, split where kubectl splits: before a capital behind a small letter, and before
/// the last of several capitals if a small one follows.
fn readable(key: &str) -> String {
    if !key.chars().all(|c| c.is_alphabetic() || c == '-') {
        return key.to_owned();
    }
    let class = |c: char| if c.is_lowercase() { 0 } else { 1 + u8::from(c == '-') };
    let mut parts: Vec<String> = Vec::new();
    let mut last = None;
    for c in key.chars() {
        let this = class(c);
        match (last, parts.last_mut()) {
            (Some(before), Some(part)) if before == this => part.push(c),
            // A capital goes with the small letters behind it.
            (Some(1), Some(part)) if this == 0 => {
                let capital = part.pop();
                if part.is_empty() {
                    parts.pop();
                }
                parts.push(capital.into_iter().chain([c]).collect());
            }
            _ => parts.push(c.to_string()),
        }
        last = Some(this);
    }
    let word = |part: &String| match part.to_uppercase() {
        upper if matches!(upper.as_str(), "API" | "URL" | "UID" | "OSB" | "GUID") => upper,
        _ => {
            let mut letters = part.chars();
            letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
        }
    };
    parts.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_readable() {
        // As they come out of kubectl, which knows few acronyms.
        let cases = [
            ("apiVersion", "API Version"),
            ("uid", "UID"),
            ("resourceVersion", "Resource Version"),
            ("a/b", "a/b"),
            ("podIPs", "Pod I Ps"),
            ("nonResourceURLs", "Non Resource UR Ls"),
            ("apiGroups", "API Groups"),
            ("openAPIV3Schema", "openAPIV3Schema"),
            ("targetCPUUtilization", "Target CPU Utilization"),
            ("Kind", "Kind"),
        ];
        for (key, name) in cases {
            assert_eq!(readable(key), name);
        }
    }
}
