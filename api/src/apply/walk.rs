//! Walks over objects along their schema: which fields an object has, in which ones two differ, one merged into another,
//! some taken away.
//! Source for what is one field and what are many: the extensions `x-kubernetes-list-type`, `-list-map-keys` and
//! `-map-type`, and upstream's structured-merge-diff, package typed.

use super::ApplyError;
use super::set::{Element, FieldSet};
use crate::schema::{List, ListType, Node, Schemas, Struct};
use crate::value;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// What a value is to whoever owns fields.
enum Shape<'a> {
    /// One field, whatever is in it.
    Leaf,
    /// Named fields.
    Struct(&'a Struct),
    /// A field for each key.
    Map(&'a Node),
    /// A field for each item.
    Set,
    /// Items that are found by their keys.
    Keyed(&'a List),
}

/// A place in a schema.
#[derive(Clone, Copy)]
struct At<'a> {
    schemas: &'a Schemas,
    node: &'a Node,
    /// The property says that all below it is one field.
    atomic: bool,
}

impl<'a> At<'a> {
    fn shape(self) -> Shape<'a> {
        match self.node {
            Node::Struct(id) if id.0 != 0 => match self.schemas.get(*id) {
                of if of.atomic || self.atomic => Shape::Leaf,
                of => Shape::Struct(of),
            },
            Node::Map(values) if !self.atomic => Shape::Map(values),
            Node::List(list) => match list.list_type {
                ListType::Atomic => Shape::Leaf,
                ListType::Set => Shape::Set,
                ListType::Map => Shape::Keyed(list),
            },
            _ => Shape::Leaf,
        }
    }

    fn of(self, node: &'a Node) -> Self {
        Self { node, atomic: false, ..self }
    }

    /// A named field, if there is one of this name.
    fn field(self, of: &'a Struct, name: &str) -> Option<Self> {
        of.property(name).map(|p| Self { schemas: self.schemas, node: &p.node, atomic: p.atomic })
    }
}

/// Of what kind an object is.
#[derive(Clone, Copy)]
pub(super) struct Typed<'a> {
    schemas: &'a Schemas,
    root: &'a Node,
}

/// How an object differs from an older one.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

impl Comparison {
    /// Without some fields and what is below them.
    pub(super) fn without(self, ignored: &FieldSet) -> Self {
        let [added, modified, removed] =
            [self.added, self.modified, self.removed].map(|set| set.recursive_difference(ignored));
        Self { added, modified, removed }
    }

    pub(super) fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

impl<'a> Typed<'a> {
    pub(super) fn new(schemas: &'a Schemas, root: &'a Node) -> Self {
        Self { schemas, root }
    }

    fn at(self) -> At<'a> {
        At { schemas: self.schemas, node: self.root, atomic: false }
    }

    /// The fields of an object.
    pub(super) fn fields(self, object: &Value) -> Result<FieldSet, ApplyError> {
        let mut below = FieldSet::default();
        fields(self.at(), object, &mut below, &mut Collect::new(false, false))?;
        Ok(below)
    }

    /// The fields of what is applied, in which no item may be there twice.
    pub(super) fn fields_of_applied(self, object: &Value) -> Result<FieldSet, ApplyError> {
        let mut below = FieldSet::default();
        fields(self.at(), object, &mut below, &mut Collect::new(true, false))?;
        Ok(below)
    }

    /// How a newer object differs.
    pub(super) fn compare(self, old: &Value, new: &Value) -> Result<Comparison, ApplyError> {
        let mut found = Comparison::default();
        compare(self.at(), old, new, &mut found)?;
        Ok(found)
    }

    /// The live object with what is applied on top.
    pub(super) fn merge(self, live: &Value, applied: &Value) -> Result<Value, ApplyError> {
        merge(self.at(), live, applied)
    }

    /// The object without some fields.
    pub(super) fn remove(self, object: &Value, fields: &FieldSet) -> Result<Value, ApplyError> {
        Ok(remove(self.at(), object, fields)?.unwrap_or_else(|| Value::Object(Map::new())))
    }

    /// The set, and in it each named field that has members below.
    pub(super) fn with_named(self, set: &FieldSet) -> FieldSet {
        with_named(Some(self.at()), set)
    }
}

/// How fields are collected.
struct Collect {
    /// No item may be there twice; in what others have written before it may.
    unique: bool,
    /// Whatever has fields below it is a field as well.
    all: bool,
    /// Where it is, for error messages.
    path: String,
}

impl Collect {
    fn new(unique: bool, all: bool) -> Self {
        Self { unique, all, path: String::new() }
    }

