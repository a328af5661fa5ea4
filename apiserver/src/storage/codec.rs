//! The stored form of an object: a small header and its JSON without resourceVersion.
//!
//! Only apply knows the resourceVersion, so it is spliced in when the object is encoded for a client: the header says
//! where. It also says where `managedFields` are, last in the metadata: they can be as large as all the rest, and most
//! readers do without. A reader that meets a format it does not know refuses the value instead of guessing.

use std::ops::Range;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

const MAGIC: u8 = b'T';
const FORMAT: u8 = 2;
/// Bumped when defaults or pruning change, so that older values take the slow path.
const SCHEMA_STAMP: u16 = 1;
/// Where the header says where the resourceVersion belongs, and where the managers begin and end.
const PLACES: usize = 5;
/// Bytes of the header before the storage version.
const HEADER: usize = 18;
const MANAGERS: &str = "managedFields";

/// Why a stored value cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("the stored value has an unknown format")]
    Format,
    #[error("the stored value is encrypted with key {0}, which is not known")]
    Key(u8),
    #[error("the stored value is not valid JSON")]
    Json(#[source] serde_json::Error),
    #[error("the object has no metadata")]
    NoMetadata,
}

/// Header and body of a stored value; cloning shares the bytes.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    body: Bytes,
    splice: usize,
    /// Where the list of managers is; empty if there is none.
    managers: Range<usize>,
}

/// Encodes an object for the store; `metadata.resourceVersion` is left out. The text of the list of managers is given, or
/// the object has it.
pub(crate) fn encode(object: &Value, storage_version: &str, managers: Option<&str>) -> Result<Bytes, CodecError> {
    let map = object.as_object().ok_or(CodecError::NoMetadata)?;
    let metadata = map.get("metadata").and_then(Value::as_object).ok_or(CodecError::NoMetadata)?;
    let length = u8::try_from(storage_version.len()).map_err(|_| CodecError::Format)?;
    let expected = 1024 + managers.map_or(0, str::len);
    let mut out = Vec::with_capacity(expected);
    out.extend_from_slice(&[MAGIC, FORMAT, 0]); // key id: not encrypted
    out.extend_from_slice(&SCHEMA_STAMP.to_le_bytes());
    // Filled in below.
    out.resize(HEADER - 1, 0);
    out.push(length);
    out.extend_from_slice(storage_version.as_bytes());
    let body = out.len();
    out.push(b'{');
    for key in ["kind", "apiVersion"] {
        if let Some(value) = map.get(key) {
            put_member(&mut out, key, value)?;
            out.push(b',');
        }
    }
    out.extend_from_slice(b"\"metadata\":{");
    let splice = out.len();
    put_members(&mut out, metadata, &["resourceVersion", MANAGERS])?;
    let managers = put_managers(&mut out, splice, metadata, managers)?;
    out.push(b'}');
    if map.keys().any(|k| !matches!(k.as_str(), "kind" | "apiVersion" | "metadata")) {
        out.push(b',');
        put_members(&mut out, map, &["kind", "apiVersion", "metadata"])?;
    }
    out.push(b'}');
    for (at, place) in (PLACES..).step_by(4).zip([splice, managers.start, managers.end]) {
        out[at..at + 4].copy_from_slice(&(place.saturating_sub(body) as u32).to_le_bytes());
    }
    Ok(Bytes::from(out))
}

/// Writes the list of managers; answers where it is.
fn put_managers(
    out: &mut Vec<u8>,
    splice: usize,
    metadata: &Map<String, Value>,
    text: Option<&str>,
) -> Result<Range<usize>, CodecError> {
    let own;
    let text = match (text, metadata.get(MANAGERS)) {
        (Some(text), _) => text,
        (None, Some(list)) if !list.is_null() => {
            own = list.to_string();
            &own
        }
        _ => "",
    };
    if text.is_empty() {
        return Ok(0..0);
    }
    if out.len() > splice {
        out.push(b',');
    }
    out.extend_from_slice(format!("\"{MANAGERS}\":").as_bytes());
    let start = out.len();
    out.extend_from_slice(text.as_bytes());
    Ok(start..out.len())
}

