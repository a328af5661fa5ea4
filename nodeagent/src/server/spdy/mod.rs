//! SPDY/3.1, the server's side, as far as Kubernetes' clients use it: the client opens streams, both sides send on them.
//!
//! kubectl up to 1.29 knows nothing else for `exec`, `attach` and `port-forward`, and newer ones tunnel it through a
//! WebSocket for `port-forward`. [`Session`] runs over any byte stream. Everything that a peer can make grow has a
//! limit: frames, header blocks, streams, and what is buffered for a stream that nobody reads.
//!
//! Kubernetes' own library neither honours windows nor grants any. So windows bind this side only once the peer has
//! spoken of them; what this side has read is always granted anew, and beyond the buffers TCP holds the peer back.

mod frame;
mod headers;
mod session;
mod shared;
#[cfg(test)]
pub(super) mod tests;

pub(super) use session::Session;
pub(super) use shared::{Incoming, MAX_STREAMS, StreamReader, StreamWriter};

/// Why a session or a stream can no longer be written to.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpdyError {
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed,
    /// The peer has reset the stream.
    #[error("the stream was reset")]
    Reset,
}
