//! Label selectors, `LabelSelector` objects and field selectors: parsing, matching and upstream's error texts.

mod field;
mod label;
mod parse;

pub use field::{FieldSelector, field_value};
pub use label::{LabelSelector, Operator, Requirement};

/// Why a selector does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);
