//! One connection into a pod, and how a failure reads.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::net::{TcpSocket, TcpStream};

use crate::network::Netns;
use crate::pods::PodView;
use crate::shim::client::Shim;

/// On a loopback interface nothing takes long, unless the listener's queue is full.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The ports of one pod.
#[derive(Clone)]
pub(super) struct PodPorts {
    shim: Shim,
    name: String,
    uid: String,
}

impl PodPorts {
    pub(super) fn new(view: &PodView) -> PodPorts {
        let meta = &view.pod.metadata;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let name = format!("{}_{}", text(&meta.name), text(&meta.namespace));
        PodPorts { shim: view.shim(), name, uid: text(&meta.uid) }
    }

    /// Connects to a port on the pod's loopback interface. The error is what the client's user reads.
    pub(super) async fn connect(&self, port: u16) -> Result<TcpStream, String> {
        let stream = self.dial(port).await.map_err(|why| self.failure(port, &why))?;
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// The text for a connection that has failed.
    pub(super) fn failure(&self, port: u16, why: &str) -> String {
        format!("error forwarding port {port} to pod {}, uid {}: {why}", self.name, self.uid)
    }

    async fn dial(&self, port: u16) -> Result<TcpStream, String> {
        let (_, watch) =
            self.shim.watch().await.map_err(|error| format!("sandbox container is not running: {error}"))?;
        let path = PathBuf::from(format!("/proc/{}/ns/net", watch.shim_pid));
        let namespace = Netns::open(Some(&path)).map_err(|error| error.to_string())?;
        let mut failures = Vec::new();
        let addresses = [("IPv4", IpAddr::V4(Ipv4Addr::LOCALHOST)), ("IPv6", IpAddr::V6(Ipv6Addr::LOCALHOST))];
        for (family, address) in addresses {
            let address = SocketAddr::new(address, port);
            match connect(&namespace, address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    let network = if address.is_ipv4() { "tcp4" } else { "tcp6" };
                    failures.push(format!("{family} dial {network} {address}: connect: {}", words(&error)));
                }
            }
        }
        Err(format!(
            "failed to execute portforward in network namespace \"{}\": failed to connect to localhost:{port} inside \
             namespace \"{}\", {}",
            path.display(),
            self.uid,
            failures.join(" ")
        ))
    }
}

/// The socket is opened inside; from there on it works from anywhere.
async fn connect(namespace: &Netns, address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let open = move || {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        Ok(socket(family, SockType::Stream, flags, None)?)
    };
    let socket = namespace.run("cannot open a socket", open).await.map_err(io::Error::other)?;
    let socket = TcpSocket::from_std_stream(socket.into());
    match tokio::time::timeout(TIMEOUT, socket.connect(address)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// An error in the words that people search for.
fn words(error: &io::Error) -> String {
    let errno = error.raw_os_error().map(Errno::from_raw);
    match errno {
        Some(Errno::ECONNREFUSED) => "connection refused".to_owned(),
        Some(Errno::EADDRNOTAVAIL) => "cannot assign requested address".to_owned(),
        Some(Errno::ENETUNREACH) => "network is unreachable".to_owned(),
        Some(Errno::ETIMEDOUT) => "connection timed out".to_owned(),
        Some(errno) => errno.desc().to_lowercase(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_read_like_upstreams() {
        let error = |errno: Errno| words(&io::Error::from_raw_os_error(errno as i32));
        assert_eq!(error(Errno::ECONNREFUSED), "connection refused");
        assert_eq!(error(Errno::EADDRNOTAVAIL), "cannot assign requested address");
        let ports = PodPorts {
            shim: Shim::at(std::path::Path::new("/nowhere")),
            name: "web_default".to_owned(),
            uid: "u-1".to_owned(),
        };
        assert_eq!(ports.failure(81, "why"), "error forwarding port 81 to pod web_default, uid u-1: why");
    }
}