    fn within<T>(&mut self, step: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.path.len();
        self.path.push_str(step);
        let done = work(self);
        self.path.truncate(before);
        done
    }
}

fn is_empty_map(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

/// The step to an item of a list.
fn item_element(shape: &Shape<'_>, item: &Value) -> Result<Element, ApplyError> {
    let Shape::Keyed(list) = shape else { return Ok(Element::Value(item.clone())) };
    let Some(map) = item.as_object() else {
        return Err(ApplyError::Malformed("associative list with keys may not have non-map elements".into()));
    };
    let mut keys = Vec::new();
    for key in &list.keys {
        let value = map.get(*key).filter(|v| !v.is_null()).cloned().or_else(|| default_key(key));
        let missing = || {
            let why = "associative list with keys has an element that omits key field";
            ApplyError::Malformed(format!("{why} {key:?} (and doesn't have default value)"))
        };
        keys.push(((*key).to_owned(), value.ok_or_else(missing)?));
    }
    keys.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Element::Key(keys))
}

/// Key fields that have a default: those of ContainerPort and ServicePort.
fn default_key(key: &str) -> Option<Value> {
    (key == "protocol").then(|| "TCP".into())
}

/// The steps to the items of a list, and how often each is there.
struct Items<'v> {
    list: Vec<(Element, &'v Value)>,
    at: BTreeMap<Element, (usize, usize)>,
}

impl<'v> Items<'v> {
    fn of(shape: &Shape<'_>, value: &'v Value, path: &str) -> Result<Self, ApplyError> {
        let mut items = Self { list: Vec::new(), at: BTreeMap::new() };
        for (i, item) in value.as_array().into_iter().flatten().enumerate() {
            let element = item_element(shape, item).map_err(|e| e.at(&format!("{path}: element {i}")))?;
            items.at.entry(element.clone()).or_insert((i, 0)).1 += 1;
            items.list.push((element, item));
        }
        Ok(items)
    }

    fn has(&self, element: &Element) -> bool {
        self.at.contains_key(element)
    }

    /// The item, if it is there exactly once.
    fn single(&self, element: &Element) -> Option<&'v Value> {
        let (i, count) = self.at.get(element)?;
        (*count == 1).then(|| self.list[*i].1)
    }

    fn all(&self, element: &Element) -> Vec<&'v Value> {
        self.list.iter().filter(|(e, _)| e == element).map(|(_, item)| *item).collect()
    }
}

static SCALAR: Node = Node::Any;

fn item_at<'a>(at: At<'a>, shape: &Shape<'a>) -> At<'a> {
    match shape {
        Shape::Keyed(list) => at.of(&list.items),
        _ => at.of(&SCALAR),
    }
}

/// Adds the fields below a value; answers whether the value is a field itself.
fn fields(at: At<'_>, value: &Value, below: &mut FieldSet, how: &mut Collect) -> Result<bool, ApplyError> {
    let shape = at.shape();
    match (&shape, value) {
        (Shape::Leaf, _) => return Ok(true),
        (Shape::Struct(_) | Shape::Map(_), Value::Object(map)) => {
            for (name, value) in map {
                let Some((inner, key)) = step(at, &shape, name) else { continue };
                let mut deeper = FieldSet::default();
                let own = how.within(&format!(".{name}"), |how| fields(inner, value, &mut deeper, how))?;
                let member = own || key || how.all || value.is_null() || is_empty_map(value);
                below.put(Element::Field(name.clone()), member, deeper);
            }
        }
        (Shape::Set | Shape::Keyed(_), Value::Array(_)) => {
            let items = Items::of(&shape, value, &how.path)?;
            let inner = item_at(at, &shape);
            for (element, item) in &items.list {
                let mut deeper = FieldSet::default();
                if items.single(element).is_some() {
                    how.within(&element.to_string(), |how| fields(inner, item, &mut deeper, how))?;
                } else if how.unique {
                    let why = format!("{}: duplicate entries for key {element}", how.path);
                    return Err(ApplyError::Malformed(why));
                }
                below.put(element.clone(), true, deeper);
            }
        }
        // Of another type, or null: nothing below.
        _ => {}
    }
    Ok(false)
}

/// The place of a named field or a key, and whether it is a key.
fn step<'a>(at: At<'a>, shape: &Shape<'a>, name: &str) -> Option<(At<'a>, bool)> {
    match shape {
        Shape::Struct(of) => Some((at.field(of, name)?, false)),
        Shape::Map(values) => Some((at.of(values), true)),
        _ => None,
    }
}

