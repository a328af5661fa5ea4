//! What an object is to whoever owns its fields: the walk along its schema, and which fields an object has.
//! Source for what is one field and what are many: the extensions `x-kubernetes-list-type`, `-list-map-keys` and
//! `-map-type`, and upstream's structured-merge-diff, package typed.

use super::ApplyError;
use super::compare::{self, Comparison};
use super::merge;
use super::set::{Element, FieldSet, Step};
use crate::schema::{List, ListType, Node, Schemas, Struct};
use serde_json::{Map, Value};
use std::fmt::Write as _;

/// What a value is to whoever owns fields.
pub(super) enum Shape<'a> {
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
pub(super) struct At<'a> {
    schemas: &'a Schemas,
    node: &'a Node,
    /// The property says that all below it is one field.
    atomic: bool,
}

impl<'a> At<'a> {
    pub(super) fn shape(self) -> Shape<'a> {
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

    /// The items of a list, or the values of a map.
    pub(super) fn inner(self, shape: &Shape<'a>) -> Self {
        match shape {
            Shape::Keyed(list) => self.of(&list.items),
            Shape::Map(values) => self.of(values),
            _ => self.of(&SCALAR),
        }
    }

    /// A named field or a key; nothing for a name that the schema does not have.
    pub(super) fn step(self, shape: &Shape<'a>, name: &str) -> Option<Self> {
        match shape {
            Shape::Struct(of) => self.field(of, name),
            Shape::Map(_) => Some(self.inner(shape)),
            _ => None,
        }
    }

    /// Whether this is a map, an object or a list that is one field.
    fn is_one_field(self) -> bool {
        let large =
            matches!(self.node, Node::Struct(id) if id.0 != 0) || matches!(self.node, Node::Map(_) | Node::List(_));
        large && matches!(self.shape(), Shape::Leaf)
    }

    /// A named field, if there is one of this name.
    pub(super) fn field(self, of: &'a Struct, name: &str) -> Option<Self> {
        of.property(name).map(|p| Self { schemas: self.schemas, node: &p.node, atomic: p.atomic })
    }
}

static SCALAR: Node = Node::Any;

/// Of what kind an object is.
#[derive(Clone, Copy)]
pub(super) struct Typed<'a> {
    schemas: &'a Schemas,
    root: &'a Node,
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
        Ok(fields(self.at(), object, &mut Collect::new(false, false))?.1)
    }

    /// The fields of what is applied, in which no item may be there twice.
    pub(super) fn fields_of_applied(self, object: &Value) -> Result<FieldSet, ApplyError> {
        Ok(fields(self.at(), object, &mut Collect::new(true, false))?.1)
    }

    /// How a newer object differs.
    pub(super) fn compare(self, old: &Value, new: &Value) -> Result<Comparison, ApplyError> {
        compare::compare(self.at(), old, new)
    }

    /// The live object with what is applied on top.
    pub(super) fn merge(self, live: &Value, applied: &Value) -> Result<Value, ApplyError> {
        merge::merge(self.at(), live, applied)
    }

    /// The object without some fields.
    pub(super) fn remove(self, object: &Value, fields: &FieldSet) -> Result<Value, ApplyError> {
        Ok(match merge::remove(self.at(), object, fields)? {
            Value::Null => Value::Object(Map::new()),
            rest => rest,
        })
    }

    /// The set, and in it each named field that has members below.
    pub(super) fn with_named(self, set: &FieldSet) -> FieldSet {
        with_named(Some(self.at()), set)
    }

    /// The set with each field that is one, although members below it are in the set; nothing if there is none.
    pub(super) fn reconciled(self, set: &FieldSet) -> Option<FieldSet> {
        reconciled(self.at(), set)
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

    fn within<T>(&mut self, step: std::fmt::Arguments<'_>, work: impl FnOnce(&mut Self) -> T) -> T {
        // Only what is applied can be wrong.
        if !self.unique {
            return work(self);
        }
        let before = self.path.len();
        let _ = self.path.write_fmt(step);
        let done = work(self);
        self.path.truncate(before);
        done
    }
}

