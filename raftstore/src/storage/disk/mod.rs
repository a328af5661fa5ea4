//! The one way that files and directories of a member are read and written: on the file system, or on a disk in memory that
//! forgets in a crash what was not fsynced, for simulations. What RocksDB keeps is its own business.

mod content;
pub(crate) mod memory;
mod names;

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::StorageError;
use memory::{MemoryFile, MemoryLock, Mounted};

/// Where files are; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) enum Disk {
    /// On the file system.
    #[default]
    Real,
    /// In memory.
    Memory(Mounted),
}

/// The directory of a member.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(crate) disk: Disk,
    pub(crate) dir: PathBuf,
}

/// Says which file an error is about.
fn at(path: &Path) -> impl FnOnce(io::Error) -> StorageError + '_ {
    move |e| StorageError::io(path.display().to_string(), e)
}

fn or_absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

impl Disk {
    /// Whether there is anything of the name.
    pub(crate) fn exists(&self, path: &Path) -> Result<bool, StorageError> {
        match self {
            Self::Real => or_absent(path.symlink_metadata()).map(|found| found.is_some()).map_err(at(path)),
            Self::Memory(disk) => disk.exists(path).map_err(at(path)),
        }
    }

    /// Whether there is a directory of the name. One that cannot be looked at is an error: who takes it for one that is gone
    /// gives up a member that is whole.
    pub(crate) fn is_dir(&self, path: &Path) -> Result<bool, StorageError> {
        match self {
            Self::Real => or_absent(path.metadata()).map(|found| found.is_some_and(|m| m.is_dir())).map_err(at(path)),
            Self::Memory(disk) => disk.is_dir(path).map_err(at(path)),
        }
    }

    /// The whole content of a file.
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>, StorageError> {
        match self {
            Self::Real => fs::read(path).map_err(at(path)),
            Self::Memory(disk) => disk.open(path).and_then(|file| file.read_at(0, usize::MAX)).map_err(at(path)),
        }
    }

    /// The whole content of a file that may be absent.
    pub(crate) fn read_optional(&self, path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
        match self.read(path) {
            Ok(content) => Ok(Some(content)),
            Err(StorageError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Length of a file.
    pub(crate) fn len(&self, path: &Path) -> Result<u64, StorageError> {
        match self {
            Self::Real => fs::metadata(path).map(|m| m.len()).map_err(at(path)),
            Self::Memory(disk) => disk.open(path).and_then(|file| file.len()).map_err(at(path)),
        }
    }

    /// Names in a directory, sorted.
    pub(crate) fn list(&self, dir: &Path) -> Result<Vec<String>, StorageError> {
        let real = || -> io::Result<Vec<String>> {
            let entries = fs::read_dir(dir)?;
            let mut names = entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<Vec<_>>>()?;
            names.sort_unstable();
            Ok(names)
        };
        match self {
            Self::Real => real().map_err(at(dir)),
            Self::Memory(disk) => disk.list(dir).map_err(at(dir)),
        }
    }

    /// Writes a file so that after a crash either the old or the new content is there, never something in between.
    pub(crate) fn write_whole(&self, dir: &Path, name: &str, content: &[u8]) -> Result<(), StorageError> {
        let temporary = dir.join(format!("{name}.tmp"));
        let file = self.create(&temporary)?;
        file.write_at(0, content)?;
        file.sync_all()?;
        self.rename(&temporary, &dir.join(name))?;
        self.sync_dir(dir)
    }

    /// Opens a file for reading and writing; what is in it stays.
    pub(crate) fn open(&self, path: &Path) -> Result<DiskFile, StorageError> {
        let form = match self {
            Self::Real => Form::Real(File::options().read(true).write(true).open(path).map_err(at(path))?),
            Self::Memory(disk) => Form::Memory(disk.open(path).map_err(at(path))?),
        };
        Ok(DiskFile { name: path.display().to_string(), form })
    }

    /// Opens an empty file for reading and writing; what was in one of the name is gone.
    pub(crate) fn create(&self, path: &Path) -> Result<DiskFile, StorageError> {
        let form = match self {
            Self::Real => {
                let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
                Form::Real(file.map_err(at(path))?)
            }
            Self::Memory(disk) => Form::Memory(disk.create(path).map_err(at(path))?),
        };
        Ok(DiskFile { name: path.display().to_string(), form })
    }

    /// Gives a file or directory another name; what had that name is replaced. Durable once the directories are synced.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        match self {
            Self::Real => fs::rename(from, to).map_err(at(from)),
            Self::Memory(disk) => disk.rename(from, to).map_err(at(from)),
        }
    }

    /// Removes a file if it is there.
    pub(crate) fn remove_file(&self, path: &Path) -> Result<(), StorageError> {
        let removed = match self {
            Self::Real => fs::remove_file(path),
            Self::Memory(disk) => disk.remove_file(path),
        };
        or_absent(removed).map(drop).map_err(at(path))
    }

    /// Makes names in a directory durable.
    pub(crate) fn sync_dir(&self, dir: &Path) -> Result<(), StorageError> {
        match self {
            Self::Real => File::open(dir).and_then(|d| d.sync_all()).map_err(at(dir)),
            Self::Memory(disk) => disk.sync_dir(dir).map_err(at(dir)),
        }
    }

    /// Creates a directory and its parents, durably.
    pub(crate) fn create_dir(&self, dir: &Path) -> Result<(), StorageError> {
        let mut made = vec![dir];
        for parent in dir.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            if self.exists(parent)? {
                break;
            }
            made.push(parent);
        }
        match self {
            Self::Real => fs::create_dir_all(dir).map_err(at(dir))?,
            Self::Memory(disk) => disk.create_dir_all(dir).map_err(at(dir))?,
        }
        let mut parents = made.into_iter().filter_map(Path::parent).filter(|parent| !parent.as_os_str().is_empty());
        parents.try_for_each(|parent| self.sync_dir(parent))
    }

