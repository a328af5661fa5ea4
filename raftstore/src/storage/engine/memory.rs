//! Ordered maps in memory, for simulations. A flush writes all of them into one file, whole or not at all; what came after it
//! is lost in a crash, as it is with RocksDB without its write-ahead log.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes};
use parking_lot::Mutex;

use super::{Family, Measure, cf};
use crate::codec::{self, CodecError};
use crate::storage::disk::Disk;
use crate::storage::{StorageError, keys};

/// The file with everything.
const FILE: &str = "maps";

type Map = BTreeMap<Bytes, Bytes>;
type Maps = [Map; cf::ALL.len()];

/// A database.
pub(crate) struct Memory {
    disk: Disk,
    path: PathBuf,
    /// Copied when it is written to while somebody looks at it.
    maps: Mutex<Arc<Maps>>,
    /// Rows of history below this revision may go.
    floor: Arc<AtomicU64>,
}

/// The maps at one moment.
pub(crate) struct View(Arc<Maps>);

/// A place in one of them.
pub(crate) struct Cursor {
    maps: Arc<Maps>,
    family: Family,
    end: Option<Vec<u8>>,
    at: Option<(Bytes, Bytes)>,
}

/// Changes for them.
#[derive(Default)]
pub(crate) struct Batch(Vec<Change>);

enum Change {
    Put(Family, Bytes, Bytes),
    Delete(Family, Bytes),
}

fn encode(maps: &Maps) -> Vec<u8> {
    let mut out = vec![0; 4];
    for map in maps {
        out.put_u32(map.len() as u32);
        for part in map.iter().flat_map(|(key, value)| [key, value]) {
            out.put_u32(part.len() as u32);
            out.extend_from_slice(part);
        }
    }
    let sum = codec::checksum(&[&out[4..]]);
    out[..4].copy_from_slice(&sum.to_be_bytes());
    out
}

fn number(bytes: &mut Bytes) -> Result<usize, CodecError> {
    let number = bytes.first_chunk::<4>().map(|n| u32::from_be_bytes(*n) as usize).ok_or(CodecError::Truncated)?;
    *bytes = bytes.slice(4..);
    Ok(number)
}

fn part(bytes: &mut Bytes) -> Result<Bytes, CodecError> {
    let size = number(bytes)?;
    if bytes.len() < size { Err(CodecError::Truncated) } else { Ok(bytes.split_to(size)) }
}

fn decode(content: Vec<u8>) -> Result<Maps, CodecError> {
    let mut bytes = Bytes::from(content);
    let sum = number(&mut bytes)?;
    if sum != codec::checksum(&[&bytes]) as usize {
        return Err(CodecError::Checksum("the state"));
    }
    let mut maps = Maps::default();
    for map in &mut maps {
        for _ in 0..number(&mut bytes)? {
            map.insert(part(&mut bytes)?, part(&mut bytes)?);
        }
    }
    Ok(maps)
}

impl Memory {
    pub(super) fn open(disk: &Disk, path: &Path, create: bool, floor: Arc<AtomicU64>) -> Result<Self, StorageError> {
        let content = disk.read_optional(&path.join(FILE))?;
        let maps = match content {
            Some(content) => decode(content)?,
            None if create => Maps::default(),
            None => return Err(StorageError::Damaged(format!("{} is missing", path.join(FILE).display()))),
        };
        if create {
            disk.create_dir(path)?;
        }
        Ok(Self { disk: disk.clone(), path: path.to_owned(), maps: Mutex::new(Arc::new(maps)), floor })
    }

    pub(super) fn view(&self) -> View {
        View(self.maps.lock().clone())
    }

    pub(super) fn write(&self, batch: Batch) {
        let mut held = self.maps.lock();
        let maps = Arc::make_mut(&mut held);
        for change in batch.0 {
            match change {
                Change::Put(family, key, value) => drop(maps[family.0].insert(key, value)),
                Change::Delete(family, key) => drop(maps[family.0].remove(&key)),
            }
        }
    }

    pub(super) fn flush(&self) -> Result<(), StorageError> {
        self.write_to(&self.path)
    }

    pub(super) fn checkpoint(&self, path: &Path) -> Result<(), StorageError> {
        self.disk.create_dir(path)?;
        self.write_to(path)
    }

    fn write_to(&self, path: &Path) -> Result<(), StorageError> {
        self.disk.write_whole(path, FILE, &encode(&self.view().0))
    }

    /// Removes what lies below the floor.
    pub(super) fn forget(&self, families: &[Family]) {
        let floor = self.floor.load(Ordering::Acquire);
        let mut held = self.maps.lock();
        let maps = Arc::make_mut(&mut held);
        for family in families {
            maps[family.0].retain(|key, _| keys::trailing_revision(key).is_none_or(|revision| revision >= floor));
        }
    }

    pub(super) fn measure(&self, family: Family, what: Measure) -> u64 {
        let maps = self.view().0;
        let map = &maps[family.0];
        match what {
            Measure::Keys => map.len() as u64,
            Measure::Bytes | Measure::InUse => map.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum(),
        }
    }

    pub(super) fn remove(&self, path: &Path) {
        let _ = self.disk.remove_dir(path);
    }
}

impl View {
    pub(super) fn get(&self, family: Family, key: &[u8]) -> Option<Bytes> {
        self.0[family.0].get(key).cloned()
    }

    pub(super) fn scan(&self, family: Family, start: &[u8], end: Option<Vec<u8>>) -> Cursor {
        let mut cursor = Cursor { maps: self.0.clone(), family, end, at: None };
        cursor.seek(start);
        cursor
    }
}

impl Cursor {
    pub(super) fn item(&self) -> Option<(&[u8], &[u8])> {
        self.at.as_ref().map(|(key, value)| (&key[..], &value[..]))
    }

    pub(super) fn seek(&mut self, key: &[u8]) {
        self.at = self.first(Bound::Included(key));
    }

    pub(super) fn next(&mut self) {
        if let Some((key, _)) = self.at.take() {
            self.at = self.first(Bound::Excluded(&key));
        }
    }

    fn first(&self, from: Bound<&[u8]>) -> Option<(Bytes, Bytes)> {
        let (key, value) = self.maps[self.family.0].range::<[u8], _>((from, Bound::Unbounded)).next()?;
        let ended = self.end.as_ref().is_some_and(|end| key[..] >= end[..]);
        (!ended).then(|| (key.clone(), value.clone()))
    }
}

impl Batch {
    pub(super) fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.0.push(Change::Put(family, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
    }

    pub(super) fn delete(&mut self, family: Family, key: &[u8]) {
        self.0.push(Change::Delete(family, Bytes::copy_from_slice(key)));
    }
}
