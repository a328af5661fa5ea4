//! Scenarios of the state machine as text: the script in `testdata/*.txt` says what is applied, and the lines under
//! each command what comes out. `UPDATE_SCENARIOS=1` rewrites the files.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::*;
use crate::types::Txn;

#[derive(Default)]
struct Memory(BTreeMap<Bytes, Record>);

impl Base for Memory {
    type Error = std::convert::Infallible;

    fn record(&self, key: &[u8]) -> Result<Option<Record>, Self::Error> {
        Ok(self.0.get(key).cloned())
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn op(words: &[&str]) -> Op {
    match words {
        ["put", key, value] => Op::Put { key: bytes(key), value: bytes(value), expires_at_ms: None },
        ["put", key, value, at] => {
            Op::Put { key: bytes(key), value: bytes(value), expires_at_ms: Some(at.parse().unwrap()) }
        }
        ["delete", key] => Op::Delete { key: bytes(key) },
        ["get", key] => Op::Get { key: bytes(key) },
        other => panic!("operation {other:?}"),
    }
}

fn compare(words: &[&str]) -> Compare {
    match words {
        ["mod", key, revision] => Compare::ModRevision(bytes(key), revision.parse().unwrap()),
        ["create", key, revision] => Compare::CreateRevision(bytes(key), revision.parse().unwrap()),
        ["exists", key] => Compare::Exists(bytes(key)),
        ["absent", key] => Compare::Absent(bytes(key)),
        ["value", key, value] => Compare::Value(bytes(key), bytes(value)),
        other => panic!("compare {other:?}"),
    }
}

/// `txn if mod a 3; exists b then put a x; delete b else get a`, `compact 7`, `expire a@3 b@4`, …
fn command(line: &str) -> Command {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[0] {
        "txn" => {
            let mut txn = Txn::default();
            let mut part = "then";
            for word in words[1..].split_inclusive(|w| ["if", "then", "else"].contains(w) || w.ends_with(';')) {
                let (last, front) = word.split_last().unwrap();
                let end = last.trim_end_matches(';');
                let next = ["if", "then", "else"].contains(last).then_some(*last);
                let mut item = front.to_vec();
                if next.is_none() {
                    item.push(end);
                }
                item.retain(|w| !w.is_empty());
                if !item.is_empty() {
                    match part {
                        "if" => txn.compares.push(compare(&item)),
                        "then" => txn.then.push(op(&item)),
                        _ => txn.otherwise.push(op(&item)),
                    }
                }
                part = next.unwrap_or(part);
            }
            Command::Txn(txn)
        }
        "compact" => Command::Compact(words[1].parse().unwrap()),
        "expire" => {
            let key = |w: &&str| w.split_once('@').map(|(k, r)| (bytes(k), r.parse().unwrap())).unwrap();
            Command::Expire(words[1..].iter().map(key).collect())
        }
        "allocate" => Command::AllocateMember,
        "level" => Command::RaiseFeatureLevel(words[1].parse().unwrap()),
        other => panic!("command {other}"),
    }
}

fn text(kv: &KeyValue) -> String {
    let value = String::from_utf8_lossy(&kv.value);
    let key = String::from_utf8_lossy(&kv.key);
    format!("{key}={value} (created {}, changed {}, version {})", kv.create_revision, kv.mod_revision, kv.version)
}

fn describe(out: &mut String, outcome: &Outcome, changes: &[Change]) {
    match outcome {
        Outcome::Txn(response) => {
            let failed = response.failed_compare.map(|i| format!(", compare {i} failed")).unwrap_or_default();
            writeln!(out, "  succeeded {}{failed}, revision {}", response.succeeded, response.revision).unwrap();
            for result in &response.results {
                match result {
                    OpResult::Put { revision, create_revision } => {
                        writeln!(out, "  put at {revision}, created {create_revision}").unwrap()
                    }
                    OpResult::Delete { previous, revision } => {
                        let previous = previous.as_ref().map_or("nothing".into(), text);
                        writeln!(out, "  deleted at {revision}: {previous}").unwrap()
                    }
                    OpResult::Get(found) => {
                        writeln!(out, "  got {}", found.as_ref().map_or("nothing".into(), text)).unwrap()
                    }
                }
            }
        }
        other => writeln!(out, "  {other:?}").unwrap(),
    }
    for change in changes {
        let event = change.event();
        let kind = if event.deleted { "DELETE" } else { "PUT" };
        let more = if change.more { " …" } else { "" };
        let previous = event.previous.as_ref().map_or("nothing".into(), text);
        writeln!(out, "  {kind} {} before: {previous}{more}", text(&event.kv)).unwrap();
    }
}

/// Runs a script: commands at the beginning of a line; those between `batch` and `end` are applied as one batch.
fn run(script: &str) -> String {
    let (mut base, mut meta, mut out) = (Memory::default(), Meta::default(), String::new());
    let mut batch: Option<Vec<Command>> = None;
    for line in script.lines().filter(|l| !l.starts_with("  ")) {
        writeln!(out, "{line}").unwrap();
        match line.trim() {
            "" => continue,
            comment if comment.starts_with('#') => continue,
            "batch" => {
                batch = Some(Vec::new());
                continue;
            }
            "end" => {}
            other => match &mut batch {
                Some(commands) => {
                    commands.push(command(other));
                    continue;
                }
                None => batch = Some(vec![command(other)]),
            },
        }
        let mut applier = Applier::new(&base, meta.clone(), super::FEATURE_LEVEL);
        let mut from = 0;
        for command in batch.take().unwrap() {
            match applier.apply(command) {
                Ok(outcome) => describe(&mut out, &outcome, &applier.changes[from..]),
                Err(error) => writeln!(out, "  stops: {error}").unwrap(),
            }
            from = applier.changes.len();
        }
        let changes;
        (meta, changes) = applier.finish();
        for change in changes {
            match change.after {
                Some(record) => base.0.insert(change.key, record),
                None => base.0.remove(&change.key),
            };
        }
    }
    out
}

#[test]
fn scenarios() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut count = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let script = std::fs::read_to_string(&path).unwrap();
        let result = run(&script);
        if std::env::var_os("UPDATE_SCENARIOS").is_some() {
            std::fs::write(&path, &result).unwrap();
        } else {
            assert_eq!(script, result, "{} (UPDATE_SCENARIOS=1 rewrites it)", path.display());
        }
        count += 1;
    }
    assert!(count > 0, "no scenarios in {}", dir.display());
}
