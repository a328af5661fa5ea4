//! Situations of server-side apply as text: writes in, objects and owners out. The files are `testdata/apply/*.txt`; with
//! `UPDATE_SCENARIOS` set, what comes out is written into them, to be read before it is believed.
//!
//! A step is one line: who writes, how, and what (YAML): `+` creates, `>` applies, `!>` applies with force, `~` updates by a
//! merge patch, `=` updates to the object given. `one@v2/status` writes in another version and through a sub-resource.
//! `schema later` changes the schema, `untracked` takes the owners away from an object that is there. What follows is the
//! object, then a line for each owner (`A` applies, `U` updates) with the step of its time and its fields; or `same` if
//! nothing is changed, or `error`.
#![allow(clippy::unwrap_used)]

use super::{FieldSet, Managers, Write, apply, managers, update};
use crate::schema::{List, ListType, Node, Property, Schemas, Strategy, Struct, TypeId};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::path::Path;

/// What the second version calls the fields of the first one.
const RENAMED: [(&str, &str); 3] = [("n", "number"), ("list", "items"), ("map", "entries")];

fn list(items: Node, keys: &[&'static str]) -> Node {
    let list_type = if keys.is_empty() { ListType::Set } else { ListType::Map };
    Node::List(Box::new(List { items, list_type, keys: keys.to_vec() }))
}

fn atomic_list(items: Node) -> Node {
    Node::List(Box::new(List { items, list_type: ListType::Atomic, keys: Vec::new() }))
}

fn map(values: Node) -> Node {
    Node::Map(Box::new(values))
}

fn structure(name: &str, fields: Vec<(&str, Node)>) -> Struct {
    let property = |(name, node): (&str, Node)| Property {
        name: name.into(),
        node,
        required: name == "must",
        strategy: Strategy::default(),
        atomic: name == "atomicMap" || name == "atomicHere",
    };
    let mut properties: Vec<Property> = fields.into_iter().map(property).collect();
    properties.sort_by(|a, b| a.name.cmp(&b.name));
    Struct { name: name.into(), properties, atomic: name == "Whole" }
}

const ITEM: TypeId = TypeId(3);
const NEST: TypeId = TypeId(4);

fn thing(name: &str, later: bool) -> Struct {
    let items =
        |keys: &[&'static str]| if later { atomic_list(Node::Struct(ITEM)) } else { list(Node::Struct(ITEM), keys) };
    let called = |first: &'static str| {
        let other = RENAMED.iter().find(|(field, _)| name == "Second" && *field == first);
        other.map_or(first, |(_, other)| *other)
    };
    structure(
        name,
        vec![
            ("apiVersion", Node::String),
            ("kind", Node::String),
            ("metadata", Node::Struct(TypeId(2))),
            (called("n"), Node::Int64),
            ("s", Node::String),
            ("b", Node::Bool),
            ("any", Node::Any),
            ("must", map(Node::String)),
            (called("map"), map(Node::String)),
            ("atomicMap", map(Node::String)),
            ("set", list(Node::String, &[])),
            ("numbers", list(Node::Int64, &[])),
            ("atomic", atomic_list(Node::String)),
            (called("list"), items(&["name"])),
            ("multi", list(Node::Struct(ITEM), &["name", "n"])),
            ("ports", list(Node::Struct(TypeId(5)), &["port", "protocol"])),
            ("nest", Node::Struct(NEST)),
            ("atomicHere", Node::Struct(NEST)),
            ("whole", Node::Struct(TypeId(6))),
            ("nests", map(Node::Struct(NEST))),
            ("lists", map(list(Node::Struct(ITEM), &["name"]))),
            ("status", Node::Struct(TypeId(7))),
        ],
    )
}

fn schemas(later: bool) -> Schemas {
    let meta = vec![
        ("name", Node::String),
        ("namespace", Node::String),
        ("uid", Node::String),
        ("generation", Node::Int64),
        ("resourceVersion", Node::String),
        ("creationTimestamp", Node::Time),
        ("labels", map(Node::String)),
        ("annotations", map(Node::String)),
        ("finalizers", list(Node::String, &[])),
    ];
    let item = || {
        vec![
            ("name", Node::String),
            ("n", Node::Int64),
            ("value", Node::String),
            ("set", list(Node::String, &[])),
            ("atomic", atomic_list(Node::String)),
            ("map", map(Node::String)),
            ("list", list(Node::Struct(ITEM), &["name"])),
        ]
    };
    let nest = || {
        vec![
            ("n", Node::Int64),
            ("s", Node::String),
            ("nest", Node::Struct(NEST)),
            ("map", map(Node::String)),
            ("set", list(Node::String, &[])),
            ("list", list(Node::Struct(ITEM), &["name"])),
        ]
    };
    let port = vec![("port", Node::Int64), ("protocol", Node::String), ("name", Node::String)];
    let status = vec![("n", Node::Int64), ("conditions", list(Node::Struct(ITEM), &["name"]))];
    Schemas::new(vec![
        structure("Anything", Vec::new()),
        thing("First", later),
        structure("Meta", meta),
        structure("Item", item()),
        structure("Nest", nest()),
        structure("Port", port),
        structure("Whole", nest()),
        structure("Status", status),
        thing("Second", later),
    ])
}

/// The object of a scenario.
struct Case {
    schemas: Schemas,
    live: Value,
    managers: Managers,
    step: usize,
}

fn convert(object: &Value, version: &str) -> Option<(Value, TypeId)> {
    let from_second = object["apiVersion"] == "v2";
    let id = match version {
        "v1" => TypeId(1),
        "v2" => TypeId(8),
        _ => return None,
    };
    let rename = |key: &str| {
        let pair = RENAMED.iter().find(|(first, second)| key == if from_second { *second } else { *first });
        match (pair, version) {
            (Some((first, _)), "v1") => (*first).to_owned(),
            (Some((_, second)), _) => (*second).to_owned(),
            (None, _) => key.to_owned(),
        }
    };
    let mut converted: Map<String, Value> =
        object.as_object()?.iter().map(|(key, value)| (rename(key), value.clone())).collect();
    converted.insert("apiVersion".into(), version.into());
    Some((Value::Object(converted), id))
}

/// Who writes, in which version, through which sub-resource, how, and what.
struct Step<'a> {
    manager: &'a str,
    version: &'a str,
    subresource: &'a str,
    how: &'a str,
    body: Value,
}

