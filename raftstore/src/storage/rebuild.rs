//! A state that is damaged while log and vote are not: noted durably, then replaced by a new one at the next start.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StorageError;
use super::disk::Disk;
use super::records::MembersRecord;
use crate::codec;
use crate::types::MemberId;

/// File that says that the state must not be used any more, and why.
const MARKER: &str = "rebuild";

/// File with the addresses of the members: without its state a member knows of them only what its log still says.
const PEERS: &str = "peers";

type Addresses = BTreeMap<MemberId, String>;

#[derive(Serialize, Deserialize)]
struct PeersFile {
    addresses: Addresses,
    checksum: u32,
}

fn sum(addresses: &Addresses) -> u32 {
    let mut bytes = Vec::new();
    codec::append(&mut bytes, addresses);
    codec::checksum(&[&bytes])
}

/// Keeps the addresses of the members where they are found without the state.
pub(crate) fn remember(disk: &Disk, data_dir: &Path, members: &MembersRecord) -> Result<(), StorageError> {
    let addresses: Addresses = members.nodes.iter().map(|(id, info)| (*id, info.peer_address.clone())).collect();
    if addresses.is_empty() || addresses == remembered(disk, data_dir)? {
        return Ok(());
    }
    let file = PeersFile { checksum: sum(&addresses), addresses };
    let text = serde_json::to_vec_pretty(&file).map_err(|e| StorageError::Damaged(e.to_string()))?;
    disk.write_whole(data_dir, PEERS, &text)
}

/// The addresses that were kept; none if they are damaged.
pub(crate) fn remembered(disk: &Disk, data_dir: &Path) -> Result<Addresses, StorageError> {
    let text = disk.read_optional(&data_dir.join(PEERS))?.unwrap_or_default();
    let file = serde_json::from_slice::<PeersFile>(&text).ok();
    Ok(file.filter(|file| file.checksum == sum(&file.addresses)).map(|file| file.addresses).unwrap_or_default())
}

/// Notes that the state is damaged.
pub(crate) fn mark(disk: &Disk, data_dir: &Path, why: &str) -> Result<(), StorageError> {
    disk.write_whole(data_dir, MARKER, why.as_bytes())
}

/// Why the state has to be replaced, if it was noted.
pub(crate) fn marked(disk: &Disk, data_dir: &Path) -> Result<Option<String>, StorageError> {
    let content = disk.read_optional(&data_dir.join(MARKER))?;
    Ok(content.map(|why| String::from_utf8_lossy(&why).into_owned()))
}

/// The state was replaced.
pub(crate) fn done(disk: &Disk, data_dir: &Path) -> Result<(), StorageError> {
    disk.remove_file(&data_dir.join(MARKER))?;
    disk.sync_dir(data_dir)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::records::MemberInfo;
    use super::*;

    #[test]
    fn addresses_are_kept_and_damaged_ones_are_none() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::Real);
        assert!(remembered(&disk, dir.path()).unwrap().is_empty());
        let info = MemberInfo { peer_address: "h:2380".into(), ..MemberInfo::default() };
        let members = MembersRecord { nodes: [(3, info)].into(), ..MembersRecord::default() };
        remember(&disk, dir.path(), &members).unwrap();
        assert_eq!(remembered(&disk, dir.path()).unwrap(), Addresses::from([(3, "h:2380".into())]));
        let path = dir.path().join(PEERS);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("h:2380", "x:2380")).unwrap();
        assert!(remembered(&disk, dir.path()).unwrap().is_empty());
        remember(&disk, dir.path(), &members).unwrap();
        assert_eq!(remembered(&disk, dir.path()).unwrap().len(), 1);
    }
}
