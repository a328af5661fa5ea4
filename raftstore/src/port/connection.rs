//! The client's connection: one task that writes what has gathered and hands out what comes.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_rustls::client::TlsStream;
use tokio_util::io::poll_read_buf;

use super::frames::Frame;
use super::{Reply, Request, frames, kind};
use crate::types::{StoreError, WatchBatch};

const READ: usize = 64 << 10;
/// Memory of a buffer that is kept once all of it is sent.
const KEPT: usize = 1 << 20;

/// What the handles and the task of a connection share.
pub(super) struct Shared {
    pub(super) address: String,
    pub(super) state: Mutex<State>,
    /// Wakes the task when there is something to send, or nobody left.
    pub(super) wake: AtomicWaker,
    /// One permit for each request that may be unanswered.
    pub(super) slots: Arc<Semaphore>,
}

#[derive(Default)]
pub(super) struct State {
    output: Vec<u8>,
    last_id: u64,
    waiting: HashMap<u64, Waiting>,
    /// Why nothing can be sent any more.
    pub(super) closed: Option<String>,
    /// The member wants no more requests.
    going: bool,
    /// Nobody wants anything any more, so the task is to end.
    over: bool,
}

impl State {
    /// Whether the connection is of no more use: a member that goes away answers requests, but ends watches.
    fn done(&self) -> bool {
        let asked = || self.waiting.values().any(|waiting| matches!(waiting, Waiting::Once { .. }));
        self.over || self.going && !asked()
    }
}

/// What a watch is told: that it has begun, batches, its end.
type Told = Result<Option<WatchBatch>, StoreError>;

pub(super) enum Waiting {
    /// `writes`: whether a lost connection leaves open what became of it.
    Once {
        writes: bool,
        reply: oneshot::Sender<Result<Reply, StoreError>>,
        _slot: OwnedSemaphorePermit,
    },
    Watch(mpsc::Sender<Told>),
}

pub(super) fn lost(reason: &str, maybe_applied: bool) -> StoreError {
    StoreError::Unavailable { reason: reason.to_owned(), maybe_applied }
}

impl Shared {
    /// Puts a request where the task takes it from; tells its id.
    pub(super) fn send(&self, request: &Request, waiting: Waiting) -> Result<u64, StoreError> {
        let mut state = self.state.lock();
        if let Some(reason) = &state.closed {
            return Err(lost(reason, false));
        }
        state.last_id += 1;
        let id = state.last_id;
        frames::put_message(&mut state.output, id, request);
        state.waiting.insert(id, waiting);
        drop(state);
        self.wake.wake();
        Ok(id)
    }

    pub(super) fn end_watch(&self, id: u64) {
        let mut state = self.state.lock();
        if state.waiting.remove(&id).is_some() && state.closed.is_none() {
            frames::put_message(&mut state.output, 0, &Request::EndWatch(id));
            drop(state);
            self.wake.wake();
        }
    }

    /// Nobody uses the connection any more.
    pub(super) fn close(&self, reason: &str) {
        let mut state = self.state.lock();
        state.closed.get_or_insert_with(|| reason.to_owned());
        state.over = true;
        drop(state);
        self.wake.wake();
    }

    /// The connection is gone: everybody who waits is told.
    fn fail(&self, reason: &str) {
        let waiting = {
            let mut state = self.state.lock();
            state.closed.get_or_insert_with(|| reason.to_owned());
            state.output = Vec::new();
            std::mem::take(&mut state.waiting)
        };
        for waiting in waiting.into_values() {
            match waiting {
                Waiting::Once { writes, reply, .. } => drop(reply.send(Err(lost(reason, writes)))),
                // A consumer whose queue is full finds it ended, after what is in it.
                Waiting::Watch(batches) => drop(batches.try_send(Err(lost(reason, false)))),
            }
        }
    }
}

