//! What of a member's files would be there after a power failure.
//!
//! An image lies beside the data: the content of each file as of its last fsync, and the names in each directory as of
//! the directory's. The library `power`, which is loaded into the member, keeps it up to date; this module begins it and puts
//! it in the place of the data. Both are built from this file, so it needs nothing but the standard library and libc.
//!
//! `files/<key>` and `dirs/<key>` are named after the inode and the moment of its birth, which no other file ever shares.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::libc;

/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// A directory or a file; nothing else is kept.
    pub dir: bool,
    /// The inode.
    pub key: String,
    /// The name.
    pub name: String,
}

/// A file, by what cannot change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Names it in the image.
    pub key: String,
    /// Its type, as `st_mode` has it.
    pub kind: u32,
    /// How long it is.
    pub size: u64,
}

fn stat(fd: i32, path: &CString, flags: i32) -> Option<Found> {
    // SAFETY: plain old data, for which zeros are a value.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let wanted = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    // SAFETY: the path ends with a zero and the structure is the kernel's.
    let done = unsafe { libc::statx(fd, path.as_ptr(), flags, wanted, &raw mut stat) };
    (done == 0).then(|| Found {
        key: format!("{}-{}.{:09}", stat.stx_ino, stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
        kind: u32::from(stat.stx_mode) & libc::S_IFMT,
        size: stat.stx_size,
    })
}

/// What a path stands for; a link for itself.
pub fn at_path(path: &Path) -> Option<Found> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    stat(libc::AT_FDCWD, &path, libc::AT_SYMLINK_NOFOLLOW)
}

/// What an open file is.
pub fn at_fd(fd: i32) -> Option<Found> {
    stat(fd, &CString::default(), libc::AT_EMPTY_PATH)
}

/// The names in a directory as they are now.
///
/// # Errors
/// When it cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // What vanishes meanwhile is not there.
        let Some(found) = at_path(&dir.join(entry.file_name())) else { continue };
        let is_dir = found.kind == libc::S_IFDIR;
        if is_dir || found.kind == libc::S_IFREG {
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push(Entry { dir: is_dir, key: found.key, name });
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// An image.
#[derive(Clone, Debug)]
pub struct Image {
    folder: PathBuf,
}

impl Image {
    /// The one in a folder.
    pub fn new(folder: &Path) -> Image {
        Image { folder: folder.to_path_buf() }
    }

    /// Where the content of a file lies.
    pub fn file(&self, key: &str) -> PathBuf {
        self.folder.join("files").join(key)
    }

    fn names(&self, key: &str) -> PathBuf {
        self.folder.join("dirs").join(key)
    }

    /// Whether there is one.
    pub fn exists(&self) -> bool {
        self.folder.join("dirs").is_dir()
    }

    /// Keeps the names of a directory, all or nothing.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep_names(&self, key: &str, entries: &[Entry]) -> io::Result<()> {
        let mut text = String::new();
        for entry in entries {
            text += &format!("{} {} {}\n", if entry.dir { "d" } else { "f" }, entry.key, entry.name);
        }
        let temporary = self.folder.join(format!("{key}.new"));
        fs::write(&temporary, text)?;
        fs::rename(&temporary, self.names(key))
    }

    /// The names of a directory that was never fsynced are none.
    fn kept_names(&self, key: &str) -> Vec<Entry> {
        let text = fs::read_to_string(self.names(key)).unwrap_or_default();
        let entry = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let (dir, key, name) = (words.next()? == "d", words.next()?.to_owned(), words.next()?.to_owned());
            Some(Entry { dir, key, name })
        };
        text.lines().filter_map(entry).collect()
    }

    /// Begins an image with everything that is there; the directory is made if it is not.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(&self, data: &Path) -> io::Result<()> {
        fs::create_dir_all(data)?;
        fs::create_dir_all(self.folder.join("files"))?;
        fs::create_dir_all(self.folder.join("dirs"))?;
        self.take(data)
    }

    fn take(&self, dir: &Path) -> io::Result<()> {
        let entries = list(dir)?;
        for entry in &entries {
            let path = dir.join(&entry.name);
            if entry.dir {
                self.take(&path)?;
            } else {
                fs::copy(&path, self.file(&entry.key))?;
            }
        }
        let found = at_path(dir).ok_or_else(|| io::Error::other(format!("{} is gone", dir.display())))?;
        self.keep_names(&found.key, &entries)
    }

    /// Puts the image in the place of the data, and ends it: what was not fsynced is lost. Of that the choice may leave
    /// some, as a disk would that was writing just then. Tells how much was lost.
    ///
    /// # Errors
    /// When it cannot be put there.
    pub fn put_back(&self, data: &Path, choice: &mut Choice) -> io::Result<Lost> {
        let mut present = HashMap::new();
        walk(data, &mut present)?;
        let fresh = data.with_extension("fresh");
        let _ = fs::remove_dir_all(&fresh);
        let key = at_path(data).map(|found| found.key).unwrap_or_default();
        let mut making = Making { image: self, present: &present, choice, done: HashMap::new(), lost: Lost::default() };
        making.directory(&key, &fresh)?;
        let lost = making.lost;
        fs::remove_dir_all(data)?;
        fs::rename(&fresh, data)?;
        fs::remove_dir_all(&self.folder)?;
        Ok(lost)
    }
}

