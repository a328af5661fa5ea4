//! Makes a decoded object fit its schema: type errors in upstream's words, unknown fields found and dropped, nulls and
//! empty optional values dropped, quantities and times in canonical form.

use super::{Node, Property, Schemas, TypeId};
use crate::field::{Path, quote};
use crate::quantity::Quantity;
use crate::value::go_kind;
use serde_json::Value;

/// Optional texts that upstream holds by pointer, so that "" differs from absent.
const MEANINGFUL_WHEN_EMPTY: &[&str] = &[
    "appProtocol",
    "holderIdentity",
    "ingressClassName",
    "loadBalancerClass",
    "name",
    "reportingComponent",
    "reportingInstance",
    "runtimeClassName",
    "storageClassName",
    "strategy",
    "volumeAttributesClassName",
];

/// A value of a type that the schema does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct SchemaError {
    /// As Go's JSON decoder says it.
    pub text: String,
    /// As upstream says it where it makes an object out of a map, if that is something else.
    pub restored: Option<String>,
}

impl SchemaError {
    fn new(text: String) -> Self {
        Self { text, restored: None }
    }
}

/// What `conform` found and dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conformity {
    /// Paths of unknown fields, such as `spec.foo`.
    pub unknown: Vec<String>,
}

struct Walk<'a> {
    schemas: &'a Schemas,
    unknown: Vec<String>,
}

/// Where the walk is: the path for people, Go's field stack, and the innermost struct.
#[derive(Clone, Copy)]
struct At<'a> {
    path: &'a Path<'a>,
    fields: &'a Path<'a>,
    holder: &'a str,
}

impl Schemas {
    /// Makes an object fit a type; see `Resource::conform`.
    ///
    /// # Errors
    /// If a value has a type that the schema does not allow.
    pub fn conform(&self, root: TypeId, object: &mut Value) -> Result<Conformity, SchemaError> {
        if root.0 == 0 {
            return Ok(Conformity::default());
        }
        let mut walk = Walk { schemas: self, unknown: Vec::new() };
        walk.node(&Node::Struct(root), object, At { path: &Path::ROOT, fields: &Path::ROOT, holder: "" })?;
        Ok(Conformity { unknown: walk.unknown })
    }
}

fn mismatch(what: &str, at: At<'_>, go_type: &str) -> SchemaError {
    let (holder, fields) = (at.holder, at.fields);
    SchemaError::new(match holder {
        "" => format!("json: cannot unmarshal {what} into Go value of type {go_type}"),
        _ => format!("json: cannot unmarshal {what} into Go struct field {holder}.{fields} of type {go_type}"),
    })
}

/// What upstream says of a value that it cannot turn from a map's into a field of this type, where it does not leave that to the
/// JSON decoder.
fn restored(node: &Node, value: &Value) -> Option<String> {
    let kind = match value {
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
        other => go_kind(other),
    };
    let wanted = match node {
        Node::Struct(_) => return Some(format!("cannot restore struct from: {kind}")),
        Node::Map(_) => return Some(format!("cannot restore map from {kind}")),
        Node::List(_) | Node::Bytes => return Some(format!("cannot restore slice from {kind}")),
        Node::String => "string",
        Node::Bool => "bool",
        Node::Int32 => "int32",
        Node::Int64 => "int64",
        _ => return None,
    };
    match (kind, wanted) {
        ("int64", "string") | ("float64", "int32" | "int64") => Some(format!("cannot convert {kind} to {wanted}")),
        ("int64", "int32" | "int64") => None,
        _ => Some(format!("unrecognized type: {wanted}")),
    }
}

/// The zero value that a null stands for inside lists and maps.
fn zero(node: &Node) -> Value {
    match node {
        Node::Any | Node::Time | Node::MicroTime => Value::Null,
        Node::String | Node::Bytes => Value::from(""),
        Node::Quantity => Value::from("0"),
        Node::IntOrString | Node::Int32 | Node::Int64 | Node::Number => Value::from(0),
        Node::Bool => Value::from(false),
        Node::Struct(_) | Node::Map(_) => Value::Object(serde_json::Map::new()),
        Node::List(_) => Value::Array(Vec::new()),
    }
}

fn droppable(property: &Property, value: &Value) -> bool {
    match value {
        Value::Null => true,
        // What may be anything means what it says: the default of a custom resource's field may be "".
        _ if property.node == Node::Any => false,
        // An empty list of managers asks to forget them.
        Value::Array(list) => !property.required && list.is_empty() && &*property.name != "managedFields",
        Value::Object(map) => !property.required && map.is_empty() && matches!(property.node, Node::Map(_)),
        Value::String(text) => {
            !property.required && text.is_empty() && !MEANINGFUL_WHEN_EMPTY.contains(&property.name.as_ref())
        }
        _ => false,
    }
}