fn parse(line: &str) -> Step<'_> {
    let (head, body) = line.split_once(' ').unwrap_or((line, "{}"));
    let how = ["!>", ">", "~", "+", "="].into_iter().find(|how| head.ends_with(how));
    let how = how.unwrap_or_else(|| panic!("{line:?} is no step"));
    let who = head.strip_suffix(how).unwrap();
    let (who, subresource) = who.split_once('/').unwrap_or((who, ""));
    let (manager, version) = who.split_once('@').unwrap_or((who, "v1"));
    let body = serde_norway::from_str(body).unwrap_or_else(|e| panic!("{line:?}: {e}"));
    Step { manager, version, subresource, how, body }
}

impl Case {
    fn new() -> Self {
        Self { schemas: schemas(false), live: Value::Null, managers: Managers::default(), step: 0 }
    }

    fn in_version(&self, version: &str) -> Value {
        convert(&self.live, version).unwrap().0
    }

    fn full(version: &str, body: &Value) -> Value {
        let mut object = json!({"apiVersion": version, "kind": "Thing", "metadata": {"name": "x"}});
        for (key, value) in body.as_object().unwrap() {
            match (key.as_str(), value) {
                ("metadata", Value::Object(more)) => object["metadata"].as_object_mut().unwrap().extend(more.clone()),
                _ => object[key] = value.clone(),
            }
        }
        object
    }

