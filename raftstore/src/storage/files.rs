//! Who a member is.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StorageError;
use super::disk::Disk;
use crate::codec::{self, CodecError};
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

/// Another version may say other things; which one it is, it says in any case.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// Name of the file that says who a member is.
pub(super) const IDENTITY: &str = "member";
const IDENTITY_FORMAT: u32 = 3;

impl Identity {
    pub(crate) fn new(id: MemberId, name: &str, lineage: &str, origin: Origin) -> Self {
        let mut identity =
            Self { format: IDENTITY_FORMAT, id, name: name.into(), lineage: lineage.into(), origin, checksum: 0 };
        identity.checksum = identity.sum();
        identity
    }

    fn sum(&self) -> u32 {
        let Self { format, id, name, lineage, origin, .. } = self;
        let mut bytes = Vec::new();
        // Without the version of records: who a member is does not change with that.
        codec::append(&mut bytes, &(format, id, name, lineage, origin));
        codec::checksum(&[&bytes])
    }

    /// Whether a directory holds a member.
    pub(crate) fn exists(disk: &Disk, dir: &Path) -> Result<bool, StorageError> {
        disk.exists(&dir.join(IDENTITY))
    }

    pub(crate) fn read(disk: &Disk, dir: &Path) -> Result<Self, StorageError> {
        let path = dir.join(IDENTITY);
        let text = disk.read(&path)?;
        let damaged = |what: String| StorageError::Damaged(format!("{}: {what}", path.display()));
        let Version { format } = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
        let identity = serde_json::from_slice::<Identity>(&text).map_err(|e| damaged(e.to_string()));
        let is_whole = |identity: &Identity| identity.checksum == identity.sum();
        if format == IDENTITY_FORMAT {
            let identity = identity?;
            return if is_whole(&identity) { Ok(identity) } else { Err(damaged("checksum mismatch".into())) };
        }
        // The number alone may be what is damaged.
        if identity.is_ok_and(|identity| is_whole(&Identity { format: IDENTITY_FORMAT, ..identity })) {
            return Err(damaged(format!("it says that its format is {format}")));
        }
        let source = CodecError::UnknownVersion(format, IDENTITY_FORMAT);
        Err(StorageError::other_version(path.display().to_string(), source))
    }

    /// As a later version might have written it.
    #[cfg(test)]
    pub(crate) fn newer(mut self) -> Self {
        self.format += 1;
        self.checksum = self.sum();
        self
    }

    pub(crate) fn write(&self, disk: &Disk, dir: &Path) -> Result<(), StorageError> {
        let text = serde_json::to_vec_pretty(self).map_err(|e| StorageError::Damaged(e.to_string()))?;
        disk.write_whole(dir, IDENTITY, &text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn another_version_is_told_from_damage() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::Real);
        let identity = Identity::new(7, "m", "l", Origin::Join);
        let path = dir.path().join(IDENTITY);
        let found = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Identity::read(&disk, dir.path()).map(drop).unwrap_err()
        };
        identity.write(&disk, dir.path()).unwrap();
        assert_eq!(Identity::read(&disk, dir.path()).unwrap(), identity);
        let text = std::fs::read_to_string(&path).unwrap();
        let other = |format: u32| text.replace("\"format\": 3", &format!("\"format\": {format}"));
        // Only the number is another one: the checksum says that it was not written like that.
        for damaged in [other(4), other(2), text.replace("\"id\": 7", "\"id\": 5"), text.replace('}', "")] {
            assert_ne!(damaged, text);
            assert!(found(&damaged).is_damage(), "{damaged}");
        }
        let newer = found(r#"{"format": 4, "who": "m"}"#);
        assert!(
            !newer.is_damage() && newer.to_string().contains("newer version (4; this one reads up to 3)"),
            "{newer}"
        );
        let older = found(r#"{"format": 1, "id": 7, "name": "m"}"#);
        assert!(!older.is_damage() && older.to_string().contains("older version"), "{older}");
    }
}
