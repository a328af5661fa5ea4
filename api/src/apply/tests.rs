//! Situations of server-side apply: who owns what afterwards, and what the object is.

#![allow(clippy::unwrap_used)]

use super::{ApplyError, FieldSet, Managers, Write, apply, managers, update};
use crate::catalogue::Catalogue;
use serde_json::{Value, json};

/// An object and the writes to it, a second apart.
struct Case {
    group: &'static str,
    kind: &'static str,
    live: Value,
    managers: Managers,
    writes: u32,
    ignored: FieldSet,
}

impl Case {
    fn new(group: &'static str, kind: &'static str) -> Self {
        let version = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
        let live = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a", "namespace": "n"}});
        Self { group, kind, live, managers: Managers::default(), writes: 0, ignored: FieldSet::of_fields(&["status"]) }
    }

    fn run<T>(&mut self, manager: &str, subresource: &str, work: impl FnOnce(&Write<'_>, &Value) -> T) -> T {
        self.writes += 1;
        let catalogue = Catalogue::builtin();
        let resource = catalogue.by_kind(self.group, "v1", self.kind).unwrap();
        let now = format!("2026-01-01T00:00:{:02}Z", self.writes);
        let write = Write {
            schemas: &resource.schemas,
            root: resource.root,
            version: &resource.api_version(),
            manager,
            subresource,
            now: &now,
            ignored: &self.ignored,
            convert: &|_, _| None,
        };
        work(&write, &self.live)
    }

    fn full(&self, part: &Value) -> Value {
        let mut object = json!({"apiVersion": self.live["apiVersion"], "kind": self.kind, "metadata": {"name": "a"}});
        json_patch::merge(&mut object, part);
        object
    }

    fn try_apply(&mut self, manager: &str, part: Value, force: bool) -> Result<bool, ApplyError> {
        let applied = self.full(&part);
        let managers = self.managers.clone();
        let done = self.run(manager, "", |write, live| apply(write, live, managers, &applied, force))?;
        let changed = done.is_some();
        if let Some((object, managers)) = done {
            (self.live, self.managers) = (object, managers);
        }
        Ok(changed)
    }

    fn apply(&mut self, manager: &str, part: Value) -> bool {
        self.try_apply(manager, part, false).unwrap()
    }

    fn force(&mut self, manager: &str, part: Value) -> bool {
        self.try_apply(manager, part, true).unwrap()
    }

    fn conflicts(&mut self, manager: &str, part: Value) -> String {
        self.try_apply(manager, part, false).unwrap_err().to_string()
    }

    /// A merge patch, as an update.
    fn update(&mut self, manager: &str, part: Value) {
        let mut new = self.live.clone();
        json_patch::merge(&mut new, &part);
        let (brought, managers) = (managers::take(&mut new), self.managers.clone());
        let after = self.run(manager, "", |write, live| update(write, live, &new, managers, brought.as_ref()));
        (self.live, self.managers) = (new, after.unwrap());
    }

    /// The list of managers.
    fn list(&self) -> Value {
        self.managers.to_json().unwrap_or(json!([]))
    }

    /// The managers: `name Operation: fields`.
    fn owners(&self) -> Vec<String> {
        let list = self.list().as_array().cloned().unwrap_or_default();
        let text = |e: &Value| {
            let fields = FieldSet::from_json(&e["fieldsV1"]).unwrap().paths().join(" ");
            format!("{} {}: {fields}", e["manager"].as_str().unwrap(), e["operation"].as_str().unwrap())
        };
        list.iter().map(text).collect()
    }

    fn data(&self) -> &Value {
        &self.live["data"]
    }
}

fn config_map() -> Case {
    Case::new("", "ConfigMap")
}

#[test]
fn field_sets_are_written_and_read_as_upstream_writes_them() {
    let text = r#"{"f:data":{".":{},"f:a":{}},"f:metadata":{"f:finalizers":{".":{},"v:\"x/y\"":{}}},"f:spec":{"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{}}},"i:3":{}}}"#;
    let json: Value = serde_json::from_str(text).unwrap();
    let set = FieldSet::from_json(&json).unwrap();
    let mut written = String::new();
    set.write_json(&mut written);
    assert_eq!(written, text);
    assert_eq!(
        set.paths(),
        [
            ".data",
            ".data.a",
            ".metadata.finalizers",
            ".metadata.finalizers[=\"x/y\"]",
            ".spec.ports[port=80,protocol=\"TCP\"]",
            ".spec.ports[port=80,protocol=\"TCP\"].port",
            ".spec[3]"
        ]
    );
    for bad in [json!({"x:a": {}}), json!({"f:a": 1}), json!([]), json!({"k:1": {}}), json!({"i:x": {}})] {
        assert!(FieldSet::from_json(&bad).is_err(), "{bad}");
    }
}

#[test]
fn one_manager_adds_changes_and_removes() {
    let mut c = config_map();
    assert!(c.apply("m", json!({"data": {"a": "1", "b": "2"}})));
    assert_eq!(c.owners(), ["m Apply: .data.a .data.b"]);
    assert!(!c.apply("m", json!({"data": {"a": "1", "b": "2"}})), "nothing changes, so nothing is written");
    assert!(c.apply("m", json!({"data": {"a": "9"}})));
    assert_eq!(c.data(), &json!({"a": "9"}));
    assert_eq!(c.owners(), ["m Apply: .data.a"]);
    assert!(c.apply("m", json!({})));
    assert_eq!(c.data(), &Value::Null, "nothing is left of it");
    assert_eq!(c.owners(), Vec::<String>::new());
}

#[test]
fn two_managers_share_conflict_and_give_up() {
    let mut c = config_map();
    c.apply("one", json!({"data": {"a": "1", "b": "1"}}));
    assert_eq!(
        c.conflicts("two", json!({"data": {"a": "2", "c": "2"}})),
        "Apply failed with 1 conflict: conflict with \"one\": .data.a"
    );
    c.apply("two", json!({"data": {"b": "1", "c": "2"}}));
    assert_eq!(c.owners(), ["one Apply: .data.a .data.b", "two Apply: .data.b .data.c"]);
    c.apply("one", json!({"data": {"a": "1"}}));
    assert_eq!(c.data(), &json!({"a": "1", "b": "1", "c": "2"}), "the other one still wants it");
    c.force("two", json!({"data": {"a": "2", "c": "2"}}));
    assert_eq!(c.data(), &json!({"a": "2", "c": "2"}), "nobody wants b any more");
    assert_eq!(c.owners(), ["two Apply: .data.a .data.c"]);
    let many = c.conflicts("three", json!({"data": {"a": "3", "c": "3"}}));
    assert_eq!(many, "Apply failed with 2 conflicts: conflicts with \"two\":\n- .data.a\n- .data.c");
}

#[test]
fn updates_take_fields_over_and_are_conflicts_for_appliers() {
    let mut c = config_map();
    c.apply("applier", json!({"data": {"a": "1", "b": "1"}}));
    c.update("updater", json!({"data": {"a": "2", "n": "2"}}));
    assert_eq!(c.owners(), ["applier Apply: .data.b", "updater Update: .data.a .data.n"]);
    assert_eq!(
        c.conflicts("applier", json!({"data": {"a": "1", "b": "1"}})),
        "Apply failed with 1 conflict: conflict with \"updater\" using v1: .data.a"
    );
    c.apply("applier", json!({"data": {"a": "2", "b": "1"}}));
    assert_eq!(c.owners(), ["applier Apply: .data.a .data.b", "updater Update: .data.a .data.n"]);
    c.update("updater", json!({"data": {"a": null}}));
    assert_eq!(c.owners(), ["applier Apply: .data.b", "updater Update: .data.n"], "what is gone nobody owns");
    let time = c.list()[1]["time"].clone();
    c.update("updater", json!({"data": {"n": "2"}}));
    assert_eq!(c.list()[1]["time"], time, "nothing was changed");
}

#[test]
fn what_was_there_before_the_first_apply_has_an_owner() {
    let mut c = config_map();
    c.live["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
    c.live["data"] = json!({"a": "1"});
    assert_eq!(
        c.conflicts("m", json!({"data": {"a": "2"}})),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a"
    );
    c.apply("m", json!({"data": {"b": "2"}}));
    assert_eq!(c.owners(), ["m Apply: .data.b", "before-first-apply Update: .data .data.a"]);
}

fn deployment() -> Case {
    Case::new("apps", "Deployment")
}

fn containers(list: Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": list}}}})
}

fn names(c: &Case, path: &str, key: &str) -> Vec<String> {
    let list = c.live.pointer(path).and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().map(|item| item[key].as_str().unwrap().to_owned()).collect()
}

const CONTAINERS: &str = "/spec/template/spec/containers";

#[test]
fn items_of_lists_are_found_by_their_keys() {
    let mut c = deployment();
    c.apply("one", containers(json!([{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}])));
    c.apply(
        "two",
        containers(json!([{"name": "s", "image": "s:1"}, {"name": "a", "env": [{"name": "X", "value": "1"}]}])),
    );
    assert_eq!(names(&c, CONTAINERS, "name"), ["s", "a", "b"]);
    assert_eq!(
        c.owners()[1],
        "two Apply: .spec.template.spec.containers[name=\"a\"] .spec.template.spec.containers[name=\"a\"].env[name=\"X\"] \
         .spec.template.spec.containers[name=\"a\"].env[name=\"X\"].name \
         .spec.template.spec.containers[name=\"a\"].env[name=\"X\"].value \
         .spec.template.spec.containers[name=\"a\"].name .spec.template.spec.containers[name=\"s\"] \
         .spec.template.spec.containers[name=\"s\"].image .spec.template.spec.containers[name=\"s\"].name"
    );
    c.apply("one", containers(json!([{"name": "b", "image": "b:2"}])));
    let a = json!({"name": "a", "env": [{"name": "X", "value": "1"}]});
    assert_eq!(c.live.pointer(CONTAINERS).unwrap()[1], a, "what the other one wants of it stays");
    c.apply("two", containers(json!([])));
    assert_eq!(names(&c, CONTAINERS, "name"), ["b"]);
}

#[test]
fn ports_have_a_default_protocol_in_their_key() {
    let mut c = Case::new("", "Service");
    c.apply(
        "one",
        json!({"spec": {"ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "web", "port": 53}]}}),
    );
    assert!(c.owners()[0].contains("[port=53,protocol=\"TCP\"].name"), "{:?}", c.owners());
    let error = c.conflicts("two", json!({"spec": {"ports": [{"name": "x", "port": 53, "protocol": "TCP"}]}}));
    assert_eq!(
        error,
        "Apply failed with 1 conflict: conflict with \"one\": .spec.ports[port=53,protocol=\"TCP\"].name"
    );
    let error = c.conflicts("two", json!({"spec": {"ports": [{"name": "x"}]}}));
    assert!(error.contains("omits key field \"port\" (and doesn't have default value)"), "{error}");
    let twice = json!({"spec": {"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}});
    let error = c.conflicts("two", twice);
    assert!(error.contains("duplicate entries for key [port=1,protocol=\"TCP\"]"), "{error}");
}

#[test]
fn sets_and_atomic_lists_and_maps() {
    let mut c = config_map();
    c.apply("one", json!({"metadata": {"finalizers": ["x/a", "x/b"]}}));
    c.apply("two", json!({"metadata": {"finalizers": ["x/c", "x/b"]}}));
    assert_eq!(c.live["metadata"]["finalizers"], json!(["x/a", "x/c", "x/b"]));
    c.apply("one", json!({"metadata": {"finalizers": ["x/a"]}}));
    c.apply("two", json!({"metadata": {"finalizers": []}}));
    assert_eq!(c.live["metadata"]["finalizers"], json!(["x/a"]));

    let mut c = deployment();
    c.apply("one", json!({"spec": {"selector": {"matchLabels": {"a": "1"}}}}));
    assert_eq!(c.owners(), ["one Apply: .spec.selector"], "a selector is one field");
    assert_eq!(
        c.conflicts("two", json!({"spec": {"selector": {"matchLabels": {"b": "1"}}}})),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.selector"
    );
    let args = |list: Value| containers(json!([{"name": "a", "args": list}]));
    c.apply("one", args(json!(["x", "y"])));
    let error = c.conflicts("two", args(json!(["x"])));
    assert!(error.ends_with("[name=\"a\"].args"), "{error}");
    c.force("two", args(json!(["z"])));
    assert_eq!(c.live.pointer(CONTAINERS).unwrap()[0]["args"], json!(["z"]));
}

#[test]
fn scaling_is_given_to_the_autoscaler() {
    let mut c = deployment();
    c.apply("user", json!({"spec": {"replicas": 1, "paused": true}}));
    c.update("hpa", json!({"spec": {"replicas": 5}}));
    assert_eq!(c.owners(), ["user Apply: .spec.paused", "hpa Update: .spec.replicas"]);
    c.apply("user", json!({"spec": {"paused": true}}));
    assert_eq!(c.live["spec"], json!({"replicas": 5, "paused": true}));
}

#[test]
fn status_is_nobodys_when_it_is_applied_with_the_rest() {
    let mut c = deployment();
    c.apply("user", json!({"spec": {"replicas": 1}, "status": {"replicas": 9}}));
    assert_eq!(c.owners(), ["user Apply: .spec.replicas"]);
}

#[test]
fn kubectl_takes_over_what_client_side_apply_has_written() {
    let mut c = config_map();
    let last =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "1", "b": "1"}});
    let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": last.to_string()});
    c.update(
        "kubectl-client-side-apply",
        json!({"metadata": {"annotations": annotations}, "data": {"a": "1", "b": "1"}}),
    );
    c.update("other", json!({"data": {"b": "2"}}));
    let error = c.conflicts("someone", json!({"data": {"a": "5"}}));
    assert_eq!(error, "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .data.a");
    let error = c.conflicts("kubectl", json!({"data": {"a": "5", "b": "5"}}));
    assert_eq!(error, "Apply failed with 1 conflict: conflict with \"other\" using v1: .data.b");
    assert!(c.apply("kubectl", json!({"data": {"a": "5"}})));
    assert_eq!(c.data(), &json!({"a": "5", "b": "2"}));
}

#[test]
fn too_many_updaters_are_put_together() {
    let mut c = config_map();
    for i in 0..14 {
        c.update(&format!("m{i:02}"), json!({"data": {format!("k{i:02}"): "1"}}));
    }
    let owners = c.owners();
    assert_eq!(owners.len(), 10, "{owners:?}");
    assert_eq!(owners[0], "ancient-changes Update: .data .data.k00 .data.k01 .data.k02 .data.k03 .data.k04");
    assert_eq!(owners[9], "m13 Update: .data.k13");
}

#[test]
fn managers_can_be_reset_and_written() {
    let mut c = config_map();
    c.apply("one", json!({"data": {"a": "1"}}));
    c.update("two", json!({"metadata": {"managedFields": [{}]}}));
    assert_eq!(c.owners(), Vec::<String>::new());
    c.apply("one", json!({"data": {"a": "1"}}));
    let mut list = c.list();
    list[0]["manager"] = json!("renamed");
    c.update("two", json!({"metadata": {"managedFields": list}}));
    assert_eq!(c.owners(), ["renamed Apply: .data.a"]);
    c.update("two", json!({"metadata": {"managedFields": [{"operation": "Guess"}]}}));
    assert_eq!(c.owners(), ["renamed Apply: .data.a"], "what makes no sense is not taken");
    let error = c.conflicts("one", json!({"metadata": {"managedFields": list}}));
    assert_eq!(error, "metadata.managedFields must be nil");
}

#[test]
fn system_fields_are_nobodys() {
    let mut c = config_map();
    c.update(
        "m",
        json!({"metadata": {"uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1,
        "resourceVersion": "5", "labels": {"a": "b"}}, "data": {"x": "y"}}),
    );
    assert_eq!(c.owners(), ["m Update: .data .data.x .metadata.labels .metadata.labels.a"]);
}

#[test]
fn a_list_with_an_item_twice_can_be_applied_to() {
    let mut c = deployment();
    let env = json!([{"name": "X", "value": "1"}, {"name": "X", "value": "2"}, {"name": "Y", "value": "1"}]);
    c.update("old", containers(json!([{"name": "a", "env": env}])));
    c.apply("new", containers(json!([{"name": "a", "env": [{"name": "Z", "value": "1"}]}])));
    let path = format!("{CONTAINERS}/0/env");
    assert_eq!(names(&c, &path, "name"), ["X", "X", "Y", "Z"]);
    c.force("new", containers(json!([{"name": "a", "env": [{"name": "X", "value": "3"}]}])));
    assert_eq!(names(&c, &path, "name"), ["X", "Y"]);
}
