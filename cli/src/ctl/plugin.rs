//! Plugins: programs on the `PATH` named `kubectl-…` (or `trictl-…`) whose verbs become trictl's.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use clap::{Args, Command, Subcommand};

use super::errors::{CtlError, Result};
use super::print::{emit, os_reason};

/// What file names of plugins begin with.
const PREFIXES: [&str; 2] = ["trictl", "kubectl"];

/// What to do with plugins.
#[derive(Debug, Clone, Subcommand)]
pub enum Plugin {
    /// List all visible plugin executables on a user's PATH
    List(ListArgs),
}

/// `plugin list`
#[derive(Debug, Clone, Default, Args)]
pub struct ListArgs {
    /// Ignored
    #[arg(hide = true)]
    pub words: Vec<String>,
    /// Only the names, not the paths
    #[arg(long)]
    pub name_only: bool,
}

/// Folders of the `PATH`, each once.
fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<PathBuf> = Vec::new();
    for folder in std::env::split_paths(&path) {
        if !folder.as_os_str().is_empty() && !all.contains(&folder) {
            all.push(folder);
        }
    }
    all
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Runs a plugin in place of this process if the words mean one; comes back only if they do not, or it cannot be run.
pub fn take_over(command: &Command, words: &[OsString]) -> Result<()> {
    let texts: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let Some(first) = texts.first().filter(|first| !first.starts_with('-')) else { return Ok(()) };
    let (texts, at_least) = match command.find_subcommand(first) {
        None if first == "help" || first.starts_with("__") => return Ok(()),
        None => (texts.as_slice(), 1),
        // As with kubectl, of the built-in verbs only this can be extended.
        Some(create) if first == "create" => match texts.get(1) {
            Some(kind) if !kind.starts_with('-') && create.find_subcommand(kind).is_none() => (texts.as_slice(), 2),
            _ => return Ok(()),
        },
        Some(_) => return Ok(()),
    };
    let Some((program, used)) = find(texts, at_least, &folders()) else { return Ok(()) };
    let error = std::process::Command::new(&program).args(&words[used..]).exec();
    Err(CtlError::plain(format!("cannot run the plugin {}: {}", program.display(), os_reason(&error))))
}

/// The program whose name has the most words, and how many it has.
fn find(words: &[String], at_least: usize, folders: &[PathBuf]) -> Option<(PathBuf, usize)> {
    let leading: Vec<String> =
        words.iter().take_while(|word| !word.starts_with('-')).map(|word| word.replace('-', "_")).collect();
    for count in (at_least..=leading.len()).rev() {
        for prefix in PREFIXES {
            let name = format!("{prefix}-{}", leading[..count].join("-"));
            // A name with a slash would leave the folder.
            let mut paths = folders.iter().filter(|_| !name.contains('/')).map(|folder| folder.join(&name));
            if let Some(found) = paths.find(|path| is_executable(path)) {
                return Some((found, count));
            }
        }
    }
    None
}

/// Runs the verb.
pub fn run(command: &Command, verb: &Plugin) -> Result<()> {
    let Plugin::List(args) = verb;
    let (mut seen, mut warnings, mut any) = (BTreeMap::new(), 0, false);
    for folder in folders() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                let folder = folder.display().to_string();
                let why = os_reason(&error);
                eprintln!("Unable to read directory {folder:?} from your PATH: open {folder}: {why}. Skipping...");
                continue;
            }
        };
        let mut files: Vec<_> =
            entries.flatten().filter(|entry| !entry.file_type().is_ok_and(|kind| kind.is_dir())).collect();
        files.sort_by_key(std::fs::DirEntry::file_name);
        for file in files {
            let name = file.file_name().to_string_lossy().into_owned();
            if !PREFIXES.iter().any(|prefix| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-'))) {
                continue;
            }
            if !std::mem::replace(&mut any, true) {
                emit("The following compatible plugins are available:\n\n")?;
            }
            let path = file.path().display().to_string();
            emit(&format!("{}\n", if args.name_only { &name } else { &path }))?;
            for warning in verify(command, &path, &name, &mut seen) {
                eprintln!("  - {warning}");
                warnings += 1;
            }
        }
    }
    let mut failures = String::new();
    if !any {
        failures.push_str("error: unable to find any kubectl plugins in your PATH\n");
    }
    match warnings {
        0 => {}
        1 => failures.push_str("error: one plugin warning was found\n"),
        count => failures.push_str(&format!("error: {count} plugin warnings were found\n")),
    }
    if failures.is_empty() { Ok(()) } else { Err(CtlError::bare(failures.trim_end().to_owned())) }
}

/// What keeps a plugin from being run.
fn verify(command: &Command, path: &str, name: &str, seen: &mut BTreeMap<String, String>) -> Vec<String> {
    let mut warnings = Vec::new();
    if !is_executable(Path::new(path)) {
        warnings.push(format!("warning: {path} identified as a kubectl plugin, but it is not executable"));
    }
    match seen.get(name) {
        Some(other) => {
            warnings.push(format!("warning: {path} is overshadowed by a similarly named plugin: {other}"));
        }
        None => {
            seen.insert(name.to_owned(), path.to_owned());
        }
    }
    // What a built-in verb does not know is its argument, as far as kubectl can tell.
    let (mut here, mut full) = (command, command.get_name().to_owned());
    for word in name.split('-').skip(1) {
        let Some(next) = here.find_subcommand(word) else { break };
        full = format!("{full} {}", next.get_name());
        here = next;
    }
    if here.get_name() != command.get_name() {
        warnings.push(format!("warning: {name} overwrites existing command: {full:?}"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_longest_name_wins() {
        let folder = tempfile::tempdir().unwrap();
        for (name, mode) in [("kubectl-foo", 0o755), ("kubectl-foo-bar_baz", 0o755), ("kubectl-plain", 0o644)] {
            let path = folder.path().join(name);
            std::fs::write(&path, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let folders = [folder.path().to_owned()];
        let found = |line: &str, least| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            find(&words, least, &folders).map(|(path, used)| (path.file_name().unwrap().to_owned(), used))
        };
        assert_eq!(found("foo x", 1), Some(("kubectl-foo".into(), 1)));
        assert_eq!(found("foo bar-baz x --y", 1), Some(("kubectl-foo-bar_baz".into(), 2)));
        assert_eq!(found("foo --x bar-baz", 1), Some(("kubectl-foo".into(), 1)));
        assert_eq!(found("plain", 1), None);
        assert_eq!(found("foo", 2), None);
        assert_eq!(found("../foo", 1), None);
    }

    #[test]
    fn what_is_wrong_with_plugins_is_told() {
        let command = Command::new("trictl").subcommand(Command::new("get"));
        let mut seen = BTreeMap::new();
        let said = verify(&command, "/nope/kubectl-get", "kubectl-get", &mut seen);
        assert_eq!(said.len(), 2);
        assert_eq!(said[1], "warning: kubectl-get overwrites existing command: \"trictl get\"");
        assert_eq!(verify(&command, "/nope/kubectl-get-x", "kubectl-get-x", &mut seen).len(), 2);
        let again = verify(&command, "/other/kubectl-get", "kubectl-get", &mut seen);
        assert!(again[1].contains("overshadowed by a similarly named plugin: /nope/kubectl-get"));
    }
}
