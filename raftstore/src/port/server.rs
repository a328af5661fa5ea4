//! The serving side. One task for each connection reads, answers and writes: nothing is spawned for a request, and the
//! answers that have gathered go out in one write.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered, SelectAll, StreamExt};
use tokio::io::AsyncWrite;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::io::poll_read_buf;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;

use super::watching::{Encoded, Told, watching};
use super::{MAX_REQUESTS, MAX_UNSENT, PROTOCOL, Reply, Request, frames, kind};
use crate::config::PeerTls;
use crate::network::tls::PeerTlsConfig;
use crate::store::{SaveError, Store};
use crate::types::{Consistency, StoreError};

/// Connections at one time.
const MAX_CONNECTIONS: usize = 4096;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long answers may take once the port goes away.
const DRAIN: Duration = Duration::from_secs(5);
/// What one read asks for at most.
const READ: usize = 64 << 10;
/// Memory of a buffer that is kept once all of it is sent.
const KEPT: usize = 1 << 20;

/// A port that is being served.
pub struct Port {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Port {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, tells all clients to go elsewhere, and answers what they have asked until they close.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(DRAIN + Duration::from_secs(1), self.tasks.wait()).await;
    }
}

/// Serves a member of the store on an address. The certificates may be those between members, or of another CA.
///
/// # Errors
/// When the certificates cannot be used, or the address cannot be listened on.
pub async fn serve(store: Store, listen: SocketAddr, tls: &PeerTls) -> Result<Port, StoreError> {
    let mut config = (*PeerTlsConfig::new(tls)?.server).clone();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let failed = |e: io::Error| StoreError::Storage(format!("listening on {listen}: {e}").into());
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let port = Port { address, stop: stop.clone(), tasks: tasks.clone() };
    let shared = Shared { store, stop, encoded: Arc::default(), tasks: tasks.clone() };
    tasks.spawn(accept(shared, listener, acceptor));
    Ok(port)
}

/// What all connections share.
#[derive(Clone)]
struct Shared {
    store: Store,
    stop: CancellationToken,
    encoded: Arc<Encoded>,
    tasks: TaskTracker,
}

async fn accept(shared: Shared, listener: TcpListener, acceptor: TlsAcceptor) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accepting a client");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (shared, acceptor) = (shared.clone(), acceptor.clone());
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            if let Err(error) = connection(shared, stream, acceptor).await {
                tracing::debug!(%from, %error, "client connection ended");
            }
            drop(slot);
        });
    }
}

async fn connection(shared: Shared, stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
    if stream.get_ref().1.alpn_protocol() != Some(PROTOCOL) {
        return Err(io::Error::other("the client speaks another protocol"));
    }
    let stop = shared.stop.clone();
    let mut connection = Connection {
        stopping: Some(Box::pin(stop.clone().cancelled_owned())),
        shared,
        stream,
        input: BytesMut::new(),
        output: Vec::new(),
        sent: 0,
        flushed: true,
        requests: FuturesUnordered::new(),
        watches: SelectAll::new(),
        ends: HashMap::new(),
    };
    let served = std::future::poll_fn(|cx| connection.poll(cx));
    let patience = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = served => served,
        () = patience => Err(io::ErrorKind::TimedOut.into()),
    }
}

