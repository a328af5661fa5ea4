//! The client: what a test says to a member.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Shared, State, Waiting, lost};
use super::{MAX_REQUESTS, PROTOCOL, Reply, Request};
use crate::config::{JoinGrant, NewMember, PeerTls};
use crate::network::tls::PeerTlsConfig;
use crate::types::*;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Batches of a watch that wait for its consumer.
const BATCHES: usize = 256;

/// A connection to one member, for tests and benchmarks. Cloning shares it; it closes with the last clone and watch.
///
/// It is not made again when it breaks: whoever drives a group wants to know ([`Client::is_closed`]). Requests then fail
/// with [`StoreError::Unavailable`], which tells of a write whether it may have been applied; so they do when the member
/// has said that it goes away. Requests have no time-outs of their own: drop the future, or use `tokio::time::timeout`;
/// a write that is dropped may take effect.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// Closes the connection when nobody uses it any more.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close("the client was dropped");
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.handle.shared.address)
    }
}

fn unexpected<T>(reply: &Reply) -> Result<T, StoreError> {
    Err(lost(&format!("unexpected reply {reply:?}"), true))
}

impl Client {
    /// Connects to a member's port.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when nobody answers there, [`StoreError::Invalid`] for certificates that are none.
    pub async fn connect(address: &str, tls: &PeerTls) -> Result<Self, StoreError> {
        let mut config = (*PeerTlsConfig::new(tls)?.client).clone();
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        let connecting = async {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            // Certificates are judged by their CA alone, as between members.
            let name = ServerName::try_from("member").map_err(io::Error::other)?;
            TlsConnector::from(Arc::new(config)).connect(name, tcp).await
        };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = connected.map_err(|e| lost(&format!("connecting to {address}: {e}"), false))?;
        let shared = Arc::new(Shared {
            address: address.to_owned(),
            state: Mutex::new(State::default()),
            wake: Default::default(),
            slots: Arc::new(Semaphore::new(MAX_REQUESTS)),
        });
        tokio::spawn(Connection::new(shared.clone(), stream).run());
        Ok(Self { handle: Arc::new(Handle { shared }) })
    }

    /// The address that it was connected to.
    pub fn address(&self) -> &str {
        &self.handle.shared.address
    }

    /// Whether nothing can be asked any more: the connection broke, or the member goes away.
    pub fn is_closed(&self) -> bool {
        self.handle.shared.state.lock().closed.is_some()
    }

    async fn call(&self, request: Request) -> Result<Reply, StoreError> {
        let shared = &self.handle.shared;
        let slot = shared.slots.clone().acquire_owned().await.map_err(|_| lost("closed", false))?;
        let writes = !matches!(
            request,
            Request::Range(_)
                | Request::LinearizableRevision
                | Request::AppliedRevision
                | Request::Status
                | Request::Members
        );
        let (reply, answered) = oneshot::channel();
        shared.send(&request, Waiting::Once { writes, reply, _slot: slot })?;
        match answered.await.map_err(|_| lost("the connection is gone", writes))?? {
            Reply::Error(error) => Err(error),
            reply => Ok(reply),
        }
    }

    async fn done(&self, request: Request) -> Result<(), StoreError> {
        match self.call(request).await? {
            Reply::Done => Ok(()),
            other => unexpected(&other),
        }
    }

    async fn revision(&self, request: Request) -> Result<Revision, StoreError> {
        match self.call(request).await? {
            Reply::Revision(revision) => Ok(revision),
            other => unexpected(&other),
        }
    }

