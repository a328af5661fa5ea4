//! Decoding of request bodies: JSON and YAML with duplicate fields found, type check, pruning and field validation.

mod protobuf;
mod strict;
mod yaml;

use crate::catalogue::{FieldValidation, Resource};
use crate::field::quote;
use crate::names;
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

fn json_error(bytes: &[u8], error: &serde_json::Error) -> DecodeError {
    if error.is_eof() {
        return DecodeError(if bytes.iter().all(u8::is_ascii_whitespace) {
            "EOF".into()
        } else {
            "unexpected end of JSON input".into()
        });
    }
    DecodeError(format!("couldn't get version/kind; json parse error: {error}"))
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
    let decoded = from_bytes(bytes, encoding).map_err(|e| Status::bad_request(e.to_string()))?;
    if !decoded.value.is_object() {
        let what = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
        return Err(Status::bad_request(format!(
            "couldn't get version/kind; json parse error: the body must be an object, not {what}"
        )));
    }
    let mut value = decoded.value;
    check_type(resource, &mut value)?;
    fit(resource, value, &decoded.duplicates, validation)
}

/// Makes an object that a patch produced fit its schema. `duplicates` are those of the patch.
///
/// # Errors
/// A 400 Status with upstream's text.
pub fn fit(
    resource: &Resource,
    mut object: Value,
    duplicates: &[String],
    validation: FieldValidation,
) -> Result<Admitted, Status> {
    let (kind, version) = (&resource.kind, &resource.version);
    if crate::value::depth(&object) > MAX_OBJECT_DEPTH {
        return Err(Status::cannot_be_handled(kind, version, TOO_DEEP));
    }
    let found = resource.conform(&mut object).map_err(|e| Status::cannot_be_handled(kind, version, &e.to_string()))?;
    let findings = findings(duplicates, &found.unknown);
    match validation {
        FieldValidation::Strict if !findings.is_empty() => Err(Status::strict_decoding(kind, version, &findings)),
        FieldValidation::Warn => Ok(Admitted { object, warnings: findings }),
        _ => Ok(Admitted { object, warnings: Vec::new() }),
    }
}

/// `unknown field "…"` and `duplicate field "…"` texts.
pub fn findings(duplicates: &[String], unknown: &[String]) -> Vec<String> {
    let duplicates = duplicates.iter().map(|path| format!("duplicate field {}", quote(path)));
    duplicates.chain(unknown.iter().map(|path| format!("unknown field {}", quote(path)))).collect()
}

fn check_type(resource: &Resource, value: &mut Value) -> Result<(), Status> {
    let api_version = resource.api_version();
    for (key, own) in [("kind", resource.kind.as_ref()), ("apiVersion", api_version.as_str())] {
        if value.get(key).is_some_and(|v| !v.is_string() && !v.is_null()) {
            let message = format!("couldn't get version/kind; json parse error: {key} must be a string");
            return Err(Status::bad_request(message));
        }
        crate::value::set_default_text(value, key, own);
    }
    let kind = crate::value::text(value, "kind").to_owned();
    let given = crate::value::text(value, "apiVersion").to_owned();
    let (group, _) = names::split_api_version(&given)
        .ok_or_else(|| Status::bad_request(format!("unexpected GroupVersion string: {given}")))?;
    if kind == resource.kind && given == api_version {
        return Ok(());
    }
    if group == resource.group && given != api_version && kind == resource.kind {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({api_version})"
        )));
    }
    Err(Status::bad_request(format!(
        "{kind} in version {} cannot be handled as a {}: the object provided is unrecognized (must be of type {}, not {kind} of {given})",
        quote(names::split_api_version(&given).map_or("", |(_, v)| v)),
        resource.kind,
        resource.kind
    )))
}

/// The same object under the names of its type first, as responses list keys.
pub fn with_type(resource: &Resource, object: &mut Value) {
    crate::value::set(object, "kind", resource.kind.as_ref());
    crate::value::set(object, "apiVersion", resource.api_version());
}

#[cfg(test)]
mod tests;
