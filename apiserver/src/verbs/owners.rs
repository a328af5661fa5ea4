//! Who owns the fields of what is written.

use http::header;
use serde_json::Value;
use trireme_api::apply::{self, Managers};
use trireme_api::value;

use super::ctx::Ctx;
use super::options;
use crate::storage::object::Object;

/// What a write does to the owners.
pub(crate) enum Owners {
    /// The writer owns what it has changed. Managers that the object brings along are taken for those before.
    Tracked,
    /// Nothing.
    Kept,
    /// They are these.
    These(Managers),
}

/// Those of a stored object. A list that cannot be read is one of nobody, as upstream has it.
pub(super) fn of(object: &Object) -> Managers {
    Managers::from_text(object.stored.managers()).unwrap_or_default()
}

/// Puts a list into an object that is only shown.
pub(super) fn show(object: &mut Value, text: &str) {
    let managers = Managers::from_text(text.as_bytes()).unwrap_or_default();
    apply::put(object, &managers);
}

/// Whether a patch may read or write `managedFields`. Others are spared the sight of them.
pub(super) fn concerns(kind: &str, patch: &Value) -> bool {
    if kind == "application/json-patch+json" {
        let near = |path: &str| {
            let rest = path.strip_prefix("/metadata").unwrap_or(path);
            rest.is_empty() || path.starts_with("/metadata/managedFields")
        };
        let paths = |operation: &Value| {
            let path = |key: &str| operation.get(key).and_then(Value::as_str).is_some_and(near);
            path("path") || path("from")
        };
        return patch.as_array().into_iter().flatten().any(paths);
    }
    let directive = |map: &Value| value::object(map).keys().any(|key| key.starts_with('$'));
    let metadata = &patch["metadata"];
    directive(patch) || directive(metadata) || metadata.get("managedFields").is_some()
}

/// Who writes: the `fieldManager`, else the first part of the user agent, else the component of this process.
pub(super) fn manager(ctx: &Ctx) -> String {
    if let Some(name) = ctx.query.get("fieldManager").filter(|name| !name.is_empty()) {
        return name.to_owned();
    }
    let agent = ctx.headers.get(header::USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()));
    let Some(agent) = agent else { return component(&ctx.caller.user.name) };
    let mut name = String::new();
    for c in agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()) {
        if name.len() + c.len_utf8() > options::MANAGER {
            break;
        }
        name.push(c);
    }
    name
}

/// Our own components tell no user agent. They are known by the names that upstream's have.
fn component(user: &str) -> String {
    match user.strip_prefix("system:") {
        Some(node) if node.starts_with("node:") => "kubelet".to_owned(),
        Some(name) => name.to_owned(),
        None => user.chars().take(options::MANAGER / 4).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patches_that_concern_managers() {
        let json_patch = "application/json-patch+json";
        for (path, yes) in [
            ("", true),
            ("/metadata", true),
            ("/metadata/managedFields", true),
            ("/metadata/managedFields/0/time", true),
            ("/metadata/labels", false),
            ("/spec", false),
        ] {
            assert_eq!(concerns(json_patch, &json!([{"op": "test", "path": path}])), yes, "{path}");
            assert_eq!(concerns(json_patch, &json!([{"op": "move", "from": path, "path": "/x"}])), yes, "{path}");
        }
        for (patch, yes) in [
            (json!({"metadata": {"managedFields": null}}), true),
            (json!({"metadata": {"$patch": "replace"}}), true),
            (json!({"$patch": "replace"}), true),
            (json!({"metadata": {"labels": {"managedFields": "x"}}}), false),
            (json!({"spec": {"$retainKeys": []}}), false),
            (json!([]), false),
        ] {
            assert_eq!(concerns("application/strategic-merge-patch+json", &patch), yes, "{patch}");
        }
    }
}
