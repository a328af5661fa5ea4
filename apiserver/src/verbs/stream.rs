//! Lists as bodies that are made while they are sent: whatever their size, what is encoded and not yet taken is bounded.
//!
//! A small list is one piece with a length. A larger one is encoded by a task of its own that waits for its client; the
//! objects of the native shape are copies of what the cache holds, without being parsed. A client that takes nothing for a
//! while, or too little all in all, is cut, and sees that its list is not whole.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use flate2::write::GzEncoder;
use futures::Stream;
use http::{HeaderValue, Response, StatusCode, header};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::ctx::Ctx;
use super::encode::ListMeta;
use super::view::View;
use super::walk::Walk;
use crate::error::ApiResult;
use crate::response::{self, Streamed};
use crate::server::ApiServer;
use crate::storage::object::Object;

/// Bytes of one piece, but for the last object in it.
const PIECE: usize = 64 << 10;
/// Pieces that wait for a client.
const PIECES: usize = 2;
/// Bytes that a client has to take in a second, on average, once the time of an ordinary request is over.
const PACE: u64 = 256 << 10;

/// The objects of a list: some that are at hand, then those of a walk.
pub(crate) struct Items {
    held: VecDeque<Arc<Object>>,
    walk: Option<Walk>,
    left: usize,
}

impl Items {
    /// Those at hand only.
    pub(crate) fn held(objects: Vec<Arc<Object>>) -> Self {
        Self { held: objects.into(), walk: None, left: 0 }
    }

    /// So many of a walk.
    pub(crate) fn of(walk: Walk, most: usize) -> Self {
        Self { held: VecDeque::new(), walk: Some(walk), left: most }
    }

    async fn next(&mut self) -> ApiResult<Option<Arc<Object>>> {
        if let Some(object) = self.held.pop_front() {
            return Ok(Some(object));
        }
        match &mut self.walk {
            Some(walk) if self.left > 0 => {
                self.left -= 1;
                walk.next().await
            }
            _ => Ok(None),
        }
    }
}

/// A list as the client wants it.
pub(crate) async fn list(ctx: &Ctx, mut items: Items, meta: &ListMeta) -> ApiResult<Response<Body>> {
    let mut view = View::of(ctx)?;
    let whole = match response::wants_pretty(&ctx.query, &ctx.headers) {
        true => response::PRETTY_MAXIMUM as usize,
        false => response::GZIP_MINIMUM,
    };
    let mut out = Vec::new();
    view.head(meta, &mut out)?;
    let kind = view.content_type();
    while out.len() < whole {
        match items.next().await? {
            Some(object) => view.item(&object, &mut out)?,
            None => {
                view.tail(&mut out);
                return Ok(response::document(kind, out.into(), ctx.gzip));
            }
        }
    }
    let (sender, receiver) = mpsc::channel(PIECES);
    let producer = Producer { server: ctx.server.clone(), items, view, sender, sent: 0, begun: Instant::now() };
    let stream = Sent::new(&ctx.server.inner.metrics.list_streams);
    let gzip = ctx.gzip;
    tokio::spawn(async move {
        producer.run(out, gzip).await;
        drop(stream);
    });
    let mut answer = Response::new(Body::from_stream(body(receiver)));
    answer.extensions_mut().insert(Streamed);
    *answer.status_mut() = StatusCode::OK;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    Ok(answer)
}

/// A list that is counted while it is sent, however that ends.
struct Sent(Gauge);

impl Sent {
    fn new(streams: &Gauge) -> Self {
        streams.inc();
        Self(streams.clone())
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What a producer says.
enum Piece {
    Bytes(Counted),
    End,
}

/// Bytes that are counted until the connection takes them.
struct Counted {
    bytes: Bytes,
    waiting: Gauge,
}

impl Counted {
    fn new(bytes: Vec<u8>, waiting: &Gauge) -> Self {
        waiting.inc_by(bytes.len() as i64);
        Self { bytes: bytes.into(), waiting: waiting.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.waiting.dec_by(self.bytes.len() as i64);
    }
}

/// Why a body ends before its list.
#[derive(Debug, thiserror::Error)]
#[error("the list was broken off")]
struct BrokenOff;

fn body(receiver: mpsc::Receiver<Piece>) -> impl Stream<Item = Result<Bytes, BrokenOff>> {
    futures::stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Piece::Bytes(counted)) => Some((Ok(counted.bytes.clone()), Some(receiver))),
            Some(Piece::End) => None,
            // Were this an ordinary end, half a list would look like a whole one.
            None => Some((Err(BrokenOff), None)),
        }
    })
}

