//! The network of a simulation: turmoil's, as members see it.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
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

/// Whose process runs, and which ways are cut.
#[derive(Default)]
pub struct Links {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    listening: BTreeMap<u32, bool>,
    cut: BTreeMap<(u32, u32), u32>,
}

impl Links {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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
                Ok(stream) => Ok(Box::new(stream) as AnyConnection),
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
            Ok(Box::new(Door(listener)) as Box<dyn Listener>)
        })
    }
}

struct Door(TcpListener);

impl Listener for Door {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<AnyConnection>> {
        Box::pin(async move {
            let (stream, _) = self.0.accept().await?;
            Ok(Box::new(stream) as AnyConnection)
        })
    }
}
