//! Request bodies in upstream's protobuf encoding, which kubectl from 1.32 on and Go clients use for built-in kinds.
//!
//! They become JSON values by a table of field numbers, so that the rest of the pipeline has one form only. Go writes
//! every field that is no pointer, empty ones too; here those are dropped like JSON's `omitempty` does, except where the
//! field is a pointer upstream and its zero means something.

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};
use trireme_api::status::Status;

use crate::error::ApiResult;

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
const MAGIC: &[u8] = b"k8s\0";
const MAX_DEPTH: usize = 64;

/// Pointers upstream whose zero is a value.
const MEANINGFUL_ZERO: &[&str] = &[
    "activeDeadlineSeconds",
    "allocateLoadBalancerNodePorts",
    "allowPrivilegeEscalation",
    "automountServiceAccountToken",
    "backoffLimit",
    "blockOwnerDeletion",
    "completions",
    "controller",
    "defaultMode",
    "enableServiceLinks",
    "expirationSeconds",
    "fsGroup",
    "gracePeriodSeconds",
    "hostUsers",
    "immutable",
    "leaseTransitions",
    "maxSurge",
    "maxUnavailable",
    "mode",
    "nodePort",
    "optional",
    "orphanDependents",
    "parallelism",
    "partition",
    "priority",
    "privileged",
    "progressDeadlineSeconds",
    "readOnlyRootFilesystem",
    "ready",
    "replicas",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "serving",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "started",
    "terminating",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
    "value",
];

#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Int,
    Bool,
    Bytes,
    Double,
    Message(&'static str),
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    inline: bool,
    repeated: bool,
    map: bool,
    kind: Kind,
}

#[derive(Debug, Default)]
struct Message {
    /// JSON shows its only field instead of the message.
    transparent: bool,
    fields: HashMap<u64, Field>,
}

static TABLE: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| {
    let lines = include_str!("table.txt").lines().filter(|l| !l.starts_with('#'));
    lines.filter_map(|line| line.split_once(' ').map(|(name, cells)| (name, message(cells)))).collect()
});

fn message(cells: &'static str) -> Message {
    let mut message = Message::default();
    for cell in cells.split(' ') {
        let mut parts = cell.splitn(3, ':');
        let (Some(name), Some(tag), Some(kind)) = (parts.next(), parts.next(), parts.next()) else {
            message.transparent |= cell == "@";
            continue;
        };
        let Ok(tag) = tag.parse() else { continue };
        let base = kind.trim_start_matches(['*', '{']);
        let field = Field {
            name: name.trim_start_matches('~'),
            inline: name.starts_with('~'),
            repeated: kind.starts_with('*'),
            map: kind.starts_with('{'),
            kind: match base {
                "s" => Kind::Text,
                "i" => Kind::Int,
                "b" => Kind::Bool,
                "y" => Kind::Bytes,
                "d" => Kind::Double,
                other => Kind::Message(other),
            },
        };
        message.fields.insert(tag, field);
    }
    message
}

