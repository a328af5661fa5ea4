//! Probes by which a peer that vanished without a word is noticed.

use std::net::IpAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long a connection may be silent before it is probed, and how often then.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Probes without an answer that end it.
const PROBES: u32 = 4;

/// Sets them, and that small pieces are sent at once.
///
/// There is no `TCP_USER_TIMEOUT` on purpose: it also ends connections to peers that are well but take no bytes for a
/// while, such as a session whose process does not read its input.
pub(crate) fn set(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(PROBES);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// A connection that is probed.
pub(crate) async fn dial(address: IpAddr, port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((address, port)).await?;
    set(&stream);
    Ok(stream)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn whoever_is_dialled_is_probed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = dial(address.ip(), address.port()).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        assert_eq!(
            (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_retries().unwrap()),
            (KEEPALIVE, PROBES)
        );
    }
}
