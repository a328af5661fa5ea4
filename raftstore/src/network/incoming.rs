//! A snapshot on its way in. Files that have come whole stay if the transfer breaks off, also over a restart, and need not
//! be sent again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use tokio::time::Instant;

use super::frames::FrameReader;
use super::wire::{SnapshotHave, SnapshotHead};
use crate::simulation;
use crate::storage::disk::{Disk, DiskFile};
use crate::storage::snapshot::{self, SnapshotDir};

/// What is not whole yet ends in this.
const PART: &str = ".part";
/// After so long without a message what has come is given up.
const FORGET: Duration = Duration::from_secs(600);
const BUFFER: usize = 1 << 20;

/// Size and CRC-32 of whole files.
type Whole = BTreeMap<String, (u64, u32)>;

/// What has come so far. One snapshot comes at a time.
pub(crate) struct Incoming {
    disk: Disk,
    data_dir: PathBuf,
    /// The whole files; none before the first look at the disk.
    whole: Option<Whole>,
    used: Instant,
}

/// CRC-32 of the content of a file.
pub(crate) fn checksum(disk: &Disk, path: &Path) -> io::Result<u32> {
    let (file, mut at, mut hasher) = (disk.open(path)?, 0, crc32fast::Hasher::new());
    loop {
        let piece = file.read_at(at, BUFFER)?;
        if piece.is_empty() {
            return Ok(hasher.finalize());
        }
        at += piece.len() as u64;
        hasher.update(&piece);
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    simulation::blocking(work).await.map_err(io::Error::other)?
}

/// Names that may be those of files in a snapshot.
fn check_name(name: &str) -> io::Result<()> {
    let odd = name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') || name.ends_with(PART);
    if odd { Err(io::Error::other(format!("file name {name:?} in a snapshot"))) } else { Ok(()) }
}

impl Incoming {
    pub(crate) fn new(disk: &Disk, data_dir: &Path) -> Self {
        Self { disk: disk.clone(), data_dir: data_dir.to_owned(), whole: None, used: Instant::now() }
    }

    fn dir(&self) -> PathBuf {
        snapshot::incoming(&self.data_dir)
    }

    /// Looks what an earlier run has left.
    async fn look(&mut self) -> io::Result<&mut Whole> {
        if self.whole.is_none() {
            let (disk, dir) = (self.disk.clone(), self.dir());
            let found = blocking(move || {
                disk.create_dir(&dir)?;
                let mut found = Whole::new();
                for name in disk.list(&dir)? {
                    let path = dir.join(&name);
                    match check_name(&name) {
                        Ok(()) => drop(found.insert(name, (disk.len(&path)?, checksum(&disk, &path)?))),
                        Err(_) => disk.remove_file(&path)?,
                    }
                }
                Ok(found)
            });
            self.whole = Some(found.await?);
        }
        Ok(self.whole.get_or_insert_default())
    }

    /// Which of the offered files are here.
    pub(crate) async fn have(&mut self, offered: &[(String, u64)]) -> io::Result<SnapshotHave> {
        self.used = Instant::now();
        let whole = self.look().await?;
        let here = |(name, size): &(String, u64)| {
            let (found, sum) = whole.get(name)?;
            (found == size).then(|| (name.clone(), *size, *sum))
        };
        Ok(SnapshotHave { files: offered.iter().filter_map(here).collect() })
    }

    /// Takes the files that follow a head, and hands them over once all are here.
    pub(crate) async fn receive<B>(
        &mut self,
        reader: &mut FrameReader<B>,
        head: &SnapshotHead,
    ) -> io::Result<Arc<SnapshotDir>>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        let dir = self.dir();
        self.look().await?;
        for file in &head.files {
            check_name(&file.name)?;
            let whole = self.look().await?;
            if file.kept {
                match whole.get(&file.name) {
                    Some((size, _)) if *size == file.size => continue,
                    _ => return Err(io::Error::other(format!("{} is not here", file.name))),
                }
            }
            whole.remove(&file.name);
            let sum = receive_file(reader, &self.disk, &dir, &file.name, file.size).await?;
            self.look().await?.insert(file.name.clone(), (file.size, sum));
            self.used = Instant::now();
        }
        let (wanted, target) = (head.files.clone(), snapshot::fresh_dir(&self.disk, &self.data_dir));
        self.whole = None;
        let place = target.clone();
        blocking(move || {
            let disk = place.disk();
            for name in disk.list(&dir)? {
                if !wanted.iter().any(|file| file.name == name) {
                    disk.remove_file(&dir.join(name))?;
                }
            }
            Ok(disk.rename(&dir, place.path())?)
        })
        .await?;
        Ok(target)
    }

    /// Gives up what nobody has gone on with.
    pub(crate) fn forget_old(&mut self) {
        if self.whole.as_ref().is_some_and(|whole| !whole.is_empty()) && self.used.elapsed() >= FORGET {
            tracing::info!("a snapshot that broke off is given up");
            self.whole = None;
            let _ = self.disk.remove_dir(&self.dir());
        }
    }
}

/// Writes all files that a head lists into a directory, which must not exist yet.
pub(crate) async fn receive_files<B>(
    reader: &mut FrameReader<B>,
    head: &SnapshotHead,
    dir: &SnapshotDir,
) -> io::Result<()>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    dir.disk().create_dir(dir.path())?;
    for file in &head.files {
        check_name(&file.name)?;
        receive_file(reader, dir.disk(), dir.path(), &file.name, file.size).await?;
    }
    Ok(())
}

/// A file on its way in: what came is gathered and written in large pieces.
struct Part {
    file: Arc<DiskFile>,
    written: u64,
    gathered: BytesMut,
}

impl Part {
    async fn add(&mut self, piece: &[u8]) -> io::Result<()> {
        self.gathered.extend_from_slice(piece);
        if self.gathered.len() < BUFFER { Ok(()) } else { self.flush().await }
    }

    async fn flush(&mut self) -> io::Result<()> {
        let (file, bytes, at) = (self.file.clone(), self.gathered.split(), self.written);
        self.written += bytes.len() as u64;
        blocking(move || Ok(file.write_at(at, &bytes)?)).await
    }
}

async fn receive_file<B>(reader: &mut FrameReader<B>, disk: &Disk, dir: &Path, name: &str, size: u64) -> io::Result<u32>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let path = dir.join(format!("{name}{PART}"));
    let mut part = Part { file: Arc::new(disk.create(&path)?), written: 0, gathered: BytesMut::new() };
    let (mut left, mut hasher) = (size, crc32fast::Hasher::new());
    while left > 0 {
        let piece = reader.piece(left).await?;
        left -= piece.len() as u64;
        hasher.update(&piece);
        part.add(&piece).await?;
    }
    part.flush().await?;
    drop(part);
    let mut sum = [0; 4];
    for byte in &mut sum {
        *byte = reader.piece(1).await?[0];
    }
    let found = hasher.finalize();
    if found != u32::from_be_bytes(sum) {
        return Err(io::Error::other(format!("{name} came damaged")));
    }
    disk.rename(&path, &dir.join(name))?;
    Ok(found)
}