/// The JSON form of a body in the envelope that upstream puts around its messages.
pub(crate) fn to_json(bytes: &[u8]) -> ApiResult<Vec<u8>> {
    let malformed = || Status::bad_request("the body is not a Kubernetes protobuf message");
    let envelope = bytes.strip_prefix(MAGIC).ok_or_else(malformed)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for part in Parts(envelope) {
        match part.ok_or_else(malformed)? {
            (1, Wire::Bytes(type_meta)) => {
                for part in Parts(type_meta) {
                    match part.ok_or_else(malformed)? {
                        (1, Wire::Bytes(text)) => api_version = String::from_utf8_lossy(text).into_owned(),
                        (2, Wire::Bytes(text)) => kind = String::from_utf8_lossy(text).into_owned(),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(body)) => raw = body,
            _ => {}
        }
    }
    let name = message_name(&api_version, &kind);
    let table = TABLE
        .get(name.as_str())
        .ok_or_else(|| Status::unsupported_media_type(&["application/json", "application/yaml"]))?;
    let mut object = Map::new();
    object.insert("kind".into(), kind.into());
    object.insert("apiVersion".into(), api_version.into());
    decode(table, raw, &mut object, 0).ok_or_else(malformed)?;
    serde_json::to_vec(&object).map_err(crate::error::corrupt)
}

fn message_name(api_version: &str, kind: &str) -> String {
    if kind == "DeleteOptions" {
        return "meta.v1.DeleteOptions".to_owned();
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let group = group.split('.').next().unwrap_or_default();
    format!("{group}.{version}.{kind}")
}

/// A field's value on the wire.
enum Wire<'a> {
    Number(u64),
    Double(f64),
    Bytes(&'a [u8]),
}

/// Fields of a message; `None` for one that is malformed, after which nothing more comes.
struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = Option<(u64, Wire<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_none() {
            self.0 = &[];
        }
        Some(part)
    }
}

impl<'a> Parts<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn part(&mut self) -> Option<(u64, Wire<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Double(f64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Double(f64::from(f32::from_le_bytes(self.take(4)?.try_into().ok()?))),
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

fn decode(message: &Message, bytes: &[u8], out: &mut Map<String, Value>, depth: usize) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    for part in Parts(bytes) {
        let (tag, wire) = part?;
        let Some(field) = message.fields.get(&tag) else { continue };
        if field.inline {
            let (Kind::Message(name), Wire::Bytes(inner)) = (field.kind, wire) else { return None };
            decode(TABLE.get(name)?, inner, out, depth + 1)?;
        } else if field.map {
            let Wire::Bytes(entry) = wire else { return None };
            let (key, value) = entry_of(field, entry, depth)?;
            let map = out.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            map.as_object_mut()?.insert(key, value);
        } else if field.repeated {
            let value = value_of(field, wire, depth)?;
            let list = out.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            list.as_array_mut()?.push(value);
        } else {
            let value = value_of(field, wire, depth)?;
            if !is_zero(&value) || MEANINGFUL_ZERO.contains(&field.name) && !value.is_null() {
                out.insert(field.name.to_owned(), value);
            }
        }
    }
    Some(())
}

fn entry_of(field: &Field, entry: &[u8], depth: usize) -> Option<(String, Value)> {
    let (mut key, mut value) = (String::new(), None);
    for part in Parts(entry) {
        match part? {
            (1, Wire::Bytes(text)) => key = std::str::from_utf8(text).ok()?.to_owned(),
            (2, wire) => value = Some(value_of(field, wire, depth)?),
            _ => {}
        }
    }
    let value = match (value, field.kind) {
        (Some(value), _) => value,
        (None, Kind::Text | Kind::Bytes) => Value::String(String::new()),
        (None, _) => Value::Null,
    };
    Some((key, value))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn value_of(field: &Field, wire: Wire<'_>, depth: usize) -> Option<Value> {
    Some(match (field.kind, wire) {
        (Kind::Text, Wire::Bytes(text)) => Value::String(std::str::from_utf8(text).ok()?.to_owned()),
        (Kind::Bytes, Wire::Bytes(bytes)) => Value::String(STANDARD.encode(bytes)),
        (Kind::Int, Wire::Number(number)) => Value::from(number as i64),
        (Kind::Bool, Wire::Number(number)) => Value::Bool(number != 0),
        (Kind::Double, Wire::Double(number)) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        (Kind::Message(name), Wire::Bytes(bytes)) => message_value(name, bytes, depth)?,
        _ => return None,
    })
}

/// A nested message, or one of those that JSON writes as a text or number.
fn message_value(name: &str, bytes: &[u8], depth: usize) -> Option<Value> {
    let mut numbers = [0i64; 4];
    let mut text = None;
    if matches!(
        name,
        "Quantity" | "IntOrString" | "RawExtension" | "meta.v1.Time" | "meta.v1.MicroTime" | "meta.v1.FieldsV1"
    ) {
        for part in Parts(bytes) {
            match part? {
                (tag @ 1..=3, Wire::Number(number)) => numbers[tag as usize] = number as i64,
                (_, Wire::Bytes(bytes)) => text = Some(bytes),
                _ => {}
            }
        }
    }
    let as_text = || text.and_then(|t| std::str::from_utf8(t).ok()).unwrap_or_default().to_owned();
    Some(match name {
        "Quantity" => Value::String(as_text()),
        "IntOrString" if numbers[1] == 1 => Value::String(as_text()),
        "IntOrString" => Value::from(numbers[2]),
        "RawExtension" | "meta.v1.FieldsV1" => serde_json::from_slice(text.unwrap_or(b"null")).ok()?,
        "meta.v1.Time" | "meta.v1.MicroTime" if bytes.is_empty() => Value::Null,
        "meta.v1.Time" => Value::String(trireme_api::time::seconds(Timestamp::from_second(numbers[1]).ok()?)),
        "meta.v1.MicroTime" => {
            let time = Timestamp::new(numbers[1], i32::try_from(numbers[2]).ok()?).ok()?;
            Value::String(trireme_api::time::micro(time))
        }
        other => {
            let message = TABLE.get(other)?;
            let mut object = Map::new();
            decode(message, bytes, &mut object, depth + 1)?;
            match message.transparent {
                true => object.into_iter().next().map_or_else(|| Value::Array(Vec::new()), |(_, v)| v),
                false => Value::Object(object),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn field(tag: u8, body: &[u8]) -> Vec<u8> {
        [&[tag << 3 | 2, body.len() as u8], body].concat()
    }

    #[test]
    fn an_envelope_becomes_json() {
        let meta =
            [field(1, b"x"), field(2, b""), field(8, b""), field(11, &[field(1, b"app"), field(2, b"web")].concat())]
                .concat();
        let port =
            [&field(2, b"TCP")[..], &[3 << 3, 80], &field(4, &[1 << 3, 0, 2 << 3, 0x90, 0x3f, 0x1a, 0])].concat();
        let spec = [field(1, &port), field(3, b""), vec![13 << 3, 0]].concat();
        let service = [field(1, &meta), field(2, &spec)].concat();
        let envelope = [field(1, &[field(1, b"v1"), field(2, b"Service")].concat()), field(2, &service)].concat();
        let got = to_json(&[MAGIC, &envelope].concat()).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&got).unwrap(),
            json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": "x", "labels": {"app": "web"}},
                   "spec": {"ports": [{"protocol": "TCP", "port": 80, "targetPort": 8080}]}})
        );
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(to_json(b"{}").unwrap_err().code, 400);
        assert_eq!(to_json(b"k8s\0\xff\xff\xff").unwrap_err().code, 400);
        let unknown = field(1, &[field(1, b"v1"), field(2, b"Nothing")].concat());
        assert_eq!(to_json(&[MAGIC, &unknown].concat()).unwrap_err().code, 415);
        for (name, message) in TABLE.iter() {
            for field in message.fields.values() {
                let Kind::Message(inner) = field.kind else { continue };
                let special = [
                    "Quantity",
                    "IntOrString",
                    "RawExtension",
                    "meta.v1.Time",
                    "meta.v1.MicroTime",
                    "meta.v1.FieldsV1",
                ];
                assert!(TABLE.contains_key(inner) || special.contains(&inner), "{name}.{} -> {inner}", field.name);
            }
        }
    }
}