fn walk(dir: &Path, found: &mut HashMap<String, PathBuf>) -> io::Result<()> {
    for entry in list(dir)? {
        let path = dir.join(&entry.name);
        if entry.dir {
            walk(&path, found)?;
        }
        found.insert(entry.key, path);
    }
    if let Some(this) = at_path(dir) {
        found.insert(this.key, dir.to_path_buf());
    }
    Ok(())
}

/// What a power failure took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Files whose end, or changes, are gone.
    pub files: usize,
    /// Bytes of them.
    pub bytes: usize,
    /// Directories whose names are as they were.
    pub dirs: usize,
}

/// What is left of what was not fsynced.
#[derive(Clone, Copy, Debug)]
pub enum Choice {
    /// Nothing.
    Nothing,
    /// Some of it, drawn from this number: names of some directories, the beginning of what was written to some files.
    Some(u64),
}

impl Choice {
    /// A number below the limit.
    fn draw(&mut self, limit: usize) -> usize {
        let Choice::Some(state) = self else { return 0 };
        // SplitMix64: the same everywhere, and no crate is needed.
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit.max(1) as u64) as usize
    }

    fn keeps(&mut self) -> bool {
        matches!(self, Choice::Some(_)) && self.draw(2) == 1
    }
}

struct Making<'a> {
    image: &'a Image,
    /// What is there in truth.
    present: &'a HashMap<String, PathBuf>,
    choice: &'a mut Choice,
    /// Files that are made already, since one can have several names.
    done: HashMap<String, PathBuf>,
    lost: Lost,
}

impl Making<'_> {
    fn directory(&mut self, key: &str, to: &Path) -> io::Result<()> {
        fs::create_dir(to)?;
        let mut entries = self.image.kept_names(key);
        if let Some(real) = self.present.get(key) {
            let now = list(real)?;
            if now != entries {
                match self.choice.keeps() {
                    true => entries = now,
                    false => self.lost.dirs += 1,
                }
            }
        }
        for entry in entries {
            let to = to.join(&entry.name);
            match (entry.dir, self.done.get(&entry.key)) {
                (true, _) => self.directory(&entry.key, &to)?,
                (false, Some(other)) => fs::hard_link(other, &to)?,
                (false, None) => {
                    let content = self.content(&entry.key);
                    fs::write(&to, content)?;
                    self.done.insert(entry.key, to);
                }
            }
        }
        Ok(())
    }

    fn content(&mut self, key: &str) -> Vec<u8> {
        let kept = fs::read(self.image.file(key)).unwrap_or_default();
        let Some(now) = self.present.get(key).and_then(|path| fs::read(path).ok()) else { return kept };
        let left = leave(&kept, &now, self.choice);
        if left != now {
            self.lost.files += 1;
            self.lost.bytes += now.len().saturating_sub(left.len()).max(1);
        }
        left
    }
}

