//! The stored form of an object: a small header and its JSON without resourceVersion.
//!
//! Only apply knows the resourceVersion, so it is spliced in when the object is encoded for a client: the header says
//! where. A reader that meets a format it does not know refuses the value instead of guessing.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value};

const MAGIC: u8 = b'T';
const FORMAT: u8 = 1;
/// Bumped when defaults or pruning change, so that older values take the slow path.
const SCHEMA_STAMP: u16 = 1;

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
}

/// Encodes an object for the store; `metadata.resourceVersion` is left out.
pub(crate) fn encode(object: &Value, storage_version: &str) -> Result<Bytes, CodecError> {
    let map = object.as_object().ok_or(CodecError::NoMetadata)?;
    let metadata = map.get("metadata").and_then(Value::as_object).ok_or(CodecError::NoMetadata)?;
    let mut body = Vec::with_capacity(512);
    body.push(b'{');
    for key in ["kind", "apiVersion"] {
        if let Some(value) = map.get(key) {
            put_member(&mut body, key, value)?;
            body.push(b',');
        }
    }
    body.extend_from_slice(b"\"metadata\":{");
    let splice = body.len();
    put_members(&mut body, metadata, &["resourceVersion"])?;
    body.push(b'}');
    if map.keys().any(|k| !matches!(k.as_str(), "kind" | "apiVersion" | "metadata")) {
        body.push(b',');
        put_members(&mut body, map, &["kind", "apiVersion", "metadata"])?;
    }
    body.push(b'}');
    let mut out = BytesMut::with_capacity(body.len() + 16 + storage_version.len());
    out.put_u8(MAGIC);
    out.put_u8(FORMAT);
    out.put_u8(0); // key id: not encrypted
    out.put_u16_le(SCHEMA_STAMP);
    out.put_u32_le(splice as u32);
    out.put_u8(storage_version.len() as u8);
    out.put_slice(storage_version.as_bytes());
    out.put_slice(&body);
    Ok(out.freeze())
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
    if value.len() < 10 || value[0] != MAGIC || value[1] != FORMAT {
        return Err(CodecError::Format);
    }
    if value[2] != 0 {
        return Err(CodecError::Key(value[2]));
    }
    let splice = u32::from_le_bytes([value[5], value[6], value[7], value[8]]) as usize;
    let start = 10 + usize::from(value[9]);
    if start + splice > value.len() {
        return Err(CodecError::Format);
    }
    Ok(Stored { body: value.slice(start..), splice })
}

impl Stored {
    /// The body without resourceVersion.
    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }

    /// The JSON with a resourceVersion as pieces that share the stored bytes.
    pub(crate) fn pieces(&self, revision: u64) -> [Bytes; 3] {
        let comma = if self.body.get(self.splice) == Some(&b'}') { "" } else { "," };
        let middle = format!("\"resourceVersion\":\"{revision}\"{comma}");
        [self.body.slice(..self.splice), Bytes::from(middle), self.body.slice(self.splice..)]
    }

    /// The JSON with a resourceVersion appended to a buffer.
    pub(crate) fn write(&self, revision: u64, out: &mut Vec<u8>) {
        for piece in self.pieces(revision) {
            out.extend_from_slice(&piece);
        }
    }

    /// The JSON with a resourceVersion.
    pub(crate) fn json(&self, revision: u64) -> Bytes {
        let mut out = Vec::with_capacity(self.body.len() + 48);
        self.write(revision, &mut out);
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
        let stored = decode(&encode(&object, "v1").unwrap()).unwrap();
        assert!(!stored.body().windows(15).any(|w| w == b"resourceVersion"));
        let read: Value = serde_json::from_slice(&stored.json(42)).unwrap();
        assert_eq!(read["metadata"]["resourceVersion"], "42");
        assert_eq!(read["metadata"]["name"], "x");
        assert_eq!(stored.value(Some(42)).unwrap(), read);
        let empty = decode(&encode(&json!({"metadata": {}}), "v1").unwrap()).unwrap();
        let read: Value = serde_json::from_slice(&empty.json(1)).unwrap();
        assert_eq!(read["metadata"]["resourceVersion"], "1");
        assert!(matches!(decode(&Bytes::from_static(b"nonsense....")), Err(CodecError::Format)));
    }
}
