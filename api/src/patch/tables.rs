//! Tables of before, patch and after. The files are `testdata/patch/*.txt`; with `UPDATE_SCENARIOS` set, what comes out is
//! written into them, to be read before it is believed.
//!
//! `on {…}` is what the patches after it are applied to, each for itself; `on Deployment {…}` one of a kind, which strategic
//! merge patches need. What follows a patch is the outcome, or the error with its code.
#![allow(clippy::unwrap_used)]

use super::{json_patch, merge_patch, strategic_merge_patch};
use crate::catalogue::{Catalogue, Resource};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

/// What is patched.
struct Case {
    resource: Arc<Resource>,
    target: Value,
}

fn resource(kind: &str) -> Arc<Resource> {
    let catalogue = Catalogue::builtin();
    let found =
        ["", "apps", "networking.k8s.io", "batch"].iter().find_map(|group| catalogue.by_kind(group, "v1", kind));
    found.unwrap_or_else(|| panic!("no kind {kind}"))
}

fn yaml(text: &str) -> Value {
    serde_norway::from_str(text).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

impl Case {
    fn on(rest: &str) -> Self {
        let (kind, body) = match rest.split_once(' ') {
            Some((kind, body)) if kind.chars().all(char::is_alphanumeric) => (kind, body),
            _ => ("ConfigMap", rest),
        };
        Self { resource: resource(kind), target: yaml(body) }
    }

    fn patched(&self, line: &str) -> String {
        let (kind, body) = line.split_once(' ').unwrap_or((line, "null"));
        let (mut target, patch) = (self.target.clone(), yaml(body));
        let done = match kind {
            "json" => json_patch(&mut target, &patch),
            "merge" => merge_patch(&mut target, &patch),
            "strategic" => strategic_merge_patch(&self.resource, &mut target, &patch),
            _ => panic!("{line:?} is no patch"),
        };
        match done {
            Ok(()) => format!("  {target}\n"),
            Err(error) => {
                assert_eq!(target, self.target, "{line}: a patch that fails changes nothing");
                let status = error.status(&self.resource, "x").to_value();
                format!("  error {} {}\n", status["code"], error.to_string().replace('\n', " "))
            }
        }
    }
}

fn run(text: &str) -> (String, usize) {
    let (mut out, mut rows) = (String::new(), 0);
    let mut case = Case { resource: resource("ConfigMap"), target: json!({}) };
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(out, "{line}").unwrap();
        if let Some(rest) = line.strip_prefix("on ") {
            case = Case::on(rest);
        } else if !line.is_empty() && !line.starts_with(['#', '=']) {
            rows += 1;
            out.push_str(&case.patched(line));
        }
    }
    (out, rows)
}

#[test]
fn tables_of_patches() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/patch");
    let mut all = 0;
    for name in ["json", "merge", "strategic"] {
        let file = folder.join(format!("{name}.txt"));
        let text = std::fs::read_to_string(&file).unwrap();
        let (new, rows) = run(&text);
        all += rows;
        if std::env::var_os("UPDATE_SCENARIOS").is_some() {
            std::fs::write(&file, &new).unwrap();
            continue;
        }
        for (i, (want, got)) in text.lines().zip(new.lines()).enumerate() {
            assert_eq!(got, want, "{}:{}", file.display(), i + 1);
        }
        assert_eq!(new.lines().count(), text.lines().count(), "{}", file.display());
    }
    assert!(all >= 150, "only {all} rows were found");
}

#[test]
fn a_patch_has_at_most_ten_thousand_operations() {
    let operation = json!({"op": "test", "path": "/n", "value": 1});
    let patch = |count: usize| Value::from(vec![operation.clone(); count]);
    let mut target = json!({"n": 1});
    json_patch(&mut target, &patch(10_000)).unwrap();
    let error = json_patch(&mut target, &patch(10_001)).unwrap_err();
    let status = error.status(&resource("ConfigMap"), "x").to_value();
    assert_eq!((&status["code"], &status["reason"]), (&json!(413), &json!("RequestEntityTooLarge")));
    let why = "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001";
    assert_eq!(status["message"], why);
}

#[test]
fn long_lists_are_merged_in_time() {
    let items = |count: usize, from: usize| -> Vec<Value> {
        (from..from + count).map(|i| json!({"name": format!("v{i}"), "value": i.to_string()})).collect()
    };
    let pod = resource("Pod");
    let env = |env: Vec<Value>| json!({"spec": {"containers": [{"name": "c", "env": env}]}});
    let mut target = env(items(20_000, 0));
    let start = std::time::Instant::now();
    strategic_merge_patch(&pod, &mut target, &env(items(20_000, 10_000))).unwrap();
    assert_eq!(target["spec"]["containers"][0]["env"].as_array().unwrap().len(), 30_000);
    let finalizers = |from: usize| -> Value {
        json!({"metadata": {"finalizers": (from..from + 20_000).map(|i| format!("x/{i}")).collect::<Vec<_>>()}})
    };
    let mut target = finalizers(0);
    strategic_merge_patch(&pod, &mut target, &finalizers(10_000)).unwrap();
    assert_eq!(target["metadata"]["finalizers"].as_array().unwrap().len(), 30_000);
    // Looking for each item in the whole list takes minutes.
    assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", start.elapsed());
}
