//! Decoding of request bodies: JSON and YAML with duplicate fields found, type check, pruning and field validation.

mod protobuf;
mod strict;
mod yaml;

use crate::catalogue::{Catalogue, FieldValidation, Resource};
use crate::field::{FieldError, Path, quote};
use crate::names;
use crate::schema::SchemaError;
use crate::status::Status;
use serde_json::Value;

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 200;

/// Deepest nesting of an object. It is less than what can be read, since objects are read again inside of lists and events, and
/// with a list of owners that is as deep as they are.
pub(crate) const MAX_OBJECT_DEPTH: usize = 100;
pub(crate) const TOO_DEEP: &str = "exceeded max depth";

/// A decoded body.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The value; of duplicate fields the last one.
    pub value: Value,
    /// Paths of duplicate fields, such as `spec.replicas`.
    pub duplicates: Vec<String>,
}

/// A body that is no JSON or YAML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// Encodings of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// `application/json`.
    #[default]
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`, for built-in types.
    Protobuf,
}

impl Encoding {
    /// From a `Content-Type`; an absent one means JSON.
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "application/json" => Some(Self::Json),
            "application/yaml" | "application/x-yaml" | "text/yaml" => Some(Self::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }
}

/// Reads JSON.
///
/// # Errors
/// If the bytes are no JSON.
pub fn from_json(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = strict::read(&mut deserializer, &mut duplicates).map_err(|e| json_error(bytes, &e))?;
    deserializer.end().map_err(|e| json_error(bytes, &e))?;
    Ok(Decoded { value, duplicates })
}

/// A syntax error in Go's words.
fn json_error(bytes: &[u8], error: &serde_json::Error) -> DecodeError {
    let text = error.to_string();
    if error.is_eof() {
        return DecodeError("unexpected end of JSON input".into());
    }
    let context = [
        ("expected value", "looking for beginning of value"),
        ("key must be a string", "looking for beginning of object key string"),
        ("trailing comma", "looking for beginning of object key string"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("expected `:`", "after object key"),
        ("trailing characters", "after top-level value"),
        ("control character", "in string literal"),
    ];
    let line = bytes.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let found = line.get(error.column().saturating_sub(1)..).and_then(|rest| {
        let text = String::from_utf8_lossy(&rest[..rest.len().min(4)]).into_owned();
        text.chars().next()
    });
    let context = context.iter().find(|(ours, _)| text.starts_with(ours));
    DecodeError(match (context, found) {
        (Some((_, context)), Some(found)) => format!("invalid character {found:?} {context}"),
        _ => text,
    })
}

/// Reads YAML (its first document), with the octal numbers and merge keys of YAML 1.1, as upstream does.
///
/// # Errors
/// If the bytes are no YAML.
pub fn from_yaml(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    yaml::read(bytes)
}

/// Reads upstream's protobuf form of an object of a built-in type, `DeleteOptions`, `Eviction`, … into the JSON form.
///
/// # Errors
/// If the bytes are no such object.
pub fn from_protobuf(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    protobuf::read(bytes)
}

/// Reads a body in an encoding.
///
/// # Errors
/// If the bytes are not in it.
pub fn from_bytes(bytes: &[u8], encoding: Encoding) -> Result<Decoded, DecodeError> {
    match encoding {
        Encoding::Json => from_json(bytes),
        Encoding::Yaml => from_yaml(bytes),
        Encoding::Protobuf => from_protobuf(bytes),
    }
}

/// An object that fits its schema, and what to warn the client of.
#[derive(Debug, Clone, PartialEq)]
pub struct Admitted {
    /// The pruned object, with `apiVersion` and `kind` set; not yet defaulted.
    pub object: Value,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

/// Decodes the body of a create or update: checks `apiVersion` and `kind` (absent ones are filled in), types, and unknown
/// and duplicate fields as the request wants it.
///
/// # Errors
/// A 400 Status with upstream's text.
pub fn object(
    resource: &Resource,
    bytes: &[u8],
    encoding: Encoding,
    validation: FieldValidation,
) -> Result<Admitted, Status> {
    let unreadable = |why: &str| unrecognized(resource, bytes, why);
    let decoded = from_bytes(bytes, encoding).map_err(|e| match encoding {
        Encoding::Json => unreadable(&format!("couldn't get version/kind; json parse error: {e}")),
        _ => unreadable(&e.to_string()),
    })?;
    if !decoded.value.is_object() {
        let what = crate::value::go_kind(&decoded.value);
        let why = format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {what} into Go value of type {HEAD}"
        );
        return Err(unreadable(&why));
    }
    let mut value = decoded.value;
    check_type(resource, &mut value).map_err(|wrong| match wrong {
        WrongType::Unreadable(why) => unreadable(&why),
        WrongType::Version(why) => Status::bad_request(why),
        WrongType::Other { kind, version, why } => {
            let (kind, version, own) = (kind, quote(&version), &resource.kind);
            Status::bad_request(format!("{kind} in version {version} cannot be handled as a {own}: {why}"))
        }
    })?;
    fit(resource, value, &decoded.duplicates, validation)
}

/// What upstream reads first of an object, as Go names its type.
const HEAD: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
/// Where upstream registers its kinds.
const SCHEME: &str = "pkg/api/legacyscheme/scheme.go:30";

/// 400 for what is no object of any kind.
fn unrecognized(resource: &Resource, bytes: &[u8], why: &str) -> Status {
    const SHOWN: usize = 30;
    let more = if bytes.len() > SHOWN { " ..." } else { "" };
    let first = &bytes[..bytes.len().min(SHOWN)];
    let summary = match first.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(first)),
        Some(_) => format!("{}{more}", first.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    };
    let kind = &resource.kind;
    Status::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why} ({summary})"))
}

/// Makes an object fit its schema. `duplicates` are those of what it was made from.
///
/// # Errors
/// A 400 Status with upstream's text.
pub fn fit(
    resource: &Resource,
    object: Value,
    duplicates: &[String],
    validation: FieldValidation,
) -> Result<Admitted, Status> {
    let handled = |why: &str| Status::cannot_be_handled(&resource.kind, &resource.version, why);
    fitted(resource, object, duplicates, validation).map_err(|misfit| handled(&misfit.decoded))
}

/// Makes an object that a patch produced fit its schema, and refuses one that has become something else.
///
/// # Errors
/// A 422 Status with upstream's text. It shows a strategic merge patch as it is; of other patches what they make of the object,
/// which `again` tells.
pub fn fit_patched(
    resource: &Resource,
    mut object: Value,
    patch: &Decoded,
    again: Option<&dyn Fn() -> Value>,
    validation: FieldValidation,
) -> Result<Admitted, Status> {
    let refused = |why: &str| {
        let shown = again.map_or_else(|| crate::value::go_text(&patch.value), |again| again().to_string());
        let error = FieldError::invalid(&Path::new("patch"), shown, why);
        Status::invalid("", "", "", &[error])
    };
    if let Err(wrong) = check_type(resource, &mut object) {
        let (WrongType::Unreadable(why) | WrongType::Version(why) | WrongType::Other { why, .. }) = wrong;
        return Err(refused(&why));
    }
    let done = fitted(resource, object, &patch.duplicates, validation);
    done.map_err(|misfit| refused(if again.is_none() { &misfit.restored } else { &misfit.decoded }))
}

/// Why an object does not fit.
struct Misfit {
    /// As Go's JSON decoder says it.
    decoded: String,
    /// As upstream says it where it makes an object out of a map.
    restored: String,
}

impl Misfit {
    fn of(why: String) -> Self {
        Self { restored: why.clone(), decoded: why }
    }
}

fn fitted(
    resource: &Resource,
    mut object: Value,
    duplicates: &[String],
    validation: FieldValidation,
) -> Result<Admitted, Misfit> {
    if crate::value::depth(&object) > MAX_OBJECT_DEPTH {
        return Err(Misfit::of(TOO_DEEP.to_owned()));
    }
    let misfit = |e: SchemaError| Misfit { restored: e.restored.unwrap_or_else(|| e.text.clone()), decoded: e.text };
    let found = resource.conform(&mut object).map_err(misfit)?;
    let mut findings = findings(duplicates, &found.unknown);
    match validation {
        FieldValidation::Strict if !findings.is_empty() => {
            findings.dedup();
            Err(Misfit::of(format!("strict decoding error: {}", findings.join(", "))))
        }
        FieldValidation::Warn => Ok(Admitted { object, warnings: findings }),
        _ => Ok(Admitted { object, warnings: Vec::new() }),
    }
}

/// `unknown field "…"` and `duplicate field "…"` texts.
pub fn findings(duplicates: &[String], unknown: &[String]) -> Vec<String> {
    let duplicates = duplicates.iter().map(|path| format!("duplicate field {}", quote(path)));
    duplicates.chain(unknown.iter().map(|path| format!("unknown field {}", quote(path)))).collect()
}

/// Why an object is not of the kind that it is to be of.
enum WrongType {
    /// It names none.
    Unreadable(String),
    /// Another version of the kind.
    Version(String),
    /// Another kind, or one that nobody knows.
    Other { kind: String, version: String, why: String },
}

/// Checks `apiVersion` and `kind`, and fills in absent ones.
fn check_type(resource: &Resource, value: &mut Value) -> Result<(), WrongType> {
    let api_version = resource.api_version();
    for (key, own) in [("kind", resource.kind.as_ref()), ("apiVersion", api_version.as_str())] {
        if let Some(other) = value.get(key).filter(|v| !v.is_string() && !v.is_null()) {
            let what = crate::value::go_kind(other);
            let why = format!("json: cannot unmarshal {what} into Go struct field .{key} of type string");
            return Err(WrongType::Unreadable(format!("couldn't get version/kind; json parse error: {why}")));
        }
        crate::value::set_default_text(value, key, own);
    }
    let kind = crate::value::text(value, "kind").to_owned();
    let given = crate::value::text(value, "apiVersion").to_owned();
    let (group, version) = names::split_api_version(&given)
        .ok_or_else(|| WrongType::Unreadable(format!("unexpected GroupVersion string: {given}")))?;
    if kind == resource.kind && given == api_version {
        return Ok(());
    }
    let catalogue = Catalogue::everything();
    let one = kind.strip_suffix("List").unwrap_or(&kind);
    let known = [kind.as_str(), one].iter().any(|kind| catalogue.by_kind(group, version, kind).is_some());
    let why = match known {
        true if group == resource.group && kind == resource.kind => {
            return Err(WrongType::Version(format!(
                "the API version in the data ({given}) does not match the expected API version ({api_version})"
            )));
        }
        true => {
            let package = resource.storage.group.split('.').next().filter(|first| !first.is_empty()).unwrap_or("core");
            format!("converting ({version}.{kind}) to ({package}.{}): unknown conversion", resource.kind)
        }
        false => {
            format!("no kind {} is registered for version {} in scheme {SCHEME:?}", quote(&kind), quote(&given))
        }
    };
    Err(WrongType::Other { version: version.to_owned(), kind, why })
}

/// The same object under the names of its type first, as responses list keys.
pub fn with_type(resource: &Resource, object: &mut Value) {
    crate::value::set(object, "kind", resource.kind.as_ref());
    crate::value::set(object, "apiVersion", resource.api_version());
}

#[cfg(test)]
mod tests;
