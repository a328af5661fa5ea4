//! Unpacks one layer into a directory of its own, in the form that overlayfs stacks.
//!
//! All paths are resolved by the kernel with the layer's directory as their root (`openat2`, RESOLVE_IN_ROOT), so that
//! neither `..` nor a link that an earlier entry made can lead out of it.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirEntryExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    self as rfs, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use tar::EntryType;

use super::ImageError;
use super::blobs::HashingReader;
use super::error::IoContext;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Layers with more entries are synced as a whole.
const SYNC_SINGLY: usize = 64;
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// Unpacks `blob` (tar, plain or gzip) into the empty directory `dir`. Gives the digest of the uncompressed archive.
pub(crate) fn unpack(blob: &Path, dir: &Path, max_bytes: u64) -> Result<String, ImageError> {
    let file = File::open(blob).context(|| format!("cannot open {blob:?}"))?;
    let mut reader = HashingReader::new(decompress(file)?);
    let mut unpacker = Unpacker::new(dir, max_bytes)?;
    let mut archive = tar::Archive::new(&mut reader);
    for entry in archive.entries().context(|| "cannot read the layer".to_owned())? {
        let mut entry = entry.context(|| "cannot read the layer".to_owned())?;
        unpacker.entry(&mut entry)?;
    }
    unpacker.finish()?;
    let (digest, _) = reader.finish().context(|| "cannot read the layer".to_owned())?;
    Ok(digest)
}

/// Undoes gzip where the content starts like it; media types are not trusted.
pub(crate) fn decompress(file: File) -> Result<Box<dyn Read>, ImageError> {
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let start = reader.fill_buf().context(|| "cannot read an archive".to_owned())?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(reader)));
    }
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Err(ImageError::malformed("zstd compression is not supported; use gzip or none"));
    }
    Ok(Box::new(reader))
}

struct Unpacker {
    root: OwnedFd,
    bytes_left: u64,
    entries: usize,
    /// Set at the end: making entries in a directory changes its time.
    dir_times: Vec<(PathBuf, i64)>,
}

/// Where an entry goes: an open directory inside the root and a name in it.
struct Place {
    parent: OwnedFd,
    name: Vec<u8>,
    path: PathBuf,
}

impl Place {
    fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    /// A path for the calls that take no directory. The last component is not followed by those used.
    fn proc_path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.parent.as_raw_fd().to_string()).join(self.name())
    }

    fn wrap<T>(&self, result: Result<T, rustix::io::Errno>) -> Result<T, ImageError> {
        result.map_err(|errno| self.error(errno.to_string()))
    }

    fn error(&self, message: impl Into<String>) -> ImageError {
        ImageError::Layer { path: self.path.clone(), message: message.into() }
    }

    fn kind(&self) -> Result<Option<(FileType, u64)>, ImageError> {
        match rfs::statat(&self.parent, self.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((FileType::from_raw_mode(stat.st_mode), stat.st_rdev))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.error(errno.to_string())),
        }
    }
}

