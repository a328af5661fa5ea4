//! Field selectors: terms of `=`, `==` and `!=` on the fields that a kind makes selectable.

use super::SelectorError;
use crate::catalogue::Resource;
use serde_json::Value;

/// One term.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: String,
    value: String,
    equal: bool,
}

/// A conjunction of terms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

impl FieldSelector {
    /// Reads the query parameter for a kind; refuses fields that it does not support.
    ///
    /// # Errors
    /// With upstream's text.
    pub fn parse(resource: &Resource, text: &str) -> Result<Self, SelectorError> {
        let selector = Self::parse_any(text)?;
        for term in &selector.terms {
            let known = match term.field.as_str() {
                "metadata.name" => true,
                "metadata.namespace" => resource.namespaced(),
                other => resource.fields.iter().any(|f| f == other),
            };
            if !known {
                return Err(SelectorError(unsupported(resource, &term.field)));
            }
        }
        Ok(selector)
    }

    /// Reads the syntax without checking fields.
    ///
    /// # Errors
    /// With upstream's text.
    pub fn parse_any(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in split(text).into_iter().filter(|part| !part.is_empty()) {
            let (field, value, equal) = term(&part)
                .ok_or_else(|| SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'")))?;
            terms.push(Term { field, value: unescape(&value)?, equal });
        }
        Ok(Self { terms })
    }

    /// Whether everything matches.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that a field must have for anything to match, for use as an index.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }

    /// Whether an object matches.
    pub fn matches(&self, object: &Value) -> bool {
        self.matches_by(|field| field_value(object, field))
    }

    /// Whether fields match, given by a look-up.
    pub fn matches_by(&self, value: impl Fn(&str) -> String) -> bool {
        self.terms.iter().all(|t| (value(&t.field) == t.value) == t.equal)
    }
}

fn unsupported(resource: &Resource, field: &str) -> String {
    // Kinds with conversion functions of their own word it differently upstream.
    match (resource.group.as_ref(), resource.fields.is_empty()) {
        (_, true) => format!("{field} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""),
        _ => format!("field label not supported: {field}"),
    }
}

/// The text of an object's field by its dotted path. Of fields under another name than their path: an Event's
/// `source` is its component or, in events.k8s.io, the reporting controller.
pub fn field_value(object: &Value, field: &str) -> String {
    let found = match field {
        "source" => {
            let component = crate::value::at(object, &["source", "component"]);
            if component.as_str().is_none_or(str::is_empty) { &object["reportingComponent"] } else { component }
        }
        "reportingController" => match object.get("reportingController") {
            Some(controller) => controller,
            None => &object["reportingComponent"],
        },
        // A Job's successes have another name among the selectable fields.
        "status.successful" => crate::value::at(object, &["status", "succeeded"]),
        "status.podIP" | "status.podIPs" => crate::value::at(object, &["status", "podIP"]),
        path => path.split('.').fold(object, |value, key| &value[key]),
    };
    match found {
        Value::String(text) => text.clone(),
        Value::Null if matches!(field, "spec.unschedulable" | "spec.hostNetwork") => "false".into(),
        Value::Null if matches!(field, "status.replicas" | "status.successful") => "0".into(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        match c {
            ',' if !escaped => {
                parts.push(String::new());
                continue;
            }
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

fn term(part: &str) -> Option<(String, String, bool)> {
    let at = part.find(['=', '!'])?;
    let (field, rest) = part.split_at(at);
    for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some(value) = rest.strip_prefix(operator) {
            return Some((field.to_owned(), value.to_owned(), equal));
        }
    }
    None
}

fn unescape(text: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let sequence = other.map_or_else(|| "\\".to_owned(), |c| format!("\\{c}"));
                    return Err(SelectorError(format!("invalid field selector: invalid escape sequence: {sequence}")));
                }
            },
            ',' | '=' => {
                return Err(SelectorError(format!("invalid field selector: unescaped special character: '{c}'")));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::catalogue::Catalogue;
    use serde_json::json;

    #[test]
    fn terms() {
        let catalogue = Catalogue::builtin();
        let pods = catalogue.resource("", "v1", "pods").unwrap();
        let pod = json!({"metadata": {"name": "a", "namespace": "d"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        let cases = [
            ("", Some(true)),
            ("metadata.name=a", Some(true)),
            ("metadata.name==b", Some(false)),
            ("spec.nodeName!=n", Some(false)),
            ("status.phase=Running,spec.nodeName=n", Some(true)),
            ("spec.nodeName=", Some(false)),
            ("status.nominatedNodeName=", Some(true)),
            ("spec.hostNetwork=false", Some(true)),
            ("spec.image=x", None),
            ("metadata.name", None),
            ("metadata.name=a=b", None),
        ];
        for (text, want) in cases {
            let got = FieldSelector::parse(&pods, text).ok().map(|s| s.matches(&pod));
            assert_eq!(got, want, "{text}");
        }
        assert_eq!(
            FieldSelector::parse(&pods, "spec.image=x").unwrap_err().to_string(),
            "field label not supported: spec.image"
        );
        assert_eq!(FieldSelector::parse(&pods, "spec.nodeName=n").unwrap().required("spec.nodeName"), Some("n"));
        let jobs = catalogue.resource("batch", "v1", "jobs").unwrap();
        for (job, matches) in [(json!({"status": {"succeeded": 1}}), true), (json!({"metadata": {"name": "a"}}), false)]
        {
            assert_eq!(FieldSelector::parse(&jobs, "status.successful=1").unwrap().matches(&job), matches);
        }
        assert_eq!(FieldSelector::parse_any("a=x\\,y").unwrap().required("a"), Some("x,y"));
    }
}
