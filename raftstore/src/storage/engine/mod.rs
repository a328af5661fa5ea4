//! The ordered maps that the state is kept in: RocksDB, or maps in memory for simulations. Both know families of keys,
//! views of one moment, cursors, batches that are written whole, and checkpoints; neither has a log of its own, so that what
//! is not flushed is lost in a crash.

mod manifest;
mod memory;
mod rocks;

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;

use super::StorageError;
use super::disk::Disk;

#[cfg(test)]
pub(crate) use rocks::add_family;

/// A family of keys, by its place in `cf::ALL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Family(usize);

impl Family {
    fn name(self) -> &'static str {
        ["meta", "live", "superseded", "events", "buckets", "expiry", "former"][self.0]
    }
}

/// The families.
pub(crate) mod cf {
    use super::Family;

    /// Single records: how far applied, members, lineage.
    pub(crate) const META: Family = Family(0);
    /// Latest record of each key.
    pub(crate) const LIVE: Family = Family(1);
    /// Which revisions ended a former record of a key, and the revision of that record.
    pub(crate) const SUPERSEDED: Family = Family(2);
    /// Which key each revision changed.
    pub(crate) const EVENTS: Family = Family(3);
    /// Revisions by bucket of keys.
    pub(crate) const BUCKETS: Family = Family(4);
    /// Records that expire, by time.
    pub(crate) const EXPIRY: Family = Family(5);
    /// Former records, by the revision that ended them.
    pub(crate) const FORMER: Family = Family(6);
    /// All of them.
    pub(crate) const ALL: [Family; 7] = [META, LIVE, SUPERSEDED, EVENTS, BUCKETS, EXPIRY, FORMER];
    /// History by revision alone: new rows come after all others, so that old ones go file by file.
    pub(super) const BY_REVISION: [Family; 2] = [EVENTS, FORMER];
    /// History by something else and then by revision: old rows go when their part of the family is written anew.
    pub(super) const BY_KEY: [Family; 2] = [SUPERSEDED, BUCKETS];
}

/// How a cursor is going to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// As part of a request: what is read may be wanted again.
    Some,
    /// Once, from one end to the other: it must not push out what is read often.
    All,
    /// The same, and fast.
    Ahead,
}

/// What is estimated of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Bytes of files and memory.
    Bytes,
    /// Bytes that hold something.
    InUse,
    /// Number of keys.
    Keys,
}

/// One open database.
pub(crate) enum Engine {
    Rocks(rocks::Rocks),
    Memory(memory::Memory),
}

/// What was read.
pub(crate) enum Value<'a> {
    Rocks(rocksdb::DBPinnableSlice<'a>),
    Memory(Bytes),
}

impl Deref for Value<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Rocks(bytes) => bytes,
            Self::Memory(bytes) => bytes,
        }
    }
}

/// Everything as it is at one moment.
pub(crate) enum View<'a> {
    Rocks(rocks::View<'a>),
    Memory(memory::View),
}

/// A place among the keys of a family.
pub(crate) enum Cursor<'a> {
    Rocks(rocksdb::DBRawIterator<'a>),
    Memory(memory::Cursor),
}

/// Changes that are written together.
pub(crate) enum Batch<'a> {
    Rocks(rocks::Batch<'a>),
    Memory(memory::Batch),
}

impl Engine {
    /// Opens a database, or creates it. It may forget rows of history below a floor, which rises.
    pub(crate) fn open(disk: &Disk, path: &Path, create: bool, floor: Arc<AtomicU64>) -> Result<Self, StorageError> {
        match disk {
            Disk::Real => {
                manifest::check(path)?;
                Ok(Self::Rocks(rocks::Rocks::open(path, create, floor).map_err(StorageError::opening)?))
            }
            Disk::Memory(_) => Ok(Self::Memory(memory::Memory::open(disk, path, create, floor)?)),
        }
    }

    /// Opens a database that must stay as it is.
    pub(crate) fn open_to_read(disk: &Disk, path: &Path) -> Result<Self, StorageError> {
        match disk {
            Disk::Real => {
                manifest::check(path)?;
                Ok(Self::Rocks(rocks::Rocks::open_to_read(path).map_err(StorageError::opening)?))
            }
            Disk::Memory(_) => Ok(Self::Memory(memory::Memory::open(disk, path, false, Arc::default())?)),
        }
    }

