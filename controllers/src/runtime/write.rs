//! How controllers write: merge patches of exactly what differs, on the version that was read.

use std::fmt::Debug;

use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::Request;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::ReconcileError;

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

/// Writes what differs between `old`, as it was read, and `new`, unless the object has changed since. Gives the
/// object as it is then; none if there was nothing to write. Objects out of informers may be used: what those lack
/// is lacking on both sides.
pub(crate) async fn patch<K>(api: &Api<K>, part: Part, old: &K, new: &K) -> Result<Option<K>, ReconcileError>
where
    K: kube::Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    let Some(mut diff) = merge_diff(&serde_json::to_value(old)?, &serde_json::to_value(new)?) else {
        return Ok(None);
    };
    let meta = old.meta();
    let name = meta.name.as_deref().unwrap_or_default();
    diff["metadata"]["resourceVersion"] = json!(meta.resource_version);
    let (params, diff) = (PatchParams::default(), Patch::Merge(diff));
    let written = match part {
        Part::Main => api.patch(name, &params, &diff).await?,
        Part::Status => api.patch_status(name, &params, &diff).await?,
    };
    Ok(Some(written))
}

/// Whether a write failed because the object changed, or because this leader was deposed.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Whether the object is not there.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether a write that ended in this error may have happened, or happen yet.
pub(crate) fn outcome_unknown(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code >= 500,
        _ => true,
    }
}

/// The revision of the store now, by a linearizable list of one object of the collection.
pub(crate) async fn current_revision(client: &Client, path: &str) -> Result<u64, kube::Error> {
    let params = ListParams::default().limit(1);
    let request = Request::new(path).list(&params).map_err(kube::Error::BuildRequest)?;
    let list: Value = client.request(request).await?;
    Ok(list["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse().ok()).unwrap_or(0))
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
