//! Sets of fields, and the form in which `managedFields` keep them (`FieldsV1`).
//! Source: the OpenAPI description of `FieldsV1` and upstream's structured-merge-diff, package fieldpath.

use super::ApplyError;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::fmt::{self, Write as _};

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

    /// Appends the key of `FieldsV1`, in quotes.
    fn write_json(&self, out: &mut String) {
        match self {
            Self::Field(name) => {
                out.push_str("\"f:");
                escape(name, out);
            }
            Self::Key(keys) => {
                out.push_str("\"k:");
                for (i, (name, value)) in keys.iter().enumerate() {
                    out.push_str(if i == 0 { "{\\\"" } else { ",\\\"" });
                    escape(name, out);
                    out.push_str("\\\":");
                    escape(&value.to_string(), out);
                }
                out.push('}');
            }
            Self::Value(value) => {
                out.push_str("\"v:");
                escape(&value.to_string(), out);
            }
            Self::Index(index) => {
                let _ = write!(out, "\"i:{index}");
            }
        }
        out.push('"');
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

/// Appends a text as it is inside of JSON's quotes.
fn escape(text: &str, out: &mut String) {
    if text.bytes().any(|byte| byte < 0x20) {
        let quoted = Value::from(text).to_string();
        out.push_str(&quoted[1..quoted.len() - 1]);
        return;
    }
    let mut rest = text;
    while let Some(at) = rest.find(['"', '\\']) {
        out.push_str(&rest[..at]);
        out.push('\\');
        out.push_str(&rest[at..=at]);
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
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
    /// In order, each element once, none without meaning: every step is a member or has something below.
    steps: Vec<Step>,
}

/// A step of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) element: Element,
    /// Whether the set has the field itself.
    pub(super) member: bool,
    /// What it has below the field.
    pub(super) below: FieldSet,
}

impl Step {
    fn means_something(&self) -> bool {
        self.member || !self.below.is_empty()
    }
}

/// The steps of two sets side by side, in order.
struct Beside<'a> {
    left: &'a [Step],
    right: &'a [Step],
}

impl<'a> Iterator for Beside<'a> {
    type Item = (Option<&'a Step>, Option<&'a Step>);

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.left.first(), self.right.first()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.element.cmp(&b.element),
        };
        let take = |from: &mut &'a [Step], wanted: bool| {
            let (first, rest) = from.split_first().filter(|_| wanted)?;
            *from = rest;
            Some(first)
        };
        Some((take(&mut self.left, order.is_le()), take(&mut self.right, order.is_ge())))
    }
}

impl FieldSet {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// A set of steps in whatever order; steps that are there several times become one.
    pub(super) fn of_steps(mut steps: Vec<Step>) -> Self {
        steps.retain(Step::means_something);
        if !steps.is_sorted_by(|a, b| a.element < b.element) {
            steps.sort_by(|a, b| a.element.cmp(&b.element));
            steps.dedup_by(|later, first| {
                let same = later.element == first.element;
                if same {
                    first.member |= later.member;
                    first.below = std::mem::take(&mut first.below).with(std::mem::take(&mut later.below));
                }
                same
            });
        }
        Self { steps }
    }

    /// All steps, in order.
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// A step.
    pub(super) fn step(&self, element: &Element) -> Option<&Step> {
        let at = self.steps.binary_search_by(|step| step.element.cmp(element)).ok()?;
        Some(&self.steps[at])
    }

    /// The step to a named field.
    pub(super) fn field(&self, name: &str) -> Option<&Step> {
        let order = |step: &Step| match &step.element {
            Element::Field(own) => own.as_str().cmp(name),
            _ => Ordering::Greater,
        };
        let at = self.steps.binary_search_by(order).ok()?;
        Some(&self.steps[at])
    }

    fn beside<'a>(&'a self, other: &'a Self) -> Beside<'a> {
        Beside { left: &self.steps, right: &other.steps }
    }

    fn joined(&self, other: &Self, join: impl Fn(Option<&Step>, Option<&Step>) -> Option<Step>) -> Self {
        let steps = self.beside(other).filter_map(|(a, b)| join(a, b));
        Self { steps: steps.filter(Step::means_something).collect() }
    }

    /// What is in either.
    pub fn union(&self, other: &Self) -> Self {
        self.clone().with(other.clone())
    }

