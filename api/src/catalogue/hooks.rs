//! The behaviour of a kind beyond its schema, as plain functions in the table.

use crate::field::FieldError;
use serde_json::Value;

/// Which part of an object an update writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateOf<'a> {
    /// The object itself.
    Main,
    /// The status sub-resource.
    Status,
    /// Another sub-resource that stores the object, such as `finalize`, by name.
    Other(&'a str),
}

impl<'a> UpdateOf<'a> {
    /// From the sub-resource in the request's path.
    pub fn of(subresource: Option<&'a str>) -> Self {
        match subresource {
            None => Self::Main,
            Some("status") => Self::Status,
            Some(other) => Self::Other(other),
        }
    }
}

/// Per-kind functions. What holds for every kind (metadata, status reset, generation) is not here.
#[derive(Debug, Clone, Copy)]
pub struct Hooks {
    /// Fills in defaults; must be idempotent.
    pub default: fn(&mut Value),
    /// After metadata is set and status is reset, before validation of a create.
    pub prepare_create: fn(&mut Value),
    /// After metadata is carried over and spec or status is reset: new, old, what is written.
    pub prepare_update: fn(&mut Value, &Value, UpdateOf<'_>),
    /// Validates a whole object except its metadata.
    pub validate: fn(&Value, &mut Vec<FieldError>),
    /// Validates what holds of new objects alone, after `validate`.
    pub validate_new: fn(&Value, &mut Vec<FieldError>),
    /// Validates a change except that of metadata: new, old, what is written.
    pub validate_update: fn(&Value, &Value, UpdateOf<'_>, &mut Vec<FieldError>),
    /// Warnings for the client: new and, on update, old.
    pub warnings: fn(&Value, Option<&Value>, &mut Vec<String>),
    /// Turns an object of this version into the stored one.
    pub to_storage: fn(&mut Value),
    /// Turns a stored object into one of this version.
    pub from_storage: fn(&mut Value),
    /// Which names are allowed; with true, for the base of a generated one.
    pub name: fn(&str, bool) -> Vec<String>,
    /// Whether a new object may bring its status along, as Nodes do.
    pub keeps_status_on_create: bool,
}

impl Hooks {
    /// A kind without behaviour of its own whose names are RFC 1123 subdomains.
    pub const NONE: Hooks = Hooks {
        default: |_| {},
        prepare_create: |_| {},
        prepare_update: |_, _, _| {},
        validate: |_, _| {},
        validate_new: |_, _| {},
        validate_update: |_, _, _, _| {},
        warnings: |_, _, _| {},
        to_storage: |_| {},
        from_storage: |_| {},
        name: crate::names::subdomain_name,
        keeps_status_on_create: false,
    };
}