/// Why a producer stops early.
enum Stop {
    /// The client went away.
    Gone,
    /// The client was too slow.
    Slow,
    /// The objects cannot be read any more.
    Failed(String),
}

struct Producer {
    server: ApiServer,
    items: Items,
    view: View,
    sender: mpsc::Sender<Piece>,
    sent: u64,
    begun: Instant,
}

impl Producer {
    async fn run(mut self, first: Vec<u8>, gzip: bool) {
        let done = if gzip { self.compressed(first).await } else { self.plain(first).await };
        let done = match done {
            Ok(()) => self.deliver(Piece::End).await,
            stopped => stopped,
        };
        let why = match done {
            Ok(()) | Err(Stop::Gone) => return,
            Err(Stop::Slow) => "its client is too slow".to_owned(),
            Err(Stop::Failed(why)) => why,
        };
        self.server.inner.metrics.lists_cut.inc();
        tracing::info!(resource = %self.view.qualified(), bytes = self.sent, %why, "a list was broken off");
    }

    async fn plain(&mut self, mut out: Vec<u8>) -> Result<(), Stop> {
        while self.more(&mut out).await? {
            if out.len() >= PIECE {
                let next = Vec::with_capacity(PIECE + PIECE / 8);
                self.send(std::mem::replace(&mut out, next)).await?;
            }
        }
        self.send(out).await
    }

    async fn compressed(&mut self, mut out: Vec<u8>) -> Result<(), Stop> {
        let failed = |error: std::io::Error| Stop::Failed(error.to_string());
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut more = true;
        while more {
            encoder.write_all(&out).map_err(failed)?;
            out.clear();
            if encoder.get_ref().len() >= PIECE {
                self.send(std::mem::take(encoder.get_mut())).await?;
            }
            while more && out.len() < PIECE {
                more = self.more(&mut out).await?;
            }
        }
        encoder.write_all(&out).map_err(failed)?;
        self.send(encoder.finish().map_err(failed)?).await
    }

    /// Encodes the next object, or the end; whether there was an object.
    async fn more(&mut self, out: &mut Vec<u8>) -> Result<bool, Stop> {
        let failed = |status: trireme_api::status::Status| Stop::Failed(status.message);
        match self.items.next().await.map_err(failed)? {
            Some(object) => {
                self.view.item(&object, out).map_err(failed)?;
                Ok(true)
            }
            None => {
                self.view.tail(out);
                Ok(false)
            }
        }
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<(), Stop> {
        if bytes.is_empty() {
            return Ok(());
        }
        let count = bytes.len() as u64;
        let counted = Counted::new(bytes, &self.server.inner.metrics.list_bytes);
        self.deliver(Piece::Bytes(counted)).await?;
        self.sent += count;
        Ok(())
    }

    async fn deliver(&self, piece: Piece) -> Result<(), Stop> {
        let limits = &self.server.inner.config.limits;
        let until = self.begun + limits.request_timeout + Duration::from_secs(self.sent / PACE);
        let until = until.min(Instant::now() + limits.list_stall);
        match tokio::time::timeout_at(until, self.sender.send(piece)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Stop::Gone),
            Err(_) => Err(Stop::Slow),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_whose_producer_panics_is_not_counted_for_ever() {
        let streams = Gauge::default();
        let sent = Sent::new(&streams);
        assert_eq!(streams.get(), 1);
        let panicked = tokio::spawn(async move {
            let _held = sent;
            panic!("as when an object cannot be shown");
        });
        assert!(panicked.await.is_err());
        assert_eq!(streams.get(), 0);
    }
}
