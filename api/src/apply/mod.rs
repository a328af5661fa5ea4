//! Server-side apply: who owns which fields of an object, and what an applied configuration makes of it.
//! Source: Kubernetes' documentation of server-side apply and the behaviour of upstream's structured-merge-diff.

mod compare;
mod managers;
mod merge;
#[cfg(test)]
mod scenarios;
mod set;
#[cfg(test)]
mod tests;
mod walk;

pub use managers::{Managers, put, take};
pub use set::{Element, FieldSet};

use crate::schema::{Node, Schemas, TypeId};
use crate::value;
use compare::Comparison;
use managers::{Manager, Operation, Owned};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use walk::Typed;

/// Under what name the fields of an object are kept that has none kept when it is first applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager that takes over what client-side apply has written.
const KUBECTL: &str = "kubectl";
/// What client-side apply leaves.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Most bytes of an object's annotations.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// The header of a request whose answer needs no `managedFields`: our own components', which never look at them.
pub const OMIT_HEADER: &str = "trireme-omit-managed-fields";

/// A field that another manager owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The manager, as people read it: `"kube-controller-manager" using apps/v1`.
    pub manager: String,
    /// `.spec.replicas`.
    pub field: String,
}

/// Why something cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// What is applied, or a list of managers, is malformed.
    #[error("{0}")]
    Malformed(String),
    /// Others own some of the fields.
    #[error("{}", conflict_text(.0))]
    Conflicts(Vec<Conflict>),
}

impl ApplyError {
    fn at(self, place: &str) -> Self {
        match self {
            Self::Malformed(why) => Self::Malformed(format!("{place}: {why}")),
            other => other,
        }
    }
}

/// Upstream's words.
fn conflict_text(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.field);
    }
    let mut by_manager: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for conflict in conflicts {
        by_manager.entry(&conflict.manager).or_default().push(&conflict.field);
    }
    let lines: Vec<String> = by_manager
        .iter()
        .flat_map(|(manager, fields)| {
            let fields = fields.iter().map(|field| format!("- {field}"));
            std::iter::once(format!("conflicts with {manager}:")).chain(fields).collect::<Vec<_>>()
        })
        .collect();
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// Turns an object into another version of its kind; nothing if there is no such version.
pub type Convert<'a> = &'a dyn Fn(&Value, &str) -> Option<(Value, TypeId)>;

/// A write, as far as the ownership of fields goes.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    /// The types.
    pub schemas: &'a Schemas,
    /// That of the object.
    pub root: TypeId,
    /// `apps/v1`.
    pub version: &'a str,
    /// Who writes.
    pub manager: &'a str,
    /// Through which sub-resource; empty for none.
    pub subresource: &'a str,
    /// Now, RFC 3339.
    pub now: &'a str,
    /// Fields that such a write does not change, whatever it says: the status, or all but the status.
    pub ignored: &'a FieldSet,
    /// To versions in which other managers have told their fields.
    pub convert: Convert<'a>,
}

/// What is everybody's, or the server's.
static STRIPPED: LazyLock<FieldSet> = LazyLock::new(|| {
    let metadata = [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ];
    let top = [["apiVersion"], ["kind"], ["metadata"]];
    let all = top.iter().map(|path| FieldSet::of_fields(path));
    let all = all.chain(metadata.iter().map(|name| FieldSet::of_fields(&["metadata", name])));
    all.fold(FieldSet::default(), |set, path| set.union(&path))
});

/// Applies a configuration to an object (to one with nothing but its type and name, if it is not there yet). Answers the
/// object and its managers, or nothing if it and they are what they were. Neither object carries managers itself.
///
/// # Errors
/// If the configuration is malformed, or others own some of its fields and it is not forced.
pub fn apply(
    write: &Write<'_>,
    live: &Value,
    managers: Managers,
    applied: &Value,
    force: bool,
) -> Result<Option<(Value, Managers)>, ApplyError> {
    if value::has(&applied["metadata"], "managedFields") {
        return Err(ApplyError::Malformed("metadata.managedFields must be nil".into()));
    }
    let mut before = managers;
    if before.is_empty() && value::has(&live["metadata"], "creationTimestamp") {
        let first = Write { manager: BEFORE_FIRST_APPLY, ..*write };
        before = first.update(&Value::Object(Default::default()), live, before)?;
    }
    before.reconcile(write.schemas, write.root, write.version);
    let done = match write.apply(live, applied, &before, force) {
        Err(ApplyError::Conflicts(conflicts)) if write.manager == KUBECTL => {
            let taken = write.last_applied(live).paths();
            let rest: Vec<Conflict> = conflicts.into_iter().filter(|c| !taken.contains(&c.field)).collect();
            match rest.is_empty() {
                true => write.apply(live, applied, &before, true)?,
                false => return Err(ApplyError::Conflicts(rest)),
            }
        }
        done => done?,
    };
    let Some((mut object, mut managers)) = done else { return Ok(None) };
    if write.manager == KUBECTL {
        note_last_applied(&mut object, applied);
    }
    managers.cap();
    Ok(Some((object, managers)))
}

