//! Facts about upstream's types that k8s-openapi's schemas lack: list types and keys, patch strategies, atomic maps and
//! the `required` lists that differ. The text is made by `examples/facts.rs` from upstream's OpenAPI document.
//!
//! A line that starts at the margin names a definition, with `atomic` and `required=a,b` where they apply; an indented
//! line names one of its properties with `list=`, `keys=`, `merge=` (the patch merge key), `strategy=` and
//! `map=atomic`.

use super::{ListType, Strategy};
use std::collections::HashMap;

const TEXT: &str = include_str!("facts.txt");

/// Facts about a property.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fact {
    /// List type.
    pub list_type: ListType,
    /// Whether a list type is given at all.
    pub listed: bool,
    /// Keys of a list of type map.
    pub keys: Vec<&'static str>,
    /// Strategic merge.
    pub strategy: Strategy,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic: bool,
    /// `x-kubernetes-map-type: granular`, which is what holds anyway.
    pub granular: bool,
}

/// Facts about a definition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct OfDefinition {
    /// `x-kubernetes-map-type: atomic`.
    pub atomic: bool,
    /// The `required` list, where it differs from k8s-openapi's.
    pub required: Option<Vec<&'static str>>,
}

/// The parsed table.
#[derive(Debug, Default)]
pub struct Facts {
    definitions: HashMap<&'static str, OfDefinition>,
    properties: HashMap<&'static str, HashMap<&'static str, Fact>>,
}

impl Facts {
    /// The table in this crate.
    pub fn embedded() -> Self {
        Self::parse(TEXT)
    }

    /// The committed text.
    pub fn text() -> &'static str {
        TEXT
    }

    fn parse(text: &'static str) -> Self {
        let mut facts = Self::default();
        let mut definition = "";
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split_whitespace();
            let Some(name) = words.next() else { continue };
            if line.starts_with(' ') {
                facts.properties.entry(definition).or_default().insert(name, fact(words));
            } else {
                definition = name;
                facts.definitions.insert(name, of_definition(words));
            }
        }
        facts
    }

    pub(crate) fn definition(&self, name: &str) -> OfDefinition {
        self.definitions.get(name).cloned().unwrap_or_default()
    }

    /// Facts about a property of a definition.
    pub fn property(&self, definition: &str, property: &str) -> Option<&Fact> {
        self.properties.get(definition)?.get(property)
    }
}

fn of_definition(words: impl Iterator<Item = &'static str>) -> OfDefinition {
    let mut out = OfDefinition::default();
    for word in words {
        match word.split_once('=') {
            Some(("required", list)) => out.required = Some(list.split(',').filter(|p| !p.is_empty()).collect()),
            _ => out.atomic |= word == "atomic",
        }
    }
    out
}

fn fact(words: impl Iterator<Item = &'static str>) -> Fact {
    let mut fact = Fact::default();
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        match key {
            "list" => {
                fact.listed = true;
                fact.list_type = match value {
                    "map" => ListType::Map,
                    "set" => ListType::Set,
                    _ => ListType::Atomic,
                };
            }
            "keys" => fact.keys = value.split(',').collect(),
            "map" => (fact.atomic, fact.granular) = (value == "atomic", value == "granular"),
            "merge" => fact.strategy.key = Some(value),
            "strategy" => {
                for one in value.split(',') {
                    match one {
                        "merge" => fact.strategy.merge = true,
                        "replace" => fact.strategy.replace = true,
                        "retainKeys" => fact.strategy.retain_keys = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    fact
}
