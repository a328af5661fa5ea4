//! Makes structural schemas out of JSON schemas and facts.

use super::facts::{Fact, Facts};
use super::{List, ListType, Node, Property, Schemas, Strategy, Struct, TypeId, roots};
use k8s_openapi::schemars::SchemaGenerator;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Upstream's definitions of every type that a built-in kind or sub-resource reaches, by name, with descriptions and
/// `$ref`s of the form `#/$defs/<name>`. Made anew at each call: documents are built from it and it is dropped.
pub fn definitions() -> Map<String, Value> {
    let mut generator = SchemaGenerator::default();
    roots::register(&mut generator);
    generator.take_definitions(true)
}

struct Builder<'a> {
    ids: HashMap<&'a str, TypeId>,
    facts: &'a Facts,
}

pub(super) fn build(definitions: &Map<String, Value>, facts: &Facts) -> Schemas {
    let structs: Vec<(&String, &Value)> = definitions.iter().filter(|(_, d)| d.get("properties").is_some()).collect();
    // Type 0 is the struct without a schema.
    let ids = structs.iter().zip(1u16..).map(|((name, _), i)| (name.as_str(), TypeId(i))).collect();
    let builder = Builder { ids, facts };
    let mut types = vec![Struct { name: "".into(), properties: Vec::new(), atomic: true }];
    types.extend(structs.iter().map(|(name, definition)| builder.structure(name, definition)));
    Schemas::new(types)
}

impl Builder<'_> {
    fn structure(&self, name: &str, definition: &Value) -> Struct {
        let own = self.facts.definition(name);
        let required: Vec<&str> =
            definition["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let empty = Map::new();
        let mut properties: Vec<Property> = definition["properties"]
            .as_object()
            .unwrap_or(&empty)
            .iter()
            .map(|(property, schema)| {
                let fact = self.facts.property(name, property);
                let required = own
                    .required
                    .as_ref()
                    .map_or(required.contains(&property.as_str()), |list| list.iter().any(|p| p == property));
                Property {
                    name: property.as_str().into(),
                    node: self.node(schema, fact),
                    required,
                    strategy: fact.map_or_else(Strategy::default, |f| f.strategy),
                    atomic: fact.is_some_and(|f| f.atomic),
                }
            })
            .collect();
        properties.sort_by(|a, b| a.name.cmp(&b.name));
        Struct { name: name.into(), properties, atomic: own.atomic }
    }

    fn node(&self, schema: &Value, fact: Option<&Fact>) -> Node {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.reference(reference.rsplit('/').next().unwrap_or_default());
        }
        match (schema["type"].as_str().unwrap_or_default(), schema["format"].as_str().unwrap_or_default()) {
            ("string", "byte") => Node::Bytes,
            ("string", "date-time") => Node::Time,
            ("string", _) => Node::String,
            ("boolean", _) => Node::Bool,
            ("integer", "int32") => Node::Int32,
            ("integer", _) => Node::Int64,
            ("number", _) => Node::Number,
            ("array", _) => Node::List(Box::new(List {
                items: self.node(&schema["items"], None),
                list_type: fact.map_or(ListType::Atomic, |f| f.list_type),
                keys: fact.map_or_else(Vec::new, |f| f.keys.clone()),
            })),
            ("object", _) if schema["additionalProperties"].is_object() => {
                Node::Map(Box::new(self.node(&schema["additionalProperties"], None)))
            }
            _ => Node::Any,
        }
    }

    fn reference(&self, name: &str) -> Node {
        match name {
            "io.k8s.apimachinery.pkg.api.resource.Quantity" => Node::Quantity,
            "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => Node::IntOrString,
            "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => Node::Time,
            "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => Node::MicroTime,
            other => self.ids.get(other).map_or(Node::Any, |id| Node::Struct(*id)),
        }
    }
}
