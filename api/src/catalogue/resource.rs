//! One served resource: what discovery says of it, where it is stored, its schema and its behaviour.

use super::hooks::{Hooks, UpdateOf};
use crate::field::FieldError;
use crate::schema::{Conformity, SchemaError, Schemas, TypeId};
use crate::table::Printer;
use jiff::Timestamp;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// Text that is static for built-in kinds and owned for others.
pub type Text = Cow<'static, str>;

/// Whether objects live in namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// Cluster-wide.
    Cluster,
}

/// A sub-resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subresource {
    /// Last path segment.
    pub name: Text,
    /// Verbs.
    pub verbs: Vec<Text>,
    /// Group of the body.
    pub group: Text,
    /// Version of the body.
    pub version: Text,
    /// Kind of the body.
    pub kind: Text,
}

/// As what, and so where, objects are stored. Resources with equal storage show the same objects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Storage {
    /// Group.
    pub group: Text,
    /// Version.
    pub version: Text,
    /// Kind.
    pub kind: Text,
    /// Plural.
    pub plural: Text,
}

impl Storage {
    /// `/registry/pods/` or `/registry/apps/deployments/`.
    pub fn prefix(&self) -> String {
        if self.group.is_empty() {
            format!("/registry/{}/", self.plural)
        } else {
            format!("/registry/{}/{}/", self.group, self.plural)
        }
    }
}

/// What a new object gets that is not in the request's body.
#[derive(Debug, Clone)]
pub struct NewObject<'a> {
    /// Now.
    pub now: Timestamp,
    /// A fresh UUID.
    pub uid: &'a str,
    /// Five random characters of `names::SUFFIX_ALPHABET` for `generateName`.
    pub name_suffix: &'a str,
    /// Namespace of the request; empty for cluster-scoped resources.
    pub namespace: &'a str,
}

/// One kind in one served version.
#[derive(Debug, Clone)]
pub struct Resource {
    /// API group; empty for core.
    pub group: Text,
    /// Version.
    pub version: Text,
    /// Kind.
    pub kind: Text,
    /// Kind of lists.
    pub list_kind: Text,
    /// Plural, as in URLs.
    pub plural: Text,
    /// Singular.
    pub singular: Text,
    /// Short names.
    pub short_names: Vec<Text>,
    /// Categories, such as `all`.
    pub categories: Vec<Text>,
    /// Scope.
    pub scope: Scope,
    /// Verbs.
    pub verbs: Vec<Text>,
    /// Sub-resources.
    pub subresources: Vec<Subresource>,
    /// Where objects are stored.
    pub storage: Storage,
    /// The types that `root` is one of.
    pub schemas: Arc<Schemas>,
    /// Name of the type in OpenAPI documents.
    pub definition: Text,
    /// The type of the object.
    pub root: TypeId,
    /// Fields for field selectors besides `metadata.name` and `metadata.namespace`.
    pub fields: Vec<Text>,
    /// Whether `metadata.generation` counts changes of the spec.
    pub generation: bool,
    /// Behaviour.
    pub hooks: Hooks,
    /// Table output.
    pub printer: Printer,
}

impl Resource {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        crate::names::api_version(&self.group, &self.version)
    }

    /// `pods` or `deployments.apps`.
    pub fn qualified(&self) -> String {
        crate::status::qualified(&self.group, &self.plural)
    }

    /// Whether objects live in namespaces.
    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// Whether there is a verb.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// Whether objects are stored, and not only made up when they are asked for.
    pub fn is_stored(&self) -> bool {
        self.has_verb("create") && self.has_verb("get")
    }

    /// A sub-resource by name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// Whether status is written through a sub-resource only.
    pub fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// The key prefix of all objects: `/registry/pods/`.
    pub fn prefix(&self) -> String {
        self.storage.prefix()
    }

    /// The key prefix of the objects of a namespace, or of all for an empty one.
    pub fn namespace_prefix(&self, namespace: &str) -> String {
        let prefix = self.prefix();
        if namespace.is_empty() || !self.namespaced() { prefix } else { format!("{prefix}{namespace}/") }
    }

    /// The key of one object.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        format!("{}{name}", self.namespace_prefix(namespace))
    }

    /// Checks types, canonicalises quantities, drops nulls and unknown fields and tells which those were.
    ///
    /// # Errors
    /// If a value has a type that the schema does not allow; upstream's wording.
    pub fn conform(&self, object: &mut Value) -> Result<Conformity, SchemaError> {
        self.schemas.conform(self.root, object)
    }

    /// Fills in defaults.
    pub fn default(&self, object: &mut Value) {
        (self.hooks.default)(object);
    }

    /// Sets system metadata, resets status and lets the kind prepare a new object.
    pub fn prepare_create(&self, object: &mut Value, new: &NewObject<'_>) {
        crate::prepare::create(self, object, new);
    }

    /// Carries over what an update may not change: system metadata, and status (or for a status write everything
    /// else); bumps the generation where the spec changed.
    pub fn prepare_update(&self, object: &mut Value, old: &Value, subresource: Option<&str>) {
        crate::prepare::update(self, object, old, UpdateOf::of(subresource));
    }

    /// Validates a new object (after `default` and `prepare_create`).
    pub fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        crate::validate::create(self, object)
    }

    /// Validates an update (after `default` and `prepare_update`).
    pub fn validate_update(&self, object: &Value, old: &Value, subresource: Option<&str>) -> Vec<FieldError> {
        crate::validate::update(self, object, old, UpdateOf::of(subresource))
    }

    /// Warnings for the client.
    pub fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        (self.hooks.warnings)(object, old, &mut warnings);
        warnings
    }

    /// Turns an object of this version into the stored one, in place.
    pub fn to_storage(&self, object: &mut Value) {
        (self.hooks.to_storage)(object);
        if self.converts() {
            let (group, version) = (&self.storage.group, &self.storage.version);
            crate::value::set(object, "apiVersion", crate::names::api_version(group, version));
        }
    }

    /// Turns a stored object into one of this version, in place.
    pub fn from_storage(&self, object: &mut Value) {
        (self.hooks.from_storage)(object);
        if self.converts() {
            crate::value::set(object, "apiVersion", self.api_version());
        }
    }

    /// Whether stored objects differ from served ones.
    pub fn converts(&self) -> bool {
        self.storage.group != self.group || self.storage.version != self.version
    }

    /// The value of a selectable field of an object of this version; absent values are empty.
    pub fn field(&self, object: &Value, field: &str) -> String {
        crate::selector::field_value(object, field)
    }
}