pub(super) struct Connection {
    shared: Arc<Shared>,
    stream: TlsStream<TcpStream>,
    input: BytesMut,
    output: Vec<u8>,
    /// How much of the output is sent.
    sent: usize,
    flushed: bool,
    /// Something for a watch whose queue is full; nothing is read meanwhile.
    stalled: Option<BoxFuture<'static, ()>>,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, stream: TlsStream<TcpStream>) -> Self {
        let (input, output) = (BytesMut::new(), Vec::new());
        Self { shared, stream, input, output, sent: 0, flushed: true, stalled: None }
    }

    pub(super) async fn run(mut self) {
        let ended = poll_fn(|cx| self.poll(cx)).await;
        let reason = match ended {
            Ok(()) => format!("{} closed the connection", self.shared.address),
            Err(error) => format!("the connection to {} broke: {error}", self.shared.address),
        };
        self.shared.fail(&reason);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.wake.register(cx.waker());
        loop {
            let written = self.poll_output(cx)?;
            let read = self.poll_input(cx)?;
            if let Poll::Ready(false) = read {
                return Poll::Ready(Ok(()));
            }
            if self.shared.state.lock().done() {
                return Poll::Ready(Ok(()));
            }
            if !written && read.is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Writes what it can; whether that was anything.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut any = false;
        loop {
            if self.sent == self.output.len() {
                self.sent = 0;
                self.output.clear();
                self.output.shrink_to(KEPT);
                std::mem::swap(&mut self.output, &mut self.shared.state.lock().output);
                if self.output.is_empty() {
                    break;
                }
            }
            match Pin::new(&mut self.stream).poll_write(cx, &self.output[self.sent..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => self.sent += written?,
                Poll::Pending => break,
            }
            (any, self.flushed) = (true, false);
        }
        if !self.flushed
            && let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(cx)
        {
            flushed?;
            self.flushed = true;
        }
        Ok(any)
    }

    /// Reads and hands out. Pending when there is nothing to read now, ready with `false` when the member has closed.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if let Some(stalled) = &mut self.stalled {
                match stalled.as_mut().poll(cx) {
                    Poll::Ready(()) => self.stalled = None,
                    Poll::Pending => return Poll::Pending,
                }
            }
            match frames::take(&mut self.input)? {
                Some(frame) => self.hand_out(&frame)?,
                None => break,
            }
        }
        if self.input.capacity() - self.input.len() < READ / 4 {
            self.input.reserve(READ);
        }
        match poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(read) => Poll::Ready(Ok(read? > 0)),
        }
    }

    fn hand_out(&mut self, frame: &Frame) -> io::Result<()> {
        let told = match frame.kind {
            kind::GOING => {
                let reason = format!("{} is going away", self.shared.address);
                let mut state = self.shared.state.lock();
                state.closed.get_or_insert(reason);
                state.going = true;
                return Ok(());
            }
            kind::EVENTS => Ok(Some(frame.events()?)),
            kind::MESSAGE => match self.reply(frame)? {
                Some(told) => told,
                None => return Ok(()),
            },
            other => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of kind {other}"))),
        };
        let ended = told.is_err();
        let mut state = self.shared.state.lock();
        // A watch that was dropped meanwhile may still be told of.
        let Some(Waiting::Watch(batches)) = state.waiting.get(&frame.id) else { return Ok(()) };
        let batches = batches.clone();
        if ended {
            state.waiting.remove(&frame.id);
        }
        drop(state);
        if let Err(TrySendError::Full(told)) = batches.try_send(told) {
            self.stalled = Some(Box::pin(async move {
                let _ = batches.send(told).await;
            }));
        }
        Ok(())
    }

    /// Hands a reply to who waits for it, unless that is a watch: what that is told is returned.
    fn reply(&mut self, frame: &Frame) -> io::Result<Option<Told>> {
        let reply: Reply = frame.message()?;
        let mut state = self.shared.state.lock();
        match state.waiting.remove(&frame.id) {
            Some(Waiting::Once { reply: waiting, .. }) => {
                drop(state);
                // Who lost patience is not told.
                let _ = waiting.send(Ok(reply));
                Ok(None)
            }
            Some(watch) => {
                state.waiting.insert(frame.id, watch);
                Ok(Some(match reply {
                    Reply::Error(error) => Err(error),
                    _ => Ok(None),
                }))
            }
            None => Ok(None),
        }
    }
}