struct Connection {
    shared: Shared,
    stream: TlsStream<TcpStream>,
    input: BytesMut,
    output: Vec<u8>,
    /// How much of the output is sent.
    sent: usize,
    flushed: bool,
    requests: FuturesUnordered<BoxFuture<'static, (u64, Reply)>>,
    watches: SelectAll<BoxStream<'static, (u64, Told)>>,
    /// How to end a watch early.
    ends: HashMap<u64, CancellationToken>,
    /// Resolves when the port goes away; `None` once it has.
    stopping: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Connection {
    /// Does what can be done at once; ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.poll_stopping(cx);
            let read = self.poll_input(cx)?;
            if let Poll::Ready(false) = read {
                return Poll::Ready(Ok(()));
            }
            let answered = self.poll_answers(cx);
            let written = self.poll_output(cx)?;
            if read.is_pending() && !answered && !written {
                return Poll::Pending;
            }
        }
    }

    fn full(&self) -> bool {
        self.output.len() - self.sent >= MAX_UNSENT
    }

    fn poll_stopping(&mut self, cx: &mut Context<'_>) {
        if let Some(stopping) = &mut self.stopping
            && stopping.as_mut().poll(cx).is_ready()
        {
            self.stopping = None;
            frames::put_going(&mut self.output);
        }
    }

    /// Reads requests while there is room for answers. Pending when there is nothing to read now, ready with `false` when
    /// the client has closed.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.full() || self.requests.len() >= MAX_REQUESTS {
            return Poll::Pending;
        }
        if self.input.capacity() - self.input.len() < READ / 4 {
            self.input.reserve(READ);
        }
        match poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(read) => {
                if read? == 0 {
                    return Poll::Ready(Ok(false));
                }
            }
        }
        while let Some(frame) = frames::take(&mut self.input)? {
            if frame.kind != kind::MESSAGE {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "not a request")));
            }
            self.take(frame.id, frame.message()?);
        }
        Poll::Ready(Ok(true))
    }

    fn take(&mut self, id: u64, request: Request) {
        match request {
            Request::Watch { request, previous } => {
                let end = CancellationToken::new();
                self.ends.insert(id, end.clone());
                self.watches.push(watching(self.shared.store.clone(), id, request, previous, end));
            }
            Request::EndWatch(id) => {
                if let Some(end) = self.ends.remove(&id) {
                    end.cancel();
                }
            }
            request => {
                let answered = answer(self.shared.store.clone(), request);
                self.requests.push(Box::pin(async move { (id, answered.await) }));
            }
        }
    }

    /// Takes the answers that are there; whether there were any.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while !self.full()
            && let Poll::Ready(Some((id, reply))) = self.requests.poll_next_unpin(cx)
        {
            frames::put_message(&mut self.output, id, &reply);
            any = true;
        }
        while !self.full()
            && let Poll::Ready(Some((id, told))) = self.watches.poll_next_unpin(cx)
        {
            match told {
                Told::Begun => frames::put_message(&mut self.output, id, &Reply::Done),
                Told::Batch { previous, batch } => self.shared.encoded.put(&mut self.output, id, previous, batch),
                Told::Ended(error) => {
                    self.ends.remove(&id);
                    frames::put_message(&mut self.output, id, &Reply::Error(error));
                }
            }
            any = true;
        }
        any
    }

    /// Writes what it can; whether that was anything.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut any = false;
        while self.sent < self.output.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.output[self.sent..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => self.sent += written?,
                Poll::Pending => break,
            }
            (any, self.flushed) = (true, false);
        }
        if self.sent == self.output.len() {
            self.sent = 0;
            self.output.clear();
            self.output.shrink_to(KEPT);
        }
        if !self.flushed
            && let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(cx)
        {
            flushed?;
            self.flushed = true;
        }
        Ok(any)
    }
}

/// Asks the store.
async fn answer(store: Store, request: Request) -> Reply {
    let answered = match request {
        Request::Range(request) => store.range(request).await.map(Reply::Range),
        Request::Txn(txn) => store.txn(txn).await.map(Reply::Txn),
        Request::Compact(revision) => store.compact(revision).await.map(|()| Reply::Done),
        Request::LinearizableRevision => store.linearizable_revision().await.map(Reply::Revision),
        Request::AppliedRevision => Ok(Reply::Revision(store.applied_revision())),
        Request::Status => Ok(Reply::Status(Box::new(store.status()))),
        Request::Members => store.members().await.map(Reply::Members),
        Request::AddMember(member) => store.add_member(member).await.map(Reply::Grant),
        Request::RemoveMember(id) => store.remove_member(id).await.map(|()| Reply::Done),
        Request::TransferLeadership => store.transfer_leadership().await.map(|()| Reply::Done),
        Request::Backup(path) => match store.backup_to(Path::new(&path), Consistency::Linearizable).await {
            Ok(_) => Ok(Reply::Done),
            Err(SaveError::Store(error)) => Err(error),
            Err(SaveError::File(error)) => Err(StoreError::Storage(Box::new(error))),
        },
        Request::Upgrade => store.upgrade().await.map(|_| Reply::Done),
        Request::Watch { .. } | Request::EndWatch(_) => Err(StoreError::Invalid("not a single request".into())),
    };
    answered.unwrap_or_else(Reply::Error)
}