/// The content of a file of which some of what was written later reached the disk: all changes before a place, none
/// after it; and perhaps the file had grown before its last sector came.
fn leave(kept: &[u8], now: &[u8], choice: &mut Choice) -> Vec<u8> {
    let same = kept.iter().zip(now).take_while(|(a, b)| a == b).count();
    if (same == kept.len() && same == now.len()) || !choice.keeps() {
        return kept.to_vec();
    }
    let cut = same + choice.draw(now.len().saturating_sub(same) + 1);
    let mut left = now[..cut].to_vec();
    if kept.len() > cut {
        // What is written over goes sector by sector.
        let edge = cut.next_multiple_of(SECTOR).min(kept.len());
        left.extend_from_slice(&now[cut.min(now.len())..edge.min(now.len())]);
        left.extend_from_slice(&kept[left.len().min(kept.len())..]);
    } else if choice.keeps() {
        let sector = left.len() / SECTOR * SECTOR;
        let from = sector.max(kept.len()).min(left.len());
        left[from..].fill(0);
    }
    left
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_left_of_a_file_lies_between_what_was_synced_and_what_was_written() {
        let (kept, now) = (vec![1; 1000], [vec![1; 1000], vec![2; 3000]].concat());
        assert_eq!(leave(&kept, &now, &mut Choice::Nothing), kept);
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let left = leave(&kept, &now, &mut Choice::Some(seed));
            assert!(left.starts_with(&kept) && left.len() <= now.len());
            let tail = &left[1000..];
            let zeros = tail.iter().rev().take_while(|b| **b == 0).count();
            assert!(zeros <= SECTOR && tail[..tail.len() - zeros].iter().all(|b| *b == 2), "seed {seed}");
            lengths.insert(left.len());
        }
        assert!(lengths.len() > 50, "torn at many places");
        // Written over in place: the old content after the cut.
        let (kept, now) = (vec![1; 4096], vec![2; 4096]);
        for seed in 0..50 {
            let left = leave(&kept, &now, &mut Choice::Some(seed));
            let new = left.iter().take_while(|b| **b == 2).count();
            assert!(left.len() == 4096 && new % SECTOR == 0 && left[new..].iter().all(|b| *b == 1), "seed {seed}");
        }
    }

    #[test]
    fn what_was_not_synced_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let (data, image) = (folder.path().join("data"), Image::new(&folder.path().join("image")));
        fs::create_dir_all(data.join("sub")).unwrap();
        fs::write(data.join("sub/kept"), "kept").unwrap();
        fs::hard_link(data.join("sub/kept"), data.join("twice")).unwrap();
        fs::write(data.join("gone"), "gone").unwrap();
        image.begin(&data).unwrap();
        // None of this is told to the image.
        fs::write(data.join("sub/kept"), "kept and more").unwrap();
        fs::write(data.join("new"), "new").unwrap();
        fs::rename(data.join("gone"), data.join("moved")).unwrap();
        let lost = image.put_back(&data, &mut Choice::Nothing).unwrap();
        assert_eq!(lost, Lost { files: 1, bytes: 9, dirs: 1 });
        let mut names: Vec<String> = list(&data).unwrap().into_iter().map(|entry| entry.name).collect();
        names.sort();
        assert_eq!(names, ["gone", "sub", "twice"]);
        assert_eq!(fs::read_to_string(data.join("twice")).unwrap(), "kept");
        assert_eq!(at_path(&data.join("twice")).unwrap().key, at_path(&data.join("sub/kept")).unwrap().key, "one file");
        assert!(!image.exists(), "what is there now is on disk");
    }
}
