//! What a request says: path, query, accepted and sent media types, body.

pub(crate) mod accept;
pub(crate) mod body;
pub(crate) mod info;
pub(crate) mod query;
