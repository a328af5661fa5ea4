//! A state that is damaged while log and vote are not: noted durably, then replaced by a new one at the next start.

use std::path::Path;

use super::{StorageError, files};

/// File that says that the state must not be used any more, and why.
const MARKER: &str = "rebuild";

/// Notes that the state is damaged.
pub(crate) fn mark(data_dir: &Path, why: &str) -> Result<(), StorageError> {
    files::write_whole(data_dir, MARKER, why.as_bytes())
}

/// Why the state has to be replaced, if it was noted.
pub(crate) fn marked(data_dir: &Path) -> Result<Option<String>, StorageError> {
    let content = files::read_optional(&data_dir.join(MARKER))?;
    Ok(content.map(|why| String::from_utf8_lossy(&why).into_owned()))
}

/// The state was replaced.
pub(crate) fn done(data_dir: &Path) -> Result<(), StorageError> {
    match std::fs::remove_file(data_dir.join(MARKER)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StorageError::io(MARKER, e)),
        _ => files::sync_dir(data_dir),
    }
}
