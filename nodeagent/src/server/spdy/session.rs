//! A session: one task that reads frames, one that writes them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::frame::{Control, Head, INITIAL_WINDOW_SIZE, Malformed, Outgoing, reset};
use super::headers::{BadBlock, Compressor, Decompressor, Headers};
use super::shared::{Incoming, Opened, Shared};

/// Frames that wait to be written; then whoever sends waits.
const QUEUE: usize = 16;
/// Opened streams that nobody has taken yet.
const BACKLOG: usize = 16;
/// Bytes read at once.
const CHUNK: usize = 16 << 10;
/// A session on which nothing moves for so long is ended, as kubelets do.
const IDLE: Duration = Duration::from_secs(4 * 3600);
/// After the last frame the peer gets so long to close the connection.
const LINGER: Duration = Duration::from_secs(5);
/// Status of the last frame.
const OK: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;

/// Why the reader ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the connection has ended: {0}")]
    Connection(#[from] std::io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Block(#[from] BadBlock),
    #[error("stream {0} cannot be opened")]
    Stream(u32),
    #[error("the session's window is too large")]
    Window,
    #[error("nothing has moved for a long time")]
    Idle,
    #[error("this side has ended")]
    Closed,
}

/// A session with a client, over any byte stream. Dropping it cuts the connection.
pub(in crate::server) struct Session {
    incoming: mpsc::Receiver<Incoming>,
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Session {
    pub(in crate::server) fn start(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Session {
        let (read_half, write_half) = tokio::io::split(io);
        let (out, queue) = mpsc::channel(QUEUE);
        let (opened, incoming) = mpsc::channel(BACKLOG);
        let shared = Shared::new(out);
        let reader = tokio::spawn(Reader { io: read_half, opened, shared: shared.clone() }.run());
        let writer = tokio::spawn(write(write_half, queue, shared.clone()));
        Session { incoming, shared, reader, writer }
    }

    /// The next stream that the client opens; `None` once the connection has ended.
    pub(in crate::server) async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Cancelled once the connection has ended.
    pub(in crate::server) fn closed(&self) -> CancellationToken {
        self.shared.closed.clone()
    }

    /// Sends what is still queued, says goodbye and leaves the client a moment to close.
    pub(in crate::server) async fn finish(mut self) {
        // New streams and data are dropped from now on, so that the reader goes on.
        self.incoming.close();
        let last = self.shared.last.load(Ordering::Relaxed);
        if self.shared.send(Outgoing::GoAway { last, status: OK }).await.is_ok() {
            let _ = tokio::time::timeout(IDLE, &mut self.writer).await;
            let _ = tokio::time::timeout(LINGER, &mut self.reader).await;
        }
    }

    #[cfg(test)]
    pub(super) fn open_streams(&self) -> usize {
        self.shared.count()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.close();
        self.reader.abort();
        self.writer.abort();
    }
}

async fn write(mut io: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Outgoing>, shared: Arc<Shared>) {
    let mut compressor = Compressor::new();
    let mut buffer = BytesMut::new();
    while let Some(frame) = queue.recv().await {
        let mut last = matches!(frame, Outgoing::GoAway { .. });
        frame.encode(&mut compressor, &mut buffer);
        while !last && buffer.len() < CHUNK {
            let Ok(frame) = queue.try_recv() else { break };
            last = matches!(frame, Outgoing::GoAway { .. });
            frame.encode(&mut compressor, &mut buffer);
        }
        shared.active.store(true, Ordering::Relaxed);
        if io.write_all(&buffer).await.is_err() || io.flush().await.is_err() {
            return shared.close();
        }
        buffer.clear();
        if last {
            break;
        }
    }
    let _ = io.shutdown().await;
}

struct Reader<R> {
    io: R,
    opened: mpsc::Sender<Incoming>,
    shared: Arc<Shared>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    async fn run(mut self) {
        let end = self.frames().await;
        if let Err(end) = end
            && !matches!(end, End::Connection(_))
        {
            tracing::debug!(%end, "a SPDY session ends");
            let last = self.shared.last.load(Ordering::Relaxed);
            let _ = self.shared.send(Outgoing::GoAway { last, status: PROTOCOL_ERROR }).await;
        }
        self.shared.close();
    }

    async fn frames(&mut self) -> Result<(), End> {
        let mut decompressor = Decompressor::new();
        loop {
            match Head::parse(self.head().await?) {
                Head::Data { stream, fin, length } => self.data(stream, fin, length).await?,
                Head::Control { version, kind, flags, length } => {
                    Control::check(version, length)?;
                    let mut body = vec![0; length];
                    self.io.read_exact(&mut body).await?;
                    self.control(Control::parse(kind, flags, &body)?, &mut decompressor).await?;
                }
            }
        }
    }

    async fn head(&mut self) -> Result<[u8; 8], End> {
        let mut head = [0; 8];
        let mut filled = 0;
        while filled < head.len() {
            match tokio::time::timeout(IDLE, self.io.read(&mut head[filled..])).await {
                Ok(Ok(0)) => return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
                Ok(length) => filled += length?,
                Err(_) if self.shared.active.swap(false, Ordering::Relaxed) => {}
                Err(_) => return Err(End::Idle),
            }
        }
        Ok(head)
    }

    /// Hands data on in pieces, however long the frame is. What nobody wants is dropped.
    async fn data(&mut self, stream: u32, fin: bool, length: usize) -> Result<(), End> {
        let inbox = self.shared.inbox(stream);
        if inbox.is_none() && stream > self.shared.last.load(Ordering::Relaxed) {
            self.answer(Outgoing::Reset { stream, status: reset::PROTOCOL_ERROR }).await?;
        }
        let mut left = length;
        while left > 0 {
            let mut chunk = BytesMut::with_capacity(left.min(CHUNK));
            let read = (&mut self.io).take(left.min(CHUNK) as u64).read_buf(&mut chunk).await?;
            if read == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            left -= read;
            self.deliver(inbox.as_ref(), chunk.freeze()).await?;
        }
        if fin {
            self.shared.ended_there(stream);
        }
        Ok(())
    }

    async fn deliver(&mut self, inbox: Option<&mpsc::Sender<Bytes>>, chunk: Bytes) -> Result<(), End> {
        let delta = u32::try_from(chunk.len()).unwrap_or_default();
        let taken = match inbox {
            Some(inbox) => tokio::select! {
                sent = inbox.send(chunk) => sent.is_ok(),
                () = self.shared.closed.cancelled() => return Err(End::Closed),
            },
            None => false,
        };
        match taken {
            true => Ok(()),
            false => self.answer(Outgoing::WindowUpdate { stream: 0, delta }).await,
        }
    }

    async fn answer(&mut self, frame: Outgoing) -> Result<(), End> {
        // After this side's last frame nothing is answered any more, but the peer may still finish.
        let _ = self.shared.send(frame).await;
        if self.shared.closed.is_cancelled() { Err(End::Closed) } else { Ok(()) }
    }

    async fn control(&mut self, control: Control, decompressor: &mut Decompressor) -> Result<(), End> {
        match control {
            Control::Open { stream, fin, one_way, block } => {
                self.open(stream, fin, one_way, decompressor.read(&block)?).await
            }
            Control::Reply { stream, fin, block } | Control::Headers { stream, fin, block } => {
                // Of no use, but part of the compression's state.
                decompressor.read(&block)?;
                if fin {
                    self.shared.ended_there(stream);
                }
                Ok(())
            }
            Control::Reset { stream, .. } => {
                self.shared.forget(stream);
                Ok(())
            }
            Control::Settings(entries) => {
                let initial = entries.iter().find(|(id, _)| *id == INITIAL_WINDOW_SIZE);
                initial.iter().for_each(|(_, size)| self.shared.set_initial(*size));
                Ok(())
            }
            // Even ones would be answers to this side's.
            Control::Ping(id) if !id.is_multiple_of(2) => self.answer(Outgoing::Ping(id)).await,
            Control::WindowUpdate { stream, delta } => match (self.shared.grow(stream, delta), stream) {
                (Ok(()), _) => Ok(()),
                (Err(_), 0) => Err(End::Window),
                (Err(_), stream) => {
                    self.shared.forget(stream);
                    self.answer(Outgoing::Reset { stream, status: reset::FLOW_CONTROL_ERROR }).await
                }
            },
            Control::Ping(_) | Control::GoAway | Control::Unknown => Ok(()),
        }
    }

    async fn open(&mut self, id: u32, fin: bool, one_way: bool, headers: Headers) -> Result<(), End> {
        match self.shared.open(id, fin, one_way, headers) {
            Opened::Stream(stream) => tokio::select! {
                // If nobody takes streams any more, dropping it resets it.
                _ = self.opened.send(stream) => Ok(()),
                () = self.shared.closed.cancelled() => Err(End::Closed),
            },
            Opened::Refused => self.answer(Outgoing::Reset { stream: id, status: reset::REFUSED_STREAM }).await,
            Opened::Wrong => Err(End::Stream(id)),
        }
    }
}
