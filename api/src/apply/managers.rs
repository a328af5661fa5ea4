//! `metadata.managedFields`: who owns which fields.

use super::ApplyError;
use super::set::FieldSet;
use serde_json::{Map, Value, json};
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
pub(super) type Managers = BTreeMap<Manager, Owned>;

/// Reads the list.
pub(super) fn read(list: &Value) -> Result<Managers, ApplyError> {
    let mut managers = Managers::new();
    for (i, entry) in list.as_array().into_iter().flatten().enumerate() {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            other => return Err(ApplyError::Malformed(format!("managedFields[{i}]: operation {other:?}"))),
        };
        let fields = match entry.get("fieldsV1") {
            Some(fields) => FieldSet::from_json(fields)?,
            None => FieldSet::default(),
        };
        let manager = Manager::new(text("manager"), operation, text("apiVersion"), text("subresource"));
        let time = Some(text("time")).filter(|t| !t.is_empty()).map(str::to_owned);
        managers.insert(manager, Owned { version: text("apiVersion").to_owned(), fields, time });
    }
    Ok(managers)
}

/// Whether the list asks to forget all managers: one entry with nothing in it.
pub(super) fn is_reset(list: &Value) -> bool {
    list.as_array().is_some_and(|list| list.len() == 1 && list[0].as_object().is_some_and(Map::is_empty))
}

/// The list in upstream's order; nothing if nobody owns anything.
pub(super) fn write(managers: &Managers) -> Option<Value> {
    let mut sorted: Vec<(&Manager, &Owned)> = managers.iter().collect();
    sorted.sort_by(|(m, a), (n, b)| {
        let subresource = m.subresource.cmp(&n.subresource);
        m.operation
            .cmp(&n.operation)
            .then(a.time.cmp(&b.time))
            .then(m.name.cmp(&n.name))
            .then(a.version.cmp(&b.version))
            .then(subresource)
    });
    let entry = |(manager, owned): (&Manager, &Owned)| {
        let mut entry =
            json!({"manager": manager.name, "operation": manager.operation.text(), "apiVersion": owned.version});
        if let Some(time) = &owned.time {
            entry["time"] = json!(time);
        }
        entry["fieldsType"] = json!("FieldsV1");
        entry["fieldsV1"] = owned.fields.to_json();
        if !manager.subresource.is_empty() {
            entry["subresource"] = json!(manager.subresource);
        }
        entry
    };
    (!sorted.is_empty()).then(|| sorted.into_iter().map(entry).collect())
}

/// Puts the oldest of too many managers together, those of one version under one name.
pub(super) fn cap(managers: &mut Managers) {
    let mut updaters: Vec<(Option<String>, Manager)> = managers
        .iter()
        .filter(|(manager, _)| manager.operation == Operation::Update)
        .map(|(manager, owned)| (owned.time.clone(), manager.clone()))
        .collect();
    updaters.sort();
    let mut count = updaters.len();
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
