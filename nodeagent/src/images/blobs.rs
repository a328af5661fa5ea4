//! Content by digest: a file per blob, complete or absent.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::ImageError;
use super::error::IoContext;

/// The directories of the store. Every file gets its final name only once its bytes are on disk.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    root: PathBuf,
}

impl Blobs {
    /// Makes the directories and clears what was being written when the last process died.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        let blobs = Self { root: root.to_owned() };
        match fs::remove_dir_all(blobs.tmp_dir()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).context(|| format!("cannot clear {:?}", blobs.tmp_dir()));
            }
            _ => {}
        }
        for dir in [blobs.blob_dir(), blobs.layer_dir(), blobs.tmp_dir()] {
            fs::create_dir_all(&dir).context(|| format!("cannot make {dir:?}"))?;
        }
        Ok(blobs)
    }

    pub fn blob_dir(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub fn layer_dir(&self) -> PathBuf {
        self.root.join("layers")
    }

    fn tmp_dir(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// A path below `tmp` that nobody else uses; nothing is made there yet.
    pub fn scratch(&self) -> PathBuf {
        self.tmp_dir().join(uuid::Uuid::new_v4().simple().to_string())
    }

    pub fn path(&self, digest: &str) -> Result<PathBuf, ImageError> {
        let hex = hex_of(digest).ok_or_else(|| ImageError::malformed(format!("unsupported digest {digest:?}")))?;
        Ok(self.blob_dir().join(hex))
    }

    /// Where the unpacked layer of that diff-id is or would be.
    pub fn layer_path(&self, diff_id: &str) -> Result<PathBuf, ImageError> {
        let hex = hex_of(diff_id).ok_or_else(|| ImageError::malformed(format!("unsupported diff id {diff_id:?}")))?;
        Ok(self.layer_dir().join(hex))
    }

    pub fn contains(&self, digest: &str) -> bool {
        self.path(digest).is_ok_and(|path| path.is_file())
    }

    /// The whole blob, which must be small.
    pub fn read_small(&self, digest: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let path = self.path(digest)?;
        let file = File::open(&path).context(|| format!("cannot open blob {digest}"))?;
        let bytes = read_limited(file, limit, digest)?;
        verify(&format!("blob {digest}"), digest, &digest_of(&bytes))?;
        Ok(bytes)
    }

    pub fn writer(&self) -> Result<BlobWriter, ImageError> {
        let path = self.scratch();
        let file = File::create_new(&path).context(|| format!("cannot make {path:?}"))?;
        Ok(BlobWriter { blobs: self.clone(), path: Some(path), file, hasher: Sha256::new(), size: 0 })
    }

    /// Stores bytes at hand; gives their digest.
    pub fn put(&self, bytes: &[u8]) -> Result<String, ImageError> {
        let mut writer = self.writer()?;
        writer.write_all(bytes).context(|| "cannot write a blob".to_owned())?;
        writer.commit(None)
    }

    /// Takes a file of this file system in, whose digest the caller has computed.
    pub fn adopt(&self, file: &Path, digest: &str) -> Result<(), ImageError> {
        let target = self.path(digest)?;
        if target.is_file() {
            return Ok(());
        }
        File::open(file).and_then(|file| file.sync_all()).context(|| format!("cannot sync {file:?}"))?;
        fs::rename(file, &target).context(|| format!("cannot name blob {digest}"))?;
        sync_dir(&self.blob_dir())
    }
}

/// A blob being written. Dropped without [`BlobWriter::commit`], it leaves nothing.
pub(crate) struct BlobWriter {
    blobs: Blobs,
    path: Option<PathBuf>,
    file: File,
    hasher: Sha256,
    size: u64,
}

impl BlobWriter {
    /// Checks the digest, syncs and names the blob; gives its digest.
    pub fn commit(mut self, expected: Option<&str>) -> Result<String, ImageError> {
        let digest = format!("sha256:{}", hex(&self.hasher.finalize_reset()));
        if let Some(expected) = expected {
            verify("downloaded blob", expected, &digest)?;
        }
        let Some(path) = self.path.take() else { return Ok(digest) };
        let result = self.blobs.adopt(&path, &digest);
        // Still there if the blob existed already, or on failure.
        let _ = fs::remove_file(&path);
        result.map(|()| digest)
    }

    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.file.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            let _ = fs::remove_file(path);
        }
    }
}

/// Hashes whatever is read through it.
pub(crate) struct HashingReader<R> {
    inner: R,
    hasher: Sha256,
    count: u64,
}

impl<R: Read> HashingReader<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new(), count: 0 }
    }

    /// Reads to the end and gives digest and length of the whole stream.
    pub fn finish(mut self) -> io::Result<(String, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((format!("sha256:{}", hex(&self.hasher.finalize())), self.count))
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.count += count as u64;
        Ok(count)
    }
}

/// The hexadecimal part of a well-formed `sha256:` digest.
pub(crate) fn hex_of(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix("sha256:")?;
    (hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))).then_some(hex)
}

pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn verify(what: &str, expected: &str, actual: &str) -> Result<(), ImageError> {
    if expected == actual {
        return Ok(());
    }
    Err(ImageError::Digest { what: what.to_owned(), expected: expected.to_owned(), actual: actual.to_owned() })
}

pub(crate) fn read_limited(reader: impl Read, limit: u64, what: &str) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes).context(|| format!("cannot read {what}"))?;
    if bytes.len() as u64 > limit {
        return Err(ImageError::malformed(format!("{what} is larger than {limit} bytes")));
    }
    Ok(bytes)
}

pub(crate) fn sync_dir(dir: &Path) -> Result<(), ImageError> {
    File::open(dir).and_then(|dir| dir.sync_all()).context(|| format!("cannot sync {dir:?}"))
}

/// Replaces a small file so that either the old or the new content is there after a crash.
pub(crate) fn replace_file(scratch: &Path, target: &Path, content: &[u8]) -> Result<(), ImageError> {
    let write = || -> io::Result<()> {
        let mut file = File::create(scratch)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(scratch, target)
    };
    write().context(|| format!("cannot write {target:?}"))?;
    sync_dir(target.parent().unwrap_or(Path::new(".")))
}
