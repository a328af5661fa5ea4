//! The catalogue: every served kind as one table entry, immutable, extended by making a new one.

mod builtin;
mod chosen;
mod cluster;
mod entry;
mod hooks;
mod resource;
mod unstable;
mod workloads;

pub use chosen::{ChoiceError, RuntimeConfig};
pub use entry::Entry;
pub use hooks::{Hooks, UpdateOf};
pub use resource::{NewObject, Resource, Scope, Storage, Subresource, Text};

use crate::schema::Schemas;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// What a request wants done with unknown and duplicate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and say so in `Warning` headers.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// Reads the query parameter; the error is upstream's text.
    ///
    /// # Errors
    /// For a value other than `Ignore`, `Warn`, `Strict` or nothing.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "Warn" => Ok(Self::Warn),
            "Ignore" => Ok(Self::Ignore),
            "Strict" => Ok(Self::Strict),
            other => Err(format!(
                "fieldValidation: Unsupported value: {}: supported values: \"Ignore\", \"Strict\", \"Warn\"",
                crate::field::quote(other)
            )),
        }
    }
}

/// Why an entry cannot be added to a catalogue.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CatalogueError {
    /// Another resource of this group and version has the plural or the kind.
    #[error("{0} is already in the catalogue")]
    Taken(String),
}

/// All served resources. A `Resource` is one kind in one served version; kinds that are served in several versions or
/// groups have several, which share a `Storage`.
#[derive(Debug)]
pub struct Catalogue {
    resources: Vec<Arc<Resource>>,
    by_plural: HashMap<(String, String, String), usize>,
    by_kind: HashMap<(String, String, String), usize>,
    /// What objects are stored as, whether that is served or not.
    stored: Vec<Arc<Resource>>,
    schemas: Arc<Schemas>,
}

impl Catalogue {
    /// The built-in kinds; built once and shared.
    pub fn builtin() -> Arc<Self> {
        static BUILTIN: OnceLock<Arc<Catalogue>> = OnceLock::new();
        BUILTIN
            .get_or_init(|| {
                let everything = Self::everything();
                let served = RuntimeConfig::default();
                let resources = everything.resources.iter().filter(|r| served.serves(r)).cloned().collect();
                Arc::new(Self::index(resources, &everything.resources, everything.schemas.clone()))
            })
            .clone()
    }

    /// The built-in kinds in all versions, beta and alpha ones too; built once and shared.
    pub fn everything() -> Arc<Self> {
        static EVERYTHING: OnceLock<Arc<Catalogue>> = OnceLock::new();
        EVERYTHING
            .get_or_init(|| {
                let schemas = Schemas::builtin();
                let resources: Vec<Arc<Resource>> =
                    builtin::entries().iter().map(|entry| Arc::new(entry.resource(&schemas))).collect();
                Arc::new(Self::index(resources.clone(), &resources, schemas))
            })
            .clone()
    }

    /// The built-in kinds in the versions that are chosen.
    ///
    /// # Errors
    /// For a choice of what there is not.
    pub fn chosen(config: &RuntimeConfig) -> Result<Arc<Self>, ChoiceError> {
        if *config == RuntimeConfig::default() {
            return Ok(Self::builtin());
        }
        let everything = Self::everything();
        config.check(everything.resources.iter().map(AsRef::as_ref))?;
        let resources = everything.resources.iter().filter(|r| config.serves(r)).cloned().collect();
        Ok(Arc::new(Self::index(resources, &everything.resources, everything.schemas.clone())))
    }

    fn index(resources: Vec<Arc<Resource>>, all: &[Arc<Resource>], schemas: Arc<Schemas>) -> Self {
        let key = |r: &Resource, name: &str| (r.group.to_string(), r.version.to_string(), name.to_owned());
        let by_plural = resources.iter().enumerate().map(|(i, r)| (key(r, &r.plural), i)).collect();
        let by_kind = resources.iter().enumerate().map(|(i, r)| (key(r, &r.kind), i)).collect();
        // Components rely on stable kinds, also where nobody else is to see them.
        let needed = |r: &&Arc<Resource>| {
            let stable = RuntimeConfig::default().serves(r);
            r.is_stored() && !r.converts() && (stable || resources.iter().any(|served| served.storage == r.storage))
        };
        let stored = all.iter().filter(needed).cloned().collect();
        Self { resources, by_plural, by_kind, stored, schemas }
    }

    /// A catalogue with more resources.
    ///
    /// # Errors
    /// If one of them is there already.
    pub fn with(&self, more: impl IntoIterator<Item = Arc<Resource>>) -> Result<Self, CatalogueError> {
        let mut resources = self.resources.clone();
        for resource in more {
            let taken = resources.iter().any(|r| {
                r.group == resource.group
                    && r.version == resource.version
                    && (r.plural == resource.plural || r.kind == resource.kind)
            });
            if taken {
                return Err(CatalogueError::Taken(resource.qualified()));
            }
            resources.push(resource);
        }
        let all = [self.stored.clone(), resources.clone()].concat();
        Ok(Self::index(resources, &all, self.schemas.clone()))
    }

    /// The resource of a URL path.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.by_plural.get(&key).map(|i| self.resources[*i].clone())
    }

    /// The resource of an object's type.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), kind.to_owned());
        self.by_kind.get(&key).map(|i| self.resources[*i].clone())
    }

    /// The resource of an object, by its `apiVersion` and `kind`.
    pub fn by_kind_of(&self, object: &serde_json::Value) -> Option<Arc<Resource>> {
        let (group, version, kind) = crate::names::type_of(object)?;
        self.by_kind(group, version, kind)
    }

    /// All resources, in the order in which discovery lists them.
    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// What objects are stored as, a resource for each storage.
    pub fn stored(&self) -> &[Arc<Resource>] {
        &self.stored
    }

    /// The groups in discovery order, each with its versions, most preferred first. The core group is `""`.
    pub fn groups(&self) -> Vec<(&str, Vec<&str>)> {
        let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
        for resource in &self.resources {
            match groups.iter_mut().find(|(group, _)| *group == resource.group) {
                Some((_, versions)) if versions.contains(&resource.version.as_ref()) => {}
                Some((_, versions)) => versions.push(&resource.version),
                None => groups.push((&resource.group, vec![&resource.version])),
            }
        }
        groups
    }

    /// The types behind the built-in kinds and the sub-resource bodies.
    pub fn schemas(&self) -> &Arc<Schemas> {
        &self.schemas
    }
}

#[cfg(test)]
mod tests;