fn put_members(out: &mut Vec<u8>, map: &Map<String, Value>, skip: &[&str]) -> Result<(), CodecError> {
    let mut first = true;
    for (key, value) in map.iter().filter(|(k, _)| !skip.contains(&k.as_str())) {
        if !first {
            out.push(b',');
        }
        first = false;
        put_member(out, key, value)?;
    }
    Ok(())
}

fn put_member(out: &mut Vec<u8>, key: &str, value: &Value) -> Result<(), CodecError> {
    serde_json::to_writer(&mut *out, key).map_err(CodecError::Json)?;
    out.push(b':');
    serde_json::to_writer(out, value).map_err(CodecError::Json)
}

/// Reads header and body apart.
pub(crate) fn decode(value: &Bytes) -> Result<Stored, CodecError> {
    if value.len() < HEADER || value[0] != MAGIC || value[1] != FORMAT {
        return Err(CodecError::Format);
    }
    if value[2] != 0 {
        return Err(CodecError::Key(value[2]));
    }
    let place = |at: usize| u32::from_le_bytes([value[at], value[at + 1], value[at + 2], value[at + 3]]) as usize;
    let (splice, managers) = (place(PLACES), place(PLACES + 4)..place(PLACES + 8));
    let start = HEADER + usize::from(value[HEADER - 1]);
    if start > value.len() {
        return Err(CodecError::Format);
    }
    let body = value.slice(start..);
    let inside = managers.is_empty() || managers.start > splice + MANAGERS.len() + 2 && managers.end <= body.len();
    if splice > body.len() || managers.start > managers.end || !inside {
        return Err(CodecError::Format);
    }
    Ok(Stored { body, splice, managers })
}

