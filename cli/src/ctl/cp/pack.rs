//! Packing local files.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use tar::{Builder, Header};

/// Writes an archive of a file or directory, under another name.
pub fn pack(source: &Path, name: &str, out: impl Write) -> io::Result<()> {
    let mut archive = Builder::new(out);
    archive.follow_symlinks(false);
    add(&mut archive, source, Path::new(name))?;
    let mut out = archive.into_inner()?;
    out.flush()
}

fn add(archive: &mut Builder<impl Write>, source: &Path, name: &Path) -> io::Result<()> {
    let about = fs::symlink_metadata(source).map_err(|error| named(source, error))?;
    if about.is_dir() {
        let mut entries = fs::read_dir(source)
            .and_then(|entries| entries.collect::<io::Result<Vec<_>>>())
            .map_err(|error| named(source, error))?;
        if entries.is_empty() {
            return archive.append_dir(name, source);
        }
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            add(archive, &entry.path(), &name.join(entry.file_name()))?;
        }
        return Ok(());
    }
    let mut header = Header::new_gnu();
    header.set_metadata(&about);
    if about.is_symlink() {
        let target = fs::read_link(source).map_err(|error| named(source, error))?;
        return archive.append_link(&mut header, name, target);
    }
    if !about.is_file() {
        header.set_size(0);
        return archive.append_data(&mut header, name, io::empty());
    }
    let file = fs::File::open(source).map_err(|error| named(source, error))?;
    // A file that grows or shrinks meanwhile must not break the archive.
    let whole = io::Read::take(io::Read::chain(file, io::repeat(0)), about.len());
    archive.append_data(&mut header, name, whole)
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