impl Unpacker {
    fn new(dir: &Path, max_bytes: u64) -> Result<Self, ImageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rfs::open(dir, flags, Mode::empty()).context(|| format!("cannot open {dir:?}"))?;
        Ok(Self { root, bytes_left: max_bytes, entries: 0, dir_times: Vec::new() })
    }

    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), ImageError> {
        if matches!(entry.header().entry_type(), EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        let Some(clean) = clean(&path)? else {
            return self.root_entry(entry);
        };
        let place = self.place(clean)?;
        if place.name.starts_with(WHITEOUT) {
            return whiteout(&place);
        }
        let kind = entry.header().entry_type();
        self.create(kind, &place, entry)?;
        // A hard link shares everything with its target.
        if kind.is_hard_link() {
            return Ok(());
        }
        self.entries += 1;
        self.metadata(kind, &place, entry)
    }

    /// `./` sets mode and owner of the layer's own directory.
    fn root_entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), ImageError> {
        if !entry.header().entry_type().is_dir() {
            return Err(ImageError::Layer { path: "/".into(), message: "the root is not a directory".into() });
        }
        let place = Place {
            parent: self.root.try_clone().context(String::new)?,
            name: b".".to_vec(),
            path: PathBuf::from("/"),
        };
        self.metadata(EntryType::Directory, &place, entry)
    }

    /// Opens the entry's directory, making what an archive left out.
    fn place(&self, clean: PathBuf) -> Result<Place, ImageError> {
        let name = clean.file_name().map(|name| name.as_bytes().to_vec()).unwrap_or_default();
        let parent = clean.parent().unwrap_or(Path::new(""));
        let fail = |errno: rustix::io::Errno| ImageError::Layer { path: clean.clone(), message: errno.to_string() };
        let parent = match self.open_dir(parent) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => self.make_dirs(parent, &clean)?,
            other => other.map_err(fail)?,
        };
        Ok(Place { parent, name, path: clean })
    }

    /// Like `mkdir -p`, for the entry at `path`.
    fn make_dirs(&self, dirs: &Path, path: &Path) -> Result<OwnedFd, ImageError> {
        let fail = |errno: rustix::io::Errno| ImageError::Layer { path: path.to_owned(), message: errno.to_string() };
        let mut made = PathBuf::new();
        let mut dir = self.open_dir(&made).map_err(fail)?;
        for component in dirs.components() {
            made.push(component);
            dir = match self.open_dir(&made) {
                Ok(dir) => dir,
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
                    let name = component.as_os_str().as_bytes().to_vec();
                    let place = Place { parent: dir, name, path: path.to_owned() };
                    // A whiteout of this layer gives way, and the new directory hides what was below; a file does not.
                    let hidden = place.kind()? == Some((FileType::CharacterDevice, 0));
                    if hidden {
                        place.wrap(rfs::unlinkat(&place.parent, place.name(), AtFlags::empty()))?;
                    }
                    place.wrap(rfs::mkdirat(&place.parent, place.name(), Mode::from_raw_mode(0o755)))?;
                    // mkdir is subject to the umask.
                    let mode = Mode::from_raw_mode(0o755);
                    place.wrap(rfs::chmodat(&place.parent, place.name(), mode, AtFlags::empty()))?;
                    if hidden {
                        set_opaque(&place)?;
                    }
                    self.open_dir(&made).map_err(fail)?
                }
                Err(errno) => return Err(fail(errno)),
            };
        }
        Ok(dir)
    }

    fn open_dir(&self, path: &Path) -> Result<OwnedFd, rustix::io::Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rfs::openat2(&self.root, path, flags, Mode::empty(), resolve)
    }

    fn create<R: Read>(
        &mut self,
        kind: EntryType,
        place: &Place,
        entry: &mut tar::Entry<'_, R>,
    ) -> Result<(), ImageError> {
        let was_hidden = self.make_room(kind, place)?;
        match kind {
            EntryType::Directory => {
                match rfs::mkdirat(&place.parent, place.name(), Mode::from_raw_mode(0o700)) {
                    Err(rustix::io::Errno::EXIST) => {}
                    other => place.wrap(other)?,
                }
                if was_hidden {
                    set_opaque(place)?;
                }
                Ok(())
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(place, entry),
            EntryType::Symlink => {
                let target = link_name(place, entry)?;
                place.wrap(rfs::symlinkat(OsStr::from_bytes(&target), &place.parent, place.name()))
            }
            EntryType::Link => {
                let target = PathBuf::from(OsStr::from_bytes(&link_name(place, entry)?));
                let target = clean(&target)?.ok_or_else(|| place.error("hard link to the root"))?;
                let target = self.place(target)?;
                let made = rfs::linkat(&target.parent, target.name(), &place.parent, place.name(), AtFlags::empty());
                made.map_err(|errno| place.error(format!("cannot hard link to {:?}: {errno}", target.path)))
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => device(kind, place, entry),
            other => Err(place.error(format!("entries of type {other:?} are not supported"))),
        }
    }

    /// Removes what an earlier entry of the same layer left at this name. True if that was a whiteout.
    fn make_room(&self, kind: EntryType, place: &Place) -> Result<bool, ImageError> {
        match place.kind()? {
            None => Ok(false),
            Some((FileType::Directory, _)) if kind.is_dir() => Ok(false),
            Some((FileType::Directory, _)) => {
                fs::remove_dir_all(place.proc_path()).map_err(|error| place.error(error.to_string()))?;
                Ok(false)
            }
            Some((old, device)) => {
                place.wrap(rfs::unlinkat(&place.parent, place.name(), AtFlags::empty()))?;
                Ok(old == FileType::CharacterDevice && device == 0)
            }
        }
    }

    fn file<R: Read>(&mut self, place: &Place, entry: &mut tar::Entry<'_, R>) -> Result<(), ImageError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = place.wrap(rfs::openat(&place.parent, place.name(), flags, Mode::from_raw_mode(0o600)))?;
        let mut file = File::from(fd);
        let copied = io::copy(&mut entry.take(self.bytes_left.saturating_add(1)), &mut file)
            .map_err(|error| place.error(error.to_string()))?;
        self.bytes_left = self
            .bytes_left
            .checked_sub(copied)
            .ok_or_else(|| place.error("the layer is larger than the store allows"))?;
        Ok(())
    }

    /// Owner first, since a change of owner clears set-id bits and capabilities.
    fn metadata<R: Read>(
        &mut self,
        kind: EntryType,
        place: &Place,
        entry: &mut tar::Entry<'_, R>,
    ) -> Result<(), ImageError> {
        let bad = |error: io::Error| place.error(error.to_string());
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        let header = entry.header();
        let uid = id(header.uid().map_err(bad)?).ok_or_else(|| place.error("owner out of range"))?;
        let gid = id(header.gid().map_err(bad)?).ok_or_else(|| place.error("group out of range"))?;
        let mode = Mode::from_raw_mode(header.mode().map_err(bad)? & 0o7777);
        let time = i64::try_from(header.mtime().map_err(bad)?).unwrap_or(0);
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        place.wrap(rfs::chownat(&place.parent, place.name(), owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW))?;
        xattrs(place, entry)?;
        if !kind.is_symlink() {
            place.wrap(rfs::chmodat(&place.parent, place.name(), mode, AtFlags::empty()))?;
        }
        if kind.is_dir() {
            self.dir_times.push((place.path.clone(), time));
            return Ok(());
        }
        place.wrap(rfs::utimensat(&place.parent, place.name(), &times(time), AtFlags::SYMLINK_NOFOLLOW))
    }

    fn finish(self) -> Result<(), ImageError> {
        for (path, time) in self.dir_times.iter().rev() {
            let relative = path.strip_prefix("/").unwrap_or(path);
            // A directory that a later entry replaced is no loss.
            if let Ok(dir) = self.open_dir(relative) {
                let _ = rfs::futimens(&dir, &times(*time));
            }
        }
        self.sync().context(|| "cannot sync a layer".to_owned())
    }

    /// A small layer is synced file by file: syncing the file system would wait for everybody else's data too.
    fn sync(&self) -> io::Result<()> {
        if self.entries > SYNC_SINGLY {
            return Ok(rfs::syncfs(&self.root)?);
        }
        let root = Path::new("/proc/self/fd").join(self.root.as_raw_fd().to_string());
        sync_tree(&root, &mut HashSet::new())
    }
}

/// Syncs directories and regular files, each inode once; nothing else holds data.
fn sync_tree(dir: &Path, done: &mut HashSet<u64>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sync_tree(&entry.path(), done)?;
        } else if kind.is_file() && done.insert(entry.ino()) {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}

fn times(seconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// A relative path without `.`; `None` for the root itself. `..` is refused: no tool that makes images writes it.
fn clean(path: &Path) -> Result<Option<PathBuf>, ImageError> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(ImageError::Layer {
                    path: path.to_owned(),
                    message: "the path leads out of the layer".into(),
                });
            }
        }
    }
    Ok((!clean.as_os_str().is_empty()).then_some(clean))
}

