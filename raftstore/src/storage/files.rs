//! Small files that have to be whole or absent: written beside, fsynced, renamed, directory fsynced.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StorageError;
use crate::codec;
use crate::types::MemberId;

/// How a member came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Origin {
    /// It founded the group.
    Bootstrap,
    /// It was admitted to one.
    Join,
    /// It began a lineage with what a backup held.
    Restore,
    /// It began a lineage with what it held itself.
    Recovery,
}

/// Who a member is; the file `member`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Version of this file.
    pub(crate) format: u32,
    pub(crate) id: MemberId,
    pub(crate) name: String,
    pub(crate) lineage: String,
    pub(crate) origin: Origin,
    /// Checksum of all that is above.
    #[serde(default)]
    pub(crate) checksum: u32,
}

/// Name of the file that says who a member is.
pub(super) const IDENTITY: &str = "member";
const IDENTITY_FORMAT: u32 = 2;

impl Identity {
    pub(crate) fn new(id: MemberId, name: &str, lineage: &str, origin: Origin) -> Self {
        let mut identity =
            Self { format: IDENTITY_FORMAT, id, name: name.into(), lineage: lineage.into(), origin, checksum: 0 };
        identity.checksum = identity.sum();
        identity
    }

    fn sum(&self) -> u32 {
        let Self { format, id, name, lineage, origin, .. } = self;
        codec::checksum(&[&codec::encode(&(format, id, name, lineage, origin))])
    }

    /// Whether a directory holds a member.
    pub(crate) fn exists(dir: &Path) -> Result<bool, StorageError> {
        let path = dir.join(IDENTITY);
        path.try_exists().map_err(|e| StorageError::io(path.display().to_string(), e))
    }

    pub(crate) fn read(dir: &Path) -> Result<Self, StorageError> {
        let path = dir.join(IDENTITY);
        let text = fs::read(&path).map_err(|e| StorageError::io(path.display().to_string(), e))?;
        let identity: Identity =
            serde_json::from_slice(&text).map_err(|e| StorageError::Damaged(format!("{}: {e}", path.display())))?;
        match identity.format {
            IDENTITY_FORMAT if identity.checksum == identity.sum() => Ok(identity),
            IDENTITY_FORMAT => Err(StorageError::Damaged(format!("{}: checksum mismatch", path.display()))),
            other => Err(StorageError::Damaged(format!("{}: unknown format {other}", path.display()))),
        }
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), StorageError> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| StorageError::Damaged(e.to_string()))?;
        write_whole(dir, IDENTITY, &text)
    }
}

/// Writes a file so that after a crash either the old or the new content is there, never something in between.
pub(crate) fn write_whole(dir: &Path, name: &str, content: &[u8]) -> Result<(), StorageError> {
    let temporary = dir.join(format!("{name}.tmp"));
    let what = |e| StorageError::io(dir.join(name).display().to_string(), e);
    let mut file = File::create(&temporary).map_err(what)?;
    file.write_all(content).map_err(what)?;
    file.sync_all().map_err(what)?;
    fs::rename(&temporary, dir.join(name)).map_err(what)?;
    sync_dir(dir)
}

/// Reads a file that may be absent.
pub(crate) fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StorageError::io(path.display().to_string(), e)),
    }
}

/// Makes names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StorageError> {
    let synced = File::open(dir).and_then(|d| d.sync_all());
    synced.map_err(|e| StorageError::io(dir.display().to_string(), e))
}

/// Creates a directory and its parents, durably.
pub(crate) fn create_dir(dir: &Path) -> Result<(), StorageError> {
    fs::create_dir_all(dir).map_err(|e| StorageError::io(dir.display().to_string(), e))?;
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        _ => Ok(()),
    }
}

/// Removes a directory if it is there.
pub(crate) fn remove_dir(dir: &Path) -> Result<(), StorageError> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(StorageError::io(dir.display().to_string(), e)),
        _ => Ok(()),
    }
}
