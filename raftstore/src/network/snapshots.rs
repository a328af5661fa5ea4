//! Sending snapshots: the receiver is asked what it has from an earlier attempt; then a frame that says what comes, and the
//! files that are missing, each followed by its CRC-32. No faster than is good for everybody else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::frames::{FrameReader, frame};
use super::incoming::checksum;
pub(crate) use super::incoming::receive_files;
use super::peers;
use super::wire::{SnapshotFile, SnapshotHave, SnapshotHead};
use crate::codec;
use crate::metrics::Metrics;
use crate::simulation::blocking;
use crate::storage::snapshot::SnapshotDir;

const CHUNK: usize = 256 << 10;
/// Chunks read ahead of the network.
const AHEAD: usize = 4;

/// Spreads bytes over time.
struct Pace {
    begun: Instant,
    sent: u64,
    rate: u64,
}

impl Pace {
    /// How long to wait before more is sent.
    fn wait(&self, now: Instant) -> Duration {
        let due = Duration::from_secs_f64(self.sent as f64 / self.rate.max(1) as f64);
        due.saturating_sub(now.duration_since(self.begun))
    }
}

/// All of them.
pub(crate) fn all(files: Vec<(String, u64)>) -> Vec<SnapshotFile> {
    files.into_iter().map(|(name, size)| SnapshotFile { name, size, kept: false }).collect()
}

/// Which files have to be sent: those that the receiver has are compared first.
pub(crate) fn missing(
    dir: &SnapshotDir,
    files: Vec<(String, u64)>,
    have: &SnapshotHave,
) -> io::Result<Vec<SnapshotFile>> {
    let mut list = Vec::with_capacity(files.len());
    for (name, size) in files {
        let claimed = have.files.iter().find(|(n, s, _)| *n == name && *s == size);
        let kept = match claimed {
            Some((_, _, sum)) => checksum(dir.disk(), &dir.path().join(&name))? == *sum,
            None => false,
        };
        list.push(SnapshotFile { name, size, kept });
    }
    Ok(list)
}

/// A body with a head and the files of it that are to be sent, at so many bytes a second.
pub(crate) fn body(head: &SnapshotHead, dir: Arc<SnapshotDir>, rate: u64, metrics: Metrics) -> peers::Body {
    let (chunks, receiver) = mpsc::channel(AHEAD);
    let (first, files) = (frame(&codec::encode(head)), head.files.clone());
    tokio::spawn(async move {
        if chunks.send(Ok(first)).await.is_err() {
            return;
        }
        let mut pace = Pace { begun: Instant::now(), sent: 0, rate };
        for file in files.iter().filter(|file| !file.kept) {
            if let Err(error) = send_file(&dir, &file.name, file.size, &chunks, &mut pace, &metrics).await {
                let _ = chunks.send(Err(error)).await;
                return;
            }
        }
    });
    let chunks = futures::StreamExt::map(ReceiverStream::new(receiver), |chunk| chunk.map(Frame::data));
    StreamBody::new(chunks).boxed_unsync()
}