impl Stored {
    /// The body without resourceVersion.
    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }

    /// The text of the list of managers; empty if there is none.
    pub(crate) fn managers(&self) -> &[u8] {
        &self.body[self.managers.clone()]
    }

    /// The same without managers.
    pub(crate) fn bare(&self) -> Stored {
        let Some(skipped) = self.skipped() else { return self.clone() };
        let mut body = Vec::with_capacity(self.body.len() - skipped.len());
        body.extend_from_slice(&self.body[..skipped.start]);
        body.extend_from_slice(&self.body[skipped.end..]);
        Stored { body: body.into(), splice: self.splice, managers: 0..0 }
    }

    /// The JSON with a resourceVersion, with or without managers, appended to a buffer.
    pub(crate) fn write(&self, revision: u64, managers: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.body[..self.splice]);
        self.write_rest(revision, managers, self.body.len(), out);
    }

    /// A PartialObjectMetadata with a resourceVersion, appended to a buffer.
    pub(crate) fn write_partial(&self, revision: u64, managers: bool, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":");
        self.write_metadata(revision, managers, out)?;
        out.push(b'}');
        Ok(())
    }

    /// The JSON of the metadata alone with a resourceVersion, with or without managers.
    fn write_metadata(&self, revision: u64, managers: bool, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let metadata = self.body.get(self.splice.saturating_sub(1)..).unwrap_or_default();
        let first = serde_json::Deserializer::from_slice(metadata).into_iter::<&RawValue>().next();
        let length = first.ok_or(CodecError::NoMetadata)?.map_err(CodecError::Json)?.get().len();
        out.push(b'{');
        self.write_rest(revision, managers, self.splice + length - 1, out);
        Ok(())
    }

    /// A resourceVersion, and the body from the place for it to an end.
    fn write_rest(&self, revision: u64, managers: bool, end: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"resourceVersion\":\"");
        out.extend_from_slice(revision.to_string().as_bytes());
        out.push(b'"');
        let skipped = if managers { end..end } else { self.skipped().unwrap_or(end..end) };
        let before = &self.body[self.splice..skipped.start];
        let first = before.first().unwrap_or(&self.body[skipped.end.min(self.body.len() - 1)]);
        if *first != b'}' && *first != b',' {
            out.push(b',');
        }
        out.extend_from_slice(before);
        out.extend_from_slice(&self.body[skipped.end..end]);
    }

    /// Where the member with the managers is, together with the comma before it.
    fn skipped(&self) -> Option<Range<usize>> {
        if self.managers.is_empty() {
            return None;
        }
        let key = self.managers.start - MANAGERS.len() - 3;
        let start = if self.body[key - 1] == b',' { key - 1 } else { key };
        Some(start..self.managers.end)
    }

    /// The JSON with a resourceVersion, with or without managers.
    pub(crate) fn json(&self, revision: u64, managers: bool) -> Bytes {
        let mut out = Vec::with_capacity(self.body.len() + 48);
        self.write(revision, managers, &mut out);
        Bytes::from(out)
    }

    /// Decodes the body; the resourceVersion is set when given.
    pub(crate) fn value(&self, revision: Option<u64>) -> Result<Value, CodecError> {
        let mut value: Value = serde_json::from_slice(&self.body).map_err(CodecError::Json)?;
        if let (Some(revision), Some(metadata)) = (revision, value.get_mut("metadata").and_then(Value::as_object_mut)) {
            metadata.insert("resourceVersion".into(), Value::String(revision.to_string()));
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn round_trip_with_spliced_revision() {
        let object = json!({"spec": {"a": 1}, "metadata": {"name": "x", "resourceVersion": "7"}, "kind": "Pod", "apiVersion": "v1"});
        let stored = decode(&encode(&object, "v1", None).unwrap()).unwrap();
        assert!(!stored.body().windows(15).any(|w| w == b"resourceVersion"));
        let read: Value = serde_json::from_slice(&stored.json(42, true)).unwrap();
        assert_eq!(read["metadata"]["resourceVersion"], "42");
        assert_eq!(read["metadata"]["name"], "x");
        assert_eq!(stored.value(Some(42)).unwrap(), read);
        let empty = decode(&encode(&json!({"metadata": {}}), "v1", None).unwrap()).unwrap();
        let read: Value = serde_json::from_slice(&empty.json(1, true)).unwrap();
        assert_eq!(read["metadata"]["resourceVersion"], "1");
        assert!(matches!(decode(&Bytes::from_static(b"nonsense....")), Err(CodecError::Format)));
    }
    #[test]
    fn managers_are_found_and_left_out() {
        let list = r#"[{"manager":"m","fieldsV1":{"f:a":{}}}]"#;
        let with =
            json!({"metadata": {"managedFields": [{"manager": "m", "fieldsV1": {"f:a": {}}}], "name": "x"}, "a": 1});
        let named = json!({"metadata": {"name": "x"}, "a": 1});
        let nameless = json!({"metadata": {}, "a": 1});
        for (object, given, bare) in [
            (&with, None, &named),
            (&named, Some(list), &named),
            (&with, Some(list), &named),
            (&nameless, Some(list), &nameless),
        ] {
            let stored = decode(&encode(object, "v1", given).unwrap()).unwrap();
            assert_eq!(stored.managers(), list.as_bytes());
            assert_eq!(stored.value(None).unwrap()["metadata"]["managedFields"], with["metadata"]["managedFields"]);
            assert_eq!(stored.bare().value(None).unwrap(), *bare);
            let json: Value = serde_json::from_slice(&stored.json(7, false)).unwrap();
            assert_eq!(json["metadata"]["resourceVersion"], "7");
            assert_eq!(stored.json(7, false), stored.bare().json(7, true));
            for managers in [true, false] {
                let mut metadata = Vec::new();
                stored.write_metadata(7, managers, &mut metadata).unwrap();
                let whole: Value = serde_json::from_slice(&stored.json(7, managers)).unwrap();
                assert_eq!(serde_json::from_slice::<Value>(&metadata).unwrap(), whole["metadata"], "{managers}");
            }
            assert!(stored.bare().managers().is_empty());
        }
        let stored = decode(&encode(&with, "v1", Some("")).unwrap()).unwrap();
        assert_eq!((stored.managers(), stored.value(None).unwrap()), (&b""[..], named));
    }

    #[test]
    fn places_outside_of_the_body_are_refused() {
        let good = encode(&json!({"metadata": {"name": "x"}}), "v1", Some("[1]")).unwrap();
        for at in [5, 9, 13] {
            let mut bad = good.to_vec();
            bad[at + 2] = 0xff;
            assert!(matches!(decode(&bad.into()), Err(CodecError::Format)), "{at}");
        }
        let mut reversed = good.to_vec();
        reversed[9..17].rotate_left(4);
        assert!(matches!(decode(&reversed.into()), Err(CodecError::Format)));
    }
}