    /// What is stored under a key now.
    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Value<'_>>, StorageError> {
        match self {
            Self::Rocks(db) => Ok(db.get(family, key)?.map(Value::Rocks)),
            Self::Memory(maps) => Ok(maps.view().get(family, key).map(Value::Memory)),
        }
    }

    /// Everything as it is now.
    pub(crate) fn view(&self) -> View<'_> {
        match self {
            Self::Rocks(db) => View::Rocks(db.view()),
            Self::Memory(maps) => View::Memory(maps.view()),
        }
    }

    /// An empty batch.
    pub(crate) fn batch(&self) -> Batch<'_> {
        match self {
            Self::Rocks(db) => Batch::Rocks(db.batch()),
            Self::Memory(_) => Batch::Memory(memory::Batch::default()),
        }
    }

    /// Writes a batch of this database.
    pub(crate) fn write(&self, batch: Batch<'_>) -> Result<(), StorageError> {
        match (self, batch) {
            (Self::Rocks(db), Batch::Rocks(batch)) => Ok(db.write(batch)?),
            (Self::Memory(maps), Batch::Memory(batch)) => {
                maps.write(batch);
                Ok(())
            }
            _ => Err(StorageError::Damaged("a batch of another database".into())),
        }
    }

    /// Makes everything written so far durable.
    pub(crate) fn flush(&self) -> Result<(), StorageError> {
        match self {
            Self::Rocks(db) => Ok(db.flush()?),
            Self::Memory(maps) => maps.flush(),
        }
    }

    /// Makes a directory that holds everything as it is now.
    pub(crate) fn checkpoint(&self, path: &Path) -> Result<(), StorageError> {
        match self {
            Self::Rocks(db) => Ok(db.checkpoint(path)?),
            Self::Memory(maps) => maps.checkpoint(path),
        }
    }

    /// Waits until nothing is done in the background.
    #[cfg(test)]
    pub(crate) fn settle(&self) {
        if let Self::Rocks(db) = self {
            db.settle();
        }
    }

    /// The sum of a measure over families.
    pub(crate) fn measure(&self, families: &[Family], what: Measure) -> u64 {
        match self {
            Self::Rocks(db) => families.iter().map(|family| db.measure(*family, what)).sum(),
            Self::Memory(maps) => families.iter().map(|family| maps.measure(*family, what)).sum(),
        }
    }

    /// Lets go of what lies below the floor as far as that costs nothing. Views do not keep it.
    pub(crate) fn forget(&self) -> Result<(), StorageError> {
        match self {
            Self::Rocks(db) => Ok(db.forget()?),
            Self::Memory(maps) => {
                maps.forget(&cf::BY_REVISION);
                Ok(())
            }
        }
    }

    /// Gives the room of what was removed from families, or lies below the floor, back to the file system.
    pub(crate) fn compact(&self, families: impl Iterator<Item = Family>) {
        match self {
            Self::Rocks(db) => db.compact(families),
            Self::Memory(maps) => {
                let of_history: Vec<Family> = families.filter(|family| cf::BY_KEY.contains(family)).collect();
                maps.forget(&of_history);
            }
        }
    }

    /// Removes the directory. The database is still open, and ends now.
    pub(crate) fn remove(&self, path: &Path) {
        match self {
            Self::Rocks(db) => db.remove(path),
            Self::Memory(maps) => maps.remove(path),
        }
    }
}

impl View<'_> {
    /// What is stored under a key.
    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Value<'_>>, StorageError> {
        match self {
            Self::Rocks(view) => Ok(view.get(family, key)?.map(Value::Rocks)),
            Self::Memory(view) => Ok(view.get(family, key).map(Value::Memory)),
        }
    }

    /// A cursor at the first key of a range.
    pub(crate) fn scan(
        &self,
        family: Family,
        (start, end): (Vec<u8>, Option<Vec<u8>>),
        reading: Reading,
    ) -> Cursor<'_> {
        match self {
            Self::Rocks(view) => Cursor::Rocks(view.scan(family, start, end, reading)),
            Self::Memory(view) => Cursor::Memory(view.scan(family, &start, end)),
        }
    }

    /// A cursor at the first key of all.
    pub(crate) fn all(&self, family: Family, reading: Reading) -> Cursor<'_> {
        self.scan(family, (Vec::new(), None), reading)
    }
}

impl Cursor<'_> {
    /// The key that it is at.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Rocks(it) => it.key(),
            Self::Memory(it) => it.item().map(|(key, _)| key),
        }
    }

    /// What is stored there.
    pub(crate) fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Rocks(it) => it.value(),
            Self::Memory(it) => it.item().map(|(_, value)| value),
        }
    }

    /// Both.
    pub(crate) fn item(&self) -> Option<(&[u8], &[u8])> {
        match self {
            Self::Rocks(it) => it.item(),
            Self::Memory(it) => it.item(),
        }
    }

    /// Goes on by one.
    pub(crate) fn next(&mut self) {
        match self {
            Self::Rocks(it) => it.next(),
            Self::Memory(it) => it.next(),
        }
    }

    /// Goes to a key, or to the next one.
    pub(crate) fn seek(&mut self, key: impl AsRef<[u8]>) {
        match self {
            Self::Rocks(it) => it.seek(key),
            Self::Memory(it) => it.seek(key.as_ref()),
        }
    }

    /// The error that ended it, if it was one.
    pub(crate) fn finish(&self) -> Result<(), StorageError> {
        match self {
            Self::Rocks(it) => Ok(it.status()?),
            Self::Memory(_) => Ok(()),
        }
    }
}

impl Batch<'_> {
    /// Stores something under a key.
    pub(crate) fn put(&mut self, family: Family, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        match self {
            Self::Rocks(batch) => batch.put(family, key, value),
            Self::Memory(batch) => batch.put(family, key.as_ref(), value.as_ref()),
        }
    }

    /// Removes a key.
    pub(crate) fn delete(&mut self, family: Family, key: impl AsRef<[u8]>) {
        match self {
            Self::Rocks(batch) => batch.delete(family, key),
            Self::Memory(batch) => batch.delete(family, key.as_ref()),
        }
    }
}
