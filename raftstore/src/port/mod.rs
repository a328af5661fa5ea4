//! For tests and benchmarks only: a member of the store behind a TLS port, and the client for it.
//!
//! Users reach the store through an API server. Histories of transactions, faults and comparisons with other stores need
//! the store itself, in a process of its own: `examples/store-server.rs` is that process, [`serve`] its port and
//! [`Client`] what drives it. Nothing else uses this module, and nothing of it is in the program that ships.
//!
//! ```no_run
//! # async fn example() -> Result<(), trireme_raftstore::StoreError> {
//! use trireme_raftstore::port::{Client, tls_files};
//! use trireme_raftstore::{Op, Txn, WatchRequest, KeyRange};
//!
//! let client = Client::connect("127.0.0.1:2379", &tls_files("certs".as_ref(), "client")?).await?;
//! let put = Op::Put { key: "/r/p/a".into(), value: "1".into(), expires_at_ms: None };
//! let written = client.txn(Txn { then: vec![put], ..Txn::default() }).await?;
//! let range = KeyRange::Prefix("/r/p/".into());
//! let mut watch = client.watch(WatchRequest { range, start_revision: Some(written.revision) }).await?;
//! let batch = watch.next().await;
//! # drop(batch); Ok(()) }
//! ```
//!
//! # On the wire
//!
//! One TLS 1.3 connection, both sides with certificates of one CA, carries any number of requests at a time; the protocol
//! and its version are agreed on by ALPN ([`PROTOCOL`]). A frame is four bytes of length, eight of a request's id, one of
//! kind, and a body in bincode. Answers come in any order. A watch is a request with many answers. Id 0 belongs to the
//! connection: the server says with it that it is going away, after which the client asks nothing more and closes once it
//! has all answers.
//!
//! # Limits
//!
//! A frame has at most [`MAX_FRAME`] bytes, a connection at most [`MAX_REQUESTS`] unanswered requests; the server reads
//! no further while there are as many, or while [`MAX_UNSENT`] bytes of answers wait for a slow reader. A watch whose
//! consumer is slow holds up its whole connection: give it one of its own.

mod client;
mod connection;
mod frames;
mod server;
mod watching;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::{JoinGrant, NewMember, PeerTls};
use crate::types::*;

pub use client::{Client, WatchStream};
pub use server::{Port, serve};

/// Name and version of the protocol, as ALPN has it.
pub const PROTOCOL: &[u8] = b"trireme-store-port/1";
/// Longest frame.
pub const MAX_FRAME: usize = 256 << 20;
/// Requests of one connection that are not answered yet.
pub const MAX_REQUESTS: usize = 4096;
/// Bytes of answers that one connection has not taken yet.
pub const MAX_UNSENT: usize = 8 << 20;

/// What a client asks.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Range(RangeRequest),
    Txn(Txn),
    /// Events come without the state before them, unless it is asked for.
    Watch {
        request: WatchRequest,
        previous: bool,
    },
    /// Ends the watch with this id.
    EndWatch(u64),
    Compact(Revision),
    LinearizableRevision,
    AppliedRevision,
    Status,
    Members,
    AddMember(NewMember),
    RemoveMember(MemberId),
    TransferLeadership,
    /// Takes a backup into a file on the member's machine.
    Backup(String),
    Upgrade,
}

/// What a server answers, but for events, which have frames of their own kind.
#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Range(RangeResponse),
    Txn(TxnResponse),
    Revision(Revision),
    Status(Box<Status>),
    Members(Vec<Member>),
    Grant(JoinGrant),
    /// Done, or the watch has begun.
    Done,
    /// For a watch it is the last answer.
    Error(StoreError),
}

/// Kinds of frames.
mod kind {
    /// A request or a reply.
    pub(super) const MESSAGE: u8 = 0;
    /// A batch of events: its revision, how many, and the events.
    pub(super) const EVENTS: u8 = 1;
    /// The server goes away: it takes no more requests.
    pub(super) const GOING: u8 = 2;
}

/// Reads `ca.pem`, `<name>.pem` and `<name>-key.pem`, as `store-server certs` leaves them in a folder.
///
/// # Errors
/// When one cannot be read.
pub fn tls_files(folder: &Path, name: &str) -> Result<PeerTls, StoreError> {
    let read = |file: String| {
        let path = folder.join(file);
        std::fs::read(&path).map_err(|e| StoreError::Invalid(format!("{}: {e}", path.display())))
    };
    Ok(PeerTls {
        ca_pem: read("ca.pem".to_owned())?,
        cert_pem: read(format!("{name}.pem"))?,
        key_pem: read(format!("{name}-key.pem"))?,
    })
}
