//! Table entries for built-in kinds: constants from which `Resource` values are made.

use super::hooks::Hooks;
use super::resource::{Resource, Scope, Storage, Subresource, Text};
use crate::schema::Schemas;
use crate::table::Printer;
use std::borrow::Cow;
use std::sync::Arc;

/// All verbs of an ordinary resource.
pub const ALL_VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// The verb of what is answered and not stored.
pub const CREATE: &[&str] = &["create"];
/// Verbs of a resource whose collection cannot be deleted at once.
pub const NO_COLLECTION_DELETE: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
/// Verbs of a status or scale sub-resource.
pub const STATUS_VERBS: &[&str] = &["get", "patch", "update"];

/// A sub-resource in the table.
#[derive(Debug, Clone, Copy)]
pub struct SubEntry {
    /// Last path segment.
    pub name: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// Group, version and kind of the body; the group and version are those of the resource when the version is "".
    pub gvk: (&'static str, &'static str, &'static str),
}

/// One built-in kind.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// API group; empty for core.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Plural.
    pub plural: &'static str,
    /// Short names.
    pub short_names: &'static [&'static str],
    /// Categories.
    pub categories: &'static [&'static str],
    /// Scope.
    pub scope: Scope,
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// Sub-resources.
    pub subresources: &'static [SubEntry],
    /// Group, version, kind and plural under which objects are stored, where they are not this entry's own.
    pub storage: Option<(&'static str, &'static str, &'static str, &'static str)>,
    /// Upstream's name of the type.
    pub definition: &'static str,
    /// Fields that field selectors may use besides `metadata.name` and `metadata.namespace`.
    pub fields: &'static [&'static str],
    /// Whether `metadata.generation` counts changes of the spec.
    pub generation: bool,
    /// Behaviour.
    pub hooks: Hooks,
    /// Table output.
    pub printer: Printer,
}

impl Entry {
    /// The entry that others are made from by `..Entry::BASE`.
    pub const BASE: Entry = Entry {
        group: "",
        version: "v1",
        kind: "",
        plural: "",
        short_names: &[],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: ALL_VERBS,
        subresources: &[],
        storage: None,
        definition: "",
        fields: &[],
        generation: false,
        hooks: Hooks::NONE,
        printer: Printer::NAME_AND_CREATION,
    };

    fn subresource(&self, sub: &SubEntry) -> Subresource {
        let (group, version, kind) = match sub.gvk {
            (_, "", kind) => (self.group, self.version, if kind.is_empty() { self.kind } else { kind }),
            other => other,
        };
        Subresource {
            name: sub.name.into(),
            verbs: texts(sub.verbs),
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
        }
    }

    /// The catalogue's form of the entry.
    pub fn resource(&self, schemas: &Arc<Schemas>) -> Resource {
        let (group, version, kind, plural) = self.storage.unwrap_or((self.group, self.version, self.kind, self.plural));
        Resource {
            group: self.group.into(),
            version: self.version.into(),
            kind: self.kind.into(),
            list_kind: Cow::Owned(format!("{}List", self.kind)),
            plural: self.plural.into(),
            singular: Cow::Owned(self.kind.to_lowercase()),
            short_names: texts(self.short_names),
            categories: texts(self.categories),
            scope: self.scope,
            verbs: texts(self.verbs),
            subresources: self.subresources.iter().map(|sub| self.subresource(sub)).collect(),
            storage: Storage { group: group.into(), version: version.into(), kind: kind.into(), plural: plural.into() },
            schemas: schemas.clone(),
            definition: self.definition.into(),
            root: schemas.id(self.definition),
            fields: texts(self.fields),
            generation: self.generation,
            hooks: self.hooks,
            printer: self.printer,
        }
    }
}

fn texts(list: &[&'static str]) -> Vec<Text> {
    list.iter().map(|text| Cow::Borrowed(*text)).collect()
}
