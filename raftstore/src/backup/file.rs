//! A backup on its way into a file: written beside, fsynced, verified, and only then given its name.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{Error, ErrorKind, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{BackupError, BackupInfo, verify};

/// What the names of files end in that are being written.
const PART: &[u8] = b".part";
/// Digits between the name and its ending.
const DIGITS: usize = 16;
/// Longest name of a file.
const NAME_MAX: usize = 255;

/// A backup that is being written. Dropped before its end it leaves nothing behind. Others may write to the same name
/// meanwhile: each has a file of its own, locked while it is at work, and whoever finishes last has the name.
#[derive(Debug)]
pub struct BackupFile {
    path: PathBuf,
    target: PathBuf,
    part: PathBuf,
    file: File,
}

impl BackupFile {
    /// Begins. Nobody else may read the file: it holds all secrets of whoever uses the store.
    ///
    /// # Errors
    /// When the file cannot be written, or what has its name is not a file that may be replaced.
    pub fn create(path: &Path) -> Result<Self, BackupError> {
        let begin = || {
            let target = target(path)?;
            remove_stale(&target);
            let (part, file) = open_part(&target)?;
            Ok((target, part, file))
        };
        let (target, part, file) = begin().map_err(|source| BackupError::File { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), target, part, file })
    }

    fn failed(&self, source: Error) -> BackupError {
        BackupError::File { path: self.path.clone(), source }
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), BackupError> {
        self.file.write_all(piece).map_err(|e| self.failed(e))
    }

    /// Makes it durable, reads it again to verify it, and gives it its name.
    ///
    /// # Errors
    /// When the disk fails, or what arrived is not a whole backup.
    pub fn finish(self) -> Result<BackupInfo, BackupError> {
        self.file.sync_all().map_err(|e| self.failed(e))?;
        let info = verify(&self.part).map_err(|error| match error {
            BackupError::File { source, .. } => self.failed(source),
            other => other,
        })?;
        // What has the name by now may be another thing than when this began.
        let named = target(&self.path).and_then(|target| fs::rename(&self.part, target));
        named.map_err(|e| self.failed(e))?;
        let synced = File::open(folder(&self.target)).and_then(|dir| dir.sync_all());
        synced.map_err(|source| BackupError::File { path: folder(&self.target).to_owned(), source })?;
        Ok(info)
    }
}

impl Drop for BackupFile {
    fn drop(&mut self) {
        // After the rename there is none.
        let _ = fs::remove_file(&self.part);
    }
}

/// The file that is written or replaced: the one of this name, or where a link of this name leads.
fn target(path: &Path) -> Result<PathBuf, Error> {
    let named = path.file_name().is_some() && !path.as_os_str().as_bytes().ends_with(b"/");
    let refused = |kind, why: &str| Err(Error::new(kind, why));
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && named => {
            let dir = folder(path);
            if !dir.exists() {
                return refused(ErrorKind::NotFound, &format!("there is no folder {}", dir.display()));
            }
            return Ok(path.to_owned());
        }
        Err(error) if named => return Err(error),
        Err(_) => return refused(ErrorKind::IsADirectory, "this is no name for a file"),
        Ok(found) => found,
    };
    let (target, found) = if found.is_symlink() {
        match fs::canonicalize(path) {
            Ok(target) => (target.clone(), fs::symlink_metadata(&target)?),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return refused(ErrorKind::NotFound, "this is a link that leads nowhere");
            }
            Err(error) => return Err(error),
        }
    } else {
        (path.to_owned(), found)
    };
    match (found.is_dir(), found.is_file() && named) {
        (true, _) => refused(ErrorKind::IsADirectory, "this is a folder; name a file in it"),
        (_, false) => refused(ErrorKind::AlreadyExists, "this is no regular file, so no snapshot takes its place"),
        (_, true) => Ok(target),
    }
}

/// Where a file is.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What the names of a file's parts begin with.
fn prefix(target: &Path) -> Vec<u8> {
    let name = target.file_name().unwrap_or_default().as_bytes();
    let mut prefix = name[..name.len().min(NAME_MAX - PART.len() - DIGITS - 1)].to_vec();
    prefix.push(b'.');
    prefix
}

/// A new file beside, which nobody else has, locked.
fn open_part(target: &Path) -> Result<(PathBuf, File), Error> {
    loop {
        let mut name = prefix(target);
        name.extend(format!("{:0DIGITS$x}", rand::random::<u64>()).into_bytes());
        name.extend(PART);
        let part = target.with_file_name(OsString::from_vec(name));
        let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            opened => opened?,
        };
        // Where a file system has no locks, nobody gets one to remove it by either.
        let locked = file.lock();
        // Before it was locked somebody may have taken it for a leftover.
        if locked.is_err() || file.metadata()?.nlink() > 0 {
            return Ok((part, file));
        }
    }
}

