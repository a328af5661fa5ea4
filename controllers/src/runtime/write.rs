//! How controllers write: merge patches of exactly what differs, on the version that was read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Request;
use kube::core::request::Error as RequestError;
use serde::Serialize;
use serde_json::{Map, Value, json};
use trireme_client::informer::{Informer, Object, ObjectKey, revision_of};

use super::ReconcileError;
use crate::discovery::list_meta;

/// Which part of an object a patch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The object itself.
    Main,
    /// Its status.
    Status,
}

/// The merge patch that turns `old` into `new`, or none if they are equal.
pub(crate) fn merge_diff(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(from), Value::Object(to)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in to {
        let change = match from.get(key) {
            Some(before) => merge_diff(before, value),
            None => Some(value.clone()),
        };
        if let Some(change) = change {
            patch.insert(key.clone(), change);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// What differs, bound to the version that was read.
fn versioned_diff<K: kube::Resource + Serialize>(old: &K, new: &K) -> Result<Option<Value>, ReconcileError> {
    let diff = merge_diff(&serde_json::to_value(old)?, &serde_json::to_value(new)?);
    Ok(diff.map(|mut diff| {
        diff["metadata"]["resourceVersion"] = json!(old.meta().resource_version);
        diff
    }))
}

/// An informer and the means to write what it shows. Each write returns once the informer shows its effect.
pub(crate) struct Writer<'a, K: Object> {
    client: &'a Client,
    informer: &'a Informer<K>,
}

impl<'a, K> Writer<'a, K>
where
    K: kube::Resource<DynamicType = ()> + Object + Serialize,
{
    pub(crate) fn new(client: &'a Client, informer: &'a Informer<K>) -> Self {
        Self { client, informer }
    }

    /// The path of the object's collection.
    fn path(meta: &ObjectMeta) -> String {
        K::url_path(&(), meta.namespace.as_deref())
    }

    async fn send(&self, request: Result<http::Request<Vec<u8>>, RequestError>) -> Result<K, kube::Error> {
        self.client.request(request.map_err(kube::Error::BuildRequest)?).await
    }

    /// Creates an object.
    pub(crate) async fn create(&self, object: &K) -> Result<K, ReconcileError> {
        let path = Self::path(object.meta());
        let body = serde_json::to_vec(object)?;
        match self.send(Request::new(&path).create(&PostParams::default(), body)).await {
            Ok(created) => {
                self.informer.wait_for(revision_of(created.meta())).await;
                Ok(created)
            }
            Err(error) => {
                if outcome_unknown(&error) {
                    // If it did come into being, it must be counted.
                    self.informer.wait_for(newest(self.client, &path).await?).await;
                }
                Err(error.into())
            }
        }
    }

    /// Writes what differs between `old`, as it was read, and `new`, unless the object has changed since. Gives the
    /// object as it is then; none if there was nothing to write, or if it is gone. Objects out of informers may be
    /// used: what those lack is lacking on both sides.
    pub(crate) async fn update(&self, part: Part, old: &K, new: &K) -> Result<Option<K>, ReconcileError> {
        let Some(diff) = versioned_diff(old, new)? else { return Ok(None) };
        let request = Request::new(Self::path(old.meta()));
        let name = old.meta().name.as_deref().unwrap_or_default();
        let (params, diff) = (PatchParams::default(), Patch::Merge(diff));
        let request = match part {
            Part::Main => request.patch(name, &params, &diff),
            Part::Status => request.patch_subresource("status", name, &params, &diff),
        };
        match self.send(request).await {
            Ok(written) => {
                self.informer.wait_for(revision_of(written.meta())).await;
                Ok(Some(written))
            }
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes an object, if it is still the same one.
    pub(crate) async fn delete(&self, object: &K) -> Result<(), ReconcileError> {
        let meta = object.meta();
        let preconditions = Preconditions { uid: meta.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let name = meta.name.as_deref().unwrap_or_default();
        let request = Request::new(Self::path(meta)).delete(name, &params).map_err(kube::Error::BuildRequest)?;
        match self.client.request::<Value>(request).await {
            Ok(_) => {
                let uid = meta.uid.as_deref().unwrap_or_default();
                self.informer.wait_deleting(&ObjectKey::of(meta), uid).await;
                Ok(())
            }
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a write failed because the object changed, or because this leader was deposed.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Whether the object is not there.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether a creation failed because everything in its namespace is being deleted: trying again changes nothing.
pub(crate) fn is_in_vain(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// Whether a write that ended in this error may have happened, or happen yet.
fn outcome_unknown(error: &kube::Error) -> bool {
    match error {
        // 503 is said of what was not even tried.
        kube::Error::Api(status) => status.code >= 500 && status.code != 503,
        _ => true,
    }
}

/// The revision of the newest object of a collection, by a linearizable list: unlike the store's own revision one that
/// an informer reaches without anything further having to happen.
async fn newest(client: &Client, path: &str) -> Result<u64, kube::Error> {
    let objects = list_meta(client, path).await?;
    Ok(objects.iter().map(|object| revision_of(&object.metadata)).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_become_merge_patches() {
        let cases = [
            (json!({"a": 1}), json!({"a": 1}), Value::Null),
            (json!({"a": 1, "b": 2}), json!({"a": 1}), json!({"b": null})),
            (json!({"a": {"x": 1, "y": 2}}), json!({"a": {"x": 3, "y": 2}}), json!({"a": {"x": 3}})),
            (json!({"a": [1, 2]}), json!({"a": [2]}), json!({"a": [2]})),
            (json!({}), json!({"a": {"b": {}}}), json!({"a": {"b": {}}})),
        ];
        for (old, new, want) in cases {
            assert_eq!(merge_diff(&old, &new).unwrap_or_default(), want, "{old} -> {new}");
        }
    }
}
