//! House rules as an ordinary test: who may import whom, sizes, module docs, and what must not be in the tree.
#![allow(clippy::unwrap_used)]

mod exceptions;
mod graph;
mod source;

use std::path::PathBuf;

use exceptions::Exceptions;

/// One breach of a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    rule: &'static str,
    /// `path` or `path::function`.
    place: String,
    what: String,
}

impl Finding {
    fn new(rule: &'static str, place: impl Into<String>, what: impl Into<String>) -> Finding {
        Finding { rule, place: place.into(), what: what.into() }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Fails with all findings that no exception covers, and with the exceptions that nothing needs.
fn judge(rules: &[&str], findings: Vec<Finding>) {
    let exceptions = Exceptions::read(&root());
    let (open, unused) = exceptions.apply(rules, findings);
    let mut lines: Vec<String> = open.iter().map(|f| format!("{}: {}: {}", f.rule, f.place, f.what)).collect();
    lines.extend(unused.into_iter().map(|entry| format!("exception without need, remove it: {entry}")));
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

#[test]
fn crates_import_only_what_they_may() {
    judge(&["edge", "owner"], graph::edges(&root()));
}

#[test]
fn external_crates_are_used_by_their_owners_only() {
    judge(&["use"], source::foreign_uses(&root()));
}

#[test]
fn deliberate_faults_are_out_of_reach_of_the_program() {
    judge(&["fault"], source::deliberate_faults(&root()));
}

#[test]
fn dependencies_are_licensed_known_and_not_banned() {
    judge(&["license", "source", "ban"], graph::dependencies(&root()));
}

#[test]
fn sources_follow_the_house_rules() {
    judge(&["doc", "function", "file", "word", "path"], source::files(&root()));
}