    /// As [`crate::Store::range`].
    ///
    /// # Errors
    /// Those of the store, and a lost connection.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        match self.call(Request::Range(request)).await? {
            Reply::Range(response) => Ok(response),
            other => unexpected(&other),
        }
    }

    /// As [`crate::Store::txn`].
    ///
    /// # Errors
    /// Those of the store, and a lost connection.
    pub async fn txn(&self, txn: Txn) -> Result<TxnResponse, StoreError> {
        match self.call(Request::Txn(txn)).await? {
            Reply::Txn(response) => Ok(response),
            other => unexpected(&other),
        }
    }

    /// As [`crate::Store::watch`]; returns once the watch has begun. Progress (batches without events) comes at most ten
    /// times a second.
    ///
    /// # Errors
    /// Those of the store, and a lost connection.
    pub async fn watch(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        self.watching(request, true).await
    }

    /// The same without [`Event::previous`], as other stores send events unless asked for more.
    ///
    /// # Errors
    /// Those of the store, and a lost connection.
    pub async fn watch_bare(&self, request: WatchRequest) -> Result<WatchStream, StoreError> {
        self.watching(request, false).await
    }

    async fn watching(&self, request: WatchRequest, previous: bool) -> Result<WatchStream, StoreError> {
        let (batches, mut queue) = mpsc::channel(BATCHES);
        let id = self.handle.shared.send(&Request::Watch { request, previous }, Waiting::Watch(batches))?;
        match queue.recv().await.unwrap_or_else(|| Err(lost("the connection is gone", false)))? {
            None => Ok(WatchStream { id, queue, handle: self.handle.clone() }),
            Some(batch) => Err(lost(&format!("unexpected batch {batch:?}"), false)),
        }
    }

    /// As [`crate::Store::compact`].
    ///
    /// # Errors
    /// Those of the store, and a lost connection.
    pub async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.done(Request::Compact(revision)).await
    }

    /// As [`crate::Store::linearizable_revision`].
    ///
    /// # Errors
    /// Those of the store, and a lost connection.
    pub async fn linearizable_revision(&self) -> Result<Revision, StoreError> {
        self.revision(Request::LinearizableRevision).await
    }

    /// As [`crate::Store::applied_revision`].
    ///
    /// # Errors
    /// A lost connection.
    pub async fn applied_revision(&self) -> Result<Revision, StoreError> {
        self.revision(Request::AppliedRevision).await
    }

    /// As [`crate::Store::status`].
    ///
    /// # Errors
    /// A lost connection.
    pub async fn status(&self) -> Result<Status, StoreError> {
        match self.call(Request::Status).await? {
            Reply::Status(status) => Ok(*status),
            other => unexpected(&other),
        }
    }

    /// As [`crate::Store::members`].
    ///
    /// # Errors
    /// Those of the store, and a lost connection.
    pub async fn members(&self) -> Result<Vec<Member>, StoreError> {
        match self.call(Request::Members).await? {
            Reply::Members(members) => Ok(members),
            other => unexpected(&other),
        }
    }

    /// As [`crate::Store::add_member`].
    ///
    /// # Errors
    /// Those of the store, and a lost connection.
    pub async fn add_member(&self, member: NewMember) -> Result<JoinGrant, StoreError> {
        match self.call(Request::AddMember(member)).await? {
            Reply::Grant(grant) => Ok(grant),
            other => unexpected(&other),
        }
    }

    /// As [`crate::Store::remove_member`].
    ///
    /// # Errors
    /// Those of the store, and a lost connection.
    pub async fn remove_member(&self, id: MemberId) -> Result<(), StoreError> {
        self.done(Request::RemoveMember(id)).await
    }

    /// As [`crate::Store::transfer_leadership`]: does nothing on a member that does not lead.
    ///
    /// # Errors
    /// Those of the store, and a lost connection.
    pub async fn transfer_leadership(&self) -> Result<(), StoreError> {
        self.done(Request::TransferLeadership).await
    }

    /// As [`crate::Store::backup_to`], linearizable, into a file on the member's machine.
    ///
    /// # Errors
    /// Those of the store, and a lost connection.
    pub async fn backup(&self, path: &Path) -> Result<(), StoreError> {
        self.done(Request::Backup(path.display().to_string())).await
    }

    /// As [`crate::Store::upgrade`].
    ///
    /// # Errors
    /// Those of the store, and a lost connection.
    pub async fn upgrade(&self) -> Result<(), StoreError> {
        self.done(Request::Upgrade).await
    }
}

/// A watch of a member. Dropping it ends the watch; while it is not consumed, its whole connection waits for it.
pub struct WatchStream {
    id: u64,
    queue: mpsc::Receiver<Result<Option<WatchBatch>, StoreError>>,
    handle: Arc<Handle>,
}

impl WatchStream {
    /// The next batch; `None` after the watch has ended. An error is the last thing that a watch delivers. The future
    /// may be dropped without losing anything.
    pub async fn next(&mut self) -> Option<Result<WatchBatch, StoreError>> {
        loop {
            match self.queue.recv().await? {
                Ok(Some(batch)) => return Some(Ok(batch)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.handle.shared.end_watch(self.id);
    }
}
