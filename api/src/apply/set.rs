//! Sets of fields, and the form in which `managedFields` keep them (`FieldsV1`).
//! Source: the OpenAPI description of `FieldsV1` and upstream's structured-merge-diff, package fieldpath.

use super::ApplyError;
use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One step into an object.
#[derive(Debug, Clone)]
pub enum Element {
    /// The field of a struct, or the key of a map.
    Field(String),
    /// The item of a list that has these values at its key fields, which are in order.
    Key(Vec<(String, Value)>),
    /// The item of a set that is this.
    Value(Value),
    /// The item at an index. Nothing here makes such steps; they are read and kept.
    Index(i64),
}

impl Element {
    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }

    /// The key of `FieldsV1`.
    fn text(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => {
                let map: Map<String, Value> = keys.iter().cloned().collect();
                format!("k:{}", Value::Object(map))
            }
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn parse(text: &str) -> Result<Self, ApplyError> {
        let bad = || ApplyError::Malformed(format!("field set: {text:?} is no path element"));
        let (kind, rest) = text.split_once(':').ok_or_else(bad)?;
        Ok(match kind {
            "f" => Self::Field(rest.to_owned()),
            "i" => Self::Index(rest.parse().map_err(|_| bad())?),
            "v" => Self::Value(serde_json::from_str(rest).map_err(|_| bad())?),
            "k" => {
                let map: Map<String, Value> = serde_json::from_str(rest).map_err(|_| bad())?;
                let mut keys: Vec<_> = map.into_iter().collect();
                keys.sort_by(|a, b| a.0.cmp(&b.0));
                Self::Key(keys)
            }
            _ => return Err(bad()),
        })
    }
}

/// As people read it in conflicts: `.spec`, `[name="web"]`, `[="finalizer"]`, `[3]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

fn value_rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

fn compare_values(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x.cmp(&y),
            _ => x.as_f64().unwrap_or(0.0).total_cmp(&y.as_f64().unwrap_or(0.0)),
        },
        (Value::String(x), Value::String(y)) => x.cmp(y),
        (Value::Bool(x), Value::Bool(y)) => x.cmp(y),
        _ => value_rank(a).cmp(&value_rank(b)).then_with(|| a.to_string().cmp(&b.to_string())),
    }
}

impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => {
                let pairs = a.iter().zip(b).map(|((n, v), (m, w))| n.cmp(m).then_with(|| compare_values(v, w)));
                pairs.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
            }
            (Self::Value(a), Self::Value(b)) => compare_values(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Element {}

/// A set of fields. That a field is in it says nothing of what is below that field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSet {
    pub(super) members: BTreeSet<Element>,
    /// What is below, never empty sets.
    pub(super) below: BTreeMap<Element, FieldSet>,
}

static NOTHING: FieldSet = FieldSet { members: BTreeSet::new(), below: BTreeMap::new() };

impl FieldSet {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.below.is_empty()
    }

    /// Adds a step: whether it is a member itself, and what is below it.
    pub(super) fn put(&mut self, element: Element, member: bool, below: FieldSet) {
        match (member, below.is_empty()) {
            (true, true) => drop(self.members.insert(element)),
            (false, false) => drop(self.below.insert(element, below)),
            (true, false) => {
                self.members.insert(element.clone());
                self.below.insert(element, below);
            }
            (false, true) => {}
        }
    }

    /// What is below a step.
    pub(super) fn under(&self, element: &Element) -> &FieldSet {
        self.below.get(element).unwrap_or(&NOTHING)
    }

    /// What is in either.
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        all.members.extend(other.members.iter().cloned());
        for (element, below) in &other.below {
            let joined = self.under(element).union(below);
            all.below.insert(element.clone(), joined);
        }
        all
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both =
            Self { members: self.members.intersection(&other.members).cloned().collect(), ..Self::default() };
        for (element, below) in &self.below {
            both.put(element.clone(), false, below.intersection(other.under(element)));
        }
        both
    }

    /// What is in this one only.
    pub fn difference(&self, other: &Self) -> Self {
        let mut rest = Self { members: self.members.difference(&other.members).cloned().collect(), ..Self::default() };
        for (element, below) in &self.below {
            rest.put(element.clone(), false, below.difference(other.under(element)));
        }
        rest
    }

    /// What is in this one only, and not below a member of the other one either.
    pub fn recursive_difference(&self, other: &Self) -> Self {
        let mut rest = Self { members: self.members.difference(&other.members).cloned().collect(), ..Self::default() };
        for (element, below) in self.below.iter().filter(|(element, _)| !other.members.contains(element)) {
            rest.put(element.clone(), false, below.recursive_difference(other.under(element)));
        }
        rest
    }

    /// The paths of all members as text, in order: `.spec.containers[name="web"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect("", &mut found);
        found
    }

    fn collect(&self, prefix: &str, found: &mut Vec<String>) {
        for element in self.elements() {
            let path = format!("{prefix}{element}");
            let below = self.under(element);
            if self.members.contains(element) {
                found.push(path.clone());
            }
            below.collect(&path, found);
        }
    }

    /// All steps, in order.
    fn elements(&self) -> BTreeSet<&Element> {
        self.members.iter().chain(self.below.keys()).collect()
    }

    /// The set of one path of field names.
    pub fn of_fields(path: &[&str]) -> Self {
        let mut set = Self::default();
        match path {
            [] => {}
            [last] => set.put(Element::Field((*last).to_owned()), true, Self::default()),
            [first, rest @ ..] => set.put(Element::Field((*first).to_owned()), false, Self::of_fields(rest)),
        }
        set
    }

    /// `FieldsV1`.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        for element in self.elements() {
            let mut below = Map::new();
            if let Some(set) = self.below.get(element) {
                if self.members.contains(element) {
                    below.insert(".".to_owned(), Value::Object(Map::new()));
                }
                if let Value::Object(rest) = set.to_json() {
                    below.extend(rest);
                }
            }
            map.insert(element.text(), Value::Object(below));
        }
        Value::Object(map)
    }

    /// Reads `FieldsV1`.
    ///
    /// # Errors
    /// If it is none.
    pub fn from_json(fields: &Value) -> Result<Self, ApplyError> {
        let bad = |what: &Value| ApplyError::Malformed(format!("field set: {what} is no object"));
        let mut set = Self::default();
        for (text, below) in fields.as_object().ok_or_else(|| bad(fields))? {
            if text == "." {
                continue;
            }
            let map = below.as_object().ok_or_else(|| bad(below))?;
            let member = map.is_empty() || map.contains_key(".");
            set.put(Element::parse(text)?, member, Self::from_json(below)?);
        }
        Ok(set)
    }
}
