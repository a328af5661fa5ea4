//! A library for LD_PRELOAD that keeps, beside a folder, what a power failure would leave of it.
//!
//! Nothing is held back and nothing fails: each call goes to the kernel. When a file or a directory below `POWER_DATA` has
//! been fsynced, its content or its names go into the image in `POWER_IMAGE` (`store::run::image`), which survives `kill -9`
//! of the process; the harness then puts the image in the place of the data.
//!
//! fsync, fdatasync, and writes to a file opened with O_DSYNC count; sync_file_range does not, nor does closing a file. A new
//! name counts once its directory was fsynced, which is less than most file systems give. What is written over in place is
//! noted by the write calls of libc; what is appended is seen however it was written. Not seen: writing over in place
//! through a shared mapping, io_uring, or without libc, and an fsync without libc.

/// What of a member's files would be there.
#[path = "../src/store/run/image.rs"]
pub mod image;

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use image::Image;
use nix::libc::{self, c_int, c_long, c_void, iovec, off64_t, size_t, ssize_t};

/// How much is copied at one time.
const PIECE: usize = 1 << 20;

/// What is known of a file since this process began.
#[derive(Clone, Debug)]
struct Known {
    /// Whether it is below the folder.
    ours: bool,
    /// Bytes that may differ from the image, but for those that it has not at all.
    dirty: Option<(u64, u64)>,
}

struct Keeper {
    data: PathBuf,
    image: Image,
    known: Mutex<HashMap<String, Known>>,
    /// Counts looks at names, so that older ones do not replace newer ones.
    looks: AtomicU64,
    /// Held while the image changes; the newest look at each directory.
    keeping: Mutex<HashMap<String, u64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// Set while this library itself writes.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

fn keeper() -> Option<&'static Keeper> {
    static KEEPER: OnceLock<Option<Keeper>> = OnceLock::new();
    let make = || {
        let data = PathBuf::from(std::env::var_os("POWER_DATA")?);
        let image = Image::new(Path::new(&std::env::var_os("POWER_IMAGE")?));
        let (known, looks, keeping) = (Mutex::default(), AtomicU64::new(1), Mutex::default());
        Some(Keeper { data, image, known, looks, keeping })
    };
    KEEPER.get_or_init(make).as_ref()
}

/// Does something, unless this library itself is calling. Leaves `errno` as the call made it.
fn with(work: impl FnOnce(&'static Keeper)) {
    if INSIDE.replace(true) {
        return;
    }
    let errno = nix::errno::Errno::last_raw();
    if let Some(keeper) = keeper() {
        work(keeper);
    }
    nix::errno::Errno::set_raw(errno);
    INSIDE.set(false);
}

impl Keeper {
    /// What is known of an open file, which it is from here on.
    fn look<T>(&self, fd: c_int, found: &image::Found, with: impl FnOnce(&mut Known) -> T) -> Option<T> {
        let mut known = lock(&self.known);
        let entry = known.entry(found.key.clone()).or_insert_with(|| {
            let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
            // What happened to it in a former life of the process is not known.
            let dirty = self.image.file(&found.key).exists().then_some((0, u64::MAX));
            Known { ours: path.starts_with(&self.data), dirty }
        });
        entry.ours.then(|| with(entry))
    }

    /// Notes that a range may have been written over.
    fn written(&self, fd: c_int, from: u64, to: u64) {
        if let Some(found) = image::at_fd(fd).filter(|found| found.kind == libc::S_IFREG) {
            self.look(fd, &found, |known| {
                let (a, b) = known.dirty.unwrap_or((from, to));
                known.dirty = Some((a.min(from), b.max(to)));
            });
        }
    }

    /// What there is to keep of a file or directory once the fsync that follows is done.
    fn before(&self, fd: c_int) -> Option<Pending> {
        let found = image::at_fd(fd)?;
        if found.kind == libc::S_IFDIR {
            let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
            if !path.starts_with(&self.data) {
                return None;
            }
            let look = self.looks.fetch_add(1, Ordering::SeqCst);
            return Some(Pending::Names { key: found.key, look, names: image::list(&path).ok()? });
        }
        if found.kind != libc::S_IFREG {
            return None;
        }
        let dirty = self.look(fd, &found, |known| known.dirty.take())?;
        Some(Pending::Content { key: found.key, size: found.size, dirty })
    }

    fn after(&self, fd: c_int, pending: Pending) {
        let mut newest = lock(&self.keeping);
        let kept = match &pending {
            Pending::Names { key, look, names } => {
                let newest = newest.entry(key.clone()).or_default();
                if *newest > *look {
                    return;
                }
                *newest = *look;
                self.image.keep_names(key, names)
            }
            Pending::Content { key, size, dirty } => self.copy(fd, key, *size, *dirty),
        };
        if let Err(error) = kept {
            eprintln!("power: {pending:?} is not kept: {error}");
        }
    }

    fn copy(&self, fd: c_int, key: &str, size: u64, dirty: Option<(u64, u64)>) -> std::io::Result<()> {
        let from = File::open(format!("/proc/self/fd/{fd}"))?;
        let to = OpenOptions::new().write(true).create(true).truncate(false).open(self.image.file(key))?;
        let (had, is) = (to.metadata()?.len(), from.metadata()?.len());
        if had > is {
            to.set_len(is)?;
        }
        // Another fsync may have kept more meanwhile.
        let had = had.min(is);
        let copy = |mut at: u64, end: u64| -> std::io::Result<()> {
            let mut piece = vec![0; PIECE.min(end.saturating_sub(at) as usize)];
            while at < end {
                let most = piece.len().min((end - at) as usize);
                let count = from.read_at(&mut piece[..most], at)?;
                if count == 0 {
                    break;
                }
                to.write_all_at(&piece[..count], at)?;
                at += count as u64;
            }
            Ok(())
        };
        if let Some((a, b)) = dirty {
            copy(a, b.min(size).min(had))?;
        }
        copy(had.min(size), size)
    }
}

#[derive(Debug)]
enum Pending {
    Names { key: String, look: u64, names: Vec<image::Entry> },
    Content { key: String, size: u64, dirty: Option<(u64, u64)> },
}

fn sync(call: c_long, fd: c_int) -> c_int {
    let mut pending = None;
    with(|keeper| pending = keeper.before(fd));
    // SAFETY: takes a number.
    let done = unsafe { libc::syscall(call, fd) } as c_int;
    with(|keeper| match pending {
        Some(pending) if done == 0 => keeper.after(fd, pending),
        Some(Pending::Content { dirty: Some((a, b)), .. }) => keeper.written(fd, a, b),
        _ => {}
    });
    done
}

/// After a write that ended at a place, or at the file's own position.
fn wrote(fd: c_int, count: c_long, end: Option<u64>) {
    if count <= 0 {
        return;
    }
    with(|keeper| {
        // SAFETY: both take numbers.
        let (position, flags) = unsafe { (libc::lseek64(fd, 0, libc::SEEK_CUR), libc::fcntl(fd, libc::F_GETFL)) };
        if position < 0 {
            // A socket or a pipe.
            return;
        }
        let end = end.unwrap_or(position as u64);
        keeper.written(fd, end.saturating_sub(count as u64), end);
        if flags & libc::O_DSYNC != 0
            && let Some(pending) = keeper.before(fd)
        {
            keeper.after(fd, pending);
        }
    });
}

/// # Safety
/// As of the function of this name in libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    sync(libc::SYS_fsync, fd)
}