pub(super) fn is_empty_map(value: &Value) -> bool {
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

/// The items of a list with the steps to them, in the list's order.
pub(super) struct Items<'v> {
    pub(super) list: Vec<(Element, &'v Value)>,
    /// Places in the list, in the order of the steps.
    order: Vec<usize>,
}

impl<'v> Items<'v> {
    pub(super) fn of(shape: &Shape<'_>, value: &'v Value, path: &str) -> Result<Self, ApplyError> {
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        let mut list = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            let element = item_element(shape, item).map_err(|e| e.at(&format!("{path}: element {i}")))?;
            list.push((element, item));
        }
        let mut order: Vec<usize> = (0..list.len()).collect();
        order.sort_by(|a, b| list[*a].0.cmp(&list[*b].0));
        Ok(Self { list, order })
    }

    /// The places of the items at one step.
    fn places(&self, element: &Element) -> &[usize] {
        let start = self.order.partition_point(|i| self.list[*i].0 < *element);
        let same = self.order[start..].iter().take_while(|i| self.list[**i].0 == *element).count();
        &self.order[start..start + same]
    }

    pub(super) fn has(&self, element: &Element) -> bool {
        !self.places(element).is_empty()
    }

    /// The item, if it is there exactly once.
    pub(super) fn single(&self, element: &Element) -> Option<&'v Value> {
        match self.places(element) {
            [i] => Some(self.list[*i].1),
            _ => None,
        }
    }

    /// The items at one step.
    pub(super) fn all(&self, element: &Element) -> Vec<&'v Value> {
        self.places(element).iter().map(|i| self.list[*i].1).collect()
    }

    /// All steps.
    pub(super) fn elements(&self) -> impl Iterator<Item = &Element> {
        self.list.iter().map(|(element, _)| element)
    }
}

/// Whether a value is a field itself, and the fields below it.
fn fields(at: At<'_>, value: &Value, how: &mut Collect) -> Result<(bool, FieldSet), ApplyError> {
    let shape = at.shape();
    let mut steps = Vec::new();
    match (&shape, value) {
        (Shape::Leaf, _) => return Ok((true, FieldSet::default())),
        (Shape::Struct(_) | Shape::Map(_), Value::Object(map)) => {
            let key = matches!(shape, Shape::Map(_));
            steps.reserve_exact(map.len());
            for (name, value) in map {
                let Some(inner) = at.step(&shape, name) else { continue };
                let (own, below) = how.within(format_args!(".{name}"), |how| fields(inner, value, how))?;
                let member = own || key || how.all || value.is_null() || is_empty_map(value);
                steps.push(Step { element: Element::Field(name.clone()), member, below });
            }
        }
        (Shape::Set | Shape::Keyed(_), Value::Array(_)) => {
            let items = Items::of(&shape, value, &how.path)?;
            let inner = at.inner(&shape);
            for (element, item) in &items.list {
                let mut below = FieldSet::default();
                if items.single(element).is_some() {
                    below = how.within(format_args!("{element}"), |how| fields(inner, item, how))?.1;
                } else if how.unique {
                    let why = format!("{}: duplicate entries for key {element}", how.path);
                    return Err(ApplyError::Malformed(why));
                }
                steps.push(Step { element: element.clone(), member: true, below });
            }
        }
        // Of another type, or null: nothing below.
        _ => {}
    }
    Ok((false, FieldSet::of_steps(steps)))
}

/// All that is in a value that only one of two objects has.
pub(super) fn all_fields(at: At<'_>, value: &Value) -> Result<FieldSet, ApplyError> {
    Ok(fields(at, value, &mut Collect::new(false, true))?.1)
}

fn with_named(at: Option<At<'_>>, set: &FieldSet) -> FieldSet {
    let shape = at.map(|at| (at, at.shape()));
    let steps = set.steps().iter().map(|step| {
        let (named, inner) = match (&shape, &step.element) {
            (Some((at, Shape::Struct(of))), Element::Field(name)) => {
                let inner = at.field(of, name);
                (inner.is_some() && !step.below.is_empty(), inner)
            }
            (Some((at, shape)), _) => (false, Some(at.inner(shape))),
            _ => (false, None),
        };
        Step { element: step.element.clone(), member: step.member || named, below: with_named(inner, &step.below) }
    });
    FieldSet::of_steps(steps.collect())
}

fn reconciled(at: At<'_>, set: &FieldSet) -> Option<FieldSet> {
    let shape = at.shape();
    let mend = |step: &Step| -> Option<Step> {
        let inner = match &step.element {
            Element::Field(name) => at.step(&shape, name)?,
            _ => at.inner(&shape),
        };
        if step.below.is_empty() {
            return None;
        }
        let element = step.element.clone();
        if inner.is_one_field() {
            return Some(Step { element, member: true, below: FieldSet::default() });
        }
        Some(Step { element, member: step.member, below: reconciled(inner, &step.below)? })
    };
    let mended: Vec<Option<Step>> = set.steps().iter().map(mend).collect();
    if mended.iter().all(Option::is_none) {
        return None;
    }
    let steps = mended.into_iter().zip(set.steps()).map(|(mended, step)| mended.unwrap_or_else(|| step.clone()));
    Some(FieldSet::of_steps(steps.collect()))
}
