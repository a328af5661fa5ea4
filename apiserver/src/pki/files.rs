//! The key folder on disk: private (0700, keys 0600), written completely or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Pair, PkiError, SharedKeys};

pub(super) const SERVER: &str = "server";
pub(super) const PEER: &str = "peer";
pub(super) const KUBELET_CLIENT: &str = "kubelet-client";
pub(super) const ADMIN: &str = "admin";

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let path = path.to_path_buf();
    move |source| PkiError::File { doing, path, source }
}

/// Writes one file under a temporary name, syncs it and renames it into place.
fn write_file(path: &Path, content: &str, mode: u32) -> Result<(), PkiError> {
    let temporary = path.with_extension(format!(
        "{}.tmp{}",
        path.extension().and_then(|e| e.to_str()).unwrap_or_default(),
        std::process::id()
    ));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_dir(path)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        PkiError::File { doing: "cannot write", path: path.to_path_buf(), source }
    })
}

fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

/// Replaces a certificate and its key. The key goes first: with a new key the old certificate would be refused at load,
/// but callers that keep the key, as renewals do, cannot be caught in between.
pub(super) fn write_pair(dir: &Path, name: &str, pair: &Pair) -> Result<(), PkiError> {
    write_file(&dir.join(format!("{name}.key")), &pair.key_pem, 0o600)?;
    write_file(&dir.join(format!("{name}.crt")), &pair.cert_pem, 0o644)
}

/// Writes the whole folder beside its place and renames it.
pub(super) fn write_folder(dir: &Path, shared: &SharedKeys, pairs: &[(&str, &Pair)]) -> Result<(), PkiError> {
    let temporary = PathBuf::from(format!("{}.tmp", dir.display()));
    if temporary.exists() {
        fs::remove_dir_all(&temporary)
            .map_err(failed("cannot remove the remains of an earlier attempt", &temporary))?;
    }
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).map_err(failed("cannot create", parent))?;
    }
    fs::DirBuilder::new().mode(0o700).create(&temporary).map_err(failed("cannot create", &temporary))?;
    let files = [
        ("ca.crt", &shared.ca_crt, 0o644),
        ("ca.key", &shared.ca_key, 0o600),
        ("peer-ca.crt", &shared.peer_ca_crt, 0o644),
        ("peer-ca.key", &shared.peer_ca_key, 0o600),
        ("sa.key", &shared.sa_key, 0o600),
        ("sa.pub", &shared.sa_pub, 0o644),
    ];
    for (name, content, mode) in files {
        write_file(&temporary.join(name), content, mode)?;
    }
    for (name, pair) in pairs {
        write_pair(&temporary, name, pair)?;
    }
    fs::rename(&temporary, dir).map_err(failed("cannot rename the new key folder to", dir))?;
    sync_dir(dir).map_err(failed("cannot sync the folder of", dir))
}

fn read(dir: &Path, name: &str) -> Result<String, PkiError> {
    let path = dir.join(name);
    fs::read_to_string(&path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound if dir.exists() => {
            PkiError::Unusable { dir: dir.to_path_buf(), reason: format!("{name} is missing") }
        }
        _ => PkiError::File { doing: "cannot read", path, source },
    })
}

pub(super) fn read_pair(dir: &Path, name: &str) -> Result<Pair, PkiError> {
    Ok(Pair { cert_pem: read(dir, &format!("{name}.crt"))?, key_pem: read(dir, &format!("{name}.key"))? })
}

pub(super) fn read_shared(dir: &Path) -> Result<SharedKeys, PkiError> {
    Ok(SharedKeys {
        ca_crt: read(dir, "ca.crt")?,
        ca_key: read(dir, "ca.key")?,
        peer_ca_crt: read(dir, "peer-ca.crt")?,
        peer_ca_key: read(dir, "peer-ca.key")?,
        sa_key: read(dir, "sa.key")?,
        sa_pub: read(dir, "sa.pub")?,
    })
}
