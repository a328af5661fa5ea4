//! How objects lie in the store, and the caches that reads are served from.

pub(crate) mod cache;
pub(crate) mod codec;
pub(crate) mod feed;
pub(crate) mod fields;
pub(crate) mod keys;
pub(crate) mod labels;
pub(crate) mod object;
pub(crate) mod skim;