/// Removes what attempts have left whose process has ended: nobody holds their lock. A failure costs only space.
fn remove_stale(target: &Path) {
    let prefix = prefix(target);
    let ours = |name: &OsStr| {
        let digits = name.as_bytes().strip_prefix(&prefix[..]).and_then(|rest| rest.strip_suffix(PART));
        digits.is_some_and(|digits| {
            digits.len() == DIGITS && digits.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
        })
    };
    for entry in fs::read_dir(folder(target)).into_iter().flatten().flatten() {
        let regular = entry.file_type().is_ok_and(|kind| kind.is_file());
        if regular
            && ours(&entry.file_name())
            && let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

    use super::super::{BackupHeader, Encoder, FORMAT};
    use super::*;

    fn whole(revision: u64) -> Vec<u8> {
        let header = BackupHeader {
            format: FORMAT,
            version: "1".into(),
            lineage: "l".into(),
            ancestors: Vec::new(),
            revision,
            compacted: 0,
            term: 1,
            index: 1,
            feature_level: 1,
            next_member: 2,
            taken_by: "m".into(),
            taken_at_ms: 1,
            members: Vec::new(),
        };
        let (encoder, begin) = Encoder::new(&header);
        [begin, encoder.finish().0].concat()
    }

    fn save(path: &Path, revision: u64) -> Result<BackupInfo, BackupError> {
        let mut file = BackupFile::create(path)?;
        file.write(&whole(revision))?;
        file.finish()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn told(error: BackupError) -> String {
        match error {
            BackupError::File { path, source } => format!("{}: {source}", path.display()),
            other => other.to_string(),
        }
    }

    #[test]
    fn what_is_no_file_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (pipe, link, nowhere) = (at("pipe"), at("link"), at("nowhere"));
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        symlink("pipe", &link).unwrap();
        symlink("absent", &nowhere).unwrap();
        fs::create_dir(at("folder")).unwrap();
        symlink("folder", at("to-folder")).unwrap();
        for (name, why) in [
            ("pipe", "no regular file"),
            ("link", "no regular file"),
            ("nowhere", "leads nowhere"),
            ("folder", "this is a folder"),
            ("to-folder", "this is a folder"),
            ("absent/", "no name for a file"),
            ("absent/b.snapshot", "there is no folder"),
        ] {
            let error = told(save(&at(name), 7).unwrap_err());
            assert!(error.contains(why) && error.contains(name) && !error.contains("part"), "{name}: {error}");
        }
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(dir.path()), ["folder", "link", "nowhere", "pipe", "to-folder"]);
        // Nor does it take the place of what has come there meanwhile.
        let mut file = BackupFile::create(&at("late")).unwrap();
        file.write(&whole(7)).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("late"), rustix::fs::Mode::RUSR).unwrap();
        assert!(told(file.finish().unwrap_err()).contains("no regular file"));
        assert!(fs::symlink_metadata(at("late")).unwrap().file_type().is_fifo());
    }

    #[test]
    fn a_link_to_a_file_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (link, there) = (dir.path().join("link"), dir.path().join("there"));
        fs::create_dir(&there).unwrap();
        fs::write(there.join("b"), "old").unwrap();
        symlink("there/b", &link).unwrap();
        save(&link, 7).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(verify(&there.join("b")).unwrap().header.revision, 7);
        assert_eq!((names(dir.path()).len(), names(&there).len()), (2, 1));
    }

    #[test]
    fn two_at_once_into_one_file_leave_each_other_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        let mut one = BackupFile::create(&path).unwrap();
        one.write(&whole(1)).unwrap();
        let mut two = BackupFile::create(&path).unwrap();
        one.finish().unwrap();
        assert_eq!(verify(&path).unwrap().header.revision, 1);
        let third = BackupFile::create(&path).unwrap();
        two.write(&whole(2)).unwrap();
        two.finish().unwrap();
        assert_eq!(verify(&path).unwrap().header.revision, 2);
        drop(third);
        assert_eq!(names(dir.path()), ["b"]);
    }

    #[test]
    fn only_what_an_ended_attempt_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (dir.path().join("b"), dir.path().join("elsewhere"));
        let (stale, link) = (dir.path().join("b.0123456789abcdef.part"), dir.path().join("b.0123456789abcde0.part"));
        let others = ["b.part", "b.c.0123456789abcdef.part", "b.notes.part", "bb.0123456789abcdef.part"];
        for name in others {
            fs::write(dir.path().join(name), "theirs").unwrap();
        }
        fs::write(&stale, "torn").unwrap();
        fs::write(&elsewhere, "theirs").unwrap();
        symlink(&elsewhere, &link).unwrap();
        let mut file = BackupFile::create(&path).unwrap();
        file.write(b"secret").unwrap();
        assert!(!stale.exists());
        assert!(others.iter().all(|name| fs::read(dir.path().join(name)).unwrap() == b"theirs"));
        assert_eq!(fs::read(&elsewhere).unwrap(), b"theirs");
        assert_eq!(fs::symlink_metadata(&file.part).unwrap().permissions().mode() & 0o7777, 0o600);
        // What is not whole never gets the name.
        let part = file.part.clone();
        assert!(matches!(file.finish(), Err(BackupError::NotABackup)));
        assert!(!part.exists() && !path.exists());
    }

    #[test]
    fn the_longest_name_fits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n".repeat(NAME_MAX));
        save(&path, 7).unwrap();
        assert_eq!(verify(&path).unwrap().header.revision, 7);
    }
}
