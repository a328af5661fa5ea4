//! A backup on its way into a file: written beside, fsynced, verified, and only then given its name.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{BackupError, BackupInfo, verify};

/// A backup that is being written. Dropped before its end it leaves nothing behind.
#[derive(Debug)]
pub struct BackupFile {
    path: PathBuf,
    part: PathBuf,
    file: Option<File>,
}

impl BackupFile {
    /// Begins. Nobody else may read the file: it holds all secrets of whoever uses the store.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(path: &Path) -> Result<Self, BackupError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        if name.is_empty() || path.is_dir() {
            let source = std::io::Error::new(std::io::ErrorKind::IsADirectory, "this is no name for a file");
            return Err(BackupError::File { path: path.to_owned(), source });
        }
        name.push(".part");
        let part = path.with_file_name(name);
        let failed = |source| BackupError::File { path: part.clone(), source };
        // What an earlier attempt has left may be anybody's to read, and a link may lead anywhere.
        match fs::remove_file(&part) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).map_err(failed)?;
        Ok(Self { path: path.to_owned(), part, file: Some(file) })
    }

    fn failed(&self, source: std::io::Error) -> BackupError {
        BackupError::File { path: self.part.clone(), source }
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub fn write(&mut self, piece: &[u8]) -> Result<(), BackupError> {
        match &mut self.file {
            Some(file) => file.write_all(piece).map_err(|e| self.failed(e)),
            None => Ok(()),
        }
    }

    /// Makes it durable, reads it again to verify it, and gives it its name.
    ///
    /// # Errors
    /// When the disk fails, or what arrived is not a whole backup.
    pub fn finish(mut self) -> Result<BackupInfo, BackupError> {
        let file = self.file.take();
        if let Some(file) = &file {
            file.sync_all().map_err(|e| self.failed(e))?;
        }
        drop(file);
        let info = verify(&self.part)?;
        fs::rename(&self.part, &self.path).map_err(|e| self.failed(e))?;
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|source| BackupError::File { path: dir.to_owned(), source })?;
        Ok(info)
    }
}

impl Drop for BackupFile {
    fn drop(&mut self) {
        // After the rename there is none.
        let _ = fs::remove_file(&self.part);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn nothing_that_lay_there_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let (path, part, elsewhere) = (dir.path().join("b"), dir.path().join("b.part"), dir.path().join("elsewhere"));
        fs::write(&elsewhere, "theirs").unwrap();
        symlink(&elsewhere, &part).unwrap();
        let mut file = BackupFile::create(&path).unwrap();
        file.write(b"secret").unwrap();
        assert_eq!(fs::read(&elsewhere).unwrap(), b"theirs");
        assert_eq!(fs::symlink_metadata(&part).unwrap().permissions().mode() & 0o7777, 0o600);
        drop(file);
        assert!(!part.exists() && !path.exists());
    }
}