/// # Safety
/// As of the function of this name in libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(libc::SYS_fdatasync, fd)
}

/// # Safety
/// As of the function of this name in libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, count: size_t) -> ssize_t {
    // SAFETY: the caller's.
    let done = unsafe { libc::syscall(libc::SYS_write, fd, bytes, count) };
    wrote(fd, done, None);
    done as ssize_t
}

/// # Safety
/// As of the function of this name in libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller's.
    let done = unsafe { libc::syscall(libc::SYS_writev, fd, parts, count) };
    wrote(fd, done, None);
    done as ssize_t
}

/// # Safety
/// As of the function of this name in libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, count: size_t, at: off64_t) -> ssize_t {
    // SAFETY: the caller's.
    let done = unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, count, at) };
    wrote(fd, done, Some((at as u64).saturating_add(done.max(0) as u64)));
    done as ssize_t
}

/// # Safety
/// As of the function of this name in libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite(fd: c_int, bytes: *const c_void, count: size_t, at: off64_t) -> ssize_t {
    // SAFETY: the caller's.
    unsafe { pwrite64(fd, bytes, count, at) }
}

/// # Safety
/// As of the function of this name in libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwritev64(fd: c_int, parts: *const iovec, count: c_int, at: off64_t) -> ssize_t {
    // SAFETY: the caller's; the kernel takes the place in two halves, of which the upper is unused here.
    let done = unsafe { libc::syscall(libc::SYS_pwritev, fd, parts, count, at, 0 as c_long) };
    wrote(fd, done, Some((at as u64).saturating_add(done.max(0) as u64)));
    done as ssize_t
}

/// # Safety
/// As of the function of this name in libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwritev(fd: c_int, parts: *const iovec, count: c_int, at: off64_t) -> ssize_t {
    // SAFETY: the caller's.
    unsafe { pwritev64(fd, parts, count, at) }
}

/// # Safety
/// As of the function of this name in libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate64(fd: c_int, length: off64_t) -> c_int {
    // SAFETY: takes numbers.
    let done = unsafe { libc::syscall(libc::SYS_ftruncate, fd, length) } as c_int;
    if done == 0 {
        // It may grow again, over what the image still has.
        with(|keeper| keeper.written(fd, length as u64, u64::MAX));
    }
    done
}

/// # Safety
/// As of the function of this name in libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate(fd: c_int, length: off64_t) -> c_int {
    // SAFETY: the caller's.
    unsafe { ftruncate64(fd, length) }
}

/// # Safety
/// As of the function of this name in libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fallocate64(fd: c_int, mode: c_int, at: off64_t, length: off64_t) -> c_int {
    // SAFETY: takes numbers.
    let done = unsafe { libc::syscall(libc::SYS_fallocate, fd, mode, at, length) } as c_int;
    if done == 0 && mode & !libc::FALLOC_FL_KEEP_SIZE != 0 {
        with(|keeper| keeper.written(fd, at as u64, u64::MAX));
    }
    done
}

/// # Safety
/// As of the function of this name in libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fallocate(fd: c_int, mode: c_int, at: off64_t, length: off64_t) -> c_int {
    // SAFETY: the caller's.
    unsafe { fallocate64(fd, mode, at, length) }
}