/// Notes a value that only one of two objects has, with all that is in it.
fn lone(at: At<'_>, element: Element, value: &Value, set: &mut FieldSet) -> Result<(), ApplyError> {
    let mut deeper = FieldSet::default();
    fields(at, value, &mut deeper, &mut Collect::new(false, true))?;
    set.put(element, true, deeper);
    Ok(())
}

/// Fields that upstream's types hold by value, so that every object has them, if only empty.
const HELD_BY_VALUE: &[&str] = &[
    "daemonEndpoints",
    "jobTemplate",
    "kubeletEndpoint",
    "lastState",
    "loadBalancer",
    "metadata",
    "nodeInfo",
    "podSelector",
    "resources",
    "spec",
    "state",
    "status",
    "strategy",
    "template",
    "updateStrategy",
];

/// Whether a field is there, empty or null, in every object whose JSON does not show it.
fn is_always_there(shape: &Shape<'_>, name: &str) -> bool {
    let Shape::Struct(of) = shape else { return false };
    let by_pointer = name == "template" && of.go_name() == "ReplicationControllerSpec";
    let by_value = HELD_BY_VALUE.contains(&name) && !by_pointer;
    of.property(name).is_some_and(|p| p.required || by_value && matches!(p.node, Node::Struct(_)))
}

/// Notes what two values differ in below; answers whether they differ as fields themselves.
fn compare(at: At<'_>, old: &Value, new: &Value, found: &mut Comparison) -> Result<bool, ApplyError> {
    let shape = at.shape();
    let empty = |v: &Value| v.is_null() || is_empty_map(v) || v.as_array().is_some_and(Vec::is_empty);
    match &shape {
        Shape::Leaf => return Ok(old != new),
        _ if empty(old) && empty(new) => return Ok(old != new),
        Shape::Struct(_) | Shape::Map(_) => compare_maps(at, &shape, old, new, found)?,
        Shape::Set | Shape::Keyed(_) => compare_lists(at, &shape, old, new, found)?,
    }
    Ok(false)
}

fn compare_maps(
    at: At<'_>,
    shape: &Shape<'_>,
    old: &Value,
    new: &Value,
    found: &mut Comparison,
) -> Result<(), ApplyError> {
    let (old, new) = (value::object(old), value::object(new));
    for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
        let Some((inner, _)) = step(at, shape, name) else { continue };
        let element = Element::Field(name.clone());
        let absent = is_always_there(shape, name).then_some(&Value::Null);
        match (old.get(name).or(absent), new.get(name).or(absent)) {
            (Some(before), Some(after)) => descend(inner, element, before, after, found)?,
            (Some(before), None) => lone(inner, element, before, &mut found.removed)?,
            (None, Some(after)) => lone(inner, element, after, &mut found.added)?,
            (None, None) => {}
        }
    }
    Ok(())
}

fn compare_lists(
    at: At<'_>,
    shape: &Shape<'_>,
    old: &Value,
    new: &Value,
    found: &mut Comparison,
) -> Result<(), ApplyError> {
    let (old, new) = (Items::of(shape, old, "")?, Items::of(shape, new, "")?);
    let inner = item_at(at, shape);
    let elements: BTreeSet<&Element> = old.at.keys().chain(new.at.keys()).collect();
    for element in elements {
        match (old.all(element)[..].as_ref(), new.all(element)[..].as_ref()) {
            ([before], [after]) => descend(inner, element.clone(), before, after, found)?,
            ([before], []) => lone(inner, element.clone(), before, &mut found.removed)?,
            ([], [after]) => lone(inner, element.clone(), after, &mut found.added)?,
            // What is there several times is compared as a whole.
            (_, []) => found.removed.put(element.clone(), true, FieldSet::default()),
            ([], _) => found.added.put(element.clone(), true, FieldSet::default()),
            (before, after) if before != after => found.modified.put(element.clone(), true, FieldSet::default()),
            _ => {}
        }
    }
    Ok(())
}

fn descend(at: At<'_>, element: Element, old: &Value, new: &Value, found: &mut Comparison) -> Result<(), ApplyError> {
    let mut deeper = Comparison::default();
    let own = compare(at, old, new, &mut deeper)?;
    found.modified.put(element.clone(), own, deeper.modified);
    found.added.put(element.clone(), false, deeper.added);
    found.removed.put(element, false, deeper.removed);
    Ok(())
}

