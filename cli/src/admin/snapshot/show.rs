//! `trireme snapshot status` and `list`: what is in a snapshot, once all of its checksums have been verified.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use trireme_raftstore::BackupInfo;
use trireme_raftstore::backup::{self, Ancestor, BackupMember};

use super::{size, time};
use crate::admin::member::Output;
use crate::admin::table;

/// The first five keys are those of `etcdutl snapshot status -w json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    hash: u32,
    revision: u64,
    total_key: u64,
    total_size: u64,
    version: &'a str,
    format: u32,
    content_size: u64,
    sha256: &'a str,
    lineage: &'a str,
    ancestors: &'a [Ancestor],
    compact_revision: u64,
    raft_term: u64,
    raft_index: u64,
    taken_by: &'a str,
    taken_at: String,
    members: &'a [BackupMember],
}

fn shown(info: &BackupInfo) -> Shown<'_> {
    let (header, summary) = (&info.header, &info.summary);
    Shown {
        hash: summary.hash,
        revision: header.revision,
        total_key: summary.keys,
        total_size: info.file_bytes,
        version: &header.version,
        format: header.format,
        content_size: summary.content_bytes,
        sha256: &summary.sha256,
        lineage: &header.lineage,
        ancestors: &header.ancestors,
        compact_revision: header.compacted,
        raft_term: header.term,
        raft_index: header.index,
        taken_by: &header.taken_by,
        taken_at: time(header.taken_at_ms),
        members: &header.members,
    }
}

const COLUMNS: [&str; 8] =
    ["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION", "LINEAGE", "TAKEN BY", "TAKEN AT"];

fn row(info: &BackupInfo) -> Vec<String> {
    let (header, summary) = (&info.header, &info.summary);
    vec![
        format!("{:08x}", summary.hash),
        header.revision.to_string(),
        summary.keys.to_string(),
        size(info.file_bytes),
        header.version.clone(),
        header.lineage.clone(),
        header.taken_by.clone(),
        time(header.taken_at_ms),
    ]
}

pub fn one(file: &Path, output: Output) -> anyhow::Result<()> {
    let info = backup::verify(file).with_context(|| format!("{}", file.display()))?;
    match output {
        Output::Json => table::json(&shown(&info))?,
        Output::Table => table::print(&COLUMNS, &[row(&info)]),
    }
    Ok(())
}

/// What is in files, but for those that retention has removed meanwhile.
fn verified(files: Vec<PathBuf>) -> Vec<(PathBuf, Result<BackupInfo, backup::BackupError>)> {
    let gone = |path: &Path| path.symlink_metadata().is_err_and(|e| e.kind() == ErrorKind::NotFound);
    let all = files.into_iter().map(|path| (backup::verify(&path), path));
    all.filter(|(found, path)| found.is_ok() || !gone(path)).map(|(found, path)| (path, found)).collect()
}

/// Whether it is the folder of a master that has taken no snapshot: it is made with the first one.
fn none_yet(dir: &Path) -> bool {
    dir.parent().is_some_and(|master| ["store", "pki"].iter().all(|part| master.join(part).is_dir()))
}

pub fn all(dir: &Path, output: Output) -> anyhow::Result<()> {
    let entries =
        match std::fs::read_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound && none_yet(dir) => None,
            entries => Some(entries.with_context(|| {
                format!("cannot read {}, where the snapshots are looked for (--dir)", dir.display())
            })?),
        };
    let mut files: Vec<_> = entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == crate::master::SNAPSHOT_EXTENSION));
    files.sort();
    let verified = verified(files);
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match output {
        Output::Json => {
            let list: Vec<_> = verified
                .iter()
                .map(|(path, found)| match found {
                    Ok(info) => serde_json::json!({"file": path, "sound": true, "status": shown(info)}),
                    Err(error) => serde_json::json!({"file": path, "sound": false, "error": error.to_string()}),
                })
                .collect();
            table::json(&list)?;
        }
        Output::Table if verified.is_empty() => {
            println!("no snapshots (*.{}) in {}", crate::master::SNAPSHOT_EXTENSION, dir.display());
        }
        Output::Table => {
            let sound = verified.iter().filter_map(|(path, found)| Some((path, found.as_ref().ok()?)));
            let rows: Vec<_> = sound.map(|(path, info)| [vec![name(path)], row(info)].concat()).collect();
            let mut columns = vec!["FILE"];
            columns.extend(COLUMNS);
            table::print(&columns, &rows);
        }
    }
    let unsound: Vec<_> = verified
        .iter()
        .filter_map(|(path, found)| Some(format!("{}: {}", name(path), found.as_ref().err()?)))
        .collect();
    anyhow::ensure!(unsound.is_empty(), "cannot be used: {}", unsound.join("; "));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_removed_meanwhile_is_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        let (torn, gone) = (dir.path().join("torn.snapshot"), dir.path().join("gone.snapshot"));
        std::fs::write(&torn, "TRIREME-SNAPSHOT").unwrap();
        let left: Vec<_> = verified(vec![gone, torn.clone()]).into_iter().map(|(path, _)| path).collect();
        assert_eq!(left, [torn]);
    }

    #[test]
    fn a_list_with_what_cannot_be_used_fails_and_names_it() {
        let dir = tempfile::tempdir().unwrap();
        all(dir.path(), Output::Table).unwrap();
        std::fs::write(dir.path().join("notes.txt"), "no snapshot").unwrap();
        all(dir.path(), Output::Json).unwrap();
        std::fs::write(dir.path().join("torn.snapshot"), "TRIREME-SNAPSHOT").unwrap();
        for output in [Output::Table, Output::Json] {
            let error = all(dir.path(), output).unwrap_err().to_string();
            assert!(error.contains("cannot be used: torn.snapshot: the snapshot is cut off"), "{error}");
        }
        let absent = all(&dir.path().join("absent"), Output::Table).unwrap_err().to_string();
        assert!(absent.contains("--dir"), "{absent}");
        // But a master that has taken none yet has no such folder.
        for part in ["store", "pki"] {
            std::fs::create_dir(dir.path().join(part)).unwrap();
        }
        for output in [Output::Table, Output::Json] {
            all(&dir.path().join("snapshots"), output).unwrap();
        }
    }
}
