//! `metadata.managedFields`: who owns which fields.

use super::ApplyError;
use super::set::FieldSet;
use crate::schema::{Node, Schemas, TypeId};
use crate::value;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Most managers that updated; the oldest are put together beyond it, as upstream does.
const MAX_UPDATERS: usize = 10;
/// The manager that they are put together under.
const ANCIENT: &str = "ancient-changes";

/// How a manager came to its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn text(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// What tells managers apart. Who applies is one whatever versions it uses, who updates is one for each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) operation: Operation,
    /// Empty for one that applies.
    pub(super) version: String,
    pub(super) subresource: String,
}

impl Manager {
    pub(super) fn new(name: &str, operation: Operation, version: &str, subresource: &str) -> Self {
        let version = if operation == Operation::Apply { "" } else { version };
        Self { name: name.to_owned(), operation, version: version.to_owned(), subresource: subresource.to_owned() }
    }

    /// How conflicts name it.
    pub(super) fn describe(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            text += &format!(" using {}", self.version);
        }
        text
    }
}

/// What a manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owned {
    /// The version in which the fields are told.
    pub(super) version: String,
    pub(super) fields: FieldSet,
    /// When it last changed any of them, RFC 3339.
    pub(super) time: Option<String>,
}

/// All managers of an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Managers(pub(super) BTreeMap<Manager, Owned>);

/// An entry of the list as it is written.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    manager: Option<String>,
    operation: Option<String>,
    api_version: Option<String>,
    time: Option<String>,
    fields_type: Option<String>,
    fields_v1: Option<FieldSet>,
    subresource: Option<String>,
}

impl Managers {
    /// Whether nobody owns anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the text of a list; an empty text is an empty list.
    ///
    /// # Errors
    /// If it is no list of managers.
    pub fn from_text(list: &[u8]) -> Result<Self, ApplyError> {
        if list.is_empty() {
            return Ok(Self::default());
        }
        Self::of_entries(serde_json::from_slice(list).map_err(|e| unreadable(&e))?)
    }

    /// Reads a list; null is an empty one.
    ///
    /// # Errors
    /// If it is no list of managers.
    pub fn from_json(list: &Value) -> Result<Self, ApplyError> {
        if list.is_null() {
            return Ok(Self::default());
        }
        Self::of_entries(Vec::deserialize(list).map_err(|e| unreadable(&e))?)
    }

    fn of_entries(entries: Vec<Entry>) -> Result<Self, ApplyError> {
        let mut managers = BTreeMap::new();
        for (i, entry) in entries.into_iter().enumerate() {
            let bad = |why: &str| ApplyError::Malformed(format!("managedFields[{i}]: {why}"));
            let operation = match entry.operation.as_deref() {
                Some("Apply") => Operation::Apply,
                Some("Update") => Operation::Update,
                _ => return Err(bad("operation must be `Apply` or `Update`")),
            };
            let version = entry.api_version.unwrap_or_default();
            if version.is_empty() {
                return Err(bad("apiVersion must not be empty"));
            }
            if entry.fields_type.as_deref() != Some("FieldsV1") {
                return Err(bad("fieldsType must be FieldsV1"));
            }
            let (name, subresource) = (entry.manager.unwrap_or_default(), entry.subresource.unwrap_or_default());
            let manager = Manager::new(&name, operation, &version, &subresource);
            let time = entry.time.filter(|time| !time.is_empty());
            managers.insert(manager, Owned { version, fields: entry.fields_v1.unwrap_or_default(), time });
        }
        Ok(Self(managers))
    }

    /// The text of the list, in upstream's order; empty if nobody owns anything.
    pub fn to_text(&self) -> String {
        let mut sorted: Vec<(&Manager, &Owned)> = self.0.iter().collect();
        sorted.sort_by(|(m, a), (n, b)| {
            let subresource = m.subresource.cmp(&n.subresource);
            m.operation
                .cmp(&n.operation)
                .then(a.time.cmp(&b.time))
                .then(m.name.cmp(&n.name))
                .then(a.version.cmp(&b.version))
                .then(subresource)
        });
        let mut out = String::new();
        for (manager, owned) in sorted {
            out.push(if out.is_empty() { '[' } else { ',' });
            write_entry(manager, owned, &mut out);
        }
        if !out.is_empty() {
            out.push(']');
        }
        out
    }

