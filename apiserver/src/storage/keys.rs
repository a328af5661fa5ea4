//! Keys of objects and of the invariants that span objects.

use bytes::Bytes;

/// Everything the API server keeps is below this.
pub(crate) const ROOT: &str = "/";
/// Objects.
pub(crate) const REGISTRY: &str = "/registry/";
/// One key for each namespace that accepts new content.
pub(crate) const NAMESPACE_ACTIVE: &str = "/trireme/nsactive/";
/// One key for each allocated ClusterIP.
pub(crate) const CLUSTER_IPS: &str = "/trireme/clusterips/";
/// One key for each allocated node port.
pub(crate) const NODE_PORTS: &str = "/trireme/nodeports/";

/// Last part of an object's key: `namespace/name` or `name`.
pub(crate) fn suffix(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// Marker that a namespace accepts new content.
pub(crate) fn namespace_active(namespace: &str) -> Bytes {
    Bytes::from(format!("{NAMESPACE_ACTIVE}{namespace}"))
}

/// The first key after all keys with this prefix.
pub(crate) fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    Bytes::from(end)
}
