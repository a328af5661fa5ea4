//! OpenAPI documents, made when asked and meant to be dropped or cached by the caller: nothing of them stays in memory
//! here.

mod definitions;
mod operations;
mod proto;
mod v2;
mod v3;

use crate::catalogue::Catalogue;
use crate::names;
use prost::Message as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// Version of upstream that the documents describe.
const VERSION: &str = "v1.36.0";

fn info() -> Value {
    json!({"title": "Kubernetes", "version": VERSION})
}

/// The path of a group and version: `api/v1` or `apis/apps/v1`.
fn base(group: &str, version: &str) -> String {
    let prefix = if group.is_empty() { "api" } else { "apis" };
    format!("{prefix}/{}", names::api_version(group, version))
}

/// The index at `/openapi/v3`. The hash stands for the served kinds, so that clients may cache by it.
pub fn v3_index(catalogue: &Catalogue) -> Value {
    let mut paths = Map::new();
    for (group, versions) in catalogue.groups() {
        for version in versions {
            let own = catalogue.resources().iter().filter(|r| r.group == group && r.version == version);
            let kinds: Vec<String> = own.map(|r| format!("{} {:?}", r.definition, r.subresources)).collect();
            let digest = Sha256::digest(format!("{VERSION} {} {kinds:?}", env!("CARGO_PKG_VERSION")));
            let hash: String = digest.iter().map(|b| format!("{b:02X}")).collect();
            let base = base(group, version);
            let url = format!("/openapi/v3/{base}?hash={hash}");
            paths.insert(base, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

/// The document of a group and version (`""` and `v1` for core); nothing for one that is not served.
pub fn v3_document(catalogue: &Catalogue, group: &str, version: &str) -> Option<Value> {
    v3::document(catalogue, group, version)
}

/// The document at `/openapi/v2`.
pub fn v2_document(catalogue: &Catalogue) -> Value {
    v2::document(catalogue)
}

/// The same as gnostic's protobuf, `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`.
pub fn v2_protobuf(catalogue: &Catalogue) -> Vec<u8> {
    proto::document(&v2::document(catalogue)).encode_to_vec()
}

#[cfg(test)]
mod tests;
