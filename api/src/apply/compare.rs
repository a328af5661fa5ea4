//! In which fields two objects differ.

use super::ApplyError;
use super::set::{Element, FieldSet, Step};
use super::walk::{At, Items, Shape, all_fields, is_empty_map};
use crate::schema::Node;
use crate::value;
use serde_json::Value;
use std::collections::BTreeSet;

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
        if ignored.is_empty() {
            return self;
        }
        let [added, modified, removed] =
            [self.added, self.modified, self.removed].map(|set| set.without_all_below(ignored));
        Self { added, modified, removed }
    }

    pub(super) fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

/// How a newer value differs from an older one.
pub(super) fn compare(at: At<'_>, old: &Value, new: &Value) -> Result<Comparison, ApplyError> {
    let mut found = Differences::default();
    within(at, old, new, &mut found)?;
    Ok(found.done())
}

/// Differences of one level, in the order in which they are found.
#[derive(Default)]
struct Differences {
    added: Vec<Step>,
    modified: Vec<Step>,
    removed: Vec<Step>,
}

impl Differences {
    fn done(self) -> Comparison {
        let [added, modified, removed] = [self.added, self.modified, self.removed].map(FieldSet::of_steps);
        Comparison { added, modified, removed }
    }
}

/// A value that only one of two objects has, with all that is in it.
fn lone(at: At<'_>, element: Element, value: &Value) -> Result<Step, ApplyError> {
    Ok(Step { element, member: true, below: all_fields(at, value)? })
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

/// Notes in what two values differ below; answers whether they differ as fields themselves.
fn within(at: At<'_>, old: &Value, new: &Value, found: &mut Differences) -> Result<bool, ApplyError> {
    let shape = at.shape();
    let empty = |v: &Value| v.is_null() || is_empty_map(v) || v.as_array().is_some_and(Vec::is_empty);
    match &shape {
        Shape::Leaf => return Ok(old != new),
        _ if empty(old) && empty(new) => return Ok(old != new),
        Shape::Struct(_) | Shape::Map(_) => maps(at, &shape, old, new, found)?,
        Shape::Set | Shape::Keyed(_) => lists(at, &shape, old, new, found)?,
    }
    Ok(false)
}

fn maps(at: At<'_>, shape: &Shape<'_>, old: &Value, new: &Value, found: &mut Differences) -> Result<(), ApplyError> {
    let (old, new) = (value::object(old), value::object(new));
    for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
        let Some(inner) = at.step(shape, name) else { continue };
        let element = || Element::Field(name.clone());
        let absent = || is_always_there(shape, name).then_some(&Value::Null);
        match (old.get(name).or_else(absent), new.get(name).or_else(absent)) {
            (Some(before), Some(after)) => descend(inner, element, before, after, found)?,
            (Some(before), None) => found.removed.push(lone(inner, element(), before)?),
            (None, Some(after)) => found.added.push(lone(inner, element(), after)?),
            (None, None) => {}
        }
    }
    Ok(())
}

fn lists(at: At<'_>, shape: &Shape<'_>, old: &Value, new: &Value, found: &mut Differences) -> Result<(), ApplyError> {
    let (old, new) = (Items::of(shape, old, "")?, Items::of(shape, new, "")?);
    let inner = at.inner(shape);
    let elements: BTreeSet<&Element> = old.elements().chain(new.elements()).collect();
    for element in elements {
        let whole = || Step { element: element.clone(), member: true, below: FieldSet::default() };
        match (&old.all(element)[..], &new.all(element)[..]) {
            ([before], [after]) => descend(inner, || element.clone(), before, after, found)?,
            ([before], []) => found.removed.push(lone(inner, element.clone(), before)?),
            ([], [after]) => found.added.push(lone(inner, element.clone(), after)?),
            // What is there several times is one field, whatever is in it; so it is gone when it is there once, and comes
            // when it was.
            ([before], _) => {
                found.removed.push(lone(inner, element.clone(), before)?);
                found.added.push(whole());
            }
            (_, [after]) => {
                found.added.push(lone(inner, element.clone(), after)?);
                found.removed.push(whole());
            }
            (_, []) => found.removed.push(whole()),
            ([], _) => found.added.push(whole()),
            (before, after) if before != after => found.modified.push(whole()),
            _ => {}
        }
    }
    Ok(())
}

/// Compares what both have. Most of it is equal, and then nothing has to be collected.
fn descend(
    at: At<'_>,
    element: impl Fn() -> Element,
    old: &Value,
    new: &Value,
    found: &mut Differences,
) -> Result<(), ApplyError> {
    if old == new {
        return Ok(());
    }
    let mut deeper = Differences::default();
    let own = within(at, old, new, &mut deeper)?;
    let below = deeper.done();
    let step = |member, below| Step { element: element(), member, below };
    found.modified.push(step(own, below.modified));
    found.added.push(step(false, below.added));
    found.removed.push(step(false, below.removed));
    Ok(())
}
