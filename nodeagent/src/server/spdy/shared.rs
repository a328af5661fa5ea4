//! What a session's reader, its writer and the streams' users share: open streams, windows, the queue of frames.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::SpdyError;
use super::frame::{MAX_DATA, Outgoing, reset};
use super::headers::Headers;

/// Streams open at one time.
pub(in crate::server) const MAX_STREAMS: usize = 512;
/// Chunks that wait for a stream's reader; then the peer waits.
pub(super) const INBOX: usize = 8;
/// Every stream's and the session's first window.
const WINDOW: i64 = 64 << 10;
const MAX_WINDOW: i64 = 0x7fff_ffff;
/// What was read is granted anew in portions of this size.
const GRANT: u32 = 16 << 10;

struct Slot {
    /// Where the peer's data goes; none after its last frame.
    inbox: Option<mpsc::Sender<Bytes>>,
    /// Whether this side has not ended yet.
    open_here: bool,
    window: i64,
    gone: CancellationToken,
}

struct State {
    streams: HashMap<u32, Slot>,
    /// The peer has spoken of windows.
    controlled: bool,
    initial: i64,
    window: i64,
}

pub(super) struct Shared {
    out: mpsc::Sender<Outgoing>,
    state: Mutex<State>,
    /// Windows have grown.
    grown: Notify,
    /// Something was sent since it was last looked at.
    pub(super) active: AtomicBool,
    /// The peer's newest stream.
    pub(super) last: AtomicU32,
    pub(super) closed: CancellationToken,
}

/// What becomes of a stream that the peer opens.
pub(super) enum Opened {
    Stream(Incoming),
    /// Too many are open.
    Refused,
    /// The identifier is not one that may come now.
    Wrong,
}

/// A window has grown beyond what is allowed.
#[derive(Debug)]
pub(super) struct WindowOverflow;

impl Shared {
    pub(super) fn new(out: mpsc::Sender<Outgoing>) -> Arc<Shared> {
        let state = State { streams: HashMap::new(), controlled: false, initial: WINDOW, window: WINDOW };
        Arc::new(Shared {
            out,
            state: Mutex::new(state),
            grown: Notify::new(),
            active: AtomicBool::new(false),
            last: AtomicU32::new(0),
            closed: CancellationToken::new(),
        })
    }

    pub(super) async fn send(&self, frame: Outgoing) -> Result<(), SpdyError> {
        self.out.send(frame).await.map_err(|_| SpdyError::Closed)
    }

    /// Ends every stream and whoever waits for one.
    pub(super) fn close(&self) {
        self.closed.cancel();
        self.state.lock().streams.clear();
        self.grown.notify_waiters();
    }

    pub(super) fn open(self: &Arc<Shared>, id: u32, fin: bool, one_way: bool, headers: Headers) -> Opened {
        if id.is_multiple_of(2) || id <= self.last.load(Ordering::Relaxed) {
            return Opened::Wrong;
        }
        self.last.store(id, Ordering::Relaxed);
        let mut state = self.state.lock();
        if state.streams.len() >= MAX_STREAMS {
            return Opened::Refused;
        }
        let (sender, inbox) = mpsc::channel(INBOX);
        let gone = self.closed.child_token();
        let window = state.initial;
        let slot = Slot { inbox: (!fin).then_some(sender), open_here: !one_way, window, gone: gone.clone() };
        state.streams.insert(id, slot);
        Opened::Stream(Incoming { headers, id, shared: self.clone(), inbox, gone, answered: false })
    }

    /// Where a stream's data goes, if somebody may still want it.
    pub(super) fn inbox(&self, id: u32) -> Option<mpsc::Sender<Bytes>> {
        self.state.lock().streams.get(&id)?.inbox.clone()
    }

    /// The peer has sent its last frame on a stream.
    pub(super) fn ended_there(&self, id: u32) {
        let mut state = self.state.lock();
        if let Some(slot) = state.streams.get_mut(&id) {
            slot.inbox = None;
            if !slot.open_here {
                state.streams.remove(&id);
            }
        }
    }

    fn ended_here(&self, id: u32) {
        let mut state = self.state.lock();
        if let Some(slot) = state.streams.get_mut(&id) {
            slot.open_here = false;
            if slot.inbox.is_none() {
                state.streams.remove(&id);
            }
        }
    }

    /// A stream is over at once, for both sides.
    pub(super) fn forget(&self, id: u32) {
        if let Some(slot) = self.state.lock().streams.remove(&id) {
            slot.gone.cancel();
        }
    }

    /// The peer takes more; `id` 0 is the session as a whole.
    pub(super) fn grow(&self, id: u32, delta: u32) -> Result<(), WindowOverflow> {
        let mut state = self.state.lock();
        state.controlled = true;
        let window = match id {
            0 => Some(&mut state.window),
            id => state.streams.get_mut(&id).map(|slot| &mut slot.window),
        };
        if let Some(window) = window {
            *window += i64::from(delta);
            if *window > MAX_WINDOW {
                return Err(WindowOverflow);
            }
        }
        drop(state);
        self.grown.notify_waiters();
        Ok(())
    }