/// Who has changed what in a new object, compared with the one before (an empty object, if there was none). Managers that
/// the new object brings along are taken for the ones before, unless it is written through a sub-resource. An object that
/// has none gets none: it is tracked from its creation on, or not before it is applied. Neither object carries managers
/// itself.
///
/// # Errors
/// If a list in an object does not fit its schema.
pub fn update(
    write: &Write<'_>,
    live: &Value,
    new: &Value,
    managers: Managers,
    brought: Option<&Value>,
) -> Result<Managers, ApplyError> {
    let brought = brought.filter(|list| write.subresource.is_empty() && !list.is_null());
    let mut before = match brought {
        Some(list) if managers::is_reset(list) => Managers::default(),
        Some(list) => Managers::from_json(list).ok().filter(|given| !given.is_empty()).unwrap_or(managers),
        None => managers,
    };
    if before.is_empty() && value::has(&live["metadata"], "uid") {
        return Ok(before);
    }
    before.reconcile(write.schemas, write.root, write.version);
    let mut after = write.update(live, new, before)?;
    after.cap();
    Ok(after)
}

/// What client-side apply has noted of its last configuration follows what its user applies by the server now, so that it
/// can go back.
fn note_last_applied(object: &mut Value, applied: &Value) {
    let Some(annotations) = object.get_mut("metadata").and_then(|m| m.get_mut("annotations")) else { return };
    if value::text(annotations, LAST_APPLIED).is_empty() {
        return;
    }
    let mut applied = applied.clone();
    applied.sort_all_objects();
    let text = format!("{applied}\n");
    let others: usize = value::object(annotations)
        .iter()
        .filter(|(key, _)| *key != LAST_APPLIED)
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    let fits = others + LAST_APPLIED.len() + text.len() <= MAX_ANNOTATIONS;
    value::set(annotations, LAST_APPLIED, if fits { text } else { String::new() });
}

/// The fields that one object has and another has not, with the named ones above them.
fn lost(typed: Typed<'_>, whole: &Value, rest: &Value) -> Result<FieldSet, ApplyError> {
    Ok(typed.with_named(&typed.fields(whole)?).without(&typed.with_named(&typed.fields(rest)?)))
}

