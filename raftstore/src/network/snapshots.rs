//! Sending and receiving snapshots: a frame that says what comes, then the files one after the other.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::frames::{FrameReader, frame};
use super::peers;
use super::wire::SnapshotHead;
use crate::codec;
use crate::storage::snapshot::SnapshotDir;

const CHUNK: usize = 256 << 10;
/// Chunks read ahead of the network.
const AHEAD: usize = 8;

/// A body with a head and the files that it lists.
pub(crate) fn body(head: &SnapshotHead, dir: Arc<SnapshotDir>) -> peers::Body {
    let (chunks, receiver) = mpsc::channel(AHEAD);
    let (first, files) = (frame(&codec::encode(head)), head.files.clone());
    tokio::task::spawn_blocking(move || {
        if chunks.blocking_send(Ok(first)).is_err() {
            return;
        }
        for (name, size) in files {
            if let Err(error) = read_file(&dir.path().join(name), size, &chunks) {
                let _ = chunks.blocking_send(Err(error));
                return;
            }
        }
    });
    let chunks = futures::StreamExt::map(ReceiverStream::new(receiver), |chunk| chunk.map(Frame::data));
    StreamBody::new(chunks).boxed_unsync()
}

fn read_file(path: &std::path::Path, size: u64, chunks: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut file = File::open(path)?.take(size);
    let mut left = size;
    while left > 0 {
        let mut chunk = vec![0; CHUNK.min(left as usize)];
        file.read_exact(&mut chunk)?;
        left -= chunk.len() as u64;
        chunks.blocking_send(Ok(chunk.into())).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Reads the head of a snapshot.
pub(crate) async fn receive_head<B>(reader: &mut FrameReader<B>) -> io::Result<SnapshotHead>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let head = reader.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
    Ok(codec::decode(&head)?)
}

/// Writes the files of a snapshot into a directory, which must not exist yet.
pub(crate) async fn receive_files<B>(
    reader: &mut FrameReader<B>,
    head: &SnapshotHead,
    dir: &SnapshotDir,
) -> io::Result<()>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    tokio::fs::create_dir(dir.path()).await?;
    for (name, size) in &head.files {
        if name.contains(['/', '\0']) || name.starts_with('.') {
            return Err(io::Error::other(format!("file name {name:?} in a snapshot")));
        }
        let mut file = tokio::fs::File::create(dir.path().join(name)).await?;
        let mut left = *size;
        while left > 0 {
            let piece = reader.piece(left).await?;
            left -= piece.len() as u64;
            file.write_all(&piece).await?;
        }
        file.flush().await?;
    }
    Ok(())
}