impl Walk<'_> {
    fn node(&mut self, node: &Node, value: &mut Value, at: At<'_>) -> Result<(), SchemaError> {
        if value.is_null() {
            return Ok(());
        }
        match node {
            Node::Any => Ok(()),
            Node::Struct(id) => self.structure(*id, value, at),
            Node::Map(values) => self.map(node, values, value, at),
            Node::List(list) => match value {
                Value::Array(items) => {
                    for (i, item) in items.iter_mut().enumerate() {
                        if item.is_null() {
                            *item = zero(&list.items);
                        }
                        self.node(&list.items, item, At { path: &at.path.index(i), ..at })?;
                    }
                    Ok(())
                }
                other => Err(self.wrong(node, other, go_kind(other), at)),
            },
            _ => self.scalar(node, value, at),
        }
    }

    fn map(&mut self, node: &Node, values: &Node, value: &mut Value, at: At<'_>) -> Result<(), SchemaError> {
        let Value::Object(map) = value else {
            return Err(self.wrong(node, value, go_kind(value), at));
        };
        for (key, item) in map.iter_mut() {
            if item.is_null() {
                *item = zero(values);
            }
            self.node(values, item, At { path: &at.path.child(key), ..at })?;
        }
        Ok(())
    }

    fn structure(&mut self, id: TypeId, value: &mut Value, at: At<'_>) -> Result<(), SchemaError> {
        let schemas = self.schemas;
        let structure = schemas.get(id);
        let Value::Object(map) = value else {
            let restored = restored(&Node::Struct(id), value);
            return Err(SchemaError { restored, ..mismatch(go_kind(value), at, structure.go_type()) });
        };
        let mut drop = Vec::new();
        for (key, item) in map.iter_mut() {
            let path = at.path.child(key);
            let Some(property) = structure.property(key) else {
                self.unknown.push(path.to_string());
                drop.push(key.clone());
                continue;
            };
            let fields = at.fields.child(key);
            self.node(&property.node, item, At { path: &path, fields: &fields, holder: structure.go_name() })?;
            if droppable(property, item) {
                drop.push(key.clone());
            }
        }
        for key in drop {
            map.shift_remove(&key);
        }
        Ok(())
    }

    fn wrong(&self, node: &Node, value: &Value, what: &str, at: At<'_>) -> SchemaError {
        SchemaError { restored: restored(node, value), ..mismatch(what, at, &self.schemas.go_type(node)) }
    }

    fn scalar(&mut self, node: &Node, value: &mut Value, at: At<'_>) -> Result<(), SchemaError> {
        let wrong = |value: &Value, what: &str| Err(self.wrong(node, value, what, at));
        match (node, &*value) {
            (Node::String, Value::String(_)) | (Node::Bool, Value::Bool(_)) | (Node::Number, Value::Number(_)) => {
                Ok(())
            }
            (Node::Int32, Value::Number(n)) if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Ok(()),
            (Node::Int64, Value::Number(n)) if n.as_i64().is_some() => Ok(()),
            (Node::IntOrString, Value::String(_)) => Ok(()),
            (Node::IntOrString, Value::Number(n)) if n.as_i64().is_some() => Ok(()),
            (Node::Int32 | Node::Int64 | Node::IntOrString, Value::Number(n)) => wrong(value, &format!("number {n}")),
            (Node::Quantity, Value::String(_) | Value::Number(_)) => quantity(value),
            (Node::Bytes, Value::String(text)) => bytes(text),
            (Node::Time | Node::MicroTime, Value::String(text)) => match time(text, *node == Node::MicroTime)? {
                Some(canonical) => {
                    *value = canonical;
                    Ok(())
                }
                None => Ok(()),
            },
            (_, other) => wrong(other, go_kind(other)),
        }
    }
}

fn quantity(value: &mut Value) -> Result<(), SchemaError> {
    let text = match &*value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let canonical = Quantity::parse(&text).map_err(|e| SchemaError::new(e.to_string()))?.to_string();
    if value.as_str() != Some(&canonical) {
        *value = Value::String(canonical);
    }
    Ok(())
}

fn bytes(text: &str) -> Result<(), SchemaError> {
    use base64::Engine as _;
    let Err(error) = base64::engine::general_purpose::STANDARD.decode(text) else { return Ok(()) };
    let at = match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
        _ => text.len().saturating_sub(text.len() % 4),
    };
    Err(SchemaError::new(format!("illegal base64 data at input byte {at}")))
}

/// The canonical form where it differs; `Null` (to be dropped) for an empty text.
fn time(text: &str, micro: bool) -> Result<Option<Value>, SchemaError> {
    if text.is_empty() {
        return Ok(Some(Value::Null));
    }
    let parsed: jiff::Timestamp = text.parse().map_err(|_| {
        let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
        let text = quote(text);
        SchemaError::new(format!("parsing time {text} as \"{layout}\": cannot parse {text} as \"2006\""))
    })?;
    let canonical = if micro { crate::time::micro(parsed) } else { crate::time::seconds(parsed) };
    Ok((canonical != text).then(|| Value::String(canonical)))
}
