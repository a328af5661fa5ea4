//! Structural schemas in a compact form of our own: built once from k8s-openapi's types and a table of facts that those
//! lack, shared by every catalogue entry, without descriptions (OpenAPI documents make those anew when asked).

mod build;
mod conform;
mod facts;
mod roots;

pub use build::definitions;
pub use conform::{Conformity, SchemaError};
pub use facts::{Fact, Facts};

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// Index of a struct type in its `Schemas`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TypeId(pub(crate) u16);

/// What a value may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Anything; unknown fields are kept.
    Any,
    /// Text.
    String,
    /// Text in base64.
    Bytes,
    /// RFC 3339 time in seconds.
    Time,
    /// RFC 3339 time with microseconds.
    MicroTime,
    /// A quantity such as `100m`.
    Quantity,
    /// An integer or text.
    IntOrString,
    /// true or false.
    Bool,
    /// 32-bit integer.
    Int32,
    /// 64-bit integer.
    Int64,
    /// Floating point number.
    Number,
    /// An object with named properties.
    Struct(TypeId),
    /// An object with values of one type under any key.
    Map(Box<Node>),
    /// A list.
    List(Box<List>),
}

/// How items of a list are told apart (server-side apply and validation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListType {
    /// The list is replaced as a whole.
    #[default]
    Atomic,
    /// Items are unique scalars.
    Set,
    /// Items are objects with key fields.
    Map,
}

/// A list type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    /// Type of the items.
    pub items: Node,
    /// How items are told apart.
    pub list_type: ListType,
    /// Key fields of `ListType::Map`.
    pub keys: Vec<&'static str>,
}

/// How a strategic merge patch treats a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strategy {
    /// Lists are merged item by item; maps are merged anyway.
    pub merge: bool,
    /// The value is replaced as a whole.
    pub replace: bool,
    /// `$retainKeys` is expected.
    pub retain_keys: bool,
    /// Field by which items of a merged list of objects are told apart.
    pub key: Option<&'static str>,
}

/// A property of a struct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// Name.
    pub name: Box<str>,
    /// Type.
    pub node: Node,
    /// Whether upstream always writes it.
    pub required: bool,
    /// Strategic merge.
    pub strategy: Strategy,
    /// Whether server-side apply takes the property's map as a whole.
    pub atomic: bool,
}

/// An object type with named properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Struct {
    /// Upstream's definition name, `io.k8s.api.core.v1.Pod`.
    pub name: Box<str>,
    /// Properties sorted by name.
    pub properties: Vec<Property>,
    /// Whether server-side apply takes the object as a whole.
    pub atomic: bool,
}

impl Struct {
    /// A property by name.
    pub fn property(&self, name: &str) -> Option<&Property> {
        let at = self.properties.binary_search_by(|p| p.name.as_ref().cmp(name)).ok()?;
        Some(&self.properties[at])
    }

    /// The Go type's name without its package: `Pod`.
    pub fn go_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// The Go type's name: `v1.Pod`.
    pub fn go_type(&self) -> &str {
        match self.name.rmatch_indices('.').nth(1) {
            Some((at, _)) => &self.name[at + 1..],
            None => &self.name,
        }
    }
}

/// A closed set of struct types that refer to each other by index.
#[derive(Debug)]
pub struct Schemas {
    types: Vec<Struct>,
    by_name: HashMap<Box<str>, TypeId>,
}

impl Schemas {
    /// The types of all built-in kinds.
    pub fn builtin() -> Arc<Self> {
        static BUILTIN: OnceLock<Arc<Schemas>> = OnceLock::new();
        BUILTIN.get_or_init(|| Arc::new(build::build(&definitions(), &Facts::embedded()))).clone()
    }

    /// A set of structs; `TypeId`s count them from 0.
    pub fn new(types: Vec<Struct>) -> Self {
        let by_name = types.iter().zip(0u16..).map(|(t, i)| (t.name.clone(), TypeId(i))).collect();
        Self { types, by_name }
    }

    /// The struct behind an index.
    pub fn get(&self, id: TypeId) -> &Struct {
        &self.types[usize::from(id.0)]
    }

    /// A struct by upstream's definition name.
    pub fn find(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// As `find`; a name that is not there gives type 0, which holds anything.
    pub(crate) fn id(&self, name: &str) -> TypeId {
        self.find(name).unwrap_or(TypeId(0))
    }

    /// All structs.
    pub fn types(&self) -> &[Struct] {
        &self.types
    }

    /// The Go type of a node, as decoding errors name it.
    pub fn go_type(&self, node: &Node) -> String {
        match node {
            Node::Any => "interface {}".into(),
            Node::String => "string".into(),
            Node::Bytes => "[]uint8".into(),
            Node::Time => "v1.Time".into(),
            Node::MicroTime => "v1.MicroTime".into(),
            Node::Quantity => "resource.Quantity".into(),
            Node::IntOrString => "intstr.IntOrString".into(),
            Node::Bool => "bool".into(),
            Node::Int32 => "int32".into(),
            Node::Int64 => "int64".into(),
            Node::Number => "float64".into(),
            Node::Struct(id) => self.get(*id).go_type().into(),
            Node::Map(values) => format!("map[string]{}", self.go_type(values)),
            Node::List(list) => format!("[]{}", self.go_type(&list.items)),
        }
    }
}

#[cfg(test)]
mod tests;
