//! A disk in memory for deterministic simulations. A crash takes from it what a power failure takes from a real one.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::content::{Content, Dice};
use super::names::{Node, Tree};

/// A disk in memory. It outlives the members that use it; clones are the same disk.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    tree: Tree,
    locks: BTreeSet<PathBuf>,
    /// Counts crashes: who opened the disk or a file before one cannot use it afterwards.
    epoch: u64,
    capacity: Option<u64>,
    failing: bool,
    /// After so many changes the power fails.
    fuse: Option<u64>,
    latency: Duration,
}

impl std::fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryDisk(..)")
    }
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a power failure does: of what was not fsynced none, some or all is kept, as follows from the seed; of the last
    /// writes some sectors, of names some. Nobody who had the disk open can use it any more.
    pub fn crash(&self, seed: u64) {
        let mut inner = self.0.lock();
        inner.tree.crash(&mut Dice::new(seed));
        inner.lose_users();
    }

    /// What `kill -9` does: all that was written stays, but nobody who had the disk open can use it any more.
    pub fn kill(&self) {
        self.0.lock().lose_users();
    }

    /// Lets nobody who has the disk open now use it any more after so many changes: from there on it waits for its crash.
    pub fn set_fuse(&self, changes: u64) {
        self.0.lock().fuse = Some(changes);
    }

    /// Bounds the bytes of all files; writes beyond are cut short and fail as on a full disk.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Makes every fsync fail from now on, or no more.
    pub fn fail_syncs(&self, failing: bool) {
        self.0.lock().failing = failing;
    }

    /// How long those who write the log wait before an fsync.
    pub fn set_latency(&self, latency: Duration) {
        self.0.lock().latency = latency;
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.0.lock().tree.used()
    }

    /// The disk for one who starts now.
    pub(crate) fn mount(&self) -> Mounted {
        Mounted { epoch: self.0.lock().epoch, disk: self.clone() }
    }
}

impl Inner {
    fn lose_users(&mut self) {
        self.epoch += 1;
        self.fuse = None;
        self.locks.clear();
    }
}

/// The disk, until the next crash.
#[derive(Clone, Debug)]
pub(crate) struct Mounted {
    disk: MemoryDisk,
    epoch: u64,
}

impl Mounted {
    fn inner(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let inner = self.disk.0.lock();
        match inner.epoch == self.epoch {
            true => Ok(inner),
            false => Err(io::Error::new(ErrorKind::NotConnected, "the machine has crashed since")),
        }
    }

    /// For whoever changes something.
    fn changing(&self) -> io::Result<MutexGuard<'_, Inner>> {
        let mut inner = self.inner()?;
        match &mut inner.fuse {
            Some(0) => inner.lose_users(),
            Some(left) => *left -= 1,
            None => {}
        }
        drop(inner);
        self.inner()
    }

    pub(crate) fn latency(&self) -> Duration {
        self.disk.0.lock().latency
    }

    /// Bytes that are free, and all there are.
    pub(crate) fn room(&self) -> (u64, u64) {
        let inner = self.disk.0.lock();
        let all = inner.capacity.unwrap_or(1 << 50);
        (all.saturating_sub(inner.tree.used()), all)
    }

    pub(super) fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.inner()?.tree.find(path).is_ok())
    }

    pub(super) fn is_dir(&self, path: &Path) -> io::Result<bool> {
        Ok(matches!(self.inner()?.tree.find(path), Ok(Node::Dir(_))))
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.inner()?.tree.list(path)
    }

    pub(super) fn open(&self, path: &Path) -> io::Result<MemoryFile> {
        match self.inner()?.tree.find(path)? {
            Node::File(content) => Ok(MemoryFile { mounted: self.clone(), content }),
            Node::Dir(_) => Err(ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn create(&self, path: &Path) -> io::Result<MemoryFile> {
        let content = self.changing()?.tree.create_file(path)?;
        content.lock().set_len(0);
        Ok(MemoryFile { mounted: self.clone(), content })
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.changing()?.tree.rename(from, to)
    }

    pub(super) fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.changing()?.tree.remove_file(path)
    }

    pub(super) fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.changing()?.tree.create_dir_all(path)
    }

    pub(super) fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.changing()?.tree.remove_dir_all(path)
    }

    pub(super) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.changing()?;
        inner.may_sync()?;
        inner.tree.sync_dir(path)
    }

    /// A lock on a name; none if somebody has it.
    pub(super) fn lock(&self, path: &Path) -> io::Result<Option<MemoryLock>> {
        let taken = self.inner()?.locks.insert(path.to_owned());
        Ok(taken.then(|| MemoryLock { mounted: self.clone(), path: path.to_owned() }))
    }
}

impl Inner {
    fn may_sync(&self) -> io::Result<()> {
        if self.failing { Err(io::Error::other("this disk fails on purpose")) } else { Ok(()) }
    }
}

/// A lock on a disk in memory.
#[derive(Debug)]
pub(crate) struct MemoryLock {
    mounted: Mounted,
    path: PathBuf,
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        // After a crash the lock is not this one's any more.
        if let Ok(mut inner) = self.mounted.inner() {
            inner.locks.remove(&self.path);
        }
    }
}

/// An open file on a disk in memory.
#[derive(Debug)]
pub(super) struct MemoryFile {
    mounted: Mounted,
    content: Arc<Mutex<Content>>,
}

impl MemoryFile {
    pub(super) fn len(&self) -> io::Result<u64> {
        let _inner = self.mounted.inner()?;
        Ok(self.content.lock().len() as u64)
    }

    pub(super) fn read_at(&self, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        let _inner = self.mounted.inner()?;
        Ok(self.content.lock().read(offset, most))
    }

    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let inner = self.mounted.changing()?;
        let fits = match inner.capacity {
            None => bytes.len(),
            Some(all) => {
                let room = all.saturating_sub(inner.tree.used());
                let len = self.content.lock().len() as u64;
                bytes.len().min(usize::try_from((len + room).saturating_sub(offset)).unwrap_or(usize::MAX))
            }
        };
        if fits > 0 {
            self.content.lock().write(offset, &bytes[..fits]);
        }
        if fits == bytes.len() { Ok(()) } else { Err(ErrorKind::StorageFull.into()) }
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        let _inner = self.mounted.changing()?;
        self.content.lock().set_len(len);
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.mounted.changing()?.may_sync()?;
        self.content.lock().sync();
        Ok(())
    }
}
