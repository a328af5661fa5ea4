//! Rules about source files.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Finding;

const FUNCTION_LINES: usize = 70;
const FILE_LINES: usize = 600;

/// Where an external crate may be named: folders, each with a reason in the design.
const USES: &[(&str, &[&str])] = &[
    ("rocksdb", &["raftstore/src/storage"]),
    ("openraft", &["raftstore/"]),
    ("libcontainer", &["nodeagent/src/runtime", "nodeagent/src/shim"]),
    ("axum", &["apiserver/", "raftstore/src/network", "raftstore/src/bin", "nodeagent/src/server"]),
];

/// Folders that may name the store's deliberate faults. Whatever goes into the shipped program is not among them, the store
/// itself aside.
const FAULTS: &[&str] = &["raftstore/src/", "raftstore/examples/", "chaos-tests/"];

/// Files that git tracks, or would if they were added.
fn tracked(root: &Path) -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = output.stdout.split(|b| *b == 0).filter(|name| !name.is_empty());
    let paths = names.map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned()));
    paths.filter(|path| root.join(path).is_file()).collect()
}

fn rust_files(root: &Path) -> Vec<(String, String)> {
    let paths = tracked(root).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    paths.map(|path| (path.display().to_string(), std::fs::read_to_string(root.join(&path)).unwrap())).collect()
}

/// External crates named outside the folders that own them.
pub fn foreign_uses(root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in rust_files(root) {
        // Tests may speak to anything.
        if path.contains("/tests/") || path.contains("/examples/") || path.ends_with("tests.rs") {
            continue;
        }
        let code = blank(&text);
        for (external, folders) in USES {
            let owned = folders.iter().any(|folder| {
                path.strip_prefix(folder).is_some_and(|rest| folder.ends_with('/') || rest.starts_with(['/', '.']))
            });
            if !owned && mentions(&code, &format!("{external}::")) {
                findings.push(Finding::new("use", &path, format!("{external} belongs to {}", folders.join(", "))));
            }
        }
    }
    findings
}

/// Places outside the tests from which the store's deliberate faults could be turned on.
pub fn deliberate_faults(root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in rust_files(root) {
        let code = blank(&text);
        let named = ["faults::", "Faults", ".faults"].into_iter().find(|word| mentions(&code, word));
        if let Some(word) = named.filter(|_| !FAULTS.iter().any(|folder| path.starts_with(folder))) {
            findings.push(Finding::new("fault", &path, format!("names {word}, which only tests may")));
        }
        // Within the store nobody turns one on: that is the test server's business.
        let sets = code.contains("faults.set(") || code.contains("Faults {") && !code.contains("impl Faults {");
        if path.starts_with("raftstore/src/") && !path.ends_with("/faults.rs") && sets {
            findings.push(Finding::new("fault", &path, "turns on a deliberate fault"));
        }
    }
    findings
}

/// Whether a word occurs that is not the end of a longer one.
fn mentions(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// Module docs, sizes, words and paths.
pub fn files(root: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in rust_files(root) {
        if !text.starts_with("//!") {
            findings.push(Finding::new("doc", &path, "does not begin with a module doc (//!)"));
        }
        let lines = text.lines().count();
        if lines > FILE_LINES {
            findings.push(Finding::new("file", &path, format!("{lines} lines, more than {FILE_LINES}")));
        }
        for (name, length) in functions(&blank(&text)) {
            if length > FUNCTION_LINES {
                let place = format!("{path}::{name}");
                findings.push(Finding::new("function", place, format!("{length} lines, more than {FUNCTION_LINES}")));
            }
        }
    }
    findings.extend(words(root));
    findings
}

/// Reminders left in the text, and what would tie the tree to one machine.
fn words(root: &Path) -> Vec<Finding> {
    // Put together here, so that this file does not contain them.
    let reminders = [concat!("FIX", "ME"), concat!("XX", "X:"), concat!("TO", "DO:"), concat!("TO", "DO(")];
    let home = std::env::var("HOME").unwrap_or_default();
    let mut places = vec![root.display().to_string(), home.clone()];
    places.extend(mirrors(Path::new(&home)));
    // Words such as "/root" and "/" are part of ordinary texts.
    places.retain(|place| place.len() > 6);
    let mut findings = Vec::new();
    for path in tracked(root) {
        let Ok(text) = std::fs::read_to_string(root.join(&path)) else { continue };
        let shown = path.display().to_string();
        for reminder in reminders.iter().filter(|reminder| text.contains(*reminder)) {
            findings.push(Finding::new("word", &shown, format!("contains {reminder}")));
        }
        for place in places.iter().filter(|place| text.contains(place.as_str())) {
            findings.push(Finding::new("path", &shown, format!("contains {place}")));
        }
    }
    findings
}

/// Hosts of registries that this machine uses in place of the public one.
fn mirrors(home: &Path) -> Vec<String> {
    let cargo = std::env::var("CARGO_HOME").map_or_else(|_| home.join(".cargo"), PathBuf::from);
    let config = std::fs::read_to_string(cargo.join("config.toml")).unwrap_or_default();
    let hosts = config.split("://").skip(1).filter_map(|rest| rest.split(['/', '"', ':']).next());
    let hosts = hosts.map(|host| host.rsplit('@').next().unwrap_or(host).to_owned());
    hosts.filter(|host| !host.ends_with("crates.io") && !host.ends_with("github.com")).collect()
}

/// Functions of a blanked source with their length in lines.
fn functions(code: &str) -> Vec<(String, usize)> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_') {
            continue;
        }
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            continue;
        }
        if let Some(end) = body_end(bytes, at) {
            found.push((name, code[at..end].matches('\n').count() + 1));
        }
    }
    found
}

