//! Patches of a Deployment: they apply, or change nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use trireme_api::{Catalogue, patch};

fuzz_target!(|data: &[u8]| {
    let Ok(change) = serde_json::from_slice::<Value>(data) else { return };
    let Some(resource) = Catalogue::builtin().resource("apps", "v1", "deployments") else { return };
    let container = json!({"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}], "args": ["x"]});
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "finalizers": ["a/b"]},
        "spec": {"strategy": {"type": "Recreate"}, "template": {"spec": {"containers": [container]}}},
    });
    for kind in 0..3 {
        let mut target = object.clone();
        let done = match kind {
            0 => patch::json_patch(&mut target, &change),
            1 => patch::merge_patch(&mut target, &change),
            _ => patch::strategic_merge_patch(&resource, &mut target, &change),
        };
        assert!(done.is_ok() || target == object);
    }
});
