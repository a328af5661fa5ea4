//! Frames on a stream: four bytes of length, then the content.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;

/// Longest frame: a message of replication is far shorter.
const MAX_FRAME: usize = 64 << 20;

/// Puts the length in front.
pub(crate) fn frame(content: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(4 + content.len());
    out.put_u32(content.len() as u32);
    out.extend_from_slice(content);
    out.freeze()
}

/// Takes frames, or plain pieces, from a body.
pub(crate) struct FrameReader<B> {
    body: B,
    buffer: BytesMut,
    /// After this nothing more is waited for.
    until: CancellationToken,
}

impl<B> FrameReader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    pub(crate) fn new(body: B) -> Self {
        Self::until(body, CancellationToken::new())
    }

    /// One that fails once the token is cancelled, if it has to wait.
    pub(crate) fn until(body: B, until: CancellationToken) -> Self {
        Self { body, buffer: BytesMut::new(), until }
    }

    /// The next frame; `None` at the end. The future may be dropped without losing anything.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(size) = self.buffer.first_chunk::<4>() {
                let size = u32::from_be_bytes(*size) as usize;
                if size > MAX_FRAME {
                    return Some(Err(io::Error::other(format!("frame of {size} bytes"))));
                }
                if self.buffer.len() >= 4 + size {
                    self.buffer.advance(4);
                    return Some(Ok(self.buffer.split_to(size).freeze()));
                }
                self.buffer.reserve(4 + size - self.buffer.len());
            }
            match self.fill().await {
                Some(Ok(())) => {}
                Some(Err(error)) => return Some(Err(error)),
                None if self.buffer.is_empty() => return None,
                None => return Some(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    /// Some bytes, at most `most`, without regard to frames.
    pub(crate) async fn piece(&mut self, most: u64) -> io::Result<Bytes> {
        while self.buffer.is_empty() {
            match self.fill().await {
                Some(filled) => filled?,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let size = (self.buffer.len() as u64).min(most) as usize;
        Ok(self.buffer.split_to(size).freeze())
    }

    async fn fill(&mut self) -> Option<io::Result<()>> {
        loop {
            let next = tokio::select! {
                biased;
                next = self.body.frame() => next?,
                () = self.until.cancelled() => return Some(Err(io::Error::other("another one has begun"))),
            };
            match next {
                Err(error) => return Some(Err(io::Error::other(error))),
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                        return Some(Ok(()));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body::Frame;
    use http_body_util::StreamBody;

    #[tokio::test]
    async fn frames_do_not_depend_on_how_bytes_arrive() {
        let mut all = frame(b"one").to_vec();
        all.extend_from_slice(&frame(b""));
        all.extend_from_slice(&frame(b"three"));
        for size in 1..all.len() {
            let pieces: Vec<_> =
                all.chunks(size).map(|c| Ok::<_, io::Error>(Frame::data(Bytes::copy_from_slice(c)))).collect();
            let mut reader = FrameReader::new(StreamBody::new(futures::stream::iter(pieces)));
            for expected in [&b"one"[..], b"", b"three"] {
                assert_eq!(reader.next().await.unwrap().unwrap(), expected);
            }
            assert!(reader.next().await.is_none());
        }
        let cut = vec![Ok::<_, io::Error>(Frame::data(Bytes::from_static(&[0, 0, 0, 9, 1])))];
        let mut reader = FrameReader::new(StreamBody::new(futures::stream::iter(cut)));
        assert!(reader.next().await.unwrap().is_err());
    }
}