    /// What is in either, of sets that are not needed any more.
    pub(super) fn with(mut self, other: Self) -> Self {
        if self.is_empty() || other.is_empty() {
            return if self.is_empty() { other } else { self };
        }
        self.steps.extend(other.steps);
        Self::of_steps(self.steps)
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.joined(other, |a, b| {
            let (a, b) = (a?, b?);
            Some(Step {
                element: a.element.clone(),
                member: a.member && b.member,
                below: a.below.intersection(&b.below),
            })
        })
    }

    /// What is in this one only.
    pub fn difference(&self, other: &Self) -> Self {
        self.clone().without(other)
    }

    /// What is in this one only, of a set that is not needed any more.
    pub(super) fn without(mut self, other: &Self) -> Self {
        self.take_away(other, false);
        self
    }

    /// What is in this one only, and not below a member of the other one either.
    pub(super) fn without_all_below(mut self, other: &Self) -> Self {
        self.take_away(other, true);
        self
    }

    /// The other one is looked through: it is the smaller one most of the time.
    fn take_away(&mut self, other: &Self, all_below: bool) {
        if self.is_empty() {
            return;
        }
        for step in &other.steps {
            let Ok(at) = self.steps.binary_search_by(|own| own.element.cmp(&step.element)) else { continue };
            let own = &mut self.steps[at];
            own.member &= !step.member;
            if step.member && all_below {
                own.below.steps.clear();
            } else {
                own.below.take_away(&step.below, all_below);
            }
            if !own.means_something() {
                self.steps.remove(at);
            }
        }
    }

    /// Whether some field is in both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.beside(other).any(|pair| match pair {
            (Some(a), Some(b)) => a.member && b.member || a.below.meets(&b.below),
            _ => false,
        })
    }

    /// The paths of all members as text, in order: `.spec.containers[name="web"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect("", &mut found);
        found
    }

    fn collect(&self, prefix: &str, found: &mut Vec<String>) {
        for step in &self.steps {
            let path = format!("{prefix}{}", step.element);
            if step.member {
                found.push(path.clone());
            }
            step.below.collect(&path, found);
        }
    }

    /// The set of one path of field names.
    pub fn of_fields(path: &[&str]) -> Self {
        let Some((first, rest)) = path.split_first() else { return Self::default() };
        let element = Element::Field((*first).to_owned());
        Self::of_steps(vec![Step { element, member: rest.is_empty(), below: Self::of_fields(rest) }])
    }

    /// Appends `FieldsV1` as text.
    pub(super) fn write_json(&self, out: &mut String) {
        out.push('{');
        self.write_members(out);
        out.push('}');
    }

    fn write_members(&self, out: &mut String) {
        for (i, step) in self.steps.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            step.element.write_json(out);
            out.push_str(":{");
            if !step.below.is_empty() {
                if step.member {
                    out.push_str("\".\":{},");
                }
                step.below.write_members(out);
            }
            out.push('}');
        }
    }

    /// Reads `FieldsV1`.
    ///
    /// # Errors
    /// If it is none.
    pub fn from_json(fields: &Value) -> Result<Self, ApplyError> {
        Self::deserialize(fields).map_err(|e| ApplyError::Malformed(format!("field set: {e}")))
    }
}

/// A set, and whether the map that it was read from had the member that stands for the map's own field.
struct Read {
    set: FieldSet,
    dot: bool,
}

impl<'de> Deserialize<'de> for FieldSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Read::deserialize(deserializer)?.set)
    }
}

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Read, A::Error> {
        let (mut steps, mut dot) = (Vec::new(), false);
        while let Some(Key(element)) = map.next_key()? {
            let Some(element) = element else {
                map.next_value::<IgnoredAny>()?;
                dot = true;
                continue;
            };
            let below: Read = map.next_value()?;
            let member = below.dot || below.set.is_empty();
            steps.push(Step { element, member, below: below.set });
        }
        Ok(Read { set: FieldSet::of_steps(steps), dot })
    }
}

/// A key of `FieldsV1`; none for the dot.
struct Key(Option<Element>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyReader)
    }
}

struct KeyReader;

impl Visitor<'_> for KeyReader {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path element")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Key, E> {
        if text == "." {
            return Ok(Key(None));
        }
        Element::parse(text).map(|element| Key(Some(element))).map_err(E::custom)
    }
}