async fn send_file(
    dir: &Arc<SnapshotDir>,
    name: &str,
    size: u64,
    chunks: &mpsc::Sender<io::Result<Bytes>>,
    pace: &mut Pace,
    metrics: &Metrics,
) -> io::Result<()> {
    let file = Arc::new(dir.disk().open(&dir.path().join(name))?);
    let (mut at, mut hasher) = (0, crc32fast::Hasher::new());
    while at < size {
        let (source, most) = (file.clone(), CHUNK.min((size - at) as usize));
        let chunk = blocking(move || source.read_at(at, most)).await.map_err(io::Error::other)??;
        if chunk.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(&chunk);
        at += chunk.len() as u64;
        pace.sent += chunk.len() as u64;
        metrics.snapshot_sent_bytes.inc_by(chunk.len() as u64);
        chunks.send(Ok(chunk.into())).await.map_err(io::Error::other)?;
        let wait = pace.wait(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
    let sum = hasher.finalize().to_be_bytes();
    chunks.send(Ok(Bytes::copy_from_slice(&sum))).await.map_err(io::Error::other)
}

/// Reads the head of a snapshot.
pub(crate) async fn receive_head<B>(reader: &mut FrameReader<B>) -> io::Result<SnapshotHead>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let head = reader.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
    Ok(codec::decode(&head)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::super::incoming::Incoming;
    use super::*;
    use crate::storage::disk::Disk;
    use crate::storage::records::{MembersRecord, VoteRecord};
    use crate::storage::snapshot::fresh_dir;

    fn head(files: Vec<SnapshotFile>) -> SnapshotHead {
        let vote = VoteRecord { term: 1, node: 1, committed: true };
        SnapshotHead { vote, at: None, members: MembersRecord::default(), files }
    }

    #[test]
    fn bytes_are_spread_over_time() {
        let begun = Instant::now();
        let pace = Pace { begun, sent: 3 << 20, rate: 1 << 20 };
        assert_eq!(pace.wait(begun), Duration::from_secs(3));
        assert_eq!(pace.wait(begun + Duration::from_secs(2)), Duration::from_secs(1));
        assert_eq!(pace.wait(begun + Duration::from_secs(9)), Duration::ZERO);
    }

    /// A transfer that breaks off goes on where it was, also after a restart, and with files that changed meanwhile.
    #[tokio::test]
    async fn what_has_come_is_not_sent_again() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let source = fresh_dir(&Disk::Real, from.path());
        fs::create_dir_all(source.path()).unwrap();
        for (name, byte) in [("000001.sst", 1u8), ("000002.sst", 2), ("000003.sst", 3), ("CURRENT", 4)] {
            fs::write(source.path().join(name), vec![byte; 600 << 10]).unwrap();
        }
        let files = source.files().unwrap();
        let none = SnapshotHave { files: Vec::new() };
        let all = head(missing(&source, files.clone(), &none).unwrap());
        let metrics = Metrics::default();
        let whole = body(&all, source.clone(), u64::MAX, metrics.clone()).collect().await.unwrap().to_bytes();
        // Two files and a half arrive.
        let cut = whole.slice(..whole.len() - (900 << 10));
        let mut incoming = Incoming::new(&Disk::Real, to.path());
        let mut reader = FrameReader::new(http_body_util::Full::new(cut));
        let received = receive_head(&mut reader).await.unwrap();
        assert!(incoming.receive(&mut reader, &received).await.is_err());
        drop(incoming);
        let mut incoming = Incoming::new(&Disk::Real, to.path());
        let have = incoming.have(&files).await.unwrap();
        let names: Vec<_> = have.files.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["000001.sst", "000002.sst"]);
        // One of them is another file by now: size and name are the same, the content is not.
        fs::write(source.path().join("000002.sst"), vec![9; 600 << 10]).unwrap();
        let rest = head(missing(&source, files, &have).unwrap());
        assert_eq!(rest.files.iter().filter(|f| f.kept).count(), 1);
        let before = metrics.snapshot_sent_bytes.get();
        let rest = body(&rest, source.clone(), u64::MAX, metrics.clone()).collect().await.unwrap().to_bytes();
        assert_eq!(metrics.snapshot_sent_bytes.get() - before, 3 * (600 << 10));
        let mut reader = FrameReader::new(http_body_util::Full::new(rest));
        let received = receive_head(&mut reader).await.unwrap();
        let target = incoming.receive(&mut reader, &received).await.unwrap();
        assert_eq!(target.files().unwrap(), source.files().unwrap());
        for (name, _) in source.files().unwrap() {
            assert_eq!(fs::read(target.path().join(&name)).unwrap(), fs::read(source.path().join(&name)).unwrap());
        }
        // Damage on the way is noticed.
        let mut bytes = whole.to_vec();
        let at = bytes.len() - 1000;
        bytes[at] ^= 1;
        let mut reader = FrameReader::new(http_body_util::Full::new(Bytes::from(bytes)));
        let received = receive_head(&mut reader).await.unwrap();
        let error = incoming.receive(&mut reader, &received).await.unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}