    /// The list, if anybody owns anything.
    pub fn to_json(&self) -> Option<Value> {
        serde_json::from_str(&self.to_text()).ok()
    }

    /// Whether two lists differ in nothing but times.
    pub fn same_but_times(&self, other: &Self) -> bool {
        let same = |((m, a), (n, b)): ((&Manager, &Owned), (&Manager, &Owned))| {
            m == n && a.version == b.version && a.fields == b.fields
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(same)
    }

    /// Puts fields that have become part of one since they were noted into that one, as the schema has it now.
    pub(super) fn reconcile(&mut self, schemas: &Schemas, root: TypeId, version: &str) {
        let root = Node::Struct(root);
        let typed = super::walk::Typed::new(schemas, &root);
        for owned in self.0.values_mut().filter(|owned| owned.version == version) {
            if let Some(fields) = typed.reconciled(&owned.fields) {
                owned.fields = fields;
            }
        }
    }

    /// Puts the oldest of too many managers together, those of one version under one name.
    pub(super) fn cap(&mut self) {
        let managers = &mut self.0;
        let mut updaters: Vec<(Option<String>, Manager)> = managers
            .iter()
            .filter(|(manager, _)| manager.operation == Operation::Update)
            .map(|(manager, owned)| (owned.time.clone(), manager.clone()))
            .collect();
        let mut count = updaters.len();
        if count <= MAX_UPDATERS {
            return;
        }
        updaters.sort();
        let mut first: BTreeMap<String, Manager> = BTreeMap::new();
        for (_, manager) in updaters {
            if count <= MAX_UPDATERS {
                return;
            }
            let Some(owned) = managers.get(&manager).cloned() else { continue };
            let Some(oldest) = first.get(&owned.version) else {
                first.insert(owned.version.clone(), manager);
                continue;
            };
            let bucket = Manager::new(ANCIENT, Operation::Update, &owned.version, "");
            managers.remove(&manager);
            let before = match managers.remove(&bucket) {
                Some(before) => Some(before),
                None => managers.remove(oldest),
            };
            let fields = before.map_or_else(|| owned.fields.clone(), |before| before.fields.union(&owned.fields));
            managers.insert(bucket, Owned { fields, ..owned });
            count -= 1;
        }
    }
}

fn unreadable(error: &serde_json::Error) -> ApplyError {
    ApplyError::Malformed(format!("managedFields: {error}"))
}

fn write_entry(manager: &Manager, owned: &Owned, out: &mut String) {
    let text = |start: &str, text: &str, out: &mut String| {
        out.push_str(start);
        out.push_str(&Value::from(text).to_string());
    };
    text("{\"manager\":", &manager.name, out);
    text(",\"operation\":", manager.operation.text(), out);
    text(",\"apiVersion\":", &owned.version, out);
    if let Some(time) = &owned.time {
        text(",\"time\":", time, out);
    }
    out.push_str(",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":");
    owned.fields.write_json(out);
    if !manager.subresource.is_empty() {
        text(",\"subresource\":", &manager.subresource, out);
    }
    out.push('}');
}

/// Whether a list asks to forget all managers: an empty one, or one entry with nothing in it.
pub(super) fn is_reset(list: &Value) -> bool {
    let empty = |entry: &Value| entry.as_object().is_some_and(|map| map.values().all(Value::is_null));
    list.as_array().is_some_and(|list| list.is_empty() || list.len() == 1 && empty(&list[0]))
}

/// Takes the list out of an object.
pub fn take(object: &mut Value) -> Option<Value> {
    value::remove(object.get_mut("metadata")?, "managedFields")
}

/// Puts a list into an object, or takes it away where nobody owns anything.
pub fn put(object: &mut Value, managers: &Managers) {
    let Some(metadata) = object.get_mut("metadata").filter(|m| m.is_object()) else { return };
    match managers.to_json() {
        Some(list) => value::set(metadata, "managedFields", list),
        None => drop(value::remove(metadata, "managedFields")),
    }
}