    /// Removes a directory with all that is in it, if it is there.
    pub(crate) fn remove_dir(&self, dir: &Path) -> Result<(), StorageError> {
        let removed = match self {
            Self::Real => fs::remove_dir_all(dir),
            Self::Memory(disk) => disk.remove_dir_all(dir),
        };
        or_absent(removed).map(drop).map_err(at(dir))
    }

    /// Takes a file as a lock; whoever else has it makes this fail.
    pub(crate) fn lock(&self, path: &Path) -> Result<DiskLock, StorageError> {
        let used = || StorageError::io(format!("{} is in use", path.display()), ErrorKind::WouldBlock.into());
        match self {
            Self::Real => {
                let file = File::options().write(true).create(true).truncate(false).open(path).map_err(at(path))?;
                match file.try_lock() {
                    Ok(()) => Ok(DiskLock::Real(file)),
                    Err(TryLockError::WouldBlock) => Err(used()),
                    Err(TryLockError::Error(e)) => Err(at(path)(e)),
                }
            }
            Self::Memory(disk) => disk.lock(path).map_err(at(path))?.map(DiskLock::Memory).ok_or_else(used),
        }
    }
}

/// A lock; given up when it is dropped.
#[derive(Debug)]
pub(crate) enum DiskLock {
    Real(#[allow(dead_code)] File),
    Memory(#[allow(dead_code)] MemoryLock),
}

/// An open file.
#[derive(Debug)]
pub(crate) struct DiskFile {
    name: String,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Real(File),
    Memory(MemoryFile),
}

impl DiskFile {
    fn told<T>(&self, result: io::Result<T>) -> Result<T, StorageError> {
        result.map_err(|e| StorageError::io(self.name.clone(), e))
    }

    /// Its length.
    pub(crate) fn len(&self) -> Result<u64, StorageError> {
        self.told(match &self.form {
            Form::Real(file) => file.metadata().map(|m| m.len()),
            Form::Memory(file) => file.len(),
        })
    }

    /// Bytes from an offset on, fewer where the file ends.
    pub(crate) fn read_at(&self, offset: u64, most: usize) -> Result<Vec<u8>, StorageError> {
        self.told(match &self.form {
            Form::Real(file) => read_at(file, offset, most),
            Form::Memory(file) => file.read_at(offset, most),
        })
    }

    /// Writes all of the bytes, or fails after some of them.
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.told(match &self.form {
            Form::Real(file) => file.write_all_at(bytes, offset),
            Form::Memory(file) => file.write_at(offset, bytes),
        })
    }

    /// Makes the file shorter, or longer by zeros.
    pub(crate) fn set_len(&self, len: u64) -> Result<(), StorageError> {
        self.told(match &self.form {
            Form::Real(file) => file.set_len(len),
            Form::Memory(file) => file.set_len(len),
        })
    }

    /// Makes the content durable, and what is needed to read it.
    pub(crate) fn sync_data(&self) -> Result<(), StorageError> {
        self.told(match &self.form {
            Form::Real(file) => file.sync_data(),
            Form::Memory(file) => file.sync(),
        })
    }

    /// Makes the content durable, and all that is known of the file but its name.
    pub(crate) fn sync_all(&self) -> Result<(), StorageError> {
        self.told(match &self.form {
            Form::Real(file) => file.sync_all(),
            Form::Memory(file) => file.sync(),
        })
    }
}

fn read_at(file: &File, offset: u64, most: usize) -> io::Result<Vec<u8>> {
    let rest = file.metadata()?.len().saturating_sub(offset);
    let mut bytes = vec![0; most.min(usize::try_from(rest).unwrap_or(usize::MAX))];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
