//! What a member takes from the machine and a simulation puts something else in the place of: the network, chance and the
//! time of day, besides the disk. Clocks that measure need no place here: all of them are tokio's, which a simulation holds.
//!
//! A simulated member has no thread of its own either: it runs on the runtime, of one thread, that it is started on, and
//! whatever would block a thread elsewhere is done at once there (see `blocking`).

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinError;

pub use crate::storage::disk::memory::MemoryDisk;

/// A connection.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// A connection of any kind.
pub type AnyConnection = Box<dyn Connection>;

/// Ways to other members, without TLS.
pub trait Network: Send + Sync {
    /// Connects to a `host:port`.
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<AnyConnection>>;
    /// Listens on an address.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>>;
}

/// Where others connect to.
pub trait Listener: Send + Sync {
    /// The next connection.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<AnyConnection>>;
}

/// Milliseconds since the Unix epoch.
pub type Wall = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What a simulated member has.
struct World {
    network: Arc<dyn Network>,
    random: Mutex<StdRng>,
    wall: Wall,
}

/// What a member has around it: the machine, unless a simulation made something else.
#[derive(Clone, Default)]
pub struct Environment(Option<Arc<World>>);

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "simulated" } else { "the machine" })
    }
}

impl Environment {
    /// A simulated one. The disk is told apart (`Config::memory`).
    pub fn simulated(network: Arc<dyn Network>, seed: u64, wall: Wall) -> Self {
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        Self(Some(Arc::new(World { network, random, wall })))
    }

    pub(crate) fn is_simulated(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn network(&self) -> Option<&Arc<dyn Network>> {
        self.0.as_ref().map(|world| &world.network)
    }

    /// Some time within a range.
    pub(crate) fn draw(&self, range: Range<Duration>) -> Duration {
        match &self.0 {
            Some(world) => world.random.lock().random_range(range),
            None => rand::rng().random_range(range),
        }
    }

    /// An identity that nothing else has.
    pub(crate) fn uuid(&self) -> String {
        let uuid = match &self.0 {
            Some(world) => uuid::Builder::from_random_bytes(world.random.lock().random()).into_uuid(),
            None => uuid::Uuid::new_v4(),
        };
        uuid.to_string()
    }

    /// The time of day, in milliseconds since the Unix epoch.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.0.as_ref().map_or_else(crate::backup::now_ms, |world| (world.wall)())
    }
}

/// Does work that blocks its thread where that holds up nobody: on another thread, unless the runtime has only one, as in a
/// simulation.
pub(crate) async fn blocking_on<T: Send + 'static>(
    runtime: &Handle,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    match runtime.runtime_flavor() {
        RuntimeFlavor::CurrentThread => Ok(work()),
        _ => runtime.spawn_blocking(work).await,
    }
}

/// The same on the runtime of the caller.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    blocking_on(&Handle::current(), work).await
}