/// Where the body that begins after `at` ends; `None` for a declaration without one.
fn body_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut round = 0i32;
    let mut curly = 0i32;
    for (offset, byte) in bytes[at..].iter().enumerate() {
        match byte {
            b'(' | b'[' => round += 1,
            b')' | b']' => round -= 1,
            b';' if round == 0 && curly == 0 => return None,
            b'{' => curly += 1,
            b'}' => {
                curly -= 1;
                if curly == 0 {
                    return Some(at + offset);
                }
                if curly < 0 {
                    return None;
                }
            }
            _ => {}
        }
    }
    None
}

/// The source with comments, strings and character literals blanked; line breaks stay.
fn blank(text: &str) -> String {
    let source: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < source.len() {
        let end = skip(&source, at);
        if end == at {
            out.push(source[at]);
            at += 1;
        } else {
            out.extend(source[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The end of the comment or literal that begins at `at`; `at` itself if none does.
fn skip(source: &[char], at: usize) -> usize {
    let rest = &source[at..];
    let word = at > 0 && (source[at - 1].is_alphanumeric() || source[at - 1] == '_');
    let find = |from: usize, wanted: &[char]| -> usize {
        let tail = source.get(from..).unwrap_or_default();
        tail.windows(wanted.len()).position(|w| w == wanted).map_or(source.len(), |p| from + p + wanted.len())
    };
    match rest {
        ['/', '/', ..] => rest.iter().position(|c| *c == '\n').map_or(source.len(), |p| at + p),
        ['/', '*', ..] => find(at + 2, &['*', '/']),
        ['r', '"', ..] if !word => find(at + 2, &['"']),
        ['r', '#', ..] if !word => {
            let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
            if rest.get(1 + hashes) != Some(&'"') {
                return at;
            }
            let mut wanted = vec!['"'];
            wanted.extend(std::iter::repeat_n('#', hashes));
            find(at + 2 + hashes, &wanted)
        }
        ['"', ..] => string_end(source, at),
        ['\'', '\\', ..] => find(at + 3, &['\'']),
        ['\'', _, '\'', ..] => at + 3,
        _ => at,
    }
}

fn string_end(source: &[char], at: usize) -> usize {
    let mut end = at + 1;
    while end < source.len() {
        match source[end] {
            '\\' => end += 2,
            '"' => return end + 1,
            _ => end += 1,
        }
    }
    source.len()
}

#[test]
fn functions_are_measured() {
    let source = "fn a() {\n  let x = \"}\";\n  // }\n  let c = '}';\n}\ntrait T { fn b(&self); fn c() -> [u8; 3] { [0; 3] } }\n\
                  fn d<'a>(x: &'a str) -> R where R: Fn() {\n  r#\"}\"# ; '\\'';\n}\n";
    let found = functions(&blank(source));
    assert_eq!(found, vec![("a".into(), 5), ("c".into(), 1), ("d".into(), 3)]);
}

#[test]
fn words_are_whole() {
    assert!(mentions("use rocksdb::DB;", "rocksdb::"));
    assert!(!mentions("use my_rocksdb::DB;", "rocksdb::"));
}
