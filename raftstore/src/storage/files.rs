//! Who a member is.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StorageError;
use super::disk::Disk;
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
    pub(crate) fn exists(disk: &Disk, dir: &Path) -> Result<bool, StorageError> {
        disk.exists(&dir.join(IDENTITY))
    }

    pub(crate) fn read(disk: &Disk, dir: &Path) -> Result<Self, StorageError> {
        let path = dir.join(IDENTITY);
        let text = disk.read(&path)?;
        let identity: Identity =
            serde_json::from_slice(&text).map_err(|e| StorageError::Damaged(format!("{}: {e}", path.display())))?;
        match identity.format {
            IDENTITY_FORMAT if identity.checksum == identity.sum() => Ok(identity),
            IDENTITY_FORMAT => Err(StorageError::Damaged(format!("{}: checksum mismatch", path.display()))),
            other => Err(StorageError::Damaged(format!("{}: unknown format {other}", path.display()))),
        }
    }

    pub(crate) fn write(&self, disk: &Disk, dir: &Path) -> Result<(), StorageError> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| StorageError::Damaged(e.to_string()))?;
        disk.write_whole(dir, IDENTITY, &text)
    }
}