    /// Answers what is shown of a step.
    fn run(&mut self, line: &str) -> String {
        self.step += 1;
        match line {
            "schema later" => {
                self.schemas = schemas(true);
                return String::new();
            }
            "untracked" => {
                self.managers = Managers::default();
                self.live["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
                self.live["metadata"]["uid"] = json!("u");
                return String::new();
            }
            _ => {}
        }
        let step = parse(line);
        let now = format!("2026-01-01T00:{:02}:{:02}Z", self.step / 60, self.step % 60);
        let ignored = match step.subresource {
            "status" => ["n", "s", "map", "set", "list", "nest", "must"].map(|name| FieldSet::of_fields(&[name])),
            _ => ["status"; 7].map(|name| FieldSet::of_fields(&[name])),
        };
        let ignored = ignored.iter().fold(FieldSet::default(), |all, one| all.union(one));
        let root = if step.version == "v2" { TypeId(8) } else { TypeId(1) };
        let write = Write {
            schemas: &self.schemas,
            root,
            version: step.version,
            manager: step.manager,
            subresource: step.subresource,
            now: &now,
            ignored: &ignored,
            convert: &convert,
        };
        let exists = !self.live.is_null();
        let old = if exists { self.in_version(step.version) } else { Self::full(step.version, &json!({})) };
        let managers = self.managers.clone();
        let done = match step.how {
            ">" | "!>" => {
                let applied = Self::full(step.version, &step.body);
                apply(&write, &old, managers, &applied, step.how == "!>")
            }
            how => {
                let mut new = if how == "~" { old.clone() } else { Self::full(step.version, &step.body) };
                if how == "~" {
                    json_patch::merge(&mut new, &step.body);
                }
                let brought = managers::take(&mut new);
                let old = if how == "+" { json!({}) } else { old };
                let after = update(&write, &old, &new, managers, brought.as_ref());
                after.map(|managers| Some((new, managers)))
            }
        };
        match done {
            Ok(None) => "  same\n".to_owned(),
            Ok(Some((object, managers))) => {
                (self.live, self.managers) = (object, managers);
                self.show()
            }
            Err(error) => format!("  error {}\n", error.to_string().replace('\n', " ")),
        }
    }

    fn show(&self) -> String {
        let mut object = self.live.clone();
        for key in ["apiVersion", "kind"] {
            crate::value::remove(&mut object, key);
        }
        crate::value::remove(&mut object["metadata"], "name");
        if object["metadata"] == json!({}) {
            crate::value::remove(&mut object, "metadata");
        }
        let mut out = format!("  {object}\n");
        let list = self.managers.to_json().unwrap_or(json!([]));
        for entry in list.as_array().unwrap() {
            let text = |key: &str| entry[key].as_str().unwrap_or_default();
            let subresource = if text("subresource").is_empty() { "" } else { "/" };
            let subresource = format!("{subresource}{}", text("subresource"));
            let (minutes, seconds) = text("time")[14..19].split_once(':').unwrap();
            let step = minutes.parse::<usize>().unwrap() * 60 + seconds.parse::<usize>().unwrap();
            let fields = FieldSet::from_json(&entry["fieldsV1"]).unwrap();
            let paths = fields.paths().join(" ");
            let (manager, operation) = (text("manager"), &text("operation")[..1]);
            writeln!(out, "  {manager}@{}{subresource} {operation}{step}: {paths}", text("apiVersion")).unwrap();
            assert_eq!(Managers::from_json(&list).unwrap(), self.managers, "what is written is read");
        }
        out
    }
}

/// Runs a file: answers it as it should be, and how many steps it has.
fn run(text: &str) -> (String, usize) {
    let (mut out, mut steps, mut case) = (String::new(), 0, Case::new());
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(out, "{line}").unwrap();
        if line.starts_with("==") {
            case = Case::new();
        } else if !line.is_empty() && !line.starts_with('#') {
            steps += 1;
            out.push_str(&case.run(line));
        }
    }
    (out, steps)
}

#[test]
fn scenarios_of_apply() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/apply");
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut all = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "txt")) {
        let text = std::fs::read_to_string(file).unwrap();
        let (new, steps) = run(&text);
        all += steps;
        if std::env::var_os("UPDATE_SCENARIOS").is_some() {
            std::fs::write(file, &new).unwrap();
            continue;
        }
        for (i, (want, got)) in text.lines().zip(new.lines()).enumerate() {
            assert_eq!(got, want, "{}:{}", file.display(), i + 1);
        }
        assert_eq!(new.lines().count(), text.lines().count(), "{}", file.display());
    }
    assert!(all >= 200, "only {all} steps were found");
}