fn merge(at: At<'_>, live: &Value, applied: &Value) -> Result<Value, ApplyError> {
    let shape = at.shape();
    match (&shape, live, applied) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(old), Value::Object(new)) => {
            let mut merged = old.clone();
            for (name, value) in new {
                let inner = step(at, &shape, name).map(|(inner, _)| inner);
                let value = match (inner, old.get(name)) {
                    (Some(inner), Some(before)) => merge(inner, before, value)?,
                    _ => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Ok(Value::Object(merged))
        }
        (Shape::Set | Shape::Keyed(_), Value::Array(_), Value::Array(_)) => merge_lists(at, &shape, live, applied),
        _ => Ok(applied.clone()),
    }
}

/// Items that are applied are in the order in which they are applied; those that only the live list has stay before the
/// item that they stood before, as far as both orders can be kept.
fn merge_lists(at: At<'_>, shape: &Shape<'_>, live: &Value, applied: &Value) -> Result<Value, ApplyError> {
    let (old, new) = (Items::of(shape, live, "")?, Items::of(shape, applied, "")?);
    let inner = item_at(at, shape);
    let both = |element: &Element, item: &Value| match old.single(element) {
        Some(before) => merge(inner, before, item),
        None => Ok(item.clone()),
    };
    let mut shared = new.list.iter().map(|(e, _)| e).filter(|e| old.has(e));
    let mut next_shared = shared.next();
    let (mut merged, mut taken) = (Vec::new(), BTreeSet::new());
    let (mut l, mut r) = (0, 0);
    while l < old.list.len() || r < new.list.len() {
        if let (Some((left, _)), Some((right, item))) = (old.list.get(l), new.list.get(r)) {
            if left == right {
                taken.insert(right);
                merged.push(both(right, item)?);
                (l, r) = (l + 1, r + 1);
                next_shared = shared.next();
                continue;
            }
            if new.has(left) && next_shared.is_some_and(|next| next != left) {
                // It comes where it is applied.
                l += 1;
                continue;
            }
        }
        if let Some((left, item)) = old.list.get(l) {
            if !new.has(left) {
                merged.push((*item).clone());
                l += 1;
                continue;
            }
            if taken.contains(left) {
                l += 1;
            }
        }
        if let Some((right, item)) = new.list.get(r) {
            taken.insert(right);
            merged.push(both(right, item)?);
            r += 1;
            if next_shared == Some(right) {
                next_shared = shared.next();
            }
        }
    }
    Ok(Value::Array(merged))
}

/// A value without some fields; nothing if nothing is left of it.
fn remove(at: At<'_>, value: &Value, gone: &FieldSet) -> Result<Option<Value>, ApplyError> {
    let shape = at.shape();
    match (&shape, value) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(map)) => {
            let mut kept = Map::new();
            for (name, value) in map {
                let element = Element::Field(name.clone());
                if gone.members.contains(&element) {
                    continue;
                }
                let inner = step(at, &shape, name).map(|(inner, _)| inner);
                let rest = match (inner, gone.below.get(&element)) {
                    (Some(inner), Some(below)) => remove(inner, value, below)?,
                    _ => Some(value.clone()),
                };
                if let Some(rest) = rest {
                    kept.insert(name.clone(), rest);
                }
            }
            Ok((!kept.is_empty() || map.is_empty()).then_some(Value::Object(kept)))
        }
        (Shape::Set | Shape::Keyed(_), Value::Array(list)) => {
            let mut kept = Vec::new();
            for (element, item) in Items::of(&shape, value, "")?.list {
                if gone.members.contains(&element) {
                    continue;
                }
                match gone.below.get(&element) {
                    Some(below) => kept.extend(remove(item_at(at, &shape), item, below)?),
                    None => kept.push(item.clone()),
                }
            }
            Ok((!kept.is_empty() || list.is_empty()).then_some(Value::Array(kept)))
        }
        _ => Ok(Some(value.clone())),
    }
}

fn with_named(at: Option<At<'_>>, set: &FieldSet) -> FieldSet {
    let mut all = FieldSet { members: set.members.clone(), ..FieldSet::default() };
    let shape = at.map(|at| (at, at.shape()));
    for (element, below) in &set.below {
        let (named, inner) = match (&shape, element) {
            (Some((at, Shape::Struct(of))), Element::Field(name)) => match at.field(of, name) {
                Some(inner) => (true, Some(inner)),
                None => (false, None),
            },
            (Some((at, Shape::Map(values))), _) => (false, Some(at.of(values))),
            (Some((at, shape)), _) => (false, Some(item_at(*at, shape))),
            _ => (false, None),
        };
        let named = named || set.members.contains(element);
        all.put(element.clone(), named, with_named(inner, below));
    }
    all
}