impl Write<'_> {
    fn operation(&self, operation: Operation) -> Manager {
        Manager::new(self.manager, operation, self.version, self.subresource)
    }

    /// What an update of an object makes of its managers.
    fn update(&self, old: &Value, new: &Value, mut managers: Managers) -> Result<Managers, ApplyError> {
        let own = self.operation(Operation::Update);
        let compared = self.settle(old, new, &mut managers, None, true)?;
        let taken = compared.modified.with(compared.added).without(&compared.removed).without(&STRIPPED);
        let before = managers.0.remove(&own);
        let (kept, time) = match before {
            Some(before) => (before.fields.without(&compared.removed), before.time),
            None => (FieldSet::default(), None),
        };
        let time = time.filter(|_| taken.is_empty()).unwrap_or_else(|| self.now.to_owned());
        let fields = kept.with(taken);
        if !fields.is_empty() {
            managers.0.insert(own, Owned { version: self.version.to_owned(), fields, time: Some(time) });
        }
        Ok(managers)
    }

    /// What applying makes of an object and its managers; nothing if nothing changes.
    fn apply(
        &self,
        live: &Value,
        applied: &Value,
        before: &Managers,
        force: bool,
    ) -> Result<Option<(Value, Managers)>, ApplyError> {
        let root = Node::Struct(self.root);
        let typed = Typed::new(self.schemas, &root);
        let mut managers = before.clone();
        let own = self.operation(Operation::Apply);
        let last = before.0.get(&own);
        let fields = typed.fields_of_applied(applied)?.without_all_below(self.ignored);
        let merged = typed.merge(live, applied)?;
        let mut owned = Owned { version: self.version.to_owned(), fields, time: last.and_then(|o| o.time.clone()) };
        managers.0.insert(own.clone(), owned.clone());
        let object = match last {
            Some(last) if !last.fields.is_empty() => self.prune(merged, &managers, last)?,
            _ => merged,
        };
        let compared = self.settle(live, &object, &mut managers, Some(&own), force)?;
        owned.fields = owned.fields.without(&STRIPPED);
        let same_fields = last.is_some_and(|last| last.fields == owned.fields && last.version == owned.version);
        let others_same = managers.0.iter().all(|(m, o)| *m == own || before.0.get(m) == Some(o));
        if compared.is_same() && same_fields && others_same && object == *live {
            return Ok(None);
        }
        owned.time = Some(self.now.to_owned());
        match owned.fields.is_empty() {
            true => drop(managers.0.remove(&own)),
            false => drop(managers.0.insert(own, owned)),
        }
        managers.0.retain(|_, owned| !owned.fields.is_empty());
        Ok(Some((object, managers)))
    }

    /// Takes from the other managers what an object has lost or what is written now. Finds conflicts, unless forced.
    fn settle(
        &self,
        old: &Value,
        new: &Value,
        managers: &mut Managers,
        own: Option<&Manager>,
        force: bool,
    ) -> Result<Comparison, ApplyError> {
        let root = Node::Struct(self.root);
        let compared = Typed::new(self.schemas, &root).compare(old, new)?.without(self.ignored);
        let updater = self.operation(Operation::Update);
        let own = own.unwrap_or(&updater);
        let mut versions: BTreeMap<String, Option<Comparison>> = BTreeMap::new();
        let (mut conflicts, mut left, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        for (manager, owned) in managers.0.iter().filter(|(manager, _)| *manager != own) {
            let other = match owned.version == self.version {
                true => Some(&compared),
                false => {
                    if !versions.contains_key(&owned.version) {
                        versions.insert(owned.version.clone(), self.compare_in(&owned.version, old, new)?);
                    }
                    versions[&owned.version].as_ref()
                }
            };
            let Some(other) = other else {
                unknown.push(manager.clone());
                continue;
            };
            let touched = [&other.modified, &other.added, &other.removed];
            if !touched.into_iter().any(|set| owned.fields.meets(set)) {
                continue;
            }
            let contested = owned.fields.intersection(&other.modified.union(&other.added));
            let fields = contested.paths().into_iter();
            conflicts.extend(fields.map(|field| Conflict { manager: manager.describe(), field }));
            left.push((manager.clone(), owned.fields.difference(&contested).without(&other.removed)));
        }
        if !force && !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
        for (manager, fields) in left {
            if fields.is_empty() {
                managers.0.remove(&manager);
            } else if let Some(owned) = managers.0.get_mut(&manager) {
                owned.fields = fields;
            }
        }
        // The version in which they told their fields is not served any more.
        unknown.iter().for_each(|manager| drop(managers.0.remove(manager)));
        managers.0.retain(|manager, owned| manager == own || !owned.fields.is_empty());
        Ok(compared)
    }

    fn compare_in(&self, version: &str, old: &Value, new: &Value) -> Result<Option<Comparison>, ApplyError> {
        let Some((new, id)) = (self.convert)(new, version) else { return Ok(None) };
        // What was not there is in every version.
        let old = (self.convert)(old, version).map_or_else(|| Value::Object(Default::default()), |(old, _)| old);
        let root = Node::Struct(id);
        Ok(Some(Typed::new(self.schemas, &root).compare(&old, &new)?.without(self.ignored)))
    }

    /// Removes what the manager has applied before and does not any more, unless somebody else owns it.
    fn prune(&self, merged: Value, managers: &Managers, last: &Owned) -> Result<Value, ApplyError> {
        let then = |object: &Value| self.in_version(object, &last.version);
        let Some((then_merged, id)) = then(&merged) else { return Ok(merged) };
        let root = Node::Struct(id);
        let typed = Typed::new(self.schemas, &root);
        let mut pruned = typed.remove(&then_merged, &typed.with_named(&last.fields))?;
        // What somebody owns comes back, in whatever version it is told, the same version first.
        let mut by_version: BTreeMap<&str, FieldSet> = BTreeMap::new();
        for owned in managers.0.values() {
            let all = by_version.entry(&owned.version).or_default();
            *all = all.union(&owned.fields);
        }
        let mut order: Vec<(&str, FieldSet)> = by_version.into_iter().collect();
        order.sort_by_key(|(version, _)| *version != last.version);
        for (version, owned) in order {
            let (whole, rest) = (self.in_version(&then_merged, version), self.in_version(&pruned, version));
            let (Some((whole, id)), Some((rest, _))) = (whole, rest) else { continue };
            let root = Node::Struct(id);
            let typed = Typed::new(self.schemas, &root);
            let gone = lost(typed, &whole, &rest)?.without(&typed.with_named(&owned));
            if let Some((back, _)) = then(&typed.remove(&whole, &gone)?) {
                pruned = back;
            }
        }
        // What nobody owns stays, unless this manager had applied it.
        let gone = lost(typed, &then_merged, &pruned)?.intersection(&typed.with_named(&last.fields));
        let pruned = typed.remove(&then_merged, &gone)?;
        Ok(self.in_version(&pruned, self.version).map_or(merged, |(pruned, _)| pruned))
    }

    fn in_version(&self, object: &Value, version: &str) -> Option<(Value, TypeId)> {
        match value::text(object, "apiVersion") == version {
            true if version == self.version => Some((object.clone(), self.root)),
            _ => (self.convert)(object, version),
        }
    }

    /// The fields that client-side apply has written and that still are as it wrote them.
    fn last_applied(&self, live: &Value) -> FieldSet {
        let text = value::text(value::at(live, &["metadata", "annotations"]), LAST_APPLIED);
        let Ok(applied) = serde_json::from_str::<Value>(text) else { return FieldSet::default() };
        let root = Node::Struct(self.root);
        let typed = Typed::new(self.schemas, &root);
        let (Ok(fields), Ok(found)) = (typed.fields(&applied), typed.compare(&applied, live)) else {
            return FieldSet::default();
        };
        fields.without(&found.modified).without(&found.added).without(&found.removed)
    }
}
