//! What a strategic merge patch has to know of a type: which lists are merged, and by which key.

use std::sync::Arc;

use trireme_api::Catalogue;
use trireme_api::schema::{Node, Schemas, Strategy, TypeId};

use super::super::discovery::Resource;

/// The type at some place in an object.
#[derive(Clone)]
pub enum Shape {
    /// A struct of the catalogue's schemas.
    Struct(Arc<Schemas>, TypeId),
    /// A map or anything whose fields are all alike and not known.
    Open,
    /// For tests: types as data.
    #[cfg(test)]
    Data(Arc<serde_json::Value>, String),
}

/// A field as its struct sees it.
pub struct Field {
    /// The type of the value, or of the items of a list.
    pub shape: Shape,
    /// How it is merged.
    pub strategy: Strategy,
}

impl Shape {
    /// The type of a resource, if it is built in.
    pub fn of_resource(resource: &Resource) -> Option<Shape> {
        let found = Catalogue::builtin().by_kind(&resource.group, &resource.version, &resource.kind)?;
        Some(Shape::Struct(found.schemas.clone(), found.root))
    }

    /// A field of this type.
    pub fn field(&self, name: &str) -> Field {
        match self {
            Shape::Open => Field { shape: Shape::Open, strategy: Strategy::default() },
            Shape::Struct(schemas, id) => match schemas.get(*id).property(name) {
                Some(property) => Field { shape: Shape::of_node(schemas, &property.node), strategy: property.strategy },
                None => Field { shape: Shape::Open, strategy: Strategy::default() },
            },
            #[cfg(test)]
            Shape::Data(types, name_of_type) => super::tests::field_of(types, name_of_type, name),
        }
    }

    fn of_node(schemas: &Arc<Schemas>, node: &Node) -> Shape {
        match node {
            Node::Struct(id) => Shape::Struct(schemas.clone(), *id),
            Node::List(list) => Shape::of_node(schemas, &list.items),
            _ => Shape::Open,
        }
    }
}