    /// The peer gives new streams, and those that are open, another first window.
    pub(super) fn set_initial(&self, size: u32) {
        let mut state = self.state.lock();
        state.controlled = true;
        let size = i64::from(size).min(MAX_WINDOW);
        let change = size - std::mem::replace(&mut state.initial, size);
        state.streams.values_mut().for_each(|slot| slot.window += change);
        drop(state);
        self.grown.notify_waiters();
    }

    /// Waits until some of `want` bytes may be sent; how many.
    async fn credit(&self, id: u32, want: usize, gone: &CancellationToken) -> Result<usize, SpdyError> {
        loop {
            let grown = self.grown.notified();
            tokio::pin!(grown);
            // From here on no change is missed.
            grown.as_mut().enable();
            if let Some(granted) = self.take_credit(id, want)? {
                return Ok(granted);
            }
            tokio::select! {
                () = grown => {}
                () = gone.cancelled() => return Err(self.why_gone()),
            }
        }
    }

    fn take_credit(&self, id: u32, want: usize) -> Result<Option<usize>, SpdyError> {
        let mut state = self.state.lock();
        let (controlled, session) = (state.controlled, state.window);
        let slot = state.streams.get_mut(&id).ok_or_else(|| self.why_gone())?;
        let want = i64::try_from(want.min(MAX_DATA)).unwrap_or(MAX_WINDOW);
        let granted = if controlled { want.min(slot.window).min(session) } else { want };
        if granted <= 0 {
            return Ok(None);
        }
        slot.window -= granted;
        state.window -= granted;
        Ok(usize::try_from(granted).ok())
    }

    fn why_gone(&self) -> SpdyError {
        if self.closed.is_cancelled() { SpdyError::Closed } else { SpdyError::Reset }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.state.lock().streams.len()
    }
}

/// A stream that the peer wants to open.
pub(in crate::server) struct Incoming {
    pub(in crate::server) headers: Headers,
    pub(in crate::server) id: u32,
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Bytes>,
    gone: CancellationToken,
    answered: bool,
}

impl Incoming {
    /// Takes it. Kubernetes' clients throw away what comes before the reply.
    pub(in crate::server) async fn accept(mut self) -> Result<(StreamReader, StreamWriter), SpdyError> {
        self.answered = true;
        self.shared.send(Outgoing::Reply { stream: self.id }).await?;
        let (_, empty) = mpsc::channel(1);
        let inbox = std::mem::replace(&mut self.inbox, empty);
        let reader = StreamReader { id: self.id, inbox, shared: self.shared.clone(), unanswered: 0 };
        let writer =
            StreamWriter { id: self.id, shared: self.shared.clone(), gone: self.gone.clone(), finished: false };
        Ok((reader, writer))
    }

    /// Does not take it.
    pub(in crate::server) async fn refuse(mut self) {
        self.answered = true;
        self.shared.forget(self.id);
        let _ = self.shared.send(Outgoing::Reset { stream: self.id, status: reset::CANCEL }).await;
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.answered {
            self.shared.forget(self.id);
            let _ = self.shared.out.try_send(Outgoing::Reset { stream: self.id, status: reset::CANCEL });
        }
    }
}

/// What the peer sends on a stream.
pub(in crate::server) struct StreamReader {
    id: u32,
    inbox: mpsc::Receiver<Bytes>,
    shared: Arc<Shared>,
    /// Read, and not granted anew yet.
    unanswered: u32,
}

impl StreamReader {
    /// The next bytes; `None` at the end, be it regular or not.
    pub(in crate::server) async fn read(&mut self) -> Option<Bytes> {
        let chunk = self.inbox.recv().await?;
        self.unanswered += u32::try_from(chunk.len()).unwrap_or_default();
        if self.unanswered >= GRANT {
            let delta = std::mem::take(&mut self.unanswered);
            for stream in [self.id, 0] {
                // At the end of the session nobody needs it.
                let _ = self.shared.send(Outgoing::WindowUpdate { stream, delta }).await;
            }
        }
        Some(chunk)
    }
}

/// What this side sends on a stream. Dropped without [`StreamWriter::finish`], it resets the stream.
pub(in crate::server) struct StreamWriter {
    id: u32,
    shared: Arc<Shared>,
    gone: CancellationToken,
    finished: bool,
}

impl StreamWriter {
    /// Sends all of it, as fast as the peer takes it.
    pub(in crate::server) async fn write(&mut self, mut bytes: Bytes) -> Result<(), SpdyError> {
        while !bytes.is_empty() {
            let granted = self.shared.credit(self.id, bytes.len(), &self.gone).await?;
            let part = bytes.split_to(granted.min(bytes.len()));
            self.shared.send(Outgoing::Data { stream: self.id, fin: false, bytes: part }).await?;
        }
        Ok(())
    }

    /// Nothing more will come.
    pub(in crate::server) async fn finish(&mut self) -> Result<(), SpdyError> {
        if std::mem::replace(&mut self.finished, true) || self.gone.is_cancelled() {
            return Ok(());
        }
        self.shared.ended_here(self.id);
        self.shared.send(Outgoing::Data { stream: self.id, fin: true, bytes: Bytes::new() }).await
    }

    /// Cancelled once the peer has reset the stream or is gone.
    pub(in crate::server) fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if !self.finished && !self.gone.is_cancelled() {
            self.shared.forget(self.id);
            let _ = self.shared.out.try_send(Outgoing::Reset { stream: self.id, status: reset::CANCEL });
        }
    }
}
