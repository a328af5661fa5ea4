//! The Kubernetes vocabulary: kinds and their schemas, decoding, defaults, validation, patches, selectors, tables, errors,
//! discovery and OpenAPI documents. Pure functions over JSON values; no I/O, no clock and no randomness.

pub mod apply;
pub mod bootstrap;
pub mod catalogue;
pub mod convert;
pub mod decode;
pub mod defaults;
pub mod discovery;
pub mod field;
pub mod intstr;
pub mod names;
pub mod node_labels;
pub mod openapi;
pub mod patch;
pub mod prepare;
pub mod quantity;
#[cfg(test)]
mod robust;
pub mod schema;
pub mod selector;
pub mod status;
pub mod subresource;
pub mod table;
#[cfg(test)]
mod testing;
pub mod time;
pub mod validate;
pub mod value;

pub use catalogue::{Catalogue, FieldValidation, Resource};
pub use field::FieldError;
pub use quantity::Quantity;
pub use status::Status;
