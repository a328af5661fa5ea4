//! Cached objects and changes: encoded bytes plus what selection needs, never a tree of values.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

use super::cache::KindCache;
use super::codec::{self, CodecError, Stored};
use super::fields::{self, Fields};
use super::labels::Labels;

/// An immutable object as caches, lists and watches share it.
#[derive(Debug)]
pub(crate) struct Object {
    /// `namespace/name` or `name`.
    pub(crate) key: Arc<str>,
    pub(crate) revision: u64,
    pub(crate) stored: Stored,
    labels: Labels,
    /// Values of the selectable fields, in the catalogue's order.
    fields: Fields,
}

impl Object {
    /// Reads a stored value of a kind.
    pub(crate) fn read(cache: &KindCache, key: Arc<str>, value: &Bytes, revision: u64) -> Result<Self, CodecError> {
        let stored = codec::decode(value)?;
        let tree = cache.skim.read(stored.body()).map_err(CodecError::Json)?;
        let labels = cache.labels.of(&tree);
        let fields = fields::selectable(&cache.resource, &tree);
        Ok(Self { key, revision, stored, labels, fields })
    }

    /// What has just been written, for its writer. Nobody selects it: labels and fields are not read.
    pub(crate) fn written(key: Arc<str>, value: &Bytes, revision: u64) -> Result<Self, CodecError> {
        let stored = codec::decode(value)?;
        Ok(Self { key, revision, stored, labels: Labels::default(), fields: Fields::default() })
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.key.split_once('/').map(|(namespace, _)| namespace)
    }

    pub(crate) fn name(&self) -> &str {
        self.key.split_once('/').map_or(&*self.key, |(_, name)| name)
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| &**k == key).map(|(_, v)| &**v)
    }

    pub(crate) fn field(&self, path: &str) -> Option<&str> {
        self.fields.iter().find(|(k, _)| k == path).map(|(_, v)| &**v)
    }

    /// The decoded object with its resourceVersion.
    pub(crate) fn value(&self) -> Result<Value, CodecError> {
        self.stored.value(Some(self.revision))
    }

    /// The same without managers.
    pub(crate) fn bare(&self) -> Result<Value, CodecError> {
        self.stored.bare().value(Some(self.revision))
    }
}

/// What a watch tells of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of an object, shared by all watchers of its kind.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    /// `None` for a deletion.
    pub(crate) new: Option<Arc<Object>>,
    /// `None` for a creation.
    pub(crate) old: Option<Arc<Object>>,
    /// With managers, and without; of the whole object, and of its metadata.
    frames: [[[OnceLock<Bytes>; 3]; 2]; 2],
}

impl Change {
    pub(crate) fn new(revision: u64, new: Option<Arc<Object>>, old: Option<Arc<Object>>) -> Self {
        Self { revision, new, old, frames: Default::default() }
    }

    /// The object that an event of this type shows: the old one for a deletion, the new one otherwise.
    pub(crate) fn shown(&self, kind: EventType) -> Option<&Arc<Object>> {
        match kind {
            EventType::Deleted => self.old.as_ref().or(self.new.as_ref()),
            _ => self.new.as_ref(),
        }
    }

    /// Bytes that it takes, about: a state of the object, and its frame once somebody has watched.
    pub(crate) fn weight(&self) -> usize {
        const OVERHEAD: usize = 512;
        OVERHEAD + self.new.as_ref().or(self.old.as_ref()).map_or(0, |object| 2 * object.stored.body().len())
    }

    /// The JSON watch frame, encoded by the first watcher that needs it.
    pub(crate) fn frame(&self, kind: EventType, form: Form) -> Result<Bytes, CodecError> {
        let frame = &self.frames[usize::from(form.metadata)][usize::from(!form.managers)][kind as usize];
        if let Some(frame) = frame.get() {
            return Ok(frame.clone());
        }
        let made = match self.shown(kind) {
            Some(object) => json_frame(kind, &object.stored, self.revision, form)?,
            None => Bytes::new(),
        };
        Ok(frame.get_or_init(|| made).clone())
    }
}

/// How much of an object a frame shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// Its metadata only, as PartialObjectMetadata.
    pub(crate) metadata: bool,
    /// With `managedFields`.
    pub(crate) managers: bool,
}

/// `{"type":"ADDED","object":{…}}` and a line feed.
pub(crate) fn json_frame(kind: EventType, stored: &Stored, revision: u64, form: Form) -> Result<Bytes, CodecError> {
    let expected = if form.metadata { 1024.min(stored.body().len()) } else { stored.body().len() };
    let mut out = Vec::with_capacity(expected + 160);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.text().as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    match form.metadata {
        true => stored.write_partial(revision, form.managers, &mut out)?,
        false => stored.write(revision, form.managers, &mut out),
    }
    out.extend_from_slice(b"}\n");
    // It is kept as long as the change is.
    out.shrink_to_fit();
    Ok(Bytes::from(out))
}
