//! Field paths and field errors with upstream's wording (`apimachinery/pkg/util/validation/field`).

use serde_json::Value;
use std::fmt;

/// One step of a [`Path`].
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Child(&'a str),
    Index(usize),
    Key(&'a str),
}

/// A path into an object, kept as a chain on the stack so that valid objects cost no allocation.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Option<Step<'a>>,
}

impl<'a> Path<'a> {
    /// The empty path.
    pub const ROOT: Path<'static> = Path { parent: None, step: None };

    /// A path of one name, such as `spec`; dots in it are kept as they are.
    pub const fn new(name: &'a str) -> Self {
        Self { parent: None, step: Some(Step::Child(name)) }
    }

    /// `self.name`.
    pub const fn child<'b>(&'b self, name: &'b str) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self), step: Some(Step::Child(name)) }
    }

    /// `self[index]`.
    pub const fn index<'b>(&'b self, index: usize) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self), step: Some(Step::Index(index)) }
    }

    /// `self[key]`.
    pub const fn key<'b>(&'b self, key: &'b str) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self), step: Some(Step::Key(key)) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut nested = false;
        if let Some(parent) = self.parent {
            fmt::Display::fmt(parent, f)?;
            nested = parent.step.is_some() || parent.parent.is_some();
        }
        match self.step {
            None => Ok(()),
            Some(Step::Child(name)) if nested => write!(f, ".{name}"),
            Some(Step::Child(name)) => f.write_str(name),
            Some(Step::Index(i)) => write!(f, "[{i}]"),
            Some(Step::Key(key)) => write!(f, "[{key}]"),
        }
    }
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// The value refers to something that does not exist.
    NotFound,
    /// A value must be given.
    Required,
    /// The value must be unique and is not.
    Duplicate,
    /// The value is malformed.
    Invalid,
    /// The value is not one of a closed list.
    NotSupported,
    /// The field may not be set here.
    Forbidden,
    /// The value has too many bytes.
    TooLong,
    /// The list has too many items.
    TooMany,
    /// Validation itself failed.
    Internal,
    /// The value has the wrong type.
    TypeInvalid,
}

impl FieldErrorKind {
    /// The words that open the message.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    /// The `reason` of a Status cause.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

/// One finding of validation. `Display` gives `spec.replicas: Invalid value: -1: must be …`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {body}")]
pub struct FieldError {
    /// What is wrong.
    pub kind: FieldErrorKind,
    /// Where.
    pub field: String,
    /// The message without the field.
    pub body: String,
}

impl FieldError {
    fn plain(kind: FieldErrorKind, path: &Path<'_>, detail: &str) -> Self {
        let body = if detail.is_empty() { kind.text().to_owned() } else { format!("{}: {detail}", kind.text()) };
        Self { kind, field: path.to_string(), body }
    }

    fn with_value(kind: FieldErrorKind, path: &Path<'_>, value: &Value, detail: &str) -> Self {
        let value = match value {
            Value::String(text) => quote(text),
            other => other.to_string(),
        };
        let mut body = format!("{}: {value}", kind.text());
        if !detail.is_empty() {
            body.push_str(": ");
            body.push_str(detail);
        }
        Self { kind, field: path.to_string(), body }
    }

    /// `Required value[: detail]`.
    pub fn required(path: &Path<'_>, detail: &str) -> Self {
        Self::plain(FieldErrorKind::Required, path, detail)
    }

    /// `Forbidden: detail`.
    pub fn forbidden(path: &Path<'_>, detail: &str) -> Self {
        Self::plain(FieldErrorKind::Forbidden, path, detail)
    }

    /// `Invalid value: value: detail`.
    pub fn invalid(path: &Path<'_>, value: impl Into<Value>, detail: &str) -> Self {
        Self::with_value(FieldErrorKind::Invalid, path, &value.into(), detail)
    }

    /// `Invalid value: detail`, of a value that is not shown.
    pub fn invalid_as_a_whole(path: &Path<'_>, detail: &str) -> Self {
        Self::plain(FieldErrorKind::Invalid, path, detail)
    }

    /// `Duplicate value: value`.
    pub fn duplicate(path: &Path<'_>, value: impl Into<Value>) -> Self {
        Self::with_value(FieldErrorKind::Duplicate, path, &value.into(), "")
    }

    /// `Not found: value`.
    pub fn not_found(path: &Path<'_>, value: impl Into<Value>) -> Self {
        Self::with_value(FieldErrorKind::NotFound, path, &value.into(), "")
    }

    /// `Unsupported value: value: supported values: "a", "b"`.
    pub fn not_supported(path: &Path<'_>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| quote(s)).collect();
        let detail = if list.is_empty() { String::new() } else { format!("supported values: {}", list.join(", ")) };
        Self::with_value(FieldErrorKind::NotSupported, path, &value.into(), &detail)
    }

    /// `Too long: may not be more than N bytes`.
    pub fn too_long(path: &Path<'_>, max: usize) -> Self {
        Self::plain(FieldErrorKind::TooLong, path, &format!("may not be more than {max} bytes"))
    }

    /// `Too many: N: must have at most M items`.
    pub fn too_many(path: &Path<'_>, actual: usize, max: usize) -> Self {
        let detail = format!("must have at most {max} item{}", if max == 1 { "" } else { "s" });
        Self::with_value(FieldErrorKind::TooMany, path, &Value::from(actual), &detail)
    }

    /// `Internal error: detail`.
    pub fn internal(path: &Path<'_>, detail: &str) -> Self {
        Self::plain(FieldErrorKind::Internal, path, detail)
    }
}

/// The text of several errors as upstream's aggregate prints it: one bare, several in brackets, repeats dropped.
pub fn aggregate(errors: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.len() {
        1 => texts.swap_remove(0),
        _ => format!("[{}]", texts.join(", ")),
    }
}

/// Go's `%q` for the texts that occur in object fields.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_and_messages() {
        let spec = Path::new("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        let name = first.child("name");
        let cases: Vec<(FieldError, &str)> = vec![
            (FieldError::required(&name, ""), "spec.containers[0].name: Required value"),
            (FieldError::invalid(&name, "X\"", "bad"), "spec.containers[0].name: Invalid value: \"X\\\"\": bad"),
            (FieldError::invalid(&spec.child("replicas"), -1, "must"), "spec.replicas: Invalid value: -1: must"),
            (
                FieldError::not_supported(&spec.child("type"), "x", &["A", "B"]),
                "spec.type: Unsupported value: \"x\": supported values: \"A\", \"B\"",
            ),
            (FieldError::duplicate(&spec.key("a"), "v"), "spec[a]: Duplicate value: \"v\""),
            (FieldError::too_many(&spec, 5, 3), "spec: Too many: 5: must have at most 3 items"),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
        let twice = vec![FieldError::required(&spec, ""), FieldError::required(&spec, "")];
        assert_eq!(aggregate(&twice), "spec: Required value");
    }
}
