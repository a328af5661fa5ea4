//! The network of a simulation: turmoil's, as members see it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use trireme_raftstore::simulation::{AnyConnection, Listener, Network};
use turmoil::net::{TcpListener, TcpStream};

/// The port of every member.
pub const PORT: u16 = 2380;

/// Name of a member's host.
pub fn name(member: u32) -> String {
    format!("m{member}")
}

/// Which member an address is of.
fn member(address: &str) -> Option<u32> {
    address.split(':').next()?.strip_prefix('m')?.parse().ok()
}

/// A connection, until it ends.
type Stream = Arc<Mutex<Option<TcpStream>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whose process runs, which connections it has, and which ways are cut.
#[derive(Default)]
pub struct Links {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    listening: BTreeMap<u32, bool>,
    cut: BTreeMap<(u32, u32), u32>,
    /// In the order in which they came about.
    streams: BTreeMap<u32, Vec<Stream>>,
    /// Members whose process ends just now.
    ending: BTreeSet<u32>,
}

/// Ends a process's connections, in order, when it is dropped.
///
/// The runtime of a host that crashes drops its tasks in an order that depends on how many tasks other simulations have begun
/// meanwhile, and the end of a connection is a message that takes as long as chance has it.
pub struct Ending {
    own: u32,
    links: Arc<Links>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let streams = {
            let mut inner = self.links.inner();
            inner.ending.remove(&self.own);
            inner.streams.remove(&self.own).unwrap_or_default()
        };
        for stream in streams {
            drop(lock(&stream).take());
        }
    }
}

impl Links {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Notes that a member's process ends now: its connections stay until what `ending` gave it is dropped.
    pub fn end(&self, member: u32) {
        self.inner().ending.insert(member);
    }

    /// What a member's process keeps from its beginning to its end, apart from the tasks that it begins.
    pub fn ending(self: &Arc<Self>, member: u32) -> Ending {
        // A machine may have failed while it was off.
        self.inner().ending.remove(&member);
        Ending { own: member, links: self.clone() }
    }

    /// Notes a member's connection.
    fn keep(self: &Arc<Self>, own: u32, stream: TcpStream) -> AnyConnection {
        let stream = Arc::new(Mutex::new(Some(stream)));
        let mut inner = self.inner();
        let streams = inner.streams.entry(own).or_default();
        streams.retain(|stream| lock(stream).is_some());
        streams.push(stream.clone());
        drop(inner);
        Box::new(Kept { own, links: self.clone(), stream })
    }

    /// Notes whether a member's process runs.
    pub fn set_listening(&self, member: u32, listening: bool) {
        self.inner().listening.insert(member, listening);
    }

    /// Cuts the way from one member to another once more, or once less.
    pub fn cut(&self, from: u32, to: u32, more: bool) {
        let mut inner = self.inner();
        let count = inner.cut.entry((from, to)).or_default();
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
    }

    /// Whether the way is cut.
    pub fn is_cut(&self, from: u32, to: u32) -> bool {
        self.inner().cut.get(&(from, to)).is_some_and(|count| *count > 0)
    }

    /// Mends everything.
    pub fn mend(&self) {
        self.inner().cut.clear();
    }

    /// Whether a host says that nobody listens there, and the answer arrives.
    fn refuses(&self, from: u32, to: u32) -> bool {
        let runs = self.inner().listening.get(&to).copied().unwrap_or(false);
        !runs && !self.is_cut(from, to) && !self.is_cut(to, from)
    }
}

/// The network as one member sees it.
pub struct Net {
    /// Who.
    pub own: u32,
    /// What there is between them.
    pub links: Arc<Links>,
}

impl Network for Net {
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<AnyConnection>> {
        let (own, links) = (self.own, self.links.clone());
        Box::pin(async move {
            match TcpStream::connect(address.as_str()).await {
                Ok(stream) => Ok(links.keep(own, stream)),
                // turmoil also says so of what was lost on the way, of which nobody would be told.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    match member(&address).is_some_and(|to| links.refuses(own, to)) {
                        true => Err(error),
                        false => std::future::pending().await,
                    }
                }
                Err(error) => Err(error),
            }
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let (own, links) = (self.own, self.links.clone());
        Box::pin(async move {
            let listener = TcpListener::bind(address).await?;
            links.set_listening(own, true);
            Ok(Box::new(Door { own, links, listener }) as Box<dyn Listener>)
        })
    }
}

struct Door {
    own: u32,
    links: Arc<Links>,
    listener: TcpListener,
}

impl Listener for Door {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<AnyConnection>> {
        Box::pin(async move {
            let (stream, _) = self.listener.accept().await?;
            Ok(self.links.keep(self.own, stream))
        })
    }
}

/// A connection as a member has it.
struct Kept {
    own: u32,
    links: Arc<Links>,
    stream: Stream,
}

impl Kept {
    fn with<T>(&self, act: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match lock(&self.stream).as_mut() {
            Some(stream) => act(Pin::new(stream)),
            None => Poll::Ready(Err(ErrorKind::NotConnected.into())),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let ends = self.links.inner().ending.contains(&self.own);
        if !ends {
            drop(lock(&self.stream).take());
        }
    }
}

impl AsyncRead for Kept {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Kept {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(cx))
    }
}