fn link_name<R: Read>(place: &Place, entry: &tar::Entry<'_, R>) -> Result<Vec<u8>, ImageError> {
    entry.link_name_bytes().map(|name| name.into_owned()).ok_or_else(|| place.error("a link without a target"))
}

fn device<R: Read>(kind: EntryType, place: &Place, entry: &tar::Entry<'_, R>) -> Result<(), ImageError> {
    let bad = |error: io::Error| place.error(error.to_string());
    let major = entry.header().device_major().map_err(bad)?.unwrap_or(0);
    let minor = entry.header().device_minor().map_err(bad)?.unwrap_or(0);
    let (kind, device) = match kind {
        EntryType::Char => (FileType::CharacterDevice, rfs::makedev(major, minor)),
        EntryType::Block => (FileType::BlockDevice, rfs::makedev(major, minor)),
        _ => (FileType::Fifo, 0),
    };
    place.wrap(rfs::mknodat(&place.parent, place.name(), kind, Mode::from_raw_mode(0o600), device))
}

/// `.wh.NAME` hides NAME of the layers below, `.wh..wh..opq` all of the directory.
fn whiteout(place: &Place) -> Result<(), ImageError> {
    if place.name == OPAQUE {
        return match rfs::fsetxattr(place.parent.as_fd(), OPAQUE_XATTR, b"y", XattrFlags::empty()) {
            Ok(()) => Ok(()),
            Err(errno) => Err(place.error(format!("cannot mark the directory opaque: {errno}"))),
        };
    }
    let hidden = &place.name[WHITEOUT.len()..];
    // `.wh..wh.*` is AUFS' own bookkeeping.
    if hidden.starts_with(WHITEOUT) {
        return Ok(());
    }
    if hidden.is_empty() || hidden == b"." || hidden == b".." {
        return Err(place.error("a whiteout of nothing"));
    }
    let parent = place.parent.try_clone().map_err(|error| place.error(error.to_string()))?;
    let target = Place { parent, name: hidden.to_vec(), path: place.path.clone() };
    match target.kind()? {
        // The layer itself has put a directory there: it shall not show what is below.
        Some((FileType::Directory, _)) => set_opaque(&target),
        Some(_) => Ok(()),
        None => {
            let mode = Mode::empty();
            target.wrap(rfs::mknodat(&target.parent, target.name(), FileType::CharacterDevice, mode, 0))
        }
    }
}

fn set_opaque(place: &Place) -> Result<(), ImageError> {
    place.wrap(rfs::lsetxattr(place.proc_path(), OPAQUE_XATTR, b"y", XattrFlags::empty()))
}

/// Capabilities, user attributes and ACLs. Never `trusted.`: those speak to overlayfs itself.
fn xattrs<R: Read>(place: &Place, entry: &mut tar::Entry<'_, R>) -> Result<(), ImageError> {
    let Some(extensions) = entry.pax_extensions().map_err(|error| place.error(error.to_string()))? else {
        return Ok(());
    };
    for extension in extensions {
        let extension = extension.map_err(|error| place.error(error.to_string()))?;
        let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) else { continue };
        let wanted = name == "security.capability"
            || name.starts_with("system.posix_acl_")
            || (name.starts_with("user.") && !name.starts_with("user.overlay."));
        if !wanted {
            continue;
        }
        match rfs::lsetxattr(place.proc_path(), name, extension.value_bytes(), XattrFlags::empty()) {
            // The file system knows no such attributes, or not on this kind of file.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::PERM) if name != "security.capability" => {}
            other => place.wrap(other)?,
        }
    }
    Ok(())
}
