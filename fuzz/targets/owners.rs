//! Two Deployments and a list of managers: the second one is written over the first one, and applied to it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use trireme_api::Catalogue;
use trireme_api::apply::{self, FieldSet, Managers, Write};

fuzz_target!(|data: &[u8]| {
    let Ok(Value::Array(mut given)) = serde_json::from_slice::<Value>(data) else { return };
    let Some(resource) = Catalogue::builtin().resource("apps", "v1", "deployments") else { return };
    given.resize(3, Value::Null);
    let [mut old, mut new, list] = [given[0].take(), given[1].take(), given[2].take()];
    if !old.is_object() || !new.is_object() || resource.conform(&mut old).is_err() || resource.conform(&mut new).is_err() {
        return;
    }
    let ignored = FieldSet::of_fields(&["status"]);
    let write = Write {
        schemas: &resource.schemas,
        root: resource.root,
        version: "apps/v1",
        manager: "m",
        subresource: "",
        now: "2026-01-01T00:00:00Z",
        ignored: &ignored,
        convert: &|_, _| None,
    };
    let Ok(made) = apply::update(&write, &json!({}), &old, Managers::default(), Some(&list)) else { return };
    assert_eq!(Managers::from_text(made.to_text().as_bytes()).as_ref(), Ok(&made));
    if let Ok(changed) = apply::update(&write, &old, &new, made.clone(), None) {
        assert_eq!(Managers::from_text(changed.to_text().as_bytes()), Ok(changed));
    }
    let _ = apply::apply(&write, &old, made.clone(), &new, false);
    let _ = apply::apply(&write, &old, made, &new, true);
});
